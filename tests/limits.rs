//! Limits: who is turned away, how, and that nobody else notices.

mod harness;

use std::net::IpAddr;

use harness::{Line, Peer, Scene, Setup, Target};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

fn from(scene: &Scene, source: &str) -> Peer {
    Peer::connect_from(ip(source), scene.port)
}

/// The peer is reset, and the proxy says why.
#[track_caller]
fn refused(scene: &Scene, mut peer: Peer, reason: &str) -> Line {
    peer.expect_reset();
    let line = scene.ends(peer.addr(), reason, 0, 0);
    assert_eq!(line.text("end"), "PC");
    line
}

/// The peer gets a session, which stays open.
#[track_caller]
fn served(scene: &Scene, mut peer: Peer) -> (Peer, Peer) {
    let mut server = scene.target.accept();
    peer.exchange(&mut server, b"welcome");
    (peer, server)
}

#[track_caller]
fn leaves(scene: &Scene, (client, server): (Peer, Peer)) {
    let addr = client.addr();
    drop((client, server));
    scene.ended(addr, "closed");
}

/// Clients from that address begin sessions until one is refused: a machine that is busy may give
/// the rate time to recover in between, but not always.
#[track_caller]
fn refused_at_last(scene: &Scene, source: &str, reason: &str) {
    for _ in 0..100 {
        let peer = from(scene, source);
        let addr = peer.addr();
        drop(peer);
        if scene.proxy.ended_session(addr).text("reason") == reason {
            return;
        }
    }
    panic!("nobody was refused");
}

fn refusals(scene: &Scene, cause: &str) -> u64 {
    let labels = [("mapping", "m"), ("cause", cause)];
    scene
        .proxy
        .metrics()
        .sum("tml_proxy_refusals_total", &labels)
}

/// The same limit in a mapping, in the defaults, and for the whole process.
fn everywhere(limit: &str) -> [Scene; 3] {
    let sections = |section: &str| format!("[{section}]\n{limit}\n");
    [
        Scene::new(limit),
        Scene::with(&Setup::default(), &sections("defaults"), ""),
        Scene::with(&Setup::default(), &sections("limits"), ""),
    ]
}

#[test]
fn a_source_with_all_its_sessions_gets_no_more_and_others_do() {
    for scene in everywhere("max_sessions_per_source = 2") {
        let first = served(&scene, from(&scene, "127.0.0.2"));
        let second = served(&scene, from(&scene, "127.0.0.2"));
        refused(&scene, from(&scene, "127.0.0.2"), "source_full");
        let other = served(&scene, from(&scene, "127.0.0.3"));
        let over_ipv6 = served(&scene, from(&scene, "::1"));
        leaves(&scene, first);
        let third = served(&scene, from(&scene, "127.0.0.2"));
        assert_eq!(refusals(&scene, "source_full"), 1);
        drop((second, third, other, over_ipv6));
        scene.finish();
    }
}

#[test]
fn a_source_is_as_wide_as_configured() {
    let limits = "[limits]\nsource_prefix_v4 = 24\nmax_sessions_per_source = 1\n";
    let scene = Scene::with(&Setup::default(), limits, "");
    let first = served(&scene, from(&scene, "127.0.0.2"));
    refused(&scene, from(&scene, "127.0.0.3"), "source_full");
    let other = served(&scene, from(&scene, "127.0.1.2"));
    drop((first, other));
    scene.finish();
}

#[test]
fn a_source_that_begins_too_many_sessions_is_refused_and_others_are_not() {
    let limit = "new_sessions_per_second_per_source = { rate = 1, burst = 2 }";
    for scene in everywhere(limit) {
        leaves(&scene, served(&scene, from(&scene, "127.0.0.2")));
        leaves(&scene, served(&scene, from(&scene, "127.0.0.2")));
        refused_at_last(&scene, "127.0.0.2", "source_rate");
        leaves(&scene, served(&scene, from(&scene, "127.0.0.3")));
        scene.finish();
    }
}

#[test]
fn a_mapping_and_the_process_have_rates_of_their_own() {
    let limit = "new_sessions_per_second = { rate = 1, burst = 3 }";
    let reasons = ["mapping_rate", "mapping_rate", "process_rate"];
    for (scene, reason) in everywhere(limit).into_iter().zip(reasons) {
        for source in ["127.0.0.2", "127.0.0.3", "::1"] {
            leaves(&scene, served(&scene, from(&scene, source)));
        }
        refused_at_last(&scene, "127.0.0.4", reason);
        scene.finish();
    }
}

/// A target that answers no more would otherwise take a session of everybody who tries.
#[test]
fn few_clients_wait_for_a_target_that_does_not_answer() {
    let limit = "max_dialling = 2\nconnect_timeout = \"60s\"";
    let (target, _filler) = Target::full();
    let scene = Scene::leading_to(target, &Setup::default(), "", limit);
    let waiting = [Peer::connect(scene.port), Peer::connect(scene.port)];
    scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 2);
    for _ in 0..5 {
        refused(&scene, Peer::connect(scene.port), "dialling_full");
    }
    let [first, second] = waiting;
    let addr = first.addr();
    first.reset();
    scene.ended(addr, "client_gone");
    let third = Peer::connect(scene.port);
    refused(&scene, Peer::connect(scene.port), "dialling_full");
    for peer in [second, third] {
        peer.reset();
    }
    scene.finish();
}

#[test]
fn a_client_whose_target_has_answered_keeps_nobody_from_dialling() {
    let scene = Scene::new("max_dialling = 1");
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(served(&scene, Peer::connect(scene.port)));
    }
    drop(all);
    scene.finish();
}

#[test]
fn a_source_that_keeps_being_refused_is_banned_everywhere_but_where_it_is_exempt() {
    let limits = "[limits]\nexempt = [\"127.0.0.9\"]\n\
                  ban = { after = 3, within = \"10m\", lasts = \"10m\" }\n";
    let mapping = "max_sessions_per_source = 1";
    let scene = Scene::with(&Setup::default(), limits, mapping);
    let mut kept = vec![served(&scene, from(&scene, "127.0.0.2"))];
    for _ in 0..3 {
        refused(&scene, from(&scene, "127.0.0.2"), "source_full");
    }
    let line = scene.proxy.wait_for_line(0, "client banned");
    assert_eq!(line.text("source"), "127.0.0.2/32");
    leaves(&scene, kept.remove(0));
    refused(&scene, from(&scene, "127.0.0.2"), "banned");
    for _ in 0..6 {
        kept.push(served(&scene, from(&scene, "127.0.0.9")));
    }
    leaves(&scene, served(&scene, from(&scene, "127.0.0.3")));
    let metrics = scene.proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_clients_banned_total", &[]), 1);

    // A reload without the ban lifts it.
    scene.proxy.reload(&scene.config(mapping));
    leaves(&scene, served(&scene, from(&scene, "127.0.0.2")));
    drop(kept);
    scene.finish();
}

#[test]
fn a_client_may_be_turned_away_with_an_end_instead_of_a_reset() {
    let scene = Scene::new("deny = [\"127.0.0.2\"]\non_refuse = \"close\"");
    let mut peer = from(&scene, "127.0.0.2");
    peer.expect_end();
    scene.ends(peer.addr(), "denied", 0, 0);
    scene.finish();
}

#[test]
fn a_reload_changes_limits_and_leaves_sessions_alone() {
    let scene = Scene::new("");
    let mut kept = vec![
        served(&scene, from(&scene, "127.0.0.2")),
        served(&scene, from(&scene, "127.0.0.2")),
    ];
    let limits = |text: &str| {
        let config = scene.config("").replace("version = 1\n", "");
        format!("version = 1\n[limits]\n{text}\n{config}")
    };
    scene
        .proxy
        .reload(&limits("max_sessions = 3\nmax_sessions_per_source = 1"));
    // Those that were open before the limit are not counted.
    kept.push(served(&scene, from(&scene, "127.0.0.2")));
    let mut peer = from(&scene, "127.0.0.3");
    peer.expect_reset();
    scene.ends(peer.addr(), "no_resources", 0, 0);
    scene.proxy.reload(&limits("max_sessions_per_source = 1"));
    refused(&scene, from(&scene, "127.0.0.2"), "source_full");
    for (client, server) in &mut kept {
        client.exchange(server, b"not affected");
    }
    drop(kept);
    scene.finish();
}

#[test]
fn a_flood_of_refused_clients_disturbs_nobody_and_leaves_nothing() {
    let scene = Scene::new("max_sessions_per_source = 1");
    let (mut client, mut server) = served(&scene, from(&scene, "127.0.0.2"));
    let before = scene.proxy.metrics().sum("process_open_fds", &[]);
    for _ in 0..500 {
        drop(from(&scene, "127.0.0.2"));
    }
    client.exchange(&mut server, b"not affected");
    scene
        .proxy
        .wait_until_metrics("the last of them", |metrics| {
            metrics.sum("tml_proxy_refusals_total", &[("cause", "source_full")]) == 500
        });
    // A scrape more or less may be under way.
    let after = scene.proxy.metrics().sum("process_open_fds", &[]);
    assert!(after < before + 10, "{after} descriptors after {before}");
    drop((client, server));
    scene.finish();
}
