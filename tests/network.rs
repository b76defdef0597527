//! Networks that fail or are unlike loopback: no route, hosts that fall silent, small segments.
//!
//! Needs root, for network namespaces.

mod harness;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use harness::{
    Line, Peer, Proxy, Setup, Stream, Target, TempDir, config,
    lab::{Lab, PORT, PROXY, TARGET},
    mapping, process,
    proxy::PROGRAM,
    require::{Need, require},
    wait_until,
};

/// Three networks in a row, where this machine can have them.
fn lab() -> Option<Lab> {
    require(&[Need::Root, Need::Tool("ip")]).then(Lab::new)
}

/// An address of the network behind the target's.
fn beyond() -> SocketAddr {
    "[fd9d:773b:e6f8:2::20]:22".parse().expect("a literal")
}

/// The client of the mapping is reset, for that reason, and it is counted under that cause.
#[track_caller]
fn cannot_connect(lab: &Lab, proxy: &Proxy, reason: &str, cause: &str) {
    let mut client = lab.connect(PORT);
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), reason);
    assert_eq!((line.number("bytes_up"), line.number("bytes_down")), (0, 0));
    let labels = [("mapping", "m"), ("cause", cause)];
    proxy.wait_until("tml_proxy_connect_failures_total", &labels, 1);
    proxy.settles();
}

#[test]
fn a_target_without_a_route_is_unreachable() {
    let Some(lab) = lab() else { return };
    let proxy = lab.proxy_to(beyond(), "");
    cannot_connect(&lab, &proxy, "connect_unreachable", "unreachable");
}

#[test]
fn a_target_that_a_router_cannot_reach_is_unreachable() {
    let Some(lab) = lab() else { return };
    lab.proxy
        .ip(&format!("route add fd9d:773b:e6f8:2::/64 via {TARGET}"));
    lab.target.sysctl("net.ipv6.conf.all.forwarding", "1");
    lab.target.ip("route add unreachable fd9d:773b:e6f8:2::/64");
    let proxy = lab.proxy_to(beyond(), "");
    cannot_connect(&lab, &proxy, "connect_unreachable", "unreachable");
}

#[test]
fn a_target_that_answers_nothing_runs_out_of_time() {
    let Some(lab) = lab() else { return };
    lab.proxy
        .ip(&format!("route add fd9d:773b:e6f8:2::/64 via {TARGET}"));
    lab.target.sysctl("net.ipv6.conf.all.forwarding", "1");
    lab.target.ip("route add blackhole fd9d:773b:e6f8:2::/64");
    let proxy = lab.proxy_to(beyond(), "connect_timeout = \"300ms\"");
    cannot_connect(&lab, &proxy, "connect_timeout", "timeout");
}

/// Where nobody listens, the kernel may call from the very port it calls: such a connection leads
/// back to itself, and whatever the client sent would come back to it.
#[test]
fn a_dead_port_of_this_machine_is_refused_even_if_it_is_the_one_to_call_from() {
    let Some(lab) = lab() else { return };
    let target = "[::1]:40001".parse().expect("a literal");
    let proxy = lab.proxy_to(target, "");
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "40000 40001");
    for _ in 0..10 {
        let mut client = lab.connect(PORT);
        client.expect_reset();
        let line = proxy.ended_session(client.addr());
        assert_eq!(line.text("reason"), "connect_refused");
        assert_eq!((line.number("bytes_up"), line.number("bytes_down")), (0, 0));
    }
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "32768 60999");
    proxy.settles();
}

/// Where any address can be bound, as with keepalived, binding says nothing about whose it is.
#[test]
fn a_loop_is_found_where_foreign_addresses_can_be_bound() {
    let Some(lab) = lab() else { return };
    lab.proxy.ip("route add local 192.0.2.0/24 dev lo");
    lab.proxy.ip("-6 route add local 2001:db8::/64 dev lo");
    for value in ["0", "1"] {
        lab.proxy.sysctl("net.ipv4.ip_nonlocal_bind", value);
        lab.proxy.sysctl("net.ipv6.ip_nonlocal_bind", value);
        let dir = TempDir::new();
        let check = |target: &str| {
            let text = config([mapping("m", PORT, format!("{target}:{PORT}"), "")]);
            let file = dir.write("proxy.toml", text);
            let mut command = lab.proxy.command(PROGRAM);
            process::output(command.args(["check", "--config"]).arg(file))
        };
        for own in [
            "198.51.100.1",
            "[fd9d:773b:e6f8:1::1]",
            // A prefix that is routed here as a whole.
            "192.0.2.77",
            "[2001:db8::77]",
        ] {
            let said = String::from_utf8_lossy(&check(own).stderr).into_owned();
            assert!(said.contains("connections would loop"), "{own}: {said}");
        }
        for other in ["198.51.100.2", "[fd9d:773b:e6f8:1::10]", "203.0.113.1"] {
            assert_eq!(check(other).status.code(), Some(0), "{other}");
        }
    }
}

/// A session over the lab that has exchanged a few bytes.
fn session(lab: &Lab, more: &str) -> (Proxy, Target, Peer, Peer) {
    let target = lab.listen(22);
    let proxy = lab.proxy_to(target.addr(), more);
    let (client, server) = lab.pair(&target);
    (proxy, target, client, server)
}

/// The session of that client ends in a reset of the peer that is left, for that reason.
#[track_caller]
fn is_lost(proxy: &Proxy, client: SocketAddr, left: &mut Peer, reason: &str) -> Line {
    left.expect_reset();
    let line = proxy.ended_session(client);
    assert_eq!(line.text("reason"), reason);
    proxy.settles();
    line
}

/// With bytes under way keepalive does not help; the user timeout does.
#[test]
fn a_host_that_vanishes_with_bytes_under_way_is_noticed() {
    let Some(lab) = lab() else { return };
    let more = "user_timeout = \"1s\"\nkeepalive = \"off\"";
    let (proxy, _target, client, mut server) = session(&lab, more);
    lab.client.ip("link set near down");
    server.send(b"into the void");
    let line = is_lost(&proxy, client.addr(), &mut server, "client_lost");
    assert_eq!(line.text("end"), "CD");
    // What was not acknowledged was not delivered.
    assert_eq!((line.number("bytes_up"), line.number("bytes_down")), (5, 5));

    let lab = Lab::new();
    let (proxy, _target, mut client, _server) = session(&lab, more);
    lab.target.ip("link set far down");
    client.send(b"into the void");
    let line = is_lost(&proxy, client.addr(), &mut client, "target_lost");
    assert_eq!(line.text("end"), "SD");
    assert_eq!((line.number("bytes_up"), line.number("bytes_down")), (5, 5));
}

#[test]
fn a_host_that_vanishes_from_a_quiet_session_is_noticed() {
    let Some(lab) = lab() else { return };
    let more = "keepalive = { idle = \"1s\", interval = \"1s\", count = 1 }\n\
                user_timeout = \"off\"";
    let (proxy, _target, client, mut server) = session(&lab, more);
    lab.client.ip("link set near down");
    is_lost(&proxy, client.addr(), &mut server, "client_lost");

    let lab = Lab::new();
    let (proxy, _target, mut client, _server) = session(&lab, more);
    lab.target.ip("link set far down");
    is_lost(&proxy, client.addr(), &mut client, "target_lost");
}

/// A reader that pauses is there as long as its host answers, and its host may vanish.
#[test]
fn a_host_that_vanishes_while_its_reader_pauses_is_noticed() {
    let Some(lab) = lab() else { return };
    let more = "user_timeout = \"1s\"\nkeepalive = \"off\"";
    let (proxy, _target, client, mut server) = session(&lab, more);
    let mut stream = Stream::new(1);
    server.offer_stream(&mut stream, 256_000_000, Duration::from_millis(300));
    assert!(stream.position() < 256_000_000, "the path takes everything");
    lab.client.ip("link set near down");
    is_lost(&proxy, client.addr(), &mut server, "client_lost");
}

/// The kernel's own option for it would end the session with the first probe that is lost after that
/// time.
#[test]
fn as_many_probes_may_be_lost_as_configured_whatever_user_timeout_is() {
    let Some(lab) = lab() else { return };
    let more = "keepalive = { idle = \"1s\", interval = \"1s\", count = 60 }\n\
                user_timeout = \"2s\"";
    let (proxy, _target, mut client, mut server) = session(&lab, more);
    lab.client.ip("link set near down");
    wait_until("four probes to be lost", || {
        process::unanswered_probes(proxy.id()) >= 4
    });
    lab.client.ip("link set near up");
    client.exchange(&mut server, b"still here");
    drop((client, server));
    proxy.settles();
}

/// And a longer `user_timeout` does not make the probes wait.
#[test]
fn a_host_that_vanishes_is_noticed_by_keepalive_whatever_user_timeout_is() {
    let Some(lab) = lab() else { return };
    let more = "keepalive = { idle = \"1s\", interval = \"1s\", count = 2 }\n\
                user_timeout = \"10m\"";
    let (proxy, _target, client, mut server) = session(&lab, more);
    lab.client.ip("link set near down");
    is_lost(&proxy, client.addr(), &mut server, "client_lost");
}

/// A peer that has closed its socket looks like one that has only finished sending, until its kernel
/// has forgotten it: then it answers a probe with a reset.
#[test]
fn a_half_closed_session_ends_when_its_peer_is_gone_and_stays_while_it_is_there() {
    let Some(lab) = lab() else { return };
    lab.client.sysctl("net.ipv4.tcp_fin_timeout", "1");
    // Its kernel may answer the first probe as it would that of a live peer.
    let more = "keepalive = { idle = \"1s\", interval = \"1s\" }";
    let (proxy, target, mut waiting, mut answering) = session(&lab, more);
    waiting.finish();
    answering.expect_end();
    let gone = lab.connect(PORT);
    let mut server = target.accept();
    let addr = gone.addr();
    drop(gone);
    server.expect_end();
    let line = proxy.ended_session(addr);
    assert_eq!(line.text("reason"), "client_reset");
    answering.send(b"the answer");
    drop(answering);
    waiting.expect(b"the answer");
    waiting.expect_end();
    let line = proxy.ended_session(waiting.addr());
    assert_eq!(line.text("reason"), "closed");
    proxy.settles();
}

/// By default nobody is given up sooner than by a connection without a proxy: an idle host has two
/// hours, and one with bytes on their way what the kernel gives it.
#[test]
fn a_host_that_is_away_has_two_hours_to_come_back() {
    let policy = tml_proxy::table::Policy::default();
    let keepalive = policy.keepalive.expect("probes keep addresses translated");
    let patience = keepalive.idle + keepalive.interval * keepalive.count;
    assert!(patience >= Duration::from_secs(2 * 3600), "{patience:?}");
    assert!(keepalive.idle <= Duration::from_secs(60) && keepalive.interval <= keepalive.idle);
    assert_eq!(policy.user_timeout, None);
    assert_eq!(policy.idle_timeout, None);
    assert_eq!(policy.half_close_timeout, None);
    let Some(lab) = lab() else { return };
    let (proxy, _target, mut client, mut server) = session(&lab, "");
    let socket = format!("sport = :{PORT}");
    let shown = process::succeed(lab.proxy.command("ss").args(["-Htno", &socket]));
    assert!(shown.contains("timer:(keepalive,"), "{shown}");
    client.exchange(&mut server, b"and on");
    drop((client, server));
    proxy.settles();
}

/// A link that fails for a while costs time, not the session.
#[test]
fn a_link_that_comes_back_in_time_costs_nothing() {
    let Some(lab) = lab() else { return };
    let (proxy, _target, mut client, mut server) = session(&lab, "");
    lab.client.ip("link set near down");
    server.send(b"meanwhile");
    proxy.wait_until("tml_proxy_bytes_total", &[("direction", "down")], 14);
    lab.client.ip("link set near up");
    client.expect(b"meanwhile");
    client.exchange(&mut server, b"and on");
    drop((client, server));
    proxy.settles();
}

/// Segments of one packet each fill a pipe long before its size in bytes is reached. Loopback
/// never sends such; the internet does.
#[test]
fn small_segments_arrive_whole() {
    if !require(&[Need::Root, Need::Tool("ip"), Need::Tool("ethtool")]) {
        return;
    }
    const LENGTH: u64 = 60_000_000;
    let lab = Lab::new();
    lab.without_offloads();
    let target = lab.listen(22);
    let proxy = lab.proxy_to(target.addr(), "");
    lab.bulk_passes(&proxy, &target, LENGTH);
    let spliced = proxy.metrics().sum("tml_proxy_spliced_bytes_total", &[]);
    assert!(spliced > 2 * LENGTH, "only {spliced} bytes spliced");
    proxy.settles();
}

/// The proxy takes the address it is told to call from.
#[test]
fn the_source_address_is_the_one_configured() {
    let Some(lab) = lab() else { return };
    lab.proxy
        .ip("addr add fd9d:773b:e6f8:1::99/64 dev back nodad");
    let target = lab.listen(22);
    let more = "bind = \"fd9d:773b:e6f8:1::99\"";
    let proxy = lab.proxy_to(target.addr(), more);
    let client = lab.connect(PORT);
    let server = target.accept();
    let source = server.stream().peer_addr().expect("connected");
    assert_eq!(source.ip().to_string(), "fd9d:773b:e6f8:1::99");
    let addr = client.addr();
    drop((client, server));
    let line = proxy.ended_session(addr);
    assert_eq!(line.text("local"), source.to_string());
    proxy.settles();
}

/// An address that appears only later can be listened on beforehand.
#[test]
fn an_address_that_comes_later_is_listened_on_with_freebind() {
    let Some(lab) = lab() else { return };
    let target = lab.listen(22);
    let late = "198.51.100.77";
    let text = |more: &str| {
        config([
            mapping("m", PORT, target.addr(), ""),
            mapping("late", format!("{late}:{PORT}"), target.addr(), more),
        ])
    };
    let first = config([mapping("m", PORT + 1, target.addr(), "")]);
    let proxy = Proxy::start_with(&lab.setup(), &first);
    proxy.reload_fails(&text("").replace(&format!("\"{PORT}\""), "\"1\""));
    let moved = text("freebind = true").replace(&format!("\"{PORT}\""), "\"1\"");
    proxy.reload(&moved);
    lab.proxy.ip(&format!("addr add {late}/24 dev front"));
    let mut client = lab.client.run(|| {
        Peer::connect_to((late.parse::<std::net::Ipv4Addr>().expect("a literal"), PORT).into())
    });
    client.exchange(&mut target.accept(), b"hello");
    drop(client);
    proxy.settles();
}

/// The address of a pair of machines that stand in for each other, as with keepalived, while it is
/// on the machine of the proxy.
#[test]
fn a_target_that_moves_to_this_machine_does_not_loop_and_is_served_once_it_is_elsewhere() {
    let Some(lab) = lab() else { return };
    let shared = "fd9d:773b:e6f8:1::77";
    lab.target
        .ip(&format!("addr add {shared}/64 dev far nodad"));
    let (here, there) = (
        lab.listen(22),
        lab.target
            .run(|| Target::bind_to(format!("[{shared}]:{PORT}").parse().expect("an address"))),
    );
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    let text = config([
        format!("[admin]\nsocket = {socket:?}\n[limits]\nmax_sessions = 200\n"),
        mapping("moves", PORT, there.addr(), ""),
        mapping("stays", PORT + 1, here.addr(), ""),
    ]);
    let proxy = Proxy::start_with(&lab.setup(), &text);
    let order = |words: [&str; 2]| {
        let mut command = Command::new(PROGRAM);
        process::succeed(command.args(words).arg("--socket").arg(&socket))
    };
    let (mut before, mut neighbour) = (lab.connect(PORT), lab.connect(PORT + 1));
    let (mut its_target, mut other_target) = (there.accept(), here.accept());
    before.exchange(&mut its_target, b"before");
    neighbour.exchange(&mut other_target, b"before");
    for _ in 0..2 {
        let lines = proxy.log().len();
        lab.target.ip(&format!("addr del {shared}/64 dev far"));
        lab.proxy
            .ip(&format!("addr add {shared}/64 dev back nodad"));
        let client = lab.client.run(|| TcpStream::connect((PROXY, PORT)).ok());
        let line = proxy.wait_for_line(lines, "listener closed until its target is elsewhere");
        assert_eq!(line.text("mapping"), "moves");
        assert!(line.text("error").contains("connections would loop"));
        proxy.wait_until("tml_proxy_listeners_closed", &[], 1);
        // Neither is tried again while it would loop, nor does an operator's word open it.
        order(["drain", "moves"]);
        proxy.wait_until("tml_proxy_listeners_closed", &[], 0);
        order(["resume", "moves"]);
        proxy.wait_until("tml_proxy_listeners_closed", &[], 1);
        proxy.wait_until("tml_proxy_sessions_open", &[], 2);
        neighbour.exchange(&mut other_target, b"meanwhile");
        drop(client);
        lab.proxy.ip(&format!("addr del {shared}/64 dev back"));
        lab.target
            .ip(&format!("addr add {shared}/64 dev far nodad"));
        proxy.wait_until("tml_proxy_listeners_closed", &[], 0);
        lab.connect(PORT).exchange(&mut there.accept(), b"again");
        before.exchange(&mut its_target, b"after");
    }
    drop((before, its_target, neighbour, other_target));
    proxy.settles();
}

/// An admin address on a mesh that is not up yet is no reason not to forward.
#[test]
fn an_admin_address_that_comes_later_is_served_then() {
    let Some(lab) = lab() else { return };
    let target = lab.listen(22);
    let late = "198.51.100.78:9422".parse().expect("an address");
    let setup = Setup {
        admin_in_file: Some(late),
        ..lab.setup()
    };
    let admin = format!("[admin]\nlisten = \"{late}\"\n[log]\nformat = \"json\"\n");
    let proxy = Proxy::start_with(
        &setup,
        &config([admin, mapping("m", PORT, target.addr(), "")]),
    );
    let line = proxy.wait_for_line(0, "this machine does not have the address yet");
    assert_eq!(line.text("key"), "admin.listen");
    let mut client = lab.connect(PORT);
    client.exchange(&mut target.accept(), b"hello");
    drop(client);
    lab.proxy.ip("addr add 198.51.100.78/24 dev front");
    proxy.settles();
}

/// The lab is what it is taken for.
#[test]
fn the_lab_is_cleaned_up() {
    let Some(lab) = lab() else { return };
    let path = lab.proxy.path();
    assert!(fs::exists(&path).expect("a readable directory"));
    drop(lab);
    assert!(!fs::exists(&path).expect("a readable directory"));
}

/// What a scanner is told nothing of costs it a timeout, and here nothing is kept for it.
#[test]
fn a_client_that_is_dropped_hears_nothing_before_it_speaks() {
    let Some(lab) = lab() else { return };
    let target = lab.listen(22);
    let denied = "deny = [\"0.0.0.0/0\"]\non_refuse = ";
    let proxy = lab.proxy_to(target.addr(), &format!("{denied}\"drop\""));
    let mut client = lab.connect(PORT);
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "denied");
    proxy.rests();
    // A reset would have been here before the line of the log.
    client.stream().set_nonblocking(true).expect("a socket");
    let heard = client.stream().peek(&mut [0]).expect_err("silence");
    assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock);
    client.stream().set_nonblocking(false).expect("a socket");
    client.send(b"is anybody there?");
    client.expect_reset();

    let more = format!("{denied}\"reset\"");
    proxy.reload(&config([mapping("m", PORT, target.addr(), &more)]));
    lab.connect(PORT).expect_reset();
}
