//! Much traffic: whole, both ways at once, and without piling up in the proxy.

use std::{net::SocketAddr, thread, time::Duration};

use super::{
    harness::{Peer, Scene, Setup, Stream, both_ways, process::resident_kib},
    scene,
};

in_every_mode! {
    a_hundred_megabytes_each_way_at_once
    readers_that_stop_cost_no_memory_and_lose_nothing
    keystrokes_pass_beside_bulk
    a_reader_that_stops_holds_up_nobody_else
}

fn a_hundred_megabytes_each_way_at_once(relay: &str) {
    const LENGTH: u64 = 100_000_000;
    let scene = scene(relay);
    let (client, server) = scene.pair();
    let (up, down) = (Stream::new(1), Stream::new(2));
    both_ways([(&client, &server, [up, down])], LENGTH);
    scene.ends(client.addr(), "closed", LENGTH, LENGTH);

    let metrics = scene.proxy.metrics();
    let spliced = metrics.sum("tml_proxy_spliced_bytes_total", &[]);
    let copied = metrics.sum("tml_proxy_copied_bytes_total", &[]);
    assert_eq!(spliced + copied, 2 * LENGTH, "{spliced} and {copied}");
    match relay {
        "copy" => assert_eq!(spliced, 0),
        _ => assert!(spliced > LENGTH, "only {spliced} spliced"),
    }
    scene.finish();
}

/// Nobody reads: what the proxy takes in is bounded, and it waits without spinning. Then all read.
fn readers_that_stop_cost_no_memory_and_lose_nothing(relay: &str) {
    // More than the largest socket buffers on the way take together.
    const LENGTH: u64 = 48_000_000;
    let scene = scene(relay);
    let addr = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let mut sessions: Vec<(Peer, Peer, [Stream; 2])> = (0..2)
        .map(|number| {
            let client = Peer::connect_prepared(addr, |socket| {
                socket
                    .set_recv_buffer_size(16_384)
                    .expect("any size will do");
            });
            let streams = [2 * number, 2 * number + 1].map(Stream::new);
            (client, scene.target.accept(), streams)
        })
        .collect();

    let before = resident_kib(scene.proxy.id());
    let patience = Duration::from_millis(200);
    for (client, server, [up, down]) in &mut sessions {
        client.offer_stream(up, LENGTH, patience);
        server.offer_stream(down, LENGTH, patience);
        assert!(up.position() < LENGTH, "the path takes everything");
        assert!(down.position() < LENGTH, "the path takes everything");
    }
    let grown = resident_kib(scene.proxy.id()).saturating_sub(before);
    assert!(
        grown < 8 * 1024,
        "{grown} KiB more for readers that stopped"
    );
    scene.proxy.rests();

    scene.pass_whole(&sessions, LENGTH);
    scene.finish();
}

fn keystrokes_pass_beside_bulk(relay: &str) {
    const LENGTH: u64 = 100_000_000;
    let scene = scene(relay);
    let (mut source, mut sink) = scene.pair();
    let (mut client, mut server) = scene.pair();
    thread::scope(|scope| {
        scope.spawn(|| {
            source.send_stream(&mut Stream::new(3), LENGTH);
            source.finish();
        });
        scope.spawn(|| {
            sink.expect_stream(&mut Stream::new(3), LENGTH);
            sink.expect_end();
            sink.finish();
        });
        for round in 0..200 {
            client.exchange(&mut server, &[round]);
        }
    });
    scene.ends(source.addr(), "closed", LENGTH, 0);
    let addr = client.addr();
    drop(client);
    server.expect_end();
    drop(server);
    scene.ends(addr, "closed", 200, 200);
    scene.finish();
}

/// A session that waits with bytes in flight is no work, however long it waits: sessions that share
/// its worker go on, and so do their timers.
fn a_reader_that_stops_holds_up_nobody_else(relay: &str) {
    const LENGTH: u64 = 48_000_000;
    let more = format!("relay = \"{relay}\"\nhalf_close_timeout = \"2s\"");
    let scene = Scene::with(&Setup::default(), "[process]\nworkers = 1\n", &more);
    let (mut source, sink) = scene.pair();
    let mut stream = Stream::new(4);
    source.offer_stream(&mut stream, LENGTH, Duration::from_millis(200));
    assert!(stream.position() < LENGTH, "the path takes everything");

    let (clock, mut clock_end) = scene.pair();
    clock.finish();
    clock_end.expect_end();
    scene.ends(clock.addr(), "target_half_close_timeout", 0, 0);
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"served");
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 6, 6);

    thread::scope(|scope| {
        let (mut source, mut sink) = (source.twin(), sink.twin());
        scope.spawn(move || {
            source.send_stream(&mut stream, LENGTH);
            source.finish();
        });
        sink.expect_stream(&mut Stream::new(4), LENGTH);
        sink.expect_end();
        sink.finish();
    });
    scene.ends(source.addr(), "closed", LENGTH, 0);
    scene.finish();
}
