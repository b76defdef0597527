//! What becomes of a client whose target cannot be connected to.

use std::{net::SocketAddr, time::Duration};

use crate::{
    Stage,
    harness::{Peer, Proxy, Target, ports},
    leading_to,
};

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], ports::free()).into()
}

#[test]
fn a_target_that_refuses_is_passed_over() {
    let (closed, target) = (nobody(), Target::bind());
    let port = ports::free();
    let list = format!("\"{closed}\", \"{}\"", target.addr());
    let proxy = Proxy::start(&leading_to(port, &list, "balance = \"first\""));
    for first in [true, false] {
        let mut client = Peer::connect(port);
        let addr = client.addr();
        client.send(b"early");
        let mut server = target.accept();
        server.expect(b"early");
        drop((client, server));
        let line = proxy.ended_session(addr);
        assert_eq!(line.text("target"), target.addr().to_string());
        // The second client is not even led there.
        let attempts = line.has("attempts").then(|| line.number("attempts"));
        assert_eq!(attempts, first.then_some(2));
    }
    let failed = [("mapping", "m"), ("cause", "refused")];
    let failures = proxy
        .metrics()
        .sum("tml_proxy_connect_failures_total", &failed);
    assert_eq!(failures, 1);
    proxy.settles();
}

#[test]
fn a_client_is_told_when_no_target_is_left_to_try() {
    let closed = [nobody(), nobody(), nobody()];
    let port = ports::free();
    let list = closed.map(|addr| format!("\"{addr}\"")).join(", ");
    let proxy = Proxy::start(&leading_to(port, &list, ""));
    let mut client = Peer::connect(port);
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(
        (line.text("end"), line.text("reason")),
        ("SC", "connect_refused")
    );
    assert_eq!(line.number("attempts"), 3);
    assert_eq!(line.text("error"), "Connection refused");
    let failures = proxy
        .metrics()
        .sum("tml_proxy_connect_failures_total", &[("mapping", "m")]);
    assert_eq!(failures, 3);
    proxy.settles();
}

#[test]
fn a_target_that_does_not_answer_leaves_time_for_the_next() {
    let (hanging, _filling) = Target::full();
    let target = Target::bind();
    let port = ports::free();
    let list = format!("\"{}\", \"{}\"", hanging.addr(), target.addr());
    let more = "balance = \"first\"\nconnect_timeout = \"4s\"";
    let proxy = Proxy::start(&leading_to(port, &list, more));
    let mut client = Peer::connect(port);
    let addr = client.addr();
    client.exchange(&mut target.accept(), b"hello");
    drop(client);
    let line = proxy.ended_session(addr);
    assert_eq!(line.number("attempts"), 2);
    assert!(
        line.number("connect_ms") >= 2000,
        "half of the time: {line}"
    );
    let failed = [("mapping", "m"), ("cause", "timeout")];
    let failures = proxy
        .metrics()
        .sum("tml_proxy_connect_failures_total", &failed);
    assert_eq!(failures, 1);
    proxy.settles();
}

#[test]
fn the_restart_of_the_only_target_goes_unnoticed_with_retries() {
    let (addr, port) = (nobody(), ports::free());
    let proxy = Proxy::start(&leading_to(port, &format!("\"{addr}\""), "retries = 9"));
    let mut client = Peer::connect(port);
    client.send(b"SSH-2.0-x");
    proxy.wait_until("tml_proxy_connect_failures_total", &[("mapping", "m")], 1);
    let target = Target::bind_to(addr);
    let mut server = target.accept();
    server.expect(b"SSH-2.0-x");
    client.exchange(&mut server, b"welcome");
    let at = client.addr();
    drop((client, server));
    let line = proxy.ended_session(at);
    assert!(line.number("attempts") >= 2, "{line}");
    assert_eq!(line.text("target"), addr.to_string());
    proxy.settles();
}

#[test]
fn a_client_that_goes_while_a_target_is_tried_again_ends_its_session() {
    let (addr, port) = (nobody(), ports::free());
    let proxy = Proxy::start(&leading_to(port, &format!("\"{addr}\""), "retries = 9"));
    let client = Peer::connect(port);
    proxy.wait_until("tml_proxy_connect_failures_total", &[("mapping", "m")], 1);
    let at = client.addr();
    client.reset();
    assert_eq!(proxy.ended_session(at).text("reason"), "client_gone");
    proxy.settles();
}

/// It has been reached: what it does then is for the client to see.
#[test]
fn a_target_that_accepts_and_resets_is_not_passed_over() {
    let stage = Stage::new(2, "balance = \"first\"");
    let mut client = Peer::connect(stage.port);
    stage.targets[0].accept().reset();
    client.expect_reset();
    let line = stage.proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "target_reset");
    assert!(!line.has("attempts"), "{line}");
    assert!(!stage.targets[1].is_called(Duration::from_millis(100)));
    stage.finish();
}

#[test]
fn a_backup_serves_while_no_other_target_can() {
    let (addr, backup) = (nobody(), Target::bind());
    let port = ports::free();
    let list = format!(
        "{{ address = \"{}\", backup = true }}, \"{addr}\"",
        backup.addr()
    );
    let proxy = Proxy::start(&leading_to(port, &list, ""));
    let led = |to: &Target| {
        let mut client = Peer::connect(port);
        client.exchange(&mut to.accept(), b"hello");
        let addr = client.addr();
        drop(client);
        proxy.ended_session(addr)
    };
    assert_eq!(led(&backup).number("attempts"), 2);
    assert!(!led(&backup).has("attempts"));
    // It is back, which is tried when ten seconds have passed.
    let target = Target::bind_to(addr);
    while !target.is_called(Duration::from_millis(200)) {
        let client = Peer::connect(port);
        let at = client.addr();
        client.reset();
        proxy.ended_session(at);
    }
    drop(target.accept());
    led(&target);
    proxy.settles();
}
