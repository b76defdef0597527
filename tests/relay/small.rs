//! Small traffic: greetings, single bytes, keystrokes.

use super::{
    harness::{Peer, Stream},
    scene,
};

in_every_mode! {
    the_target_speaks_first
    bytes_sent_one_by_one_arrive_in_order
    a_byte_sent_is_answered_before_the_next
    an_ipv6_client_is_served_like_an_ipv4_one
}

fn the_target_speaks_first(relay: &str) {
    let scene = scene(relay);
    let mut client = Peer::connect(scene.port);
    let mut server = scene.target.accept();
    server.send(b"SSH-2.0-test\r\n");
    client.expect(b"SSH-2.0-test\r\n");
    client.send(b"SSH-2.0-client\r\n");
    server.expect(b"SSH-2.0-client\r\n");
    drop(server);
    client.expect_end();
    drop_and_end(scene, client, 16, 14);
}

fn bytes_sent_one_by_one_arrive_in_order(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    let bytes = Stream::bytes(5, 10_000);
    std::thread::scope(|scope| {
        let mut up = client.twin();
        let mut down = server.twin();
        let bytes = &bytes;
        scope.spawn(move || bytes.iter().for_each(|byte| up.send(&[*byte])));
        scope.spawn(move || bytes.iter().for_each(|byte| down.send(&[*byte])));
        server.expect_stream(&mut Stream::new(5), 10_000);
        client.expect_stream(&mut Stream::new(5), 10_000);
    });
    drop(server);
    client.expect_end();
    drop_and_end(scene, client, 10_000, 10_000);
}

fn a_byte_sent_is_answered_before_the_next(relay: &str) {
    let scene = scene(relay);
    let (mut client, mut server) = scene.pair();
    for round in 0..=255 {
        client.exchange(&mut server, &[round]);
    }
    drop(server);
    client.expect_end();
    drop_and_end(scene, client, 256, 256);
}

fn an_ipv6_client_is_served_like_an_ipv4_one(relay: &str) {
    let scene = scene(relay);
    let mut client = Peer::connect_to(([0, 0, 0, 0, 0, 0, 0, 1], scene.port).into());
    let mut server = scene.target.accept();
    client.exchange(&mut server, b"over IPv6");
    drop(server);
    client.expect_end();
    drop_and_end(scene, client, 9, 9);
}

fn drop_and_end(scene: super::harness::Scene, client: Peer, up: u64, down: u64) {
    let addr = client.addr();
    drop(client);
    scene.ends(addr, "closed", up, down);
    scene.finish();
}
