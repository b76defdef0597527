//! What an operator wants while a worker is busy.

use crate::{
    desk::Desk,
    harness::{
        Peer, process,
        require::{Need, require},
        strace::tamper,
    },
};

/// Each look for news takes the worker two seconds.
#[test]
fn a_kill_reaches_the_sessions_of_a_worker_that_is_busy_for_seconds() {
    if !require(&[Need::Root, Need::Tool("strace")]) {
        return;
    }
    let desk = Desk::new("[process]\nworkers = 1\n", "");
    let pairs: Vec<_> = (0..10).map(|_| desk.scene.pair()).collect();
    let _busy = tamper(&desk.scene.proxy, "worker-0", "epoll_pwait:delay_exit=2s");
    let killed = desk.succeed(&["kill", "--mapping", "m"]);
    assert_eq!(killed, "10 sessions told to end\n");
    for (mut client, mut server) in pairs {
        client.expect_reset();
        server.expect_reset();
        desk.scene.ended(client.addr(), "killed");
    }
    desk.scene.proxy.settles();
}

#[test]
fn a_drain_and_a_pause_have_happened_when_they_are_answered_however_busy_a_worker_is() {
    if !require(&[Need::Root, Need::Tool("strace")]) {
        return;
    }
    let desk = Desk::new("[process]\nworkers = 1\n", "");
    let (proxy, port) = (&desk.scene.proxy, desk.scene.port);
    let _busy = tamper(proxy, "worker-0", "epoll_pwait:delay_exit=3s");
    desk.succeed(&["pause", "m"]);
    let _waits = Peer::connect(port);
    desk.succeed(&["drain", "m"]);
    assert!(process::listening_inodes(proxy.id(), port).is_empty());
    desk.succeed(&["resume", "m"]);
    assert!(
        proxy
            .said(|line| line.message().contains("busy"))
            .is_empty()
    );
}

#[test]
fn a_failed_accept_does_not_cost_those_behind_it_in_the_queue_of_a_removed_listener() {
    if !require(&[Need::Root, Need::Tool("strace")]) {
        return;
    }
    let desk = Desk::new("[process]\nworkers = 1\n", "");
    desk.succeed(&["pause", "m"]);
    // The worker hears of it before it can hear of the next client.
    desk.succeed(&["sessions"]);
    let mut clients: Vec<Peer> = (0..40).map(|_| Peer::connect(desk.scene.port)).collect();
    let rule = "accept4:error=ECONNABORTED:when=2+7";
    let _tampering = tamper(&desk.scene.proxy, "worker-0", rule);
    let config = desk.config("");
    let (without, _) = config.split_once("[[mapping]]").expect("a mapping");
    desk.scene.proxy.reload(without);
    for client in &mut clients {
        desk.scene.target.accept().send(b"served");
        client.expect(b"served");
    }
    drop(clients);
    desk.scene.proxy.settles();
}
