//! HAProxy with the same servers.

use std::{io::Read, net::IpAddr};

use crate::{
    Stage,
    harness::{
        Peer, Proxy, Target, TempDir, other_proxies, ports,
        process::Running,
        require::{Need, require},
        wait_until,
    },
    leading_to,
};

/// HAProxy on a port with these servers, until it is dropped.
fn start_haproxy(dir: &TempDir, port: u16, balance: &str, servers: &[String]) -> Running {
    let mut text = format!(
        "global\n    maxconn 100\n    nbthread 1\n\
         defaults\n    mode tcp\n    timeout connect 10s\n    timeout client 60s\n    \
         timeout server 60s\n    timeout queue 60s\n    option redispatch 1\n\
         listen m\n    bind :{port}\n    balance {balance}\n"
    );
    for (number, server) in servers.iter().enumerate() {
        text.push_str(&format!("    server s{number} {server}\n"));
    }
    other_proxies::haproxy(dir, &text, port)
}

/// What is said of each target of ours, and of each server there.
type Said = &'static [(&'static str, &'static str)];

/// The targets of clients that come one after the other and stay, through both.
fn orders(balance: &str, theirs: &str, said: Said, clients: usize) -> [Vec<usize>; 2] {
    let port = ports::free();
    let targets: Vec<_> = said.iter().map(|_| Target::bind()).collect();
    let each = targets.iter().zip(said);
    let list: Vec<_> = each
        .clone()
        .map(|(target, (ours, _))| format!("{{ address = \"{}\"{ours} }}", target.addr()))
        .collect();
    let servers: Vec<_> = each
        .map(|(target, (_, theirs))| format!("{} {theirs}", target.addr()))
        .collect();
    let dir = TempDir::new();
    let more = format!("balance = \"{balance}\"");
    let mut stage = Stage {
        proxy: Proxy::start(&leading_to(port, &list.join(", "), &more)),
        targets,
        port,
    };
    let ours = order(&stage, clients);
    stage.port = ports::free();
    let _haproxy = start_haproxy(&dir, stage.port, theirs, &servers);
    [ours, order(&stage, clients)]
}

fn order(stage: &Stage, clients: usize) -> Vec<usize> {
    let mut held: Vec<(Peer, usize, Peer)> = Vec::new();
    for _ in 0..clients {
        held.push(stage.pair());
    }
    held.iter().map(|(_, number, _)| *number).collect()
}

fn shares(order: &[usize]) -> Vec<usize> {
    let targets = order.iter().max().map_or(0, |last| last + 1);
    (0..targets)
        .map(|target| order.iter().filter(|number| **number == target).count())
        .collect()
}

#[test]
fn targets_share_clients_as_servers_of_haproxy_do() {
    if !require(&[Need::Tool("haproxy")]) {
        return;
    }
    let weights: Said = &[
        (", weight = 3", "weight 3"),
        ("", "weight 1"),
        (", weight = 2", "weight 2"),
    ];
    let plain: Said = &[("", ""), ("", ""), ("", "")];
    let room: Said = &[
        (", max_sessions = 2", "maxconn 2"),
        (", max_sessions = 3", "maxconn 3"),
        ("", ""),
    ];
    for (ours, theirs, said, clients) in [
        ("round-robin", "roundrobin", plain, 9),
        ("round-robin", "roundrobin", weights, 12),
        ("least-sessions", "leastconn", plain, 9),
        ("least-sessions", "leastconn", weights, 12),
        ("first", "first", room, 7),
    ] {
        let [mine, other] = orders(ours, theirs, said, clients);
        println!("{ours} {said:?}: {mine:?}, HAProxy {other:?}");
        assert_eq!(shares(&mine), shares(&other), "{ours} {said:?}");
    }
}

#[test]
fn a_server_that_refuses_is_passed_over_and_a_backup_used_as_by_haproxy() {
    if !require(&[Need::Tool("haproxy")]) {
        return;
    }
    let (ours, theirs) = (ports::free(), ports::free());
    let closed = format!("127.0.0.1:{}", ports::free());
    let target = Target::bind();
    let list = format!("\"{closed}\", \"{}\"", target.addr());
    let proxy = Proxy::start(&leading_to(ours, &list, ""));
    let dir = TempDir::new();
    let servers = [closed, target.addr().to_string()];
    let _haproxy = start_haproxy(&dir, theirs, "roundrobin", &servers);
    for port in [ours, theirs] {
        for _ in 0..3 {
            let mut client = Peer::connect(port);
            client.send(b"early");
            let mut server = target.accept();
            server.expect(b"early");
            server.exchange(&mut client, b"welcome");
        }
    }
    proxy.settles();
}

/// Clients that call from addresses of their own, and the target each is led to.
fn of_sources(stage: &Stage, sources: &[IpAddr]) -> Vec<usize> {
    let led = |source: &IpAddr| stage.pair_from(*source).1;
    sources.iter().map(led).collect()
}

#[test]
fn clients_keep_their_target_by_their_address_as_with_haproxy() {
    const TARGETS: usize = 4;
    if !require(&[Need::Tool("haproxy")]) {
        return;
    }
    let sources: Vec<IpAddr> = (1..=60).map(|last| [127, 0, 2, last].into()).collect();
    let backwards: Vec<IpAddr> = sources.iter().rev().copied().collect();
    let targets: Vec<_> = (0..TARGETS).map(|_| Target::bind()).collect();
    let (ours, more) = (ports::free(), "balance = \"source\"");
    let addresses: Vec<_> = targets
        .iter()
        .map(|target| target.addr().to_string())
        .collect();
    let list = |some: &[String]| format!("\"{}\"", some.join("\", \""));
    let proxy = Proxy::start(&leading_to(ours, &list(&addresses), more));
    let mut stage = Stage {
        proxy,
        targets,
        port: ours,
    };
    // The servers are told from each other by their numbers, which stay when the last one goes.
    let balance = "source\n    hash-type consistent";
    let dir = TempDir::new();
    let mut led = Vec::new();
    for is_ours in [true, false] {
        let mut before_and_after = Vec::new();
        for count in [TARGETS, TARGETS - 1] {
            let some = &addresses[..count];
            let theirs = ports::free();
            let _haproxy = match is_ours {
                true => {
                    stage.proxy.reload(&leading_to(ours, &list(some), more));
                    stage.port = ours;
                    None
                }
                false => {
                    stage.port = theirs;
                    Some(start_haproxy(&dir, theirs, balance, some))
                }
            };
            let order = of_sources(&stage, &sources);
            let mut again = of_sources(&stage, &backwards);
            again.reverse();
            assert_eq!(order, again, "a client comes back to the same target");
            before_and_after.push(order);
        }
        led.push(before_and_after);
    }
    for (name, led) in ["tml-proxy", "HAProxy"].iter().zip(&led) {
        let (before, after) = (&led[0], &led[1]);
        println!("{name}: {:?}, then {:?}", shares(before), shares(after));
        for (before, after) in before.iter().zip(after) {
            let gone = *before == TARGETS - 1;
            assert!(
                gone || before == after,
                "{name}: a client of a target that stays moved"
            );
        }
        assert_eq!(shares(before).len(), TARGETS, "{name}");
    }
    // A quarter each, give or take four times the deviation of as many throws of dice.
    let mine = shares(&led[0][0]);
    assert!(
        mine.iter().all(|share| (2..=29).contains(share)),
        "{mine:?}"
    );
}

/// The names of clients that wait for the only place at a target, in the order in which they get it.
fn served(port: u16, target: &Target, waits: impl Fn(usize)) -> Vec<u8> {
    let mut client = Peer::connect(port);
    let mut server = target.accept();
    client.exchange(&mut server, b"hello");
    let mut waiting = Vec::new();
    for (number, name) in b"abcde".iter().enumerate() {
        let mut client = Peer::connect(port);
        client.send(&[*name]);
        waiting.push((*name, client));
        waits(number + 1);
    }
    let mut served = Vec::new();
    while !waiting.is_empty() {
        drop((client, server));
        server = target.accept();
        let mut name = [0];
        let read = server.stream().read_exact(&mut name);
        read.expect("its name");
        served.push(name[0]);
        let place = waiting.iter().position(|(waits, _)| *waits == name[0]);
        client = waiting.remove(place.expect("one that waits")).1;
        server.exchange(&mut client, b"welcome");
    }
    served
}

#[test]
fn clients_that_wait_are_served_in_the_order_of_haproxy() {
    if !require(&[Need::Tool("haproxy")]) {
        return;
    }
    let target = Target::bind();
    let (ours, theirs) = (ports::free(), ports::free());
    let list = format!("{{ address = \"{}\", max_sessions = 1 }}", target.addr());
    let queue = "queue = { max = 9, timeout = \"10m\" }";
    let proxy = Proxy::start(&leading_to(ours, &list, queue));
    let mine = served(ours, &target, |count| {
        wait_until("a client to wait", || {
            let (_, sessions) = proxy.page("/api/v1/sessions");
            sessions.matches("\"queued\"").count() == count
        });
    });
    let dir = TempDir::new();
    let servers = [format!("{} maxconn 1", target.addr())];
    let _haproxy = start_haproxy(&dir, theirs, "roundrobin", &servers);
    // It has one thread, which takes clients as they come.
    let other = served(theirs, &target, |_| ());
    assert_eq!(mine, b"abcde");
    assert_eq!(mine, other);
    proxy.settles();
}
