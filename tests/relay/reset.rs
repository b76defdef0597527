//! A reset stays a reset: nobody may take a broken transfer for a whole one.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use super::{
    harness::{Peer, Scene, Stream, process, wait_until},
    scene,
};

in_every_mode! {
    a_reset_by_the_client_reaches_the_target
    a_reset_by_the_target_reaches_the_client
    a_reset_after_part_of_a_download_comes_after_its_bytes
    bytes_not_read_yet_come_before_the_reset
    a_reset_while_the_client_lags_behind_is_no_end
    a_client_that_resets_stops_the_download
    what_a_client_that_is_killed_had_not_taken_is_not_counted
    a_target_that_resets_stops_the_upload
    a_reset_after_a_half_close_is_no_end
    a_reset_by_whoever_has_closed_already_reaches_the_other
    a_target_that_closes_without_reading_loses_no_answer
}

fn a_reset_by_the_client_reaches_the_target(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    let addr = client.addr();
    client.reset();
    server.expect_reset();
    let line = scene.ends(addr, "client_reset", 5, 5);
    assert_eq!(line.text("end"), "CD");
    scene.finish();
}

fn a_reset_by_the_target_reaches_the_client(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    server.reset();
    client.expect_reset();
    let line = scene.ends(client.addr(), "target_reset", 5, 5);
    assert_eq!(line.text("end"), "SD");
    scene.finish();
}

fn a_reset_after_part_of_a_download_comes_after_its_bytes(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    let length = 2_000_000;
    std::thread::scope(|scope| {
        scope.spawn(|| server.send_stream(&mut Stream::new(2), length));
        client.expect_stream(&mut Stream::new(2), length);
    });
    server.reset();
    client.expect_reset();
    scene.ends(client.addr(), "target_reset", 0, length);
    scene.finish();
}

fn bytes_not_read_yet_come_before_the_reset(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    let bytes = Stream::bytes(3, 50_000);
    server.send(&bytes);
    // Delivered as far as the proxy is concerned: they wait in the client's own kernel.
    scene.proxy.wait_until(
        "tml_proxy_bytes_total",
        &[("direction", "down")],
        bytes.len() as u64,
    );
    server.reset();
    scene.ends(client.addr(), "target_reset", 0, bytes.len() as u64);
    assert!(client.receive_until_reset() == bytes, "other bytes");
    scene.finish();
}

fn a_reset_while_the_client_lags_behind_is_no_end(relay: &str) {
    let scene = scene(relay);
    let addr = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let mut client = Peer::connect_prepared(addr, |socket| {
        socket.set_recv_buffer_size(4096).expect("any size will do");
    });
    let mut server = scene.target.accept();
    let mut stream = Stream::new(4);
    server.offer_stream(&mut stream, 64_000_000, Duration::from_millis(300));
    assert!(stream.position() < 64_000_000, "the path takes everything");
    server.reset();

    let got = client.receive_until_reset();
    Stream::new(4).check(&got);
    assert!(got.len() > 4096, "only {} bytes came", got.len());
    scene.ends(client.addr(), "target_reset", 0, got.len() as u64);
    scene.finish();
}

fn what_a_client_that_is_killed_had_not_taken_is_not_counted(relay: &str) {
    const LENGTH: u64 = 60_000;
    let scene = scene(relay);
    let addr = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let client = Peer::connect_prepared(addr, |socket| {
        socket.set_recv_buffer_size(4096).expect("any size will do");
    });
    let mut server = scene.target.accept();
    server.send(&Stream::bytes(7, LENGTH as usize));
    let down = [("direction", "down")];
    scene
        .proxy
        .wait_until("tml_proxy_bytes_total", &down, LENGTH);
    wait_until("the window to stay closed", || {
        process::longest_wait_to_resend(scene.proxy.id(), scene.port) > Duration::from_secs(1)
    });
    let taken = rustix::io::ioctl_fionread(client.stream()).expect("an open socket");
    assert!(taken < LENGTH, "its host has taken everything");
    let addr = client.addr();
    client.reset();
    scene.ends(addr, "client_reset", 0, taken);
    let lost = "tml_proxy_undelivered_bytes_total";
    scene.proxy.wait_until(lost, &down, LENGTH - taken);
    scene.finish();
}

fn a_client_that_resets_stops_the_download(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    let addr = client.addr();
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || server.send_until_error());
        acknowledge(&scene, &mut client, scene.port, "down");
        client.reset();
        let error = sending.join().expect("the target's script");
        assert_eq!(error, ErrorKind::ConnectionReset);
    });
    let line = scene.ended(addr, "client_reset");
    assert!(line.number("bytes_down") >= ACKNOWLEDGED);
    scene.finish();
}

fn a_target_that_resets_stops_the_upload(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    let addr = client.addr();
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || client.send_until_error());
        acknowledge(&scene, &mut server, scene.target.port(), "up");
        server.reset();
        let error = sending.join().expect("the client's script");
        assert_eq!(error, ErrorKind::ConnectionReset);
    });
    let line = scene.ended(addr, "target_reset");
    assert!(line.number("bytes_up") >= ACKNOWLEDGED);
    scene.finish();
}

const ACKNOWLEDGED: u64 = 500_000;

/// Reads from the session, the only one, until the proxy has an acknowledgment of so many bytes, which
/// is what it counts: a peer's program may have read what its system has not acknowledged yet, and a
/// reset is no acknowledgment.
fn acknowledge(scene: &Scene, peer: &mut Peer, port: u16, direction: &str) {
    peer.expect(&[7; ACKNOWLEDGED as usize]);
    wait_until("the bytes to be acknowledged", || {
        // In this order: what is sent in between makes the difference smaller.
        let sent = scene
            .proxy
            .metrics()
            .sum("tml_proxy_bytes_total", &[("direction", direction)]);
        sent.saturating_sub(process::not_acknowledged(scene.proxy.id(), port)) >= ACKNOWLEDGED
    });
}

fn a_reset_after_a_half_close_is_no_end(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    client.send(b"question");
    client.finish();
    server.expect(b"question");
    server.expect_end();
    server.send(b"half an ans");
    client.expect(b"half an ans");
    server.reset();
    client.expect_reset();
    scene.ends(client.addr(), "target_reset", 8, 11);
    scene.finish();
}

/// A client that has finished and then dies is not waited for.
fn a_reset_by_whoever_has_closed_already_reaches_the_other(relay: &str) {
    let scene = scene(relay);
    let (client, mut server) = scene.pair();
    let addr = client.addr();
    client.finish();
    server.expect_end();
    client.reset();
    scene.ended(addr, "client_reset");
    assert_eq!(server.send_until_error(), ErrorKind::BrokenPipe);

    let (mut client, server) = scene.pair();
    server.finish();
    client.expect_end();
    server.reset();
    scene.ended(client.addr(), "target_reset");
    assert_eq!(client.send_until_error(), ErrorKind::BrokenPipe);
    scene.finish();
}

/// Closing a socket with unread bytes resets it, whatever had been sent before.
fn a_target_that_closes_without_reading_loses_no_answer(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    client.send(b"a request that nobody reads");
    scene
        .proxy
        .wait_until("tml_proxy_bytes_total", &[("direction", "up")], 27);
    server.send(b"the whole answer");
    drop(server);
    assert_eq!(client.receive_until_reset(), b"the whole answer");
    scene.ends(client.addr(), "target_reset", 27, 16);
    scene.finish();
}
