//! Who may connect, and how many.

mod harness;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
};

use harness::{
    Line, Peer, Proxy, Scene, Setup, Target, TempDir, config, mapping, ports, process,
    proxy::{PROGRAM, wrapped},
    require::{Need, require},
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

/// The peer is reset, and the proxy says why.
#[track_caller]
fn refused(scene: &Scene, mut peer: Peer, reason: &str) -> Line {
    peer.expect_reset();
    let line = scene.ends(peer.addr(), reason, 0, 0);
    assert!(!line.has("local"), "a refused client costs no connection");
    line
}

#[track_caller]
fn served(scene: &Scene, mut peer: Peer) {
    let mut server = scene.target.accept();
    peer.exchange(&mut server, b"welcome");
    let addr = peer.addr();
    drop((peer, server));
    scene.ends(addr, "closed", 7, 7);
}

#[test]
fn a_client_that_is_denied_is_reset() {
    let scene = Scene::new("deny = [\"127.0.0.2/32\"]");
    let line = refused(
        &scene,
        Peer::connect_from(ip("127.0.0.2"), scene.port),
        "denied",
    );
    assert_eq!(line.text("end"), "PC");
    served(&scene, Peer::connect_from(ip("127.0.0.3"), scene.port));
    served(&scene, Peer::connect_from(ip("::1"), scene.port));
    let metrics = scene.proxy.metrics();
    let denied = [("mapping", "m"), ("reason", "denied")];
    assert_eq!(metrics.sum("tml_proxy_sessions_ended_total", &denied), 1);
    scene.finish();
}

#[test]
fn with_an_allow_list_all_others_are_reset() {
    let scene = Scene::new("allow = [\"127.0.0.2/31\", \"::1/128\"]");
    served(&scene, Peer::connect_from(ip("127.0.0.2"), scene.port));
    served(&scene, Peer::connect_from(ip("127.0.0.3"), scene.port));
    served(&scene, Peer::connect_from(ip("::1"), scene.port));
    refused(
        &scene,
        Peer::connect_from(ip("127.0.0.4"), scene.port),
        "denied",
    );
    scene.finish();
}

#[test]
fn what_is_denied_stays_denied_within_what_is_allowed() {
    let scene = Scene::new("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.2\"]");
    served(&scene, Peer::connect_from(ip("127.0.0.1"), scene.port));
    refused(
        &scene,
        Peer::connect_from(ip("127.0.0.2"), scene.port),
        "denied",
    );
    refused(&scene, Peer::connect_from(ip("::1"), scene.port), "denied");
    scene.finish();
}

/// On a dual-stack socket the kernel reports an IPv4 client by an IPv6 address; nobody wants to
/// read, or write into lists, anything but the IPv4 one.
#[test]
fn an_ipv4_client_of_a_dual_stack_socket_is_an_ipv4_client() {
    let scene = Scene::new("");
    let peer = Peer::connect_from(ip("127.0.0.5"), scene.port);
    let addr = peer.addr();
    served(&scene, peer);
    let line = scene.proxy.ended_session(addr);
    assert_eq!(line.text("client"), format!("127.0.0.5:{}", addr.port()));
    scene.finish();
}

#[test]
fn an_address_listened_on_decides_who_reaches_it() {
    let target = Target::bind();
    let [any, v4, v6, one] = [0; 4].map(|_| ports::free());
    let to = target.addr();
    let proxy = Proxy::start(&config([
        mapping("any", format!("*:{any}"), to, ""),
        mapping("v4", format!("0.0.0.0:{v4}"), to, ""),
        mapping("v6", format!("[::]:{v6}"), to, ""),
        mapping("one", format!("127.0.0.7:{one}"), to, ""),
    ]));
    let reaches = |host: &str, port: u16| {
        let mut peer = Peer::try_connect_to(SocketAddr::from((ip(host), port))).ok()?;
        let mut server = target.accept();
        peer.exchange(&mut server, b"hello");
        Some(peer.addr())
    };
    assert!(reaches("127.0.0.1", any).is_some());
    assert!(reaches("::1", any).is_some());
    assert!(reaches("127.0.0.1", v4).is_some());
    assert!(reaches("::1", v4).is_none());
    assert!(reaches("127.0.0.1", v6).is_none());
    assert!(reaches("::1", v6).is_some());
    assert!(reaches("127.0.0.1", one).is_none());
    assert!(reaches("127.0.0.7", one).is_some());
    proxy.settles();
}

#[test]
fn a_mapping_that_is_full_resets_the_next_client_until_one_leaves() {
    let scene = Scene::new("max_sessions = 2");
    let (mut first, mut first_server) = scene.pair();
    let (mut second, mut second_server) = scene.pair();
    let line = refused(&scene, Peer::connect(scene.port), "mapping_full");
    assert_eq!(line.text("end"), "PC");
    first.exchange(&mut first_server, b"not affected");
    second.exchange(&mut second_server, b"not affected");

    let addr = first.addr();
    drop((first, first_server));
    scene.ends(addr, "closed", 12, 12);
    served(&scene, Peer::connect(scene.port));
    drop((second, second_server));
    scene.finish();
}

#[test]
fn a_process_that_is_full_resets_the_next_client_until_one_leaves() {
    let process = "[limits]\nmax_sessions = 3\n";
    let scene = Scene::with(&Setup::default(), process, "");
    let mut pairs: Vec<(Peer, Peer)> = (0..3).map(|_| scene.pair()).collect();
    assert_eq!(
        scene.proxy.metrics().sum("tml_proxy_sessions_limit", &[]),
        3
    );
    let line = refused(&scene, Peer::connect(scene.port), "no_resources");
    assert_eq!(line.text("end"), "RC");
    for (client, server) in &mut pairs {
        client.exchange(server, b"not affected");
    }
    let (client, server) = pairs.pop().expect("three");
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 12, 12);
    served(&scene, Peer::connect(scene.port));
    drop(pairs);
    scene.finish();
}

/// The budget computed from a low limit keeps the process from ever running into it.
#[test]
fn a_low_descriptor_limit_means_few_sessions_not_trouble() {
    if !require(&[Need::Tool("prlimit")]) {
        return;
    }
    let setup = Setup {
        through: ["prlimit", "--nofile=192:192"].map(str::to_owned).to_vec(),
        ..Setup::default()
    };
    let scene = Scene::with(&setup, "", "");
    let limit = scene.proxy.metrics().sum("tml_proxy_sessions_limit", &[]);
    assert!(
        (1..64).contains(&limit),
        "{limit} sessions with 192 descriptors"
    );

    let mut pairs: Vec<(Peer, Peer)> = (0..limit).map(|_| scene.pair()).collect();
    for _ in 0..20 {
        refused(&scene, Peer::connect(scene.port), "no_resources");
    }
    for (client, server) in &mut pairs {
        client.exchange(server, &[b'x'; 100_000]);
    }
    let metrics = scene.proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_accept_errors_total", &[]), 0);
    assert_eq!(
        metrics.sum("tml_proxy_connect_failures_total", &[("cause", "local")]),
        0
    );
    drop(pairs);
    scene.proxy.settles();
    served(&scene, Peer::connect(scene.port));
    scene.finish();
}

fn within(descriptors: usize) -> Setup<'static> {
    let limit = format!("--nofile={descriptors}:{descriptors}");
    Setup {
        through: vec!["prlimit".to_owned(), limit],
        ..Setup::default()
    }
}

/// A proxy that cannot serve anybody must not say that it is ready.
#[test]
fn a_descriptor_limit_that_leaves_no_session_is_an_error_at_the_start() {
    if !require(&[Need::Tool("prlimit")]) {
        return;
    }
    let dir = TempDir::new();
    let text = config([mapping("m", ports::free(), "[::1]:22", "")]);
    let file = dir.write("proxy.toml", text);
    let mut command = wrapped(&within(64), &dir, Path::new(PROGRAM));
    command.args(["run", "--config"]).arg(file);
    let output = process::output(&mut command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the limit on open files is 64"), "{said}");
    assert!(said.contains("LimitNOFILE="), "{said}");
}

/// With all sessions taken, whoever wants to know why is answered, and the reload that helps is read.
#[test]
fn a_full_process_answers_everybody_who_could_help() {
    if !require(&[Need::Tool("prlimit")]) {
        return;
    }
    let (target, dir) = (Target::bind(), TempDir::new());
    let port = ports::free();
    let first = ports::range(42);
    let socket = dir.join("admin.sock");
    let admin = format!("[admin]\nsocket = \"{}\"\n", socket.display());
    let process = "[process]\npipes = 4\n";
    let of = |more: &str| {
        config([
            process,
            &admin,
            &mapping("m", port, target.addr(), ""),
            more,
        ])
    };
    let range = |last: u16| {
        let listen = format!("{first}-{last}");
        format!("[[mapping]]\nname = \"range\"\nlisten = \"{listen}\"\ntarget = \"[::1]:1\"\n")
    };
    let proxy = Proxy::start_with(&within(320), &of(""));
    let limit = || proxy.metrics().sum("tml_proxy_sessions_limit", &[]);
    let alone = limit();
    let mut pairs: Vec<(Peer, Peer)> = (0..10)
        .map(|_| (Peer::connect(port), target.accept()))
        .collect();

    // The limit follows the listeners, and the sessions stay.
    proxy.reload(&of(&range(first + 39)));
    assert_eq!(limit(), alone - 20);
    for (client, server) in &mut pairs {
        client.exchange(server, b"through a reload");
    }
    // What does not fit is refused with both numbers, and changes nothing.
    let many = "[[mapping]]\nname = \"many\"\nlisten = \"127.0.0.9:2000-2599\"\n\
                target = \"[::1]:1\"\n";
    let line = proxy.reload_fails(&of(many));
    let error = line.text("error");
    assert!(error.contains("the limit on open files is 320"), "{error}");
    assert!(error.contains("601 listeners"), "{error}");
    assert_eq!(limit(), alone - 20);

    let full = usize::try_from(limit()).expect("few");
    while pairs.len() < full {
        pairs.push((Peer::connect(port), target.accept()));
    }
    let mut late = Peer::connect(port);
    late.expect_reset();
    let line = proxy.ended_session(late.addr());
    assert_eq!(line.text("reason"), "no_resources");
    for _ in 0..5 {
        let (status, _) = proxy.page("/readyz");
        assert!(status.contains(" 200 "), "{status}");
        assert_eq!(
            proxy.metrics().sum("tml_proxy_sessions_open", &[]),
            full as u64
        );
        let mut status = Command::new(PROGRAM);
        status.args(["status", "--socket"]).arg(&socket);
        let status = process::succeed(&mut status);
        assert!(status.contains(&format!("All {full} sessions")), "{status}");
    }
    // There is no room for further listeners beside them.
    let line = proxy.reload_fails(&of(&range(first + 41)));
    let error = line.text("error");
    assert!(error.contains("2 more listeners"), "{error}");
    // The reload that helps.
    proxy.reload(&of(""));
    assert_eq!(limit(), alone);
    for _ in 0..20 {
        let mut client = Peer::connect(port);
        client.exchange(&mut target.accept(), b"served again");
    }
    for (client, server) in &mut pairs {
        client.exchange(server, b"all along");
    }
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_accept_errors_total", &[]), 0);
    drop(pairs);
    proxy.settles();
}
