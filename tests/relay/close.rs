//! Each direction ends by itself.

use super::{
    harness::{Peer, Stream},
    scene,
};

in_every_mode! {
    a_client_that_has_closed_still_gets_its_answer
    a_target_that_has_closed_still_gets_the_rest
    the_end_comes_after_all_bytes_before_it
    a_session_without_a_byte_ends_cleanly
    both_close_at_once
}

fn a_client_that_has_closed_still_gets_its_answer(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    client.send(b"question");
    client.finish();
    server.expect(b"question");
    server.expect_end();
    server.send(b"first half, ");
    client.expect(b"first half, ");
    server.send(b"second half");
    client.expect(b"second half");
    drop(server);
    client.expect_end();
    let line = scene.ends(client.addr(), "closed", 8, 23);
    assert_eq!(line.text("end"), "--");
    scene.finish();
}

fn a_target_that_has_closed_still_gets_the_rest(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    server.send(b"no more from here");
    server.finish();
    client.expect(b"no more from here");
    client.expect_end();
    client.send(b"first, ");
    server.expect(b"first, ");
    client.send(b"second");
    server.expect(b"second");
    client.finish();
    server.expect_end();
    scene.ends(client.addr(), "closed", 13, 17);
    scene.finish();
}

fn the_end_comes_after_all_bytes_before_it(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    let length = 3_000_000;
    let mut writer = client.twin();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.send_stream(&mut Stream::new(1), length);
            writer.finish();
        });
        server.expect_stream(&mut Stream::new(1), length);
    });
    server.expect_end();
    server.send(b"all there");
    drop(server);
    client.expect(b"all there");
    client.expect_end();
    scene.ends(client.addr(), "closed", length, 9);
    scene.finish();
}

fn a_session_without_a_byte_ends_cleanly(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    client.finish();
    server.expect_end();
    drop(server);
    client.expect_end();
    scene.ends(client.addr(), "closed", 0, 0);

    // Gone before the target was even connected: it may see a connection that ends at once.
    let client = Peer::connect(scene.port);
    let addr = client.addr();
    drop(client);
    let mut server = scene.target.accept();
    server.expect_end();
    drop(server);
    scene.ends(addr, "closed", 0, 0);
    scene.finish();
}

fn both_close_at_once(relay: &str) {
    let scene = scene(relay);
    for _ in 0..20 {
        let (mut client, mut server) = scene.pair();
        client.send(b"up");
        server.send(b"down");
        client.finish();
        server.finish();
        client.expect(b"down");
        server.expect(b"up");
        client.expect_end();
        server.expect_end();
        scene.ends(client.addr(), "closed", 2, 4);
    }
    scene.finish();
}
