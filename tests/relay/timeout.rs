//! Sessions nobody uses end when their mapping says so, and not before.

use std::{
    io::ErrorKind::{BrokenPipe, ConnectionReset},
    net::SocketAddr,
};

use super::harness::{Peer, Scene, Stream};

#[test]
fn an_idle_session_ends() {
    let scene = Scene::new("idle_timeout = \"300ms\"");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    client.expect_reset();
    server.expect_reset();
    let line = scene.ends(client.addr(), "idle_timeout", 5, 5);
    assert_eq!(line.text("end"), "cD");
    assert!(line.number("duration_ms") >= 300);
    scene.finish();
}

#[test]
fn a_session_half_closed_by_the_client_ends_when_the_target_is_silent() {
    let scene = Scene::new("half_close_timeout = \"300ms\"");
    let (mut client, mut server) = scene.pair();
    client.send(b"question");
    client.finish();
    server.expect(b"question");
    server.expect_end();
    client.expect_reset();
    assert_eq!(server.send_until_error(), BrokenPipe, "reset after its end");
    let line = scene.ends(client.addr(), "target_half_close_timeout", 8, 0);
    assert_eq!(line.text("end"), "sD");
    scene.finish();
}

#[test]
fn a_session_half_closed_by_the_target_ends_when_the_client_is_silent() {
    let scene = Scene::new("half_close_timeout = \"300ms\"");
    let (mut client, mut server) = scene.pair();
    server.send(b"bye");
    server.finish();
    client.expect(b"bye");
    client.expect_end();
    server.expect_reset();
    assert_eq!(client.send_until_error(), BrokenPipe, "reset after its end");
    let line = scene.ends(client.addr(), "client_half_close_timeout", 0, 3);
    assert_eq!(line.text("end"), "cD");
    scene.finish();
}

/// The half-close timeout is for half-closed sessions, the idle timeout is off unless set.
#[test]
fn a_quiet_session_stays_while_another_one_times_out() {
    let scene = Scene::new("half_close_timeout = \"300ms\"");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    let (other, mut other_server) = scene.pair();
    other.finish();
    other_server.expect_end();
    scene.ends(other.addr(), "target_half_close_timeout", 0, 0);
    client.exchange(&mut server, b"still here");
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 15, 15);
    scene.finish();
}

/// What is counted is what the reader's host has taken.
#[test]
fn bytes_that_a_cut_session_had_not_delivered_are_not_counted() {
    const LENGTH: u64 = 60_000;
    let scene = Scene::new("idle_timeout = \"1s\"");
    let addr = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let mut client = Peer::connect_prepared(addr, |socket| {
        socket.set_recv_buffer_size(4096).expect("any size will do");
    });
    let mut server = scene.target.accept();
    server.send(&Stream::bytes(7, LENGTH as usize));
    let line = scene.ended(client.addr(), "idle_timeout");
    let got = client.receive_until_reset().len() as u64;
    assert!(got < LENGTH, "its host has taken everything");
    assert_eq!(
        (line.number("bytes_up"), line.number("bytes_down")),
        (0, got)
    );
    let down = [("direction", "down")];
    let metrics = scene.proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_bytes_total", &down), LENGTH);
    let lost = metrics.sum("tml_proxy_undelivered_bytes_total", &down);
    assert_eq!(lost, LENGTH - got);
    scene.finish();
}

/// A time to be online is over whatever a session does; a reload gives it to live sessions too.
#[test]
fn a_session_that_is_as_old_as_allowed_ends_though_it_is_busy() {
    let scene = Scene::new("max_duration = \"1s\"\nidle_timeout = \"1h\"");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    let kind = client.send_until_error();
    assert!(matches!(kind, BrokenPipe | ConnectionReset), "{kind}");
    server.receive_until_reset();
    let line = scene.ended(client.addr(), "max_duration");
    assert_eq!(line.text("end"), "PD");
    assert!(line.number("duration_ms") >= 1000);

    scene.proxy.reload(&scene.config(""));
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    scene
        .proxy
        .reload(&scene.config("max_duration = \"300ms\""));
    client.expect_reset();
    server.expect_reset();
    scene.ends(client.addr(), "max_duration", 5, 5);
    scene.finish();
}
