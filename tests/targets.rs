//! Several targets to choose from.

mod harness;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use harness::{Line, Peer, Proxy, Target, config, ports};

/// A mapping `m` that leads to several targets; `more` is any further lines of it.
fn leading_to(port: u16, targets: &str, more: &str) -> String {
    config([format!(
        "\n[[mapping]]\nname = \"m\"\nlisten = {port}\ntarget = [{targets}]\n{more}\n"
    )])
}

/// The targets as a list of texts.
fn plain(targets: &[Target]) -> String {
    let each = targets
        .iter()
        .map(|target| format!("\"{}\"", target.addr()));
    each.collect::<Vec<_>>().join(", ")
}

/// A proxy with a mapping that leads to targets of its own.
struct Stage {
    proxy: Proxy,
    targets: Vec<Target>,
    port: u16,
}

impl Stage {
    fn new(count: usize, more: &str) -> Self {
        let targets: Vec<_> = (0..count).map(|_| Target::bind()).collect();
        let port = ports::free();
        let proxy = Proxy::start(&leading_to(port, &plain(&targets), more));
        Self {
            proxy,
            targets,
            port,
        }
    }

    /// Clients that come one after the other, and how many of them each target had.
    fn shares(&self, clients: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..clients {
            let line = self.passes_by();
            *shares.entry(line.text("target").to_owned()).or_default() += 1;
        }
        shares
    }

    /// A client that comes and goes.
    fn passes_by(&self) -> Line {
        let peer = Peer::connect(self.port);
        let addr = peer.addr();
        peer.reset();
        self.proxy.ended_session(addr)
    }

    /// The number of the target that has accepted a client's connection, and that.
    fn accepted(&self) -> (usize, Peer) {
        loop {
            for (number, target) in self.targets.iter().enumerate() {
                if target.is_called(Duration::from_millis(1)) {
                    return (number, target.accept());
                }
            }
        }
    }

    /// A client with the connection made for it, and the number of the target.
    fn pair(&self) -> (Peer, usize, Peer) {
        let mut client = Peer::connect(self.port);
        let (number, mut server) = self.accepted();
        client.exchange(&mut server, b"hello");
        (client, number, server)
    }

    fn finish(self) {
        self.proxy.settles();
        let status = self.proxy.stop();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

#[test]
fn clients_are_led_to_each_target_in_turn() {
    let stage = Stage::new(3, "");
    let held: Vec<_> = (0..9).map(|_| stage.pair()).collect();
    let order: Vec<_> = held.iter().map(|(_, number, _)| *number).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    drop(held);
    stage.finish();
}

#[test]
fn the_target_with_the_fewest_sessions_gets_the_next() {
    let stage = Stage::new(3, "balance = \"least-sessions\"");
    let mut held: Vec<_> = (0..6).map(|_| stage.pair()).collect();
    let load = |held: &[(Peer, usize, Peer)]| {
        [0, 1, 2].map(|target| held.iter().filter(|one| one.1 == target).count())
    };
    assert_eq!(load(&held), [2, 2, 2]);
    // Both sessions of one target end, and it gets the next two.
    let gone: Vec<_> = held.extract_if(.., |one| one.1 == 1).collect();
    for (client, _, server) in gone {
        let addr = client.addr();
        drop((client, server));
        stage.proxy.ended_session(addr);
    }
    held.extend([stage.pair(), stage.pair()]);
    assert_eq!(load(&held), [2, 2, 2]);
    drop(held);
    stage.finish();
}

#[test]
fn a_client_comes_back_to_the_same_target() {
    let stage = Stage::new(4, "balance = \"source\"");
    assert_eq!(stage.shares(20).len(), 1);
    stage.finish();
}

#[test]
fn the_first_target_has_all_sessions_until_it_is_full() {
    let targets: Vec<_> = (0..2).map(|_| Target::bind()).collect();
    let port = ports::free();
    let [first, second] = [0, 1].map(|number: usize| targets[number].addr());
    let list = format!(
        "{{ address = \"{first}\", max_sessions = 2 }}, {{ address = \"{second}\", max_sessions = 1 }}"
    );
    let proxy = Proxy::start(&leading_to(port, &list, "balance = \"first\""));
    let stage = Stage {
        proxy,
        targets,
        port,
    };
    let held: Vec<_> = (0..3).map(|_| stage.pair()).collect();
    let order: Vec<_> = held.iter().map(|(_, number, _)| *number).collect();
    assert_eq!(order, [0, 0, 1]);
    let mut late = Peer::connect(port);
    late.expect_reset();
    let line = stage.proxy.ended_session(late.addr());
    assert_eq!(
        (line.text("end"), line.text("reason")),
        ("PC", "target_full")
    );
    assert!(!line.has("target"), "it was led nowhere: {line}");
    // A place that was given back is taken again.
    let (client, _, server) = held.into_iter().next().expect("there are three");
    let addr = client.addr();
    drop((client, server));
    stage.proxy.ended_session(addr);
    let (_client, number, _server) = stage.pair();
    assert_eq!(number, 0);
}

#[test]
fn a_target_has_clients_in_proportion_to_its_weight() {
    let targets: Vec<_> = (0..2).map(|_| Target::bind()).collect();
    let port = ports::free();
    let text = config([format!(
        "\n[[mapping]]\nname = \"m\"\nlisten = {port}\n\
         [[mapping.target]]\naddress = \"{}\"\nweight = 3\n\
         [[mapping.target]]\naddress = \"{}\"\n",
        targets[0].addr(),
        targets[1].addr(),
    )]);
    let stage = Stage {
        proxy: Proxy::start(&text),
        targets,
        port,
    };
    let shares = stage.shares(12);
    let share = |number: usize| shares[&stage.targets[number].addr().to_string()];
    assert_eq!((share(0), share(1)), (9, 3));
    stage.finish();
}

#[test]
fn each_port_of_a_range_has_its_own_ports_of_all_targets() {
    let listen = ports::range(2);
    let first = ports::range(2);
    let second = ports::range(2);
    let local = |port: u16| Target::bind_to(([127, 0, 0, 1], port).into());
    let targets = [first, first + 1, second, second + 1].map(local);
    let text = config([format!(
        "\n[[mapping]]\nname = \"m\"\nlisten = \"{listen}-{}\"\n\
         target = [\"127.0.0.1:{first}-{}\", \"127.0.0.1:{second}\"]\n",
        listen + 1,
        first + 1,
    )]);
    let proxy = Proxy::start(&text);
    for (port, led) in [
        (listen, [&targets[0], &targets[2]]),
        (listen + 1, [&targets[1], &targets[3]]),
    ] {
        for target in led {
            let mut client = Peer::connect(port);
            client.exchange(&mut target.accept(), b"hello");
        }
    }
    let (_, mappings) = proxy.page("/api/v1/mappings");
    let range = format!(
        "127.0.0.1:{first}-{}, 127.0.0.1:{second}-{}",
        first + 1,
        second + 1
    );
    assert!(mappings.contains(&range), "{mappings}");
    proxy.settles();
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], ports::free()).into()
}

#[test]
fn a_target_that_refuses_is_passed_over() {
    let (closed, target) = (nobody(), Target::bind());
    let port = ports::free();
    let list = format!("\"{closed}\", \"{}\"", target.addr());
    let proxy = Proxy::start(&leading_to(port, &list, "balance = \"first\""));
    for first in [true, false] {
        let mut client = Peer::connect(port);
        let addr = client.addr();
        client.send(b"early");
        let mut server = target.accept();
        server.expect(b"early");
        drop((client, server));
        let line = proxy.ended_session(addr);
        assert_eq!(line.text("target"), target.addr().to_string());
        // The second client is not even led there.
        let attempts = line.has("attempts").then(|| line.number("attempts"));
        assert_eq!(attempts, first.then_some(2));
    }
    let failed = [("mapping", "m"), ("cause", "refused")];
    let failures = proxy
        .metrics()
        .sum("tml_proxy_connect_failures_total", &failed);
    assert_eq!(failures, 1);
    proxy.settles();
}

#[test]
fn a_client_is_told_when_no_target_is_left_to_try() {
    let closed = [nobody(), nobody(), nobody()];
    let port = ports::free();
    let list = closed.map(|addr| format!("\"{addr}\"")).join(", ");
    let proxy = Proxy::start(&leading_to(port, &list, ""));
    let mut client = Peer::connect(port);
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(
        (line.text("end"), line.text("reason")),
        ("SC", "connect_refused")
    );
    assert_eq!(line.number("attempts"), 3);
    assert_eq!(line.text("error"), "Connection refused");
    let failures = proxy
        .metrics()
        .sum("tml_proxy_connect_failures_total", &[("mapping", "m")]);
    assert_eq!(failures, 3);
    proxy.settles();
}

#[test]
fn a_target_that_does_not_answer_leaves_time_for_the_next() {
    let (hanging, _filling) = Target::full();
    let target = Target::bind();
    let port = ports::free();
    let list = format!("\"{}\", \"{}\"", hanging.addr(), target.addr());
    let more = "balance = \"first\"\nconnect_timeout = \"4s\"";
    let proxy = Proxy::start(&leading_to(port, &list, more));
    let mut client = Peer::connect(port);
    let addr = client.addr();
    client.exchange(&mut target.accept(), b"hello");
    drop(client);
    let line = proxy.ended_session(addr);
    assert_eq!(line.number("attempts"), 2);
    assert!(
        line.number("connect_ms") >= 2000,
        "half of the time: {line}"
    );
    let failed = [("mapping", "m"), ("cause", "timeout")];
    let failures = proxy
        .metrics()
        .sum("tml_proxy_connect_failures_total", &failed);
    assert_eq!(failures, 1);
    proxy.settles();
}

#[test]
fn the_restart_of_the_only_target_goes_unnoticed_with_retries() {
    let (addr, port) = (nobody(), ports::free());
    let proxy = Proxy::start(&leading_to(port, &format!("\"{addr}\""), "retries = 9"));
    let mut client = Peer::connect(port);
    client.send(b"SSH-2.0-x");
    proxy.wait_until("tml_proxy_connect_failures_total", &[("mapping", "m")], 1);
    let target = Target::bind_to(addr);
    let mut server = target.accept();
    server.expect(b"SSH-2.0-x");
    client.exchange(&mut server, b"welcome");
    let at = client.addr();
    drop((client, server));
    let line = proxy.ended_session(at);
    assert!(line.number("attempts") >= 2, "{line}");
    assert_eq!(line.text("target"), addr.to_string());
    proxy.settles();
}

#[test]
fn a_client_that_goes_while_a_target_is_tried_again_ends_its_session() {
    let (addr, port) = (nobody(), ports::free());
    let proxy = Proxy::start(&leading_to(port, &format!("\"{addr}\""), "retries = 9"));
    let client = Peer::connect(port);
    proxy.wait_until("tml_proxy_connect_failures_total", &[("mapping", "m")], 1);
    let at = client.addr();
    client.reset();
    assert_eq!(proxy.ended_session(at).text("reason"), "client_gone");
    proxy.settles();
}

/// It has been reached: what it does then is for the client to see.
#[test]
fn a_target_that_accepts_and_resets_is_not_passed_over() {
    let stage = Stage::new(2, "balance = \"first\"");
    let mut client = Peer::connect(stage.port);
    stage.targets[0].accept().reset();
    client.expect_reset();
    let line = stage.proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "target_reset");
    assert!(!line.has("attempts"), "{line}");
    assert!(!stage.targets[1].is_called(Duration::from_millis(100)));
    stage.finish();
}

#[test]
fn a_backup_serves_while_no_other_target_can() {
    let (addr, backup) = (nobody(), Target::bind());
    let port = ports::free();
    let list = format!(
        "{{ address = \"{}\", backup = true }}, \"{addr}\"",
        backup.addr()
    );
    let proxy = Proxy::start(&leading_to(port, &list, ""));
    let led = |to: &Target| {
        let mut client = Peer::connect(port);
        client.exchange(&mut to.accept(), b"hello");
        let addr = client.addr();
        drop(client);
        proxy.ended_session(addr)
    };
    assert_eq!(led(&backup).number("attempts"), 2);
    assert!(!led(&backup).has("attempts"));
    // It is back, which is tried when ten seconds have passed.
    let target = Target::bind_to(addr);
    while !target.is_called(Duration::from_millis(200)) {
        let client = Peer::connect(port);
        let at = client.addr();
        client.reset();
        proxy.ended_session(at);
    }
    drop(target.accept());
    led(&target);
    proxy.settles();
}
