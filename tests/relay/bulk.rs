//! Much traffic: whole, both ways at once, and without piling up in the proxy.

use std::{fs, net::SocketAddr, thread, time::Duration};

use super::{
    harness::{Peer, Scene, Setup, Stream, both_ways, process::resident_kib},
    scene,
};

in_every_mode! {
    a_hundred_megabytes_each_way_at_once
    readers_that_stop_cost_no_memory_and_lose_nothing
    a_reader_that_stops_leaves_little_waiting_in_the_proxy
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

/// Bytes that wait to be read from the socket with these ports, its own and its peer's.
fn unread(own: u16, peers: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp6").expect("proc(5) is mounted");
    let ports = [own, peers].map(|port| format!(":{port:04X}"));
    let queues = table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let fits = columns[1].ends_with(&ports[0]) && columns[2].ends_with(&ports[1]);
        fits.then(|| columns[4].to_owned())
    });
    let queues = queues.expect("the socket is open");
    let (_, unread) = queues.split_once(':').expect("one to send, one to read");
    u64::from_str_radix(unread, 16).expect("a hexadecimal number")
}

/// The memory of all sockets is one, and what one reader leaves there the others lack. The kernel alone
/// would let many megabytes wait once bulk has been fast.
fn a_reader_that_stops_leaves_little_waiting_in_the_proxy(relay: &str) {
    const FAST: u64 = 50_000_000;
    let most = fs::read_to_string("/proc/sys/net/core/rmem_max").expect("proc(5) is mounted");
    if most.trim().parse::<u64>().expect("a number") < 2 << 20 {
        println!("the kernel grants no buffers of that size");
        return;
    }
    let scene = scene(relay);
    let leaves = || {
        let (mut client, mut server) = scene.pair();
        let mut sent = Stream::new(1);
        let mut received = sent.restart();
        thread::scope(|scope| {
            scope.spawn(|| server.send_stream(&mut sent, FAST));
            client.expect_stream(&mut received, FAST);
        });
        server.offer_stream(&mut sent, 4 * FAST, Duration::from_millis(200));
        let of_proxy = server.stream().peer_addr().expect("it is connected");
        let unread = unread(of_proxy.port(), scene.target.port());
        let end = sent.position();
        client.expect_stream(&mut received, end);
        unread
    };
    // On a machine that is busy a peer of the same machine may seem to be far.
    let little = (0..10).any(|_| {
        let unread = leaves();
        println!("{unread} bytes wait to be read");
        unread <= 2 << 20
    });
    assert!(little, "too much waits each time");
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
