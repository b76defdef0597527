//! Limits of bandwidth: they hold, they are shared evenly, and nothing gets lost or hot over them.

mod harness;

use std::{
    io::Read,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use harness::{Peer, Scene, Setup, Stream, both_ways, wait_until};
use serde_json::Value;

const RELAYS: [&str; 3] = ["auto", "copy", "splice"];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

fn pauses(scene: &Scene) -> u64 {
    scene
        .proxy
        .metrics()
        .sum("tml_proxy_bandwidth_pauses_total", &[("mapping", "m")])
}

/// A client that sends without end, and a target that takes it in, until either breaks.
fn flood(scene: &Scene, source: &str) -> (Peer, Peer) {
    let client = Peer::connect_from(ip(source), scene.port);
    let server = scene.target.accept();
    let (mut from, to) = (client.twin(), server.twin());
    thread::spawn(move || from.send_until_error());
    thread::spawn(move || {
        let mut bytes = [0; 64 * 1024];
        while to.stream().read(&mut bytes).is_ok_and(|n| n > 0) {}
    });
    (client, server)
}

/// Ends a flood by resetting both ends.
fn stop((client, server): (Peer, Peer)) {
    for peer in [client, server] {
        // Its twins hold the socket open; this ends it for them too.
        let _ = peer.stream().shutdown(std::net::Shutdown::Both);
    }
}

#[test]
fn bulk_takes_its_time_both_ways_and_arrives_whole() {
    const LENGTH: u64 = 3 << 20;
    for relay in RELAYS {
        let scene = Scene::new(&format!(
            "relay = \"{relay}\"\nbandwidth = {{ rate = \"2MiB\", burst = \"1MiB\" }}"
        ));
        let (client, server) = scene.pair();
        let start = Instant::now();
        let streams = [Stream::new(1), Stream::new(2)];
        both_ways([(&client, &server, streams)], LENGTH);
        let took = start.elapsed();
        // 1 MiB at once, the rest in a second.
        assert!(took >= Duration::from_millis(950), "{relay}: {took:?}");
        scene.ends(client.addr(), "closed", LENGTH, LENGTH);
        assert!(pauses(&scene) > 0);
        scene.finish();
    }
}

#[test]
fn a_session_that_waits_leaves_the_processor_alone() {
    let scene = Scene::new("bandwidth = { rate = \"16KiB\", burst = \"64KiB\" }");
    let flood = flood(&scene, "127.0.0.1");
    wait_until("a pause", || pauses(&scene) > 0);
    scene.proxy.rests();
    let before = pauses(&scene);
    wait_until("the next pause", || pauses(&scene) > before);
    stop(flood);
    scene.finish();
}

#[test]
fn sessions_share_a_limit_evenly() {
    const EACH: u64 = 1 << 20;
    let scene = Scene::new("bandwidth = { rate = \"4MiB\", burst = \"64KiB\" }");
    let floods: Vec<_> = (0..4).map(|_| flood(&scene, "127.0.0.1")).collect();
    wait_until("each to have had its share", || {
        scene
            .proxy
            .metrics()
            .sum("tml_proxy_bytes_total", &[("mapping", "m")])
            >= 4 * EACH
    });
    let (_, page) = scene.proxy.page("/api/v1/sessions");
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let moved: Vec<u64> = page["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|session| session["bytes_up"].as_u64().expect("a number"))
        .collect();
    assert_eq!(moved.len(), floods.len());
    let (least, most) = (moved.iter().min(), moved.iter().max());
    // If they took turns by the whole, the last would have had nothing yet.
    assert!(
        least.zip(most).is_some_and(|(l, m)| *l > m / 2),
        "{moved:?}"
    );
    floods.into_iter().for_each(stop);
    scene.finish();
}

#[test]
fn keystrokes_pass_beside_bulk_under_the_same_limit() {
    let scene = Scene::new("bandwidth = { rate = \"256KiB\", burst = \"16KiB\" }");
    let floods: Vec<_> = (0..4).map(|_| flood(&scene, "127.0.0.1")).collect();
    wait_until("the limit to be reached", || pauses(&scene) > 20);
    let (mut client, mut server) = scene.pair();
    let start = Instant::now();
    for _ in 0..200 {
        client.exchange(&mut server, b"k");
    }
    let took = start.elapsed();
    // Behind four floods each keystroke would wait for 40 ms, which makes 8 s.
    assert!(took < Duration::from_secs(4), "{took:?}");
    floods.into_iter().for_each(stop);
    drop((client, server));
    scene.finish();
}

#[test]
fn a_source_has_a_limit_of_its_own() {
    let scene = Scene::with(
        &Setup::default(),
        "[process]\nshutdown_timeout = \"100ms\"\n",
        "bandwidth_per_source = { rate = \"1KiB\", burst = \"512KiB\" }",
    );
    // Two sessions of one source use its burst up together.
    let floods = [flood(&scene, "127.0.0.2"), flood(&scene, "127.0.0.2")];
    wait_until("the first source to wait", || pauses(&scene) > 2);
    let other = Peer::connect_from(ip("127.0.0.3"), scene.port);
    let server = scene.target.accept();
    both_ways(
        [(&other, &server, [Stream::new(1), Stream::new(2)])],
        400 << 10,
    );
    scene.ends(other.addr(), "closed", 400 << 10, 400 << 10);
    floods.into_iter().for_each(stop);
    // What they had sent before comes at its own pace; an operator need not wait for it.
    assert_eq!(scene.proxy.stop().code(), Some(0));
}

#[test]
fn a_reload_sets_and_lifts_a_limit_under_a_live_session() {
    let scene = Scene::new("");
    let flood = flood(&scene, "127.0.0.1");
    let tight = scene.config("bandwidth = { rate = \"4KiB\", burst = \"4KiB\" }");
    scene.proxy.reload(&tight);
    wait_until("the limit to be reached", || pauses(&scene) > 2);
    scene.proxy.reload(&scene.config(""));
    let moved = |labels| scene.proxy.metrics().sum("tml_proxy_bytes_total", labels);
    let up = [("mapping", "m"), ("direction", "up")];
    let before = moved(&up);
    wait_until("bulk to move again", || moved(&up) > before + (16 << 20));
    stop(flood);
    scene.finish();
}

#[test]
fn what_was_read_before_a_limit_came_does_not_stop_the_session() {
    for relay in RELAYS {
        let scene = Scene::new(&format!("relay = \"{relay}\""));
        let (mut client, server) = scene.pair();
        // Nobody reads, so that the proxy has bytes in hand.
        client.offer_stream(&mut Stream::new(1), 1 << 30, Duration::from_millis(200));
        let mut client = client.twin();
        thread::spawn(move || client.send_until_error());
        let limit = "bandwidth = { rate = \"1KiB\", burst = \"1KiB\" }";
        scene
            .proxy
            .reload(&scene.config(&format!("relay = \"{relay}\"\n{limit}")));
        let reader = server.twin();
        thread::spawn(move || {
            let mut bytes = [0; 64 * 1024];
            while reader.stream().read(&mut bytes).is_ok_and(|n| n > 0) {}
        });
        // 64 KiB, if they were owed, would take a minute.
        wait_until("the session to go on a second at a time", || {
            pauses(&scene) > 2
        });
        server.reset();
        drop(scene);
    }
}

#[test]
fn a_burst_that_was_used_is_not_owed_under_a_smaller_one() {
    let of = |burst: &str| format!("bandwidth = {{ rate = \"16KiB\", burst = \"{burst}\" }}");
    let scene = Scene::new(&of("4MiB"));
    let flood = flood(&scene, "127.0.0.1");
    wait_until("the burst to be used up", || pauses(&scene) > 0);
    scene.proxy.reload(&scene.config(&of("16KiB")));
    let before = pauses(&scene);
    // It took four minutes to save up.
    wait_until("the session to go on", || pauses(&scene) > before + 2);
    stop(flood);
    scene.finish();
}

#[test]
fn a_session_that_waits_for_its_limit_is_not_idle() {
    let scene = Scene::new(
        "bandwidth = { rate = \"2KiB\", burst = \"1KiB\" }\nidle_timeout = \"200ms\"\n\
         half_close_timeout = \"200ms\"",
    );
    let (mut client, mut server) = scene.pair();
    let mut stream = Stream::new(1);
    client.send_stream(&mut stream, 5 << 10);
    client.finish();
    server.expect_stream(&mut stream.restart(), 5 << 10);
    server.expect_end();
    drop(server);
    client.expect_end();
    scene.ends(client.addr(), "closed", 5 << 10, 0);
    scene.finish();
}

#[test]
fn a_target_that_resets_is_noticed_while_its_session_waits() {
    let scene = Scene::new("bandwidth = { rate = \"1KiB\", burst = \"64KiB\" }");
    let (mut client, server) = scene.pair();
    client.send(&[7; 80 << 10]);
    wait_until("the limit to be reached", || pauses(&scene) > 0);
    server.reset();
    client.expect_reset();
    scene.ended(client.addr(), "target_reset");
    scene.finish();
}
