//! What sessions see of an upgrade: nothing.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    harness::{Peer, Stream, Target, mapping, ports, process, wait_until},
    stage::Stage,
};

#[test]
fn a_session_goes_on_through_twenty_upgrades() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    for round in 0..20 {
        let text = format!("round {round}");
        client.exchange(&mut server, text.as_bytes());
        server.exchange(&mut client, text.as_bytes());
        let upgraded = stage.upgrade();
        assert_eq!(upgraded["sessions"], 1);
    }
    client.exchange(&mut server, b"after");
    let addr = client.addr();
    drop((client, server));
    let line = stage.scene.proxy.ended_session(addr);
    assert_eq!(line.number("upgrades"), 20);
    stage.scene.finish();
}

#[test]
fn a_signal_upgrades_too() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    client.exchange(&mut server, b"before");
    stage.scene.proxy.signal(Signal::USR2);
    let line = stage.scene.proxy.wait_for_line(0, "upgraded");
    assert_eq!(line.number("sessions"), 1);
    client.exchange(&mut server, b"after");
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn a_session_is_as_old_after_an_upgrade_as_before() {
    let stage = Stage::new("", "max_duration = \"2s\"");
    let (mut client, mut server) = stage.scene.pair();
    client.exchange(&mut server, b"before");
    stage.upgrade();
    client.expect_reset();
    server.expect_reset();
    let line = stage.scene.ended(client.addr(), "max_duration");
    // A machine may be busy, but it does not take as long again.
    assert!((2000..4000).contains(&line.number("duration_ms")));
    assert_eq!(line.number("upgrades"), 1);
    stage.scene.finish();
}

#[test]
fn bulk_both_ways_arrives_whole_through_upgrades() {
    const LENGTH: u64 = 300_000_000;
    let stage = Stage::new("", "");
    let sessions: Vec<_> = (0..4)
        .map(|number| {
            let (client, server) = stage.scene.pair();
            let streams = [Stream::new(number), Stream::new(100 + number)];
            (client, server, streams)
        })
        .collect();
    thread::scope(|scope| {
        let passed = scope.spawn(|| stage.scene.pass_whole(&sessions, LENGTH));
        while !passed.is_finished() {
            stage.upgrade();
        }
    });
    drop(sessions);
    stage.scene.finish();
}

#[test]
fn bytes_that_nobody_reads_yet_are_all_there_after_upgrades() {
    let stage = Stage::new("", "");
    let mut blocked: Vec<_> = (0..8)
        .map(|number| {
            let (mut client, server) = stage.scene.pair();
            let mut stream = Stream::new(number);
            client.offer_stream(&mut stream, 1 << 30, Duration::from_millis(200));
            (client, server, stream)
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(stage.upgrade()["sessions"], 8);
    }
    for (client, server, stream) in &mut blocked {
        let end = stream.position();
        client.finish();
        server.expect_stream(&mut stream.restart(), end);
        server.expect_end();
    }
    drop(blocked);
    stage.scene.finish();
}

#[test]
fn a_session_of_which_one_half_is_closed_goes_on_the_other_way() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    client.send(b"last words");
    client.finish();
    server.expect(b"last words");
    server.expect_end();
    stage.upgrade();
    server.send(b"answer");
    client.expect(b"answer");
    stage.upgrade();
    server.finish();
    client.expect_end();
    stage.scene.finish();
}

#[test]
fn a_client_that_waits_for_its_target_is_served_after_an_upgrade() {
    let (target, fillers) = Target::full();
    let port = ports::free();
    let stage = Stage::new(&mapping("slow", port, target.addr(), ""), "");
    let mut client = Peer::connect(port);
    stage
        .scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "slow")], 1);
    stage.upgrade();
    client.send(b"patience");
    drop(fillers);
    // What fills the queue comes first.
    drop(target.accept());
    let mut server = target.accept();
    server.expect(b"patience");
    server.exchange(&mut client, b"rewarded");
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn a_header_that_has_come_in_part_is_completed_after_an_upgrade() {
    let stage = Stage::new("", "accept_proxy = [\"127.0.0.1\"]");
    let mut client = Peer::connect(stage.scene.port);
    client.send(b"PROXY TCP4 192.0.2.1 198.51.100.1 1000 ");
    wait_until("the first half to be read", || {
        let sessions = stage.json(&["sessions"]);
        sessions["sessions"][0]["stage"] == "awaiting_header"
    });
    stage.upgrade();
    client.send(b"22\r\nhello");
    let mut server = stage.scene.target.accept();
    server.expect(b"hello");
    let sessions = stage.json(&["sessions"]);
    assert_eq!(sessions["sessions"][0]["client"], "192.0.2.1:1000");
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn a_limit_of_bandwidth_holds_through_upgrades() {
    let stage = Stage::new("", "bandwidth = { rate = \"256KiB\", burst = \"16KiB\" }");
    let (mut client, mut server) = stage.scene.pair();
    let begun = std::time::Instant::now();
    thread::scope(|scope| {
        let sent = scope.spawn(|| client.send_stream(&mut Stream::new(1), 512 << 10));
        let received = scope.spawn(|| server.expect_stream(&mut Stream::new(1), 512 << 10));
        while !(sent.is_finished() && received.is_finished()) {
            stage.upgrade();
        }
    });
    // Half a second less than the limit has it is for what it lets through at once.
    assert!(begun.elapsed() > Duration::from_millis(1500));
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn nobody_who_comes_during_upgrades_is_refused_and_nothing_grows() {
    const IDLE: usize = 400;
    let stage = Stage::new("", "");
    let pid = stage.scene.proxy.id();
    let mut idle: Vec<_> = (0..IDLE).map(|_| stage.scene.pair()).collect();
    let over = AtomicBool::new(false);
    // The first brings what later ones need as well.
    stage.upgrade();
    let (descriptors, memory) = (process::descriptors(pid), process::resident_kib(pid));
    let served = thread::scope(|scope| {
        let arriving = scope.spawn(|| {
            let mut served = 0;
            while !over.load(Relaxed) {
                let (mut client, mut server) = stage.scene.pair();
                client.exchange(&mut server, b"new");
                served += 1;
            }
            served
        });
        for _ in 0..20 {
            let upgraded = stage.upgrade();
            assert!(upgraded["sessions"].as_u64() >= Some(IDLE as u64));
        }
        over.store(true, Relaxed);
        arriving.join().expect("all were served")
    });
    assert!(served > 20, "{served}");
    for (client, server) in &mut idle {
        client.exchange(server, b"still here");
    }
    stage
        .scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[], IDLE as u64);
    wait_until("no descriptor to be left behind", || {
        process::descriptors(pid) <= descriptors + 4
    });
    let after = process::resident_kib(pid);
    assert!(after <= memory + memory / 5, "{memory} KiB, then {after}");
    assert_eq!(process::with_descendants(pid), [pid]);
    let metrics = stage.scene.proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_refusals_total", &[]), 0);
    let opened = metrics.sum("tml_proxy_sessions_opened_total", &[]);
    assert_eq!(opened, (IDLE + served) as u64);
    drop(idle);
    stage.scene.finish();
}
