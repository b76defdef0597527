//! Reloads in quick succession disturb nobody.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use rustix::process::Signal;

use super::{
    harness::{
        Peer, Proxy, Stream, Target, config, mapping, ports,
        process::{descriptors, holds_socket, listening_inodes},
        wait_until,
    },
    leads_to,
};

#[test]
fn a_storm_of_signals_ends_with_the_last_file_in_force() {
    let target = Target::bind();
    let [port, late] = [ports::free(), ports::free()];
    let first = mapping("m", port, target.addr(), "");
    let proxy = Proxy::start(&config([&first]));
    let mut client = Peer::connect(port);
    let mut server = target.accept();
    for _ in 0..199 {
        proxy.signal(Signal::HUP);
    }
    proxy.write_config(&config([&first, &mapping("late", late, target.addr(), "")]));
    proxy.signal(Signal::HUP);
    proxy.wait_until("tml_proxy_mappings", &[], 2);
    leads_to(late, &target);
    client.exchange(&mut server, b"not affected");

    // One of the storm's reloads may be under way yet.
    let from = proxy.log().len();
    proxy.write_config(&config([&first]));
    proxy.signal(Signal::HUP);
    proxy.log().wait(from, "the mapping to be removed", |line| {
        line.message() == "reload done" && line.number("removed") == 1
    });
    let reloads = proxy.metrics().sum("tml_proxy_config_reloads_total", &[]);
    assert!((2..=201).contains(&reloads), "{reloads} reloads");
    drop((client, server));
    proxy.settles();
}

/// The listening socket of an unchanged mapping is never closed, reopened or bound again, and
/// nobody who comes meanwhile is refused or reset.
#[test]
fn clients_that_come_during_a_hundred_reloads_are_all_served() {
    let target = Target::bind();
    let others = [Target::bind(), Target::bind()];
    let [port, other] = [ports::free(), ports::free()];
    // Other mappings come, go and move.
    let file = |round: usize| {
        let mut text = config([mapping("m", port, target.addr(), "")]);
        if !round.is_multiple_of(3) {
            let target = others[round % 2].addr();
            text += &mapping("other", other, target, "on_retarget = \"kill\"");
        }
        text
    };
    let proxy = Proxy::start(&file(0));
    let inode = listening_inodes(proxy.id(), port);
    assert_eq!(inode.len(), 1);
    let before = descriptors(proxy.id());

    // So many clients at most: each leaves something behind in the kernel for a minute.
    let clients = 5_000;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..clients {
                if done.load(SeqCst) {
                    break;
                }
                let mut client = Peer::connect(port);
                let mut server = target.accept();
                client.exchange(&mut server, b"hello");
                client.finish();
                server.expect_end();
                drop(server);
                client.expect_end();
            }
        });
        let reloads = scope.spawn(|| {
            for round in 1..=100 {
                proxy.reload(&file(round));
                assert!(holds_socket(proxy.id(), inode[0]), "closed in {round}");
            }
        });
        let result = reloads.join();
        done.store(true, SeqCst);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(listening_inodes(proxy.id(), port), inode);
    proxy.settles();
    let metrics = proxy.metrics();
    let of_all = [("mapping", "m")];
    let ended = metrics.sum("tml_proxy_sessions_ended_total", &of_all);
    let closed = [("mapping", "m"), ("reason", "closed")];
    assert_eq!(
        metrics.sum("tml_proxy_sessions_ended_total", &closed),
        ended
    );

    proxy.reload(&file(0));
    wait_until("descriptors to be as many as before", || {
        let pipes = proxy.metrics().sum("tml_proxy_pipes_free", &[]) as usize;
        descriptors(proxy.id()) <= before + 2 * pipes + 2
    });
}

/// A port that a reload gave back is free for the next one, however busy the worker is that had it.
#[test]
fn a_port_given_back_can_be_taken_at_once() {
    let target = Target::bind();
    let [port, other] = [ports::free(), ports::free()];
    let process = "[process]\nworkers = 1\n";
    let stays = mapping("m", port, target.addr(), "");
    let with = config([process, &stays, &mapping("n", other, target.addr(), "")]);
    let without = config([process, &stays]);
    let proxy = Proxy::start(&with);
    let mut client = Peer::connect(port);
    let mut server = target.accept();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = Stream::new(1);
            while !done.load(SeqCst) {
                let next = stream.position() + 1_000_000;
                client.send_stream(&mut stream, next);
            }
            client.finish();
        });
        scope.spawn(|| server.receive_until_end());
        let reloads = scope.spawn(|| {
            for _ in 0..100 {
                proxy.reload(&without);
                proxy.reload(&with);
            }
        });
        let result = reloads.join();
        done.store(true, SeqCst);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    leads_to(other, &target);
    drop((client, server));
    proxy.settles();
}
