//! Targets that are names: where they lead, what changes them, and what must not.

mod harness;

#[path = "harness/dns.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod dns;

use std::{
    net::SocketAddr,
    process::{Command, Output},
    time::Duration,
};

use dns::{DnsServer, Says};
use harness::{
    Peer, Proxy, Setup, Target, TempDir, config, mapping, ports, process, proxy::PROGRAM, wait_for,
    wait_until,
};

/// Has names looked up at a server, and lets them lead to loopback.
fn asking(server: &DnsServer) -> String {
    format!(
        "[targets]\nallow = [\"127.0.0.0/8\", \"::1\"]\n[resolver]\nservers = [\"{}\"]\ntimeout = \"2s\"\n",
        server.address
    )
}

/// The address of a target, at another name.
fn at(name: &str, target: &Target) -> String {
    format!("{name}:{}", target.port())
}

/// A target at the loopback address of IPv4.
fn local() -> Target {
    Target::bind_to(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Targets at two addresses of loopback and one port.
fn two() -> [Target; 2] {
    loop {
        let one = Target::bind_to(SocketAddr::from(([127, 0, 0, 2], 0)));
        let other = SocketAddr::from(([127, 0, 0, 3], one.port()));
        if let Ok(listener) = std::net::TcpListener::bind(other) {
            return [one, Target::of(listener)];
        }
    }
}

/// A client of a port arrives at a target.
#[track_caller]
fn pair(port: u16, target: &Target) -> (Peer, Peer) {
    let mut client = Peer::connect(port);
    let mut server = target.accept();
    client.exchange(&mut server, b"is it you?");
    (client, server)
}

/// A client of a port that is refused, for a reason.
#[track_caller]
fn refused(proxy: &Proxy, port: u16, reason: &str) {
    let mut client = Peer::connect(port);
    let addr = client.addr();
    client.expect_reset();
    assert_eq!(proxy.ended_session(addr).text("reason"), reason);
}

fn program(arguments: &[&str]) -> Output {
    process::output(Command::new(PROGRAM).args(arguments))
}

#[test]
fn a_name_leads_to_the_address_it_has() {
    let (server, target) = (DnsServer::start(), local());
    server.addresses("db.test", &["127.0.0.1"]);
    let port = ports::free();
    let proxy = Proxy::start(&config([
        asking(&server),
        mapping("m", port, at("DB.test", &target), ""),
    ]));
    let (client, server) = pair(port, &target);
    let addr = client.addr();
    client.finish();
    server.finish();
    let line = proxy.ended_session(addr);
    assert_eq!(line.text("target"), target.addr().to_string());
    assert!(proxy.page("/readyz").0.contains("200"));
}

#[test]
fn a_name_that_is_unknown_at_the_start_holds_up_nobody_else_and_leads_somewhere_later() {
    let (server, target) = (DnsServer::start(), local());
    let (port, other) = (ports::free(), ports::free());
    let proxy = Proxy::start(&config([
        asking(&server),
        mapping("late", port, at("late.test", &target), ""),
        mapping("other", other, target.addr(), ""),
    ]));
    pair(other, &target);
    refused(&proxy, port, "no_target");
    let (status, page) = proxy.page("/readyz");
    assert!(status.contains("503"), "{status}");
    assert!(
        page.contains("mapping late has no target: late.test: there is no such name"),
        "{page}"
    );
    server.addresses("late.test", &["127.0.0.1"]);
    proxy.wait_for_line(0, "a name leads to other addresses");
    wait_until("the mapping is ready", || {
        proxy.page("/readyz").0.contains("200")
    });
    pair(port, &target);
    // Nobody asked for more than that.
    let asked = server.asked("late.test");
    pair(port, &target);
    assert_eq!(server.asked("late.test"), asked);
}

#[test]
fn a_dns_server_that_says_nothing_holds_up_nobody() {
    let (server, target) = (DnsServer::start(), local());
    server.say("silent.test", Says::Silence);
    server.say("tcp.test", Says::SilenceOverTcp);
    let ports: Vec<_> = (0..3).map(|_| ports::free()).collect();
    let proxy = Proxy::start(&config([
        asking(&server),
        mapping("silent", ports[0], at("silent.test", &target), ""),
        mapping("tcp", ports[1], at("tcp.test", &target), ""),
        mapping("other", ports[2], target.addr(), ""),
    ]));
    let (mut client, mut end) = pair(ports[2], &target);
    for port in &ports[..2] {
        refused(&proxy, *port, "no_target");
    }
    // It answers, and a reload waits for no more than a lookup may take.
    assert!(proxy.page("/readyz").0.contains("503"));
    proxy.reload_file();
    client.exchange(&mut end, b"still here");
}

#[test]
fn a_change_of_address_goes_by_on_retarget() {
    let server = DnsServer::start();
    let [before, after] = two();
    server.addresses("kill.test", &["127.0.0.2"]);
    server.addresses("keep.test", &["127.0.0.2"]);
    let (kill, keep) = (ports::free(), ports::free());
    let proxy = Proxy::start(&config([
        asking(&server),
        mapping(
            "kill",
            kill,
            at("kill.test", &before),
            "resolve = \"1s\"\non_retarget = \"kill\"",
        ),
        mapping("keep", keep, at("keep.test", &before), "resolve = \"1s\""),
    ]));
    let (mut killed, _server) = pair(kill, &before);
    let (mut kept, mut end) = pair(keep, &before);
    server.addresses("kill.test", &["127.0.0.3"]);
    server.addresses("keep.test", &["127.0.0.3"]);
    let addr = killed.addr();
    killed.expect_reset();
    assert_eq!(
        proxy.ended_session(addr).text("reason"),
        "mapping_retargeted"
    );
    pair(kill, &after);
    wait_until("new clients are led elsewhere", || {
        let _client = Peer::connect(keep);
        let called = after.is_called(Duration::from_millis(100));
        called.then(|| after.accept()).is_some()
    });
    kept.exchange(&mut end, b"still here");
    // An address more moves nobody.
    let (mut stays, mut end) = pair(kill, &after);
    server.addresses("kill.test", &["127.0.0.2", "127.0.0.3"]);
    wait_until("there are two addresses", || {
        let lines = proxy.log().all(|line| {
            line.message() == "a name leads to other addresses"
                && line.text("name") == "kill.test"
                && line.number("addresses") == 2
        });
        !lines.is_empty()
    });
    stays.exchange(&mut end, b"still here");
}

#[test]
fn a_name_that_is_not_followed_is_looked_up_at_a_reload() {
    let server = DnsServer::start();
    let [before, after] = two();
    server.addresses("db.test", &["127.0.0.2"]);
    let port = ports::free();
    let text = config([
        asking(&server),
        mapping("m", port, at("db.test", &before), ""),
    ]);
    let proxy = Proxy::start(&text);
    pair(port, &before);
    server.addresses("db.test", &["127.0.0.3"]);
    pair(port, &before);
    proxy.reload(&text);
    pair(port, &after);
    // What is known stays if nobody knows better.
    server.say("db.test", Says::Error(2));
    proxy.reload(&text);
    pair(port, &after);
    let said = proxy.said(|line| line.message().starts_with("a name cannot be looked up"));
    assert!(said[0].text("error").contains("SERVFAIL"), "{said:?}");
}

#[test]
fn an_address_that_may_be_no_target_gets_no_session() {
    let (server, target) = (DnsServer::start(), local());
    let all = [
        "0.0.0.0",
        "224.0.0.1",
        "192.0.2.1",
        "255.255.255.255",
        "fe80::1",
        "::",
        "2001:db8::1",
        "127.0.0.1",
    ];
    server.addresses("some.test", &all);
    server.addresses("none.test", &all[..7]);
    server.addresses("own.test", &["127.0.0.1"]);
    let ports: Vec<_> = (0..3).map(|_| ports::free()).collect();
    let own = format!("own.test:{}", ports[2]);
    let proxy = Proxy::start(&config([
        asking(&server),
        mapping("some", ports[0], at("some.test", &target), ""),
        mapping("none", ports[1], at("none.test", &target), ""),
        mapping("own", ports[2], own, ""),
    ]));
    for _ in 0..10 {
        pair(ports[0], &target);
    }
    refused(&proxy, ports[1], "no_target");
    refused(&proxy, ports[2], "no_target");
    let (_, page) = proxy.page("/readyz");
    for why in [
        "own.test: 127.0.0.1: it is a listener of this proxy: connections would loop",
        "mapping none has no target: none.test: ",
    ] {
        assert!(page.contains(why), "{page}");
    }
    let said = proxy.said(|line| line.message() == "an address of a name is no target");
    let some = said.iter().find(|line| line.text("name") == "some.test");
    assert_eq!(some.expect("it is said").number("more"), 6);
}

#[test]
fn a_dns_server_has_no_say_in_what_this_machine_is() {
    let (server, target) = (DnsServer::start(), local());
    server.addresses("evil.test", &["127.0.0.1"]);
    let port = ports::free();
    let proxy = Proxy::start(&config([
        format!("[resolver]\nservers = [\"{}\"]\n", server.address),
        mapping("m", port, at("evil.test", &target), ""),
    ]));
    refused(&proxy, port, "no_target");
    let (_, page) = proxy.page("/readyz");
    assert!(page.contains("targets.allow does not"), "{page}");
}

#[test]
fn a_name_with_a_thousand_addresses_has_the_first_of_them() {
    let (server, target) = (DnsServer::start(), local());
    let all = (0..1000_u32).map(|number| [127, 0, (number >> 8) as u8, number as u8 | 1].into());
    let all: std::collections::BTreeSet<std::net::IpAddr> = all.collect();
    let count = all.len() as u64;
    server.say("many.test", Says::Addresses(all.into_iter().collect(), 60));
    let port = ports::free();
    let proxy = Proxy::start(&config([
        asking(&server),
        mapping(
            "m",
            port,
            at("many.test", &target),
            "balance = \"first\"\nfamily = \"ipv4\"",
        ),
    ]));
    pair(port, &target);
    let line = proxy.wait_for_line(0, "a name leads to other addresses");
    assert_eq!(
        (line.number("addresses"), line.number("beyond")),
        (64, count - 64)
    );
}

#[test]
fn an_answer_that_is_another_at_every_question_cuts_nobody_off() {
    let server = DnsServer::start();
    let [one, other] = two();
    let says = |number: u8| Says::Addresses(vec![[127, 0, 0, number].into()], 0);
    server.say(
        "turn.test",
        Says::InTurn(vec![says(2), says(3), Says::NoSuchName]),
    );
    let port = ports::free();
    let proxy = Proxy::start(&config([
        asking(&server),
        mapping(
            "m",
            port,
            at("turn.test", &one),
            "resolve = \"1s\"\nfamily = \"ipv4\"",
        ),
    ]));
    let mut pairs = Vec::new();
    wait_until("both had clients", || {
        let mut client = Peer::connect(port);
        let called = wait_for("a connection", || {
            let mut both = [&one, &other].into_iter();
            both.find(|target| target.is_called(Duration::from_millis(1)))
        });
        let (target, mut end) = (called, called.accept());
        client.exchange(&mut end, b"hello");
        pairs.push((target.addr(), client, end));
        let first = pairs[0].0;
        pairs.iter().any(|(addr, ..)| *addr != first)
    });
    for (_, client, end) in &mut pairs {
        client.exchange(end, b"still here");
    }
    drop(pairs);
    proxy.settles();
}

#[test]
fn an_upgrade_leaves_what_names_lead_to() {
    let (server, target) = (DnsServer::start(), local());
    server.addresses("db.test", &["127.0.0.1"]);
    let (port, dir) = (ports::free(), TempDir::new());
    let socket = dir.join("admin.sock");
    let proxy = Proxy::start(&config([
        format!("[admin]\nsocket = {socket:?}\n"),
        asking(&server),
        mapping(
            "m",
            port,
            at("db.test", &target),
            "resolve = \"1s\"\non_retarget = \"kill\"",
        ),
    ]));
    let (mut client, mut end) = pair(port, &target);
    server.say("db.test", Says::Silence);
    let socket = socket.display().to_string();
    let upgraded = program(&["upgrade", "--socket", &socket]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    client.exchange(&mut end, b"still here");
    pair(port, &target);
    // It goes on asking.
    let asked = server.asked("db.test");
    wait_until("it asks", || server.asked("db.test") > asked);
    client.exchange(&mut end, b"still here");
    drop(proxy);
}

#[test]
fn a_session_at_an_address_that_was_gone_for_a_while_counts_there_and_is_shown_through_an_upgrade()
{
    let server = DnsServer::start();
    let [before, _after] = two();
    server.addresses("db.test", &["127.0.0.2"]);
    let (port, dir) = (ports::free(), TempDir::new());
    let socket = dir.join("admin.sock").display().to_string();
    let target = at("db.test", &before);
    let proxy = Proxy::start(&config([
        format!("[admin]\nsocket = {socket:?}\n"),
        asking(&server),
        format!(
            "[[mapping]]\nname = \"m\"\nlisten = {port}\nresolve = \"1s\"\n\
             target = [{{ address = \"{target}\", max_sessions = 1 }}]\n"
        ),
    ]));
    let leads = |at: usize, to: &str| {
        server.addresses("db.test", &[to]);
        wait_until("the name leads elsewhere", || {
            let lines = proxy.log().all(|line| {
                line.message() == "a name leads to other addresses" && line.text("first") == to
            });
            lines.len() > at
        });
    };
    let shown = || {
        let mappings = program(&["mappings", "--socket", &socket, "--json"]);
        let mappings: serde_json::Value = serde_json::from_slice(&mappings.stdout).expect("JSON");
        mappings["mappings"][0]["targets"][0]["sessions"].as_u64()
    };
    let (mut client, mut end) = pair(port, &before);
    let addr = client.addr();
    leads(0, "127.0.0.3");
    assert_eq!(shown(), Some(0));
    leads(1, "127.0.0.2");
    assert_eq!(shown(), Some(1));
    refused(&proxy, port, "target_full");

    leads(1, "127.0.0.3");
    let upgraded = program(&["upgrade", "--socket", &socket]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    let sessions = program(&["sessions", "--socket", &socket]);
    let sessions = String::from_utf8_lossy(&sessions.stdout).into_owned();
    let is_at = before.addr().to_string();
    assert!(sessions.contains(&is_at), "{sessions}");
    leads(2, "127.0.0.2");
    assert_eq!(shown(), Some(1));
    refused(&proxy, port, "target_full");

    client.exchange(&mut end, b"still here");
    drop((client, end));
    assert_eq!(proxy.ended_session(addr).text("target"), is_at);
    pair(port, &before);
}

#[test]
fn a_name_may_stand_in_an_argument() {
    let target = Target::bind_to(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)));
    let port = ports::free();
    let map = format!("{port}=localhost:{}", target.port());
    let proxy = Proxy::start_without_file(&Setup::default(), &["--map".to_owned(), map]);
    pair(port, &target);
    drop(proxy);
}

#[test]
fn check_looks_names_up_when_it_is_asked_to_and_doctor_always_does() {
    let server = DnsServer::start();
    server.addresses("here.test", &["127.0.0.1"]);
    server.say("failing.test", Says::Error(2));
    let dir = TempDir::new();
    let write = |name: &str, targets: &[&str]| {
        let mappings = targets.iter().enumerate().map(|(number, target)| {
            mapping(
                &format!("m{number}"),
                20_000 + number,
                format!("{target}:9"),
                "",
            )
        });
        let text = config([asking(&server)].into_iter().chain(mappings));
        dir.write(name, text).display().to_string()
    };
    let good = write("good.toml", &["here.test"]);
    let bad = write("bad.toml", &["here.test", "nowhere.test", "failing.test"]);
    for (file, resolve, code) in [(&good, true, 0), (&bad, false, 0), (&bad, true, 1)] {
        let more: &[&str] = if resolve { &["--resolve"] } else { &[] };
        let output = program(&[&["check", "--config", file], more].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let names = [
            "nowhere.test: there is no such name",
            "failing.test: 127.0.0.1",
        ];
        for name in names {
            assert_eq!(said.contains(name), code == 1, "{said}");
        }
    }
    let output = program(&["doctor", "--no-targets", "--config", &bad]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("ok    name here.test: 127.0.0.1"), "{said}");
    assert!(said.contains("warn  name nowhere.test: "), "{said}");
}
