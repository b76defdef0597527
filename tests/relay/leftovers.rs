//! What sessions leave behind, whatever became of them: nothing.

use super::{
    harness::{
        Peer, Scene, Stream, both_ways, config, mapping, ports,
        process::{descriptors, resident_kib},
        wait_until,
    },
    scene,
};

in_every_mode! {
    sessions_of_all_kinds_leave_no_descriptor_and_no_memory
}

fn sessions_of_all_kinds_leave_no_descriptor_and_no_memory(relay: &str) {
    let scene = scene(relay);
    let refused = ports::free();
    let nobody = format!("[::1]:{}", ports::free());
    let more = format!("relay = \"{relay}\"\ndeny = [\"127.0.0.9\"]");
    scene.proxy.reload(&config([
        mapping("m", scene.port, scene.target.addr(), &more),
        mapping("refused", refused, nobody, ""),
    ]));
    all_kinds(&scene, refused);
    let pipes = || scene.proxy.metrics().sum("tml_proxy_pipes_free", &[]) as usize;
    let held = || descriptors(scene.proxy.id()) - 2 * pipes();
    scene.proxy.settles();
    let (before, memory) = (held(), resident_kib(scene.proxy.id()));
    for _ in 0..20 {
        all_kinds(&scene, refused);
    }
    scene.proxy.settles();
    wait_until("as few descriptors as before", || held() <= before);
    let grown = resident_kib(scene.proxy.id()).saturating_sub(memory);
    assert!(grown < 4 * 1024, "{grown} KiB more");
    scene.finish();
}

fn all_kinds(scene: &Scene, refused: u16) {
    let (client, server) = scene.pair();
    let streams = [Stream::new(1), Stream::new(2)];
    both_ways([(&client, &server, streams)], 500_000);

    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    client.reset();
    server.expect_reset();

    let (mut client, mut server) = scene.pair();
    server.send(&Stream::bytes(3, 200_000));
    client.expect_stream(&mut Stream::new(3), 200_000);
    server.reset();
    client.expect_reset();

    Peer::connect(refused).expect_reset();
    Peer::connect_from([127, 0, 0, 9].into(), scene.port).expect_reset();
}
