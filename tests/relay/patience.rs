//! Who does not read for a while is not gone: the host answers.

use std::{net::SocketAddr, time::Duration};

use super::{
    harness::{Peer, Scene, Stream, process, wait_until},
    scene,
};

in_every_mode! {
    a_client_that_pauses_for_longer_than_user_timeout_keeps_its_session
    a_target_that_pauses_for_longer_than_user_timeout_keeps_its_session
    a_reader_that_pauses_in_a_half_closed_session_is_not_lost
    a_reader_that_pauses_is_not_lost_when_a_reload_sets_user_timeout
    a_reader_that_pauses_gets_what_came_before_a_reset
}

/// More than any path takes in without a reader.
const ENDLESS: u64 = 256_000_000;

const MORE: &str = "user_timeout = \"1s\"\nkeepalive = \"off\"";

fn patient(relay: &str) -> Scene {
    Scene::new(&format!("relay = \"{relay}\"\n{MORE}"))
}

/// Sends until nothing more is taken, and waits until the reader has paused for three times as long as
/// `user_timeout` allows; returns how much was sent.
fn fill(scene: &Scene, from: &mut Peer) -> u64 {
    let mut stream = Stream::new(6);
    from.offer_stream(&mut stream, ENDLESS, Duration::from_millis(300));
    assert!(stream.position() < ENDLESS, "the path takes everything");
    pause(scene);
    stream.position()
}

/// The kernel doubles the time between two attempts: before it waits for so long, it has tried for as
/// long.
fn pause(scene: &Scene) {
    wait_until("the reader to have paused for three seconds", || {
        [scene.port, scene.target.port()].iter().any(|port| {
            let waits = process::longest_wait_to_resend(scene.proxy.id(), *port);
            waits > Duration::from_secs(3)
        })
    });
}

fn a_client_that_pauses_for_longer_than_user_timeout_keeps_its_session(relay: &str) {
    let scene = patient(relay);
    let (mut client, mut server) = scene.pair();
    let sent = fill(&scene, &mut server);
    client.expect_stream(&mut Stream::new(6), sent);
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 0, sent);
    scene.finish();
}

fn a_target_that_pauses_for_longer_than_user_timeout_keeps_its_session(relay: &str) {
    let scene = patient(relay);
    let (mut client, mut server) = scene.pair();
    let sent = fill(&scene, &mut client);
    server.expect_stream(&mut Stream::new(6), sent);
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", sent, 0);
    scene.finish();
}

fn a_reader_that_pauses_in_a_half_closed_session_is_not_lost(relay: &str) {
    let scene = patient(relay);
    let (mut client, mut server) = scene.pair();
    client.finish();
    server.expect_end();
    let sent = fill(&scene, &mut server);
    client.expect_stream(&mut Stream::new(6), sent);
    drop(server);
    client.expect_end();
    scene.ends(client.addr(), "closed", 0, sent);
    scene.finish();
}

fn a_reader_that_pauses_is_not_lost_when_a_reload_sets_user_timeout(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    let sent = fill(&scene, &mut server);
    scene
        .proxy
        .reload(&scene.config(&format!("relay = \"{relay}\"\n{MORE}")));
    pause(&scene);
    client.expect_stream(&mut Stream::new(6), sent);
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 0, sent);
    scene.finish();
}

fn a_reader_that_pauses_gets_what_came_before_a_reset(relay: &str) {
    let scene = patient(relay);
    let addr = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let mut client = Peer::connect_prepared(addr, |socket| {
        socket.set_recv_buffer_size(4096).expect("any size will do");
    });
    let mut server = scene.target.accept();
    let bytes = Stream::bytes(7, 60_000);
    server.send(&bytes);
    let down = [("direction", "down")];
    scene
        .proxy
        .wait_until("tml_proxy_bytes_total", &down, bytes.len() as u64);
    server.reset();
    pause(&scene);
    assert!(client.receive_until_reset() == bytes, "other bytes");
    scene.ends(client.addr(), "target_reset", 0, bytes.len() as u64);
    scene.finish();
}
