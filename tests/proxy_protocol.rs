//! The PROXY protocol: telling a target who its client is, and being told by a trusted front.

mod harness;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use harness::{Peer, Scene, Setup, Stream, Target, both_ways, mapping, ports};

const RELAYS: [&str; 3] = ["auto", "copy", "splice"];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

fn line(source: &str, port: u16) -> String {
    format!("PROXY TCP4 {source} 192.0.2.80 {port} 443\r\n")
}

fn stated(source: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(source), port)
}

/// A scene that trusts 127.0.0.1, and nobody else.
fn trusting(more: &str) -> Scene {
    Scene::new(&format!("accept_proxy = [\"127.0.0.1\"]\n{more}"))
}

/// The line a target gets for a client of the scene.
fn expected_line(scene: &Scene, client: &Peer) -> Vec<u8> {
    let (addr, port) = (client.addr(), scene.port);
    let family = if addr.is_ipv4() { "TCP4" } else { "TCP6" };
    let to = if addr.is_ipv4() { "127.0.0.1" } else { "::1" };
    format!(
        "PROXY {family} {} {to} {} {port}\r\n",
        addr.ip(),
        addr.port()
    )
    .into_bytes()
}

#[test]
fn a_target_is_told_before_a_silent_client_says_anything() {
    for relay in RELAYS {
        let scene = Scene::new(&format!("send_proxy = \"v1\"\nrelay = \"{relay}\""));
        for source in ["127.0.0.2", "::1"] {
            let mut client = Peer::connect_from(ip(source), scene.port);
            let mut server = scene.target.accept();
            server.expect(&expected_line(&scene, &client));
            server.send(b"SSH-2.0-");
            client.expect(b"SSH-2.0-");
            client.exchange(&mut server, b"hello");
            let addr = client.addr();
            drop((client, server));
            scene.ends(addr, "closed", 5, 13);
        }
        scene.finish();
    }
}

#[test]
fn version_2_carries_the_session_and_the_mapping() {
    let scene = Scene::new("send_proxy = \"v2\"");
    let mut client = Peer::connect_from(ip("127.0.0.2"), scene.port);
    let mut server = scene.target.accept();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\x7f\0\0\x02\x7f\0\0\x01".to_vec();
    header.extend(client.addr().port().to_be_bytes());
    header.extend(scene.port.to_be_bytes());
    header.extend(b"\x05\0\x011\xe0\0\x01m");
    client.send(b"first");
    server.expect(&[&header[..], b"first"].concat());
    let addr = client.addr();
    drop((client, server));
    let line = scene.ends(addr, "closed", 5, 0);
    assert_eq!(line.number("session"), 1);
    scene.finish();
}

#[test]
fn bulk_follows_the_header_whole_in_every_relay_mode() {
    for relay in RELAYS {
        let scene = Scene::new(&format!("send_proxy = \"v1\"\nrelay = \"{relay}\""));
        let (client, mut server) = scene.pair();
        server.expect(&expected_line(&scene, &client));
        let streams = [Stream::new(1), Stream::new(2)];
        both_ways([(&client, &server, streams)], 3_000_000);
        scene.ends(client.addr(), "closed", 3_000_000, 3_000_000);
        scene.finish();
    }
}

#[test]
fn a_client_that_is_done_at_once_still_gets_its_answer() {
    for relay in RELAYS {
        let scene = Scene::new(&format!("send_proxy = \"v1\"\nrelay = \"{relay}\""));
        let mut client = Peer::connect(scene.port);
        client.send(b"question");
        client.finish();
        let mut server = scene.target.accept();
        server.expect(&[&expected_line(&scene, &client)[..], b"question"].concat());
        server.expect_end();
        server.send(b"answer");
        drop(server);
        client.expect(b"answer");
        client.expect_end();
        scene.ends(client.addr(), "closed", 8, 6);
        scene.finish();
    }
}

#[test]
fn a_target_that_resets_on_the_header_resets_the_client() {
    let scene = Scene::new("send_proxy = \"v1\"");
    let mut client = Peer::connect(scene.port);
    let mut server = scene.target.accept();
    server.expect(&expected_line(&scene, &client));
    server.reset();
    client.expect_reset();
    scene.ends(client.addr(), "target_reset", 0, 0);
    scene.finish();
}

#[test]
fn the_client_a_front_states_is_the_one_in_the_log() {
    let scene = trusting("");
    let mut front = Peer::connect(scene.port);
    front.send(line("203.0.113.9", 50622).as_bytes());
    let mut server = scene.target.accept();
    front.exchange(&mut server, b"hello");
    let peer = front.addr();
    drop((front, server));
    let line = scene.ends(stated("203.0.113.9", 50622), "closed", 5, 5);
    assert_eq!(line.text("front"), peer.to_string());
    scene.finish();
}

#[test]
fn not_a_byte_behind_the_header_is_lost_however_it_arrives() {
    let header = line("203.0.113.9", 50622);
    for relay in RELAYS {
        let scene = trusting(&format!("relay = \"{relay}\""));
        // In one piece with all the client has to say.
        let mut front = Peer::connect(scene.port);
        front.send(format!("{header}all of it").as_bytes());
        front.finish();
        let mut server = scene.target.accept();
        server.expect(b"all of it");
        server.expect_end();
        drop(server);
        front.expect_end();
        // Byte by byte.
        let mut front = Peer::connect(scene.port);
        for byte in header.as_bytes() {
            front.send(&[*byte]);
        }
        front.send(b"PROXY ");
        let mut server = scene.target.accept();
        server.expect(b"PROXY ");
        drop((front, server));
        scene.finish();
    }
}

#[test]
fn rules_and_limits_are_for_the_stated_client() {
    let scene =
        trusting("deny = [\"198.51.100.0/24\", \"2001:db8::/32\"]\nmax_sessions_per_source = 1");
    let begin = |header: String| {
        let mut front = Peer::connect(scene.port);
        front.send(header.as_bytes());
        front
    };
    let mut denied = begin(line("198.51.100.7", 1));
    denied.expect_reset();
    let log = scene.ends(stated("198.51.100.7", 1), "denied", 0, 0);
    assert_eq!(log.text("front"), denied.addr().to_string());
    begin("PROXY TCP6 2001:db8::7 2001:db8::1 2 3\r\n".to_owned()).expect_reset();
    scene.ends(stated("2001:db8::7", 2), "denied", 0, 0);

    let first = begin(line("203.0.113.1", 3));
    let first_server = scene.target.accept();
    begin(line("203.0.113.1", 4)).expect_reset();
    scene.ends(stated("203.0.113.1", 4), "source_full", 0, 0);
    let other = begin(line("203.0.113.2", 5));
    let other_server = scene.target.accept();
    drop((first, first_server, other, other_server));
    scene.finish();
}

/// Whatever somebody else sends is the target's business, also if it looks like a header.
#[test]
fn nobody_else_can_state_a_client() {
    let scene = trusting("");
    let header = line("203.0.113.9", 50622);
    for source in ["127.0.0.2", "::1"] {
        let mut client = Peer::connect_from(ip(source), scene.port);
        client.send(header.as_bytes());
        let mut server = scene.target.accept();
        server.expect(header.as_bytes());
        let addr = client.addr();
        drop((client, server));
        let line = scene.ended(addr, "closed");
        assert!(!line.has("front"));
    }
    scene.finish();
}

#[test]
fn a_front_that_speaks_for_itself_is_served_as_itself() {
    let scene = trusting("");
    let local: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for header in [b"PROXY UNKNOWN\r\n", local] {
        let mut front = Peer::connect(scene.port);
        front.send(header);
        let mut server = scene.target.accept();
        front.exchange(&mut server, b"are you there?");
        let addr = front.addr();
        drop((front, server));
        let line = scene.ends(addr, "closed", 14, 14);
        assert!(!line.has("front"));
    }
    scene.finish();
}

#[test]
fn a_front_without_a_valid_header_gets_no_session() {
    let scene = trusting("proxy_header_timeout = \"100ms\"");
    let nonsense: [&[u8]; 3] = [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.80 50622\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ];
    for header in nonsense {
        let mut front = Peer::connect(scene.port);
        front.send(header);
        front.expect_reset();
        let line = scene.ends(front.addr(), "proxy_header_invalid", 0, 0);
        assert_eq!(line.text("end"), "CC");
    }
    // It leaves in the middle of one, or before it.
    for header in ["", "PROXY TCP4 "] {
        let mut front = Peer::connect(scene.port);
        front.send(header.as_bytes());
        front.finish();
        front.expect_reset();
        scene.ends(front.addr(), "proxy_header_invalid", 0, 0);
    }
    // It says nothing, or not all.
    for header in ["", "PROXY TCP4 "] {
        let mut front = Peer::connect(scene.port);
        front.send(header.as_bytes());
        front.expect_reset();
        let line = scene.ends(front.addr(), "proxy_header_timeout", 0, 0);
        assert_eq!(line.text("end"), "cC");
        assert!(line.number("duration_ms") > 0, "{line:?}");
    }
    assert!(!scene.target.is_called(Duration::ZERO));
    let metrics = scene.proxy.metrics();
    let opened = [("mapping", "m")];
    assert_eq!(metrics.sum("tml_proxy_sessions_opened_total", &opened), 0);
    assert_eq!(metrics.sum("tml_proxy_refusals_total", &opened), 7);
    scene.finish();
}

#[test]
fn silent_fronts_are_counted_and_do_not_spin() {
    let scene = trusting("max_sessions = 2\nproxy_header_timeout = \"60s\"");
    let silent = [Peer::connect(scene.port), Peer::connect(scene.port)];
    scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 2);
    let mut third = Peer::connect(scene.port);
    third.expect_reset();
    scene.ends(third.addr(), "mapping_full", 0, 0);
    let [mut first, second] = silent;
    first.send(b"PROXY TCP4 ");
    scene.proxy.rests();
    drop((first, second));
    scene.finish();
}

/// What a front says is passed on, whatever the versions.
#[test]
fn a_stated_client_is_stated_to_the_target() {
    let scene = trusting("send_proxy = \"v1\"");
    let mut front = Peer::connect(scene.port);
    front.send(
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc0\0\x02\x50\xc5\xbe\x01\xbbhello",
    );
    let mut server = scene.target.accept();
    server.expect(format!("{}hello", line("203.0.113.9", 50622)).as_bytes());
    drop((front, server));
    scene.finish();
}

#[test]
fn a_reload_between_connection_and_header_counts() {
    let scene = trusting("proxy_header_timeout = \"60s\"");
    let mut front = Peer::connect(scene.port);
    scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 1);
    let elsewhere = Target::bind();
    let more = "accept_proxy = [\"127.0.0.1\"]";
    let new = mapping("m", scene.port, elsewhere.addr(), more);
    scene.proxy.reload(&format!("version = 1\n{new}"));
    front.send(line("203.0.113.9", 50622).as_bytes());
    let mut server = elsewhere.accept();
    front.exchange(&mut server, b"hello");
    drop((front, server));
    scene.finish();
}

/// Connections that have said nothing yet, and half of what they have to.
fn awaited(scene: &Scene) -> [Peer; 2] {
    let silent = Peer::connect(scene.port);
    let mut half = Peer::connect(scene.port);
    half.send(b"PROXY TCP4 203.0.113.9 ");
    scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 2);
    [silent, half]
}

#[track_caller]
fn all_end(scene: &Scene, fronts: [Peer; 2], reason: &str) {
    for mut front in fronts {
        front.expect_reset();
        scene.ends(front.addr(), reason, 0, 0);
    }
    assert!(!scene.target.is_called(Duration::ZERO));
}

/// Whatever becomes of its sessions: these have none yet.
#[test]
fn a_connection_whose_header_is_awaited_ends_with_its_mapping() {
    for policy in ["\"keep\"", "\"kill\"", "{ drain = \"10m\" }"] {
        let scene = trusting(&format!(
            "on_remove = {policy}\nproxy_header_timeout = \"60s\""
        ));
        let fronts = awaited(&scene);
        let other = mapping("n", ports::free(), scene.target.addr(), "");
        scene.proxy.reload(&format!("version = 1\n{other}"));
        all_end(&scene, fronts, "mapping_removed");
        scene.finish();
    }
}

#[test]
fn a_connection_whose_header_is_awaited_does_not_go_to_the_next_mapping_of_its_port() {
    let scene = trusting("proxy_header_timeout = \"60s\"");
    let fronts = awaited(&scene);
    // It trusts nobody, so that a header would be for its target.
    let elsewhere = Target::bind();
    let new = mapping("n", scene.port, elsewhere.addr(), "");
    scene.proxy.reload(&format!("version = 1\n{new}"));
    all_end(&scene, fronts, "mapping_removed");
    assert!(!elsewhere.is_called(Duration::ZERO));
    scene.finish();
}

#[test]
fn a_connection_whose_header_is_awaited_goes_on_when_its_mapping_is_renamed() {
    let scene = trusting("proxy_header_timeout = \"60s\"");
    let [mut silent, mut half] = awaited(&scene);
    let more = "accept_proxy = [\"127.0.0.1\"]\nproxy_header_timeout = \"60s\"";
    let new = mapping("n", scene.port, scene.target.addr(), more);
    scene.proxy.reload(&format!("version = 1\n{new}"));
    silent.send(line("203.0.113.9", 50622).as_bytes());
    let mut server = scene.target.accept();
    silent.exchange(&mut server, b"hello");
    half.send(b"192.0.2.1 50623 22\r\n");
    let mut other = scene.target.accept();
    half.exchange(&mut other, b"hello");
    drop((silent, server, half, other));
    for port in [50622, 50623] {
        let client = SocketAddr::from(([203, 0, 113, 9], port));
        assert_eq!(scene.ended(client, "closed").text("mapping"), "n");
    }
    scene.finish();
}

#[test]
fn a_connection_whose_header_is_awaited_ends_where_sessions_of_the_old_target_do() {
    let more = "accept_proxy = [\"127.0.0.1\"]\non_retarget = \"kill\"";
    let scene = Scene::new(more);
    let fronts = awaited(&scene);
    let elsewhere = Target::bind();
    let new = mapping("m", scene.port, elsewhere.addr(), more);
    scene.proxy.reload(&format!("version = 1\n{new}"));
    all_end(&scene, fronts, "mapping_retargeted");
    assert!(!elsewhere.is_called(Duration::ZERO));
    let metrics = scene.proxy.metrics();
    let sum = |name| metrics.sum(name, &[("mapping", "m")]);
    assert_eq!(sum("tml_proxy_sessions_ended_total"), 2);
    assert_eq!(sum("tml_proxy_sessions_opened_total"), 2);
    scene.finish();
}

#[test]
fn a_front_that_is_not_trusted_any_more_is_an_ordinary_client() {
    let scene = trusting("proxy_header_timeout = \"60s\"");
    let [silent, mut half] = awaited(&scene);
    drop(silent);
    scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 1);
    scene.proxy.reload(&scene.config(""));
    half.send(b"and so on");
    let mut server = scene.target.accept();
    server.expect(b"PROXY TCP4 203.0.113.9 and so on");
    let addr = half.addr();
    drop((half, server));
    assert!(!scene.ended(addr, "closed").has("front"));
    scene.finish();
}

/// Its header is there when the mapping goes, so it is one of those that are served a last time.
#[test]
fn a_connection_in_the_queue_of_a_removed_mapping_is_served_if_its_header_is_there() {
    let scene = trusting("");
    let other = mapping("n", ports::free(), scene.target.addr(), "");
    for _ in 0..20 {
        let mut front = Peer::connect(scene.port);
        front.send(line("203.0.113.9", 50622).as_bytes());
        front.send(b"hello");
        scene.proxy.reload(&format!("version = 1\n{other}"));
        scene.target.accept().expect(b"hello");
        drop(front);
        let both = scene.config("accept_proxy = [\"127.0.0.1\"]") + &other;
        scene.proxy.reload(&both);
    }
    scene.finish();
}

#[test]
fn a_stop_does_not_wait_for_headers_that_never_come() {
    let process = "[process]\nshutdown_timeout = \"100ms\"\n";
    let more = "accept_proxy = [\"127.0.0.1\"]\nproxy_header_timeout = \"10m\"";
    let scene = Scene::with(&Setup::default(), process, more);
    let mut front = Peer::connect(scene.port);
    scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 1);
    assert_eq!(scene.proxy.stop().code(), Some(0));
    front.expect_reset();
    // Its port is free again.
    assert!(Peer::try_connect_to(SocketAddr::new(ip("127.0.0.1"), scene.port)).is_err());
}
