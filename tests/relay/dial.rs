//! Sessions whose target cannot be reached: the client learns it by a reset.
//!
//! Targets without a route, and hosts that answer nothing, need a network of their own: see
//! `network.rs`.

use std::io::{ErrorKind, Read};

use rustix::process::Signal;

use super::harness::{
    Peer, Proxy, Scene, Target, config, mapping, ports,
    process::{descriptors, is_stopped},
    wait_until,
};

#[test]
fn a_refused_connection_resets_the_client() {
    let port = ports::free();
    let nobody = ports::free();
    let target = format!("[::1]:{nobody}");
    let proxy = Proxy::start(&config([mapping("m", port, &target, "")]));
    let mut client = Peer::connect(port);
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "connect_refused");
    assert_eq!(line.text("end"), "SC");
    assert_eq!(line.text("target"), target);
    assert_eq!((line.number("bytes_up"), line.number("bytes_down")), (0, 0));
    assert!(!line.has("local"), "never connected");
    proxy.wait_until(
        "tml_proxy_connect_failures_total",
        &[("mapping", "m"), ("cause", "refused")],
        1,
    );
    proxy.settles();

    let target = Target::bind_to(([0, 0, 0, 0, 0, 0, 0, 1], nobody).into());
    let mut client = Peer::connect(port);
    client.exchange(&mut target.accept(), b"somebody now");
}

/// A target that has stopped taking connections: its queue is full, the kernel drops the attempt.
#[test]
fn a_target_that_does_not_answer_resets_the_client_in_time() {
    let (target, fillers) = Target::full();
    let port = ports::free();
    let more = "connect_timeout = \"300ms\"";
    let proxy = Proxy::start(&config([mapping("m", port, target.addr(), more)]));
    let mut client = Peer::connect(port);
    client.send(b"anybody there?");
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "connect_timeout");
    assert_eq!(line.text("end"), "sC");
    proxy.wait_until(
        "tml_proxy_connect_failures_total",
        &[("cause", "timeout")],
        1,
    );
    proxy.settles();
    drop(fillers);
}

#[test]
fn a_client_that_resets_while_the_target_is_awaited_ends_the_attempt() {
    let (target, fillers) = Target::full();
    let port = ports::free();
    let more = "connect_timeout = \"5m\"";
    let proxy = Proxy::start(&config([mapping("m", port, target.addr(), more)]));
    let client = Peer::connect(port);
    let addr = client.addr();
    proxy.wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 1);
    client.reset();
    let line = proxy.ended_session(addr);
    assert_eq!(line.text("reason"), "client_gone");
    assert_eq!(line.text("end"), "CC");
    proxy.settles();
    drop(fillers);
}

/// A client that has sent its question and closed still waits for the answer.
#[test]
fn a_client_that_closes_while_the_target_is_awaited_is_still_served() {
    let (target, fillers) = Target::full();
    let port = ports::free();
    let proxy = Proxy::start(&config([mapping("m", port, target.addr(), "")]));
    let mut client = Peer::connect(port);
    client.send(b"question");
    client.finish();
    proxy.wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 1);
    // Room in the queue: the kernel's next attempt succeeds.
    drop(target.accept());
    let mut server = target.accept();
    server.expect(b"question");
    server.expect_end();
    server.send(b"answer");
    drop(server);
    client.expect(b"answer");
    client.expect_end();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "closed");
    proxy.settles();
    drop(fillers);
}

/// The session line is what joins the proxy's log with the target's.
#[test]
fn the_session_line_names_both_ends() {
    let scene = Scene::new("");
    let (client, server) = scene.pair();
    let source = server.stream().peer_addr().expect("connected");
    let addr = client.addr();
    drop((client, server));
    let line = scene.ends(addr, "closed", 0, 0);
    assert_eq!(line.text("mapping"), "m");
    assert_eq!(line.text("level"), "INFO");
    assert_eq!(line.text("listen"), format!("*:{}", scene.port));
    assert_eq!(line.text("target"), scene.target.addr().to_string());
    assert_eq!(line.text("local"), source.to_string());
    assert!(line.number("connect_ms") <= line.number("duration_ms"));
    assert!(line.number("session") > 0);
    scene.finish();
}

/// accept(2) gives them out all the same: those that only closed have a session to end, those that
/// were reset are noticed while the target is called.
#[test]
fn clients_that_left_before_they_were_accepted_leave_nothing() {
    let scene = Scene::new("");
    let before = descriptors(scene.proxy.id());
    scene.proxy.signal(Signal::STOP);
    wait_until("the proxy to stop", || is_stopped(scene.proxy.id()));
    let (mut closed, mut reset) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let peer = Peer::connect(scene.port);
        reset.push(peer.addr());
        peer.reset();
        closed.push(Peer::connect(scene.port).addr());
    }
    scene.proxy.signal(Signal::CONT);
    let mut ended = 0;
    while ended < closed.len() {
        let server = scene.target.accept();
        match server.stream().read(&mut [0]) {
            Ok(length) => {
                assert_eq!(length, 0);
                ended += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    for addr in closed {
        scene.ends(addr, "closed", 0, 0);
    }
    for addr in reset {
        scene.ends(addr, "client_gone", 0, 0);
    }
    scene.proxy.settles();
    wait_until("as few descriptors as before", || {
        descriptors(scene.proxy.id()) <= before
    });
    scene.finish();
}
