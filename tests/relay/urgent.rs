//! Urgent bytes are bytes: they arrive in their place, and nothing stops behind them.
//!
//! The kernel's splice halts at an urgent mark, see `kernel.rs`; without care the rest of the
//! stream would never arrive.

use std::thread;

use super::{
    harness::{Peer, Stream},
    scene,
};

in_every_mode! {
    an_urgent_byte_first_in_the_middle_or_last_arrives_in_its_place
    an_urgent_byte_alone_arrives
    a_session_goes_on_after_urgent_bytes
    urgent_bytes_within_bulk_lose_nothing
}

fn an_urgent_byte_first_in_the_middle_or_last_arrives_in_its_place(relay: &str) {
    let scene = scene(relay);
    for place in ["first", "middle", "last"] {
        let (mut client, mut server) = scene.pair();
        script(place, &mut client);
        server.expect(b"abcdef");
        server.expect_end();
        script(place, &mut server);
        client.expect(b"abcdef");
        client.expect_end();
        scene.ends(client.addr(), "closed", 6, 6);
    }
    scene.finish();
}

/// Sends `abcdef` with one byte of it urgent, and closes.
fn script(place: &str, peer: &mut Peer) {
    match place {
        "first" => {
            peer.send_urgent(b"a");
            peer.send(b"bcdef");
        }
        "middle" => {
            peer.send(b"abc");
            peer.send_urgent(b"d");
            peer.send(b"ef");
        }
        _ => {
            peer.send(b"abcde");
            peer.send_urgent(b"f");
        }
    }
    peer.finish();
}

fn an_urgent_byte_alone_arrives(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    client.send_urgent(b"!");
    server.expect(b"!");
    server.send_urgent(b"?");
    client.expect(b"?");
    client.finish();
    server.expect_end();
    drop(server);
    client.expect_end();
    scene.ends(client.addr(), "closed", 1, 1);
    scene.finish();
}

fn a_session_goes_on_after_urgent_bytes(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    for _ in 0..50 {
        client.send(b"abc");
        client.send_urgent(b"!");
        client.send(b"defghij");
        server.expect(b"abc!defghij");
        server.send_urgent(b"ok");
        client.expect(b"ok");
    }
    scene.proxy.rests();
    client.exchange(&mut server, b"and on");
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 50 * 11 + 6, 50 * 2 + 6);
    scene.finish();
}

fn urgent_bytes_within_bulk_lose_nothing(relay: &str) {
    const PIECE: usize = 300_000;
    const PIECES: usize = 40;
    let scene = scene(relay);
    let (client, mut server) = scene.pair();
    let bytes = Stream::bytes(6, PIECE * PIECES);
    thread::scope(|scope| {
        let mut sender = client.twin();
        let bytes = &bytes;
        scope.spawn(move || {
            for piece in bytes.chunks(PIECE) {
                let (urgent, rest) = piece.split_at(1);
                sender.send_urgent(urgent);
                sender.send(rest);
            }
            sender.finish();
        });
        server.expect_stream(&mut Stream::new(6), bytes.len() as u64);
        server.expect_end();
    });
    drop(server);
    scene.ends(client.addr(), "closed", bytes.len() as u64, 0);
    scene.finish();
}
