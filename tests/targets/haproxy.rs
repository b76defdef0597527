//! HAProxy with the same servers.

use std::process::{Command, Stdio};

use crate::{
    Stage,
    harness::{
        Peer, Proxy, Target, TempDir, ports,
        process::{self, Running},
        require::{Need, require},
        wait_until,
    },
    leading_to,
};

/// HAProxy on a port with these servers, until it is dropped.
fn start_haproxy(dir: &TempDir, port: u16, balance: &str, servers: &[String]) -> Running {
    let mut text = format!(
        "global\n    maxconn 100\n\
         defaults\n    mode tcp\n    timeout connect 10s\n    timeout client 60s\n    \
         timeout server 60s\n    option redispatch 1\n\
         listen m\n    bind :{port}\n    balance {balance}\n"
    );
    for (number, server) in servers.iter().enumerate() {
        text.push_str(&format!("    server s{number} {server}\n"));
    }
    let file = dir.write("haproxy.cfg", text);
    let haproxy = Running::start(
        Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    wait_until("HAProxy to listen", || {
        !process::listening_inodes(haproxy.id(), port).is_empty()
    });
    haproxy
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
    let haproxy = start_haproxy(&dir, ports::free(), theirs, &servers);
    let (_, theirs) = (stage.port = port_of(&haproxy, &dir), order(&stage, clients));
    [ours, theirs]
}

fn port_of(_: &Running, dir: &TempDir) -> u16 {
    let text = std::fs::read_to_string(dir.join("haproxy.cfg")).expect("it was written");
    let port = text
        .split("bind :")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    port.and_then(|port| port.parse().ok())
        .expect("it is there")
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
