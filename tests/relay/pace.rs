//! Sessions change worker when they begin to move bulk and when they are quiet again; nobody notices.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use rustix::process::Signal;

use super::harness::{Peer, Scene, Setup, Stream, Target, config, mapping};

/// One pair of workers, so that a session's place is known.
fn scene(more: &str) -> Scene {
    Scene::with(&Setup::default(), "[process]\nworkers = 1\n", more)
}

/// Waits until that worker has that many sessions.
#[track_caller]
fn serves(scene: &Scene, worker: &str, sessions: u64) {
    let labels = [("worker", worker)];
    scene
        .proxy
        .wait_until("tml_proxy_worker_sessions", &labels, sessions);
}

/// Moves bulk to the target at least once, and until `seen` comes back; returns how much.
fn move_bulk((client, server): &(Peer, Peer), seen: impl FnOnce()) -> u64 {
    const LENGTH: u64 = 5_000_000;
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let moving = scope.spawn(|| {
            let mut moved = 0;
            while moved == 0 || !enough.load(Relaxed) {
                thread::scope(|scope| {
                    let (mut from, mut to) = (client.twin(), server.twin());
                    scope.spawn(move || from.send_stream(&mut Stream::new(1), LENGTH));
                    to.expect_stream(&mut Stream::new(1), LENGTH);
                });
                moved += LENGTH;
            }
            moved
        });
        seen();
        enough.store(true, Relaxed);
        moving.join().expect("the bytes arrive")
    })
}

#[test]
fn a_session_changes_worker_for_bulk_and_back_when_it_is_quiet() {
    let scene = scene("");
    let mut pair = scene.pair();
    let mut up = 0;
    for _ in 0..3 {
        pair.0.exchange(&mut pair.1, b"small");
        serves(&scene, "0", 1);
        up += 5 + move_bulk(&pair, || serves(&scene, "0-bulk", 1));
    }
    serves(&scene, "0", 1);
    let addr = pair.0.addr();
    drop(pair);
    scene.ends(addr, "closed", up, 15);
    scene.finish();
}

#[test]
fn a_reload_reaches_sessions_while_they_change_worker() {
    for _ in 0..10 {
        let scene = scene("on_retarget = \"kill\"");
        let sessions: Vec<_> = (0..8).map(|_| scene.pair()).collect();
        let next = Target::bind();
        thread::scope(|scope| {
            for (client, server) in &sessions {
                let (mut client, mut server) = (client.twin(), server.twin());
                scope.spawn(move || client.send_until_error());
                scope.spawn(move || server.receive_until_reset());
            }
            scene
                .proxy
                .wait_until_metrics("a session that moves bulk", |metrics| {
                    metrics.sum("tml_proxy_worker_sessions", &[("worker", "0-bulk")]) > 0
                });
            let moved = mapping("m", scene.port, next.addr(), "on_retarget = \"kill\"");
            scene
                .proxy
                .reload(&config(["[process]\nworkers = 1\n", &moved]));
        });
        for (client, _) in &sessions {
            scene.ended(client.addr(), "mapping_retargeted");
        }
        drop(sessions);
        scene.finish();
    }
}

#[test]
fn a_stop_waits_for_the_sessions_of_both_workers() {
    let scene = scene("");
    let (mut client, mut server) = scene.pair();
    let bulk = scene.pair();
    move_bulk(&bulk, || {
        serves(&scene, "0-bulk", 1);
        scene.proxy.signal(Signal::TERM);
        scene.proxy.wait_for_line(0, "stopping");
    });
    client.exchange(&mut server, b"small");
    move_bulk(&bulk, || {});
    let addrs = [client.addr(), bulk.0.addr()];
    drop((client, server));
    drop(bulk);
    for addr in addrs {
        scene.ended(addr, "closed");
    }
    let mut proxy = scene.proxy;
    assert_eq!(proxy.wait().code(), Some(0));
}
