//! What sessions see of an upgrade: nothing.

use rustix::process::Signal;

use crate::{harness::Stream, stage::Stage};

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
    std::thread::scope(|scope| {
        let passed = scope.spawn(|| stage.scene.pass_whole(&sessions, LENGTH));
        while !passed.is_finished() {
            stage.upgrade();
        }
    });
    drop(sessions);
    stage.scene.finish();
}
