//! What a reload does to sessions that are open: what their mapping says, and nothing to others.

use super::{
    counts,
    harness::{Line, Peer, Proxy, Scene, Target, config, mapping, ports},
    leads_to,
};

/// A session of the mapping under test and a session of a mapping that is left alone.
struct Two {
    proxy: Proxy,
    target: Target,
    port: u16,
    bystander: String,
    session: (Peer, Peer),
    other: (Peer, Peer),
}

impl Two {
    fn new(policy: &str) -> Self {
        let target = Target::bind();
        let [port, quiet] = [ports::free(), ports::free()];
        let bystander = mapping("bystander", quiet, target.addr(), "");
        let proxy = Proxy::start(&config([
            &mapping("m", port, target.addr(), policy),
            &bystander,
        ]));
        let pair = |port| (Peer::connect(port), target.accept());
        let (session, other) = (pair(port), pair(quiet));
        let mut two = Self {
            proxy,
            target,
            port,
            bystander,
            session,
            other,
        };
        two.goes_on();
        two
    }

    #[track_caller]
    fn remove(&self) {
        let line = self.proxy.reload(&config([&self.bystander]));
        assert_eq!(counts(&line), [0, 1, 0, 0, 1]);
        self.proxy.stops_listening(self.port);
    }

    /// Returns the new target.
    #[track_caller]
    fn retarget(&self, policy: &str) -> Target {
        let target = Target::bind();
        let moved = mapping("m", self.port, target.addr(), policy);
        let line = self.proxy.reload(&config([&moved, &self.bystander]));
        assert_eq!(counts(&line), [0, 0, 1, 0, 1]);
        leads_to(self.port, &target);
        target
    }

    #[track_caller]
    fn goes_on(&mut self) {
        let (client, server) = &mut self.session;
        client.exchange(server, b"on");
    }

    /// Both ends of the session are reset.
    #[track_caller]
    fn is_cut(&mut self, reason: &str) -> Line {
        let (client, server) = &mut self.session;
        client.expect_reset();
        server.expect_reset();
        let line = self.proxy.ended_session(client.addr());
        assert_eq!(line.text("reason"), reason);
        assert_eq!(line.text("end"), "KD");
        line
    }

    /// The peers close the session, and the bystander has noticed nothing.
    #[track_caller]
    fn closes(mut self) {
        let (client, server) = self.session;
        let addr = client.addr();
        drop((client, server));
        self.proxy.ended_session(addr);
        let (client, server) = &mut self.other;
        client.exchange(server, b"nothing to me");
        drop(self.other);
        self.proxy.settles();
        drop(self.target);
    }
}

#[test]
fn sessions_of_a_removed_mapping_are_kept_unless_it_says_otherwise() {
    let mut two = Two::new("");
    two.remove();
    two.goes_on();
    two.proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 1);
    let addr = two.session.0.addr();
    let proxy_says = |two: &Two| two.proxy.ended_session(addr);
    two.session.0.finish();
    two.session.1.expect_end();
    two.session.1.finish();
    two.session.0.expect_end();
    let line = proxy_says(&two);
    assert_eq!(line.text("reason"), "closed");
    assert_eq!(line.text("mapping"), "m");
    two.closes();
}

#[test]
fn sessions_of_a_removed_mapping_are_killed_if_it_says_so() {
    let mut two = Two::new("on_remove = \"kill\"");
    two.remove();
    two.is_cut("mapping_removed");
    two.closes();
}

#[test]
fn sessions_of_a_removed_mapping_may_finish_within_their_time() {
    let mut two = Two::new("on_remove = { drain = \"5m\" }");
    two.remove();
    for _ in 0..50 {
        two.goes_on();
    }
    two.closes();

    let mut two = Two::new("on_remove = { drain = \"300ms\" }");
    two.remove();
    two.is_cut("drain_deadline");
    two.closes();
}

#[test]
fn sessions_of_a_moved_mapping_are_kept_unless_it_says_otherwise() {
    let mut two = Two::new("on_remove = \"kill\"");
    let _new = two.retarget("on_remove = \"kill\"");
    two.goes_on();
    let addr = two.session.0.addr();
    let old = two.target.addr().to_string();
    two.session.0.finish();
    two.session.1.expect_end();
    two.session.1.finish();
    two.session.0.expect_end();
    let line = two.proxy.ended_session(addr);
    assert_eq!(line.text("reason"), "closed");
    assert_eq!(line.text("target"), old, "where it led all the time");
    two.closes();
}

#[test]
fn sessions_of_a_moved_mapping_are_killed_if_it_says_so() {
    let mut two = Two::new("on_retarget = \"kill\"");
    let _new = two.retarget("on_retarget = \"kill\"");
    two.is_cut("mapping_retargeted");
    two.closes();
}

#[test]
fn sessions_of_a_moved_mapping_may_finish_within_their_time() {
    let policy = "on_retarget = { drain = \"300ms\" }";
    let mut two = Two::new(policy);
    let _new = two.retarget(policy);
    two.is_cut("drain_deadline");
    two.closes();
}

/// A session that waits for its target when the mapping is killed goes too.
#[test]
fn a_session_that_still_waits_for_its_target_is_killed_with_its_mapping() {
    let (target, _fillers) = Target::full();
    let [port, other] = [ports::free(), ports::free()];
    let more = "on_remove = \"kill\"\nconnect_timeout = \"5m\"";
    let proxy = Proxy::start(&config([mapping("m", port, target.addr(), more)]));
    let mut client = Peer::connect(port);
    proxy.wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 1);
    proxy.reload(&config([mapping("n", other, target.addr(), "")]));
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "mapping_removed");
    proxy.settles();
}

#[test]
fn many_sessions_killed_at_once_all_go() {
    let scene = Scene::new("on_remove = \"kill\"");
    let mut pairs: Vec<(Peer, Peer)> = (0..200).map(|_| scene.pair()).collect();
    let other = mapping("n", ports::free(), scene.target.addr(), "");
    scene.proxy.reload(&config([&other]));
    for (client, server) in &mut pairs {
        client.expect_reset();
        server.expect_reset();
        scene.ends(client.addr(), "mapping_removed", 0, 0);
    }
    scene.finish();
}

#[test]
fn a_changed_policy_applies_to_open_sessions() {
    let scene = Scene::new("");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"before");
    let changed = scene.config("idle_timeout = \"300ms\"");
    let line = scene.proxy.reload(&changed);
    assert_eq!(counts(&line), [0, 0, 0, 1, 0]);
    client.expect_reset();
    server.expect_reset();
    scene.ends(client.addr(), "idle_timeout", 6, 6);
    scene.finish();
}

#[test]
fn a_tighter_policy_is_for_new_clients() {
    let scene = Scene::new("");
    let (mut client, mut server) = scene.pair();
    scene
        .proxy
        .reload(&scene.config("deny = [\"127.0.0.1\"]\nmax_sessions = 1"));
    let mut late = Peer::connect(scene.port);
    late.expect_reset();
    scene.ends(late.addr(), "denied", 0, 0);
    client.exchange(&mut server, b"was let in");
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 10, 10);
    scene.finish();
}

/// A mapping that goes and comes back is the same again for the sessions it left behind, except
/// that their end had been decided.
#[test]
fn a_mapping_removed_and_added_again_serves_again() {
    let mut two = Two::new("");
    let whole = config([
        &mapping("m", two.port, two.target.addr(), ""),
        &two.bystander,
    ]);
    for _ in 0..3 {
        two.remove();
        two.goes_on();
        let line = two.proxy.reload(&whole);
        assert_eq!(counts(&line), [1, 0, 0, 0, 1]);
        leads_to(two.port, &two.target);
        two.goes_on();
    }
    two.closes();
}

#[test]
fn the_sessions_of_a_mapping_that_comes_back_are_counted_for_it() {
    let mut two = Two::new("max_sessions = 2");
    let whole = config([
        &mapping("m", two.port, two.target.addr(), "max_sessions = 2"),
        &two.bystander,
    ]);
    let of_m = |name: &str| two.proxy.metrics().sum(name, &[("mapping", "m")]);
    let bytes = of_m("tml_proxy_bytes_total");
    let all = |two: &Two| {
        let metrics = two.proxy.metrics();
        metrics.sum("tml_proxy_sessions_opened_total", &[])
    };
    let opened = all(&two);
    two.remove();
    two.proxy.reload(&whole);
    assert_eq!(all(&two), opened, "nothing is counted twice");
    two.goes_on();
    let of_m = |name: &str| two.proxy.metrics().sum(name, &[("mapping", "m")]);
    assert_eq!(of_m("tml_proxy_sessions_open"), 1);
    assert!(of_m("tml_proxy_bytes_total") > bytes);

    let second = Peer::connect(two.port);
    let at_second = two.target.accept();
    Peer::connect(two.port).expect_reset();
    drop((second, at_second));
    two.closes();
}

#[test]
fn a_kept_session_survives_the_next_mapping_on_its_port() {
    let mut two = Two::new("");
    two.remove();
    let stranger = mapping("n", two.port, two.target.addr(), "on_remove = \"kill\"");
    two.proxy.reload(&config([&stranger, &two.bystander]));
    let mut client = Peer::connect(two.port);
    let mut server = two.target.accept();
    client.exchange(&mut server, b"a session of the stranger's");

    two.remove();
    client.expect_reset();
    server.expect_reset();
    two.goes_on();
    let (kept, server) = &mut two.session;
    kept.finish();
    server.expect_end();
    server.finish();
    kept.expect_end();
    assert_eq!(
        two.proxy.ended_session(kept.addr()).text("reason"),
        "closed"
    );
    two.closes();
}
