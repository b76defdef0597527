//! Connections to targets that come from the client's own address.
//!
//! Needs root and network namespaces.

mod harness;

use std::net::{IpAddr, SocketAddr};

use harness::{
    Peer, Proxy, Scene, Setup, Stream, Target, both_ways, config,
    lab::{Lab, TARGET},
    mapping, ports, process,
    proxy::{PROGRAM, as_user, wrapped},
    require::{Need, require},
};

const PORT: u16 = 22014;
const SSH: u16 = 22;

/// The lab with IPv6 in front of the proxy, and the way back for the target's answers: what
/// `src/manual/sshd.md` says.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.client.ip("addr add 2001:db8:1::2/64 dev near nodad");
    lab.proxy.ip("addr add 2001:db8:1::1/64 dev front nodad");
    lab.target
        .ip("-6 route add 2001:db8:1::/64 via fd9d:773b:e6f8:1::1 dev far");
    lab.proxy.ip(&format!(
        "-6 rule add from {TARGET} iif back ipproto tcp sport {SSH} lookup 100"
    ));
    lab.proxy.ip("-6 route add local ::/0 dev lo table 100");
    lab
}

fn public() -> SocketAddr {
    "[2001:db8:1::1]:22014".parse().expect("a literal")
}

fn target_sees(lab: &Lab, target: &Target, source: &str) -> (Peer, Peer) {
    let mut client = lab.client.run(|| Peer::connect_to(public()));
    let mut server = target.accept();
    let seen = server.stream().peer_addr().expect("it is connected");
    assert_eq!(seen.ip(), source.parse::<IpAddr>().expect("a literal"));
    client.exchange(&mut server, b"hello");
    (client, server)
}

#[test]
fn a_target_sees_the_clients_address_and_its_answers_find_back() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let lab = lab();
    let target = lab.listen(SSH);
    let listen = format!("[::]:{PORT}");
    let text = |more| config([mapping("m", &listen, target.addr(), more)]);
    let proxy = Proxy::start_with(&lab.setup(), &text("transparent = true"));
    let (client, server) = target_sees(&lab, &target, "2001:db8:1::2");
    both_ways(
        [(&client, &server, [Stream::new(1), Stream::new(2)])],
        1_000_000,
    );
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "closed");
    assert_eq!(line.text("local"), client.addr().to_string());

    // Without it the same target sees the proxy.
    proxy.reload(&text(""));
    drop(target_sees(&lab, &target, "fd9d:773b:e6f8:1::1"));
    proxy.settles();
}

#[test]
fn the_same_holds_for_ipv4() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let lab = Lab::new();
    lab.proxy.ip("addr add 192.0.2.1/24 dev back");
    lab.target.ip("addr add 192.0.2.10/24 dev far");
    lab.target.ip("route add default via 192.0.2.1");
    lab.proxy.ip(&format!(
        "-4 rule add from 192.0.2.0/24 iif back ipproto tcp sport {SSH} lookup 100"
    ));
    lab.proxy
        .ip("-4 route add local 0.0.0.0/0 dev lo table 100");
    lab.proxy.sysctl("net.ipv4.conf.back.rp_filter", "2");
    let addr: SocketAddr = "192.0.2.10:22".parse().expect("a literal");
    let target = lab.target.run(|| Target::bind_to(addr));
    let listen = format!("0.0.0.0:{PORT}");
    let proxy = Proxy::start_with(
        &lab.setup(),
        &config([mapping("m", listen, addr, "transparent = true")]),
    );
    let mut client = lab.connect(PORT);
    let mut server = target.accept();
    let seen = server.stream().peer_addr().expect("it is connected");
    assert_eq!(seen, client.addr());
    client.exchange(&mut server, b"hello");
    drop((client, server));
    proxy.settles();
}

/// A port of the client that another connection has already is not one to fail over.
#[test]
fn a_client_that_uses_a_port_twice_is_served_twice() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let lab = lab();
    let target = lab.listen(SSH);
    let more = "transparent = true";
    let proxy = Proxy::start_with(
        &lab.setup(),
        &config([
            mapping("m", format!("[::]:{PORT}"), target.addr(), more),
            mapping("n", format!("[::]:{}", PORT + 1), target.addr(), more),
        ]),
    );
    let from_port_40001_to = |port| {
        let own: SocketAddr = "[2001:db8:1::2]:40001".parse().expect("a literal");
        lab.client.run(|| {
            let to = SocketAddr::new(public().ip(), port);
            Peer::connect_prepared(to, |socket| {
                socket.set_reuse_address(true).expect("an open socket");
                socket.bind(&own.into()).expect("an address of its own");
            })
        })
    };
    let mut served = [PORT, PORT + 1].map(|port| {
        let mut client = from_port_40001_to(port);
        let mut server = target.accept();
        let seen = server.stream().peer_addr().expect("connected");
        assert_eq!(seen.ip(), client.addr().ip());
        client.exchange(&mut server, b"hello");
        (client, server)
    });
    for (client, server) in &mut served {
        client.exchange(server, b"still here");
    }
    drop(served);
    proxy.settles();
}

#[test]
fn without_the_capability_it_is_an_error_at_the_start_and_at_a_reload() {
    if !require(&[Need::Root, Need::Tool("setpriv")]) {
        return;
    }
    let setup = Setup {
        through: as_user(process::lone_user()),
        ..Setup::default()
    };
    let scene = Scene::with(&setup, "", "");
    let (mut client, mut server) = scene.pair();
    let port = ports::free();
    let wanted = mapping(
        "t",
        format!("[::]:{port}"),
        scene.target.addr(),
        "transparent = true",
    );
    let line = scene
        .proxy
        .reload_fails(&format!("{}{wanted}", scene.config("")));
    let says = "`transparent` needs the capability CAP_NET_RAW or CAP_NET_ADMIN";
    assert!(line.text("error").contains(says), "{line}");
    client.exchange(&mut server, b"not affected");

    let mut command = wrapped(&setup, scene.proxy.dir(), PROGRAM.as_ref());
    command.args(["run", "--config"]).arg(scene.proxy.file());
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains(says));
    drop((client, server));
    scene.finish();
}
