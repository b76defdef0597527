//! Targets that are checked: those that are down get no session, and what is found is said.

mod harness;

#[path = "health/postgresql.rs"]
mod postgresql;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime},
};

use harness::{
    Line, Peer, Proxy, Target, TempDir, config, figure, ports, process, proxy::PROGRAM, wait_until,
};

/// As often as may be, and one result counts.
const OFTEN: &str = "every = \"100ms\", rise = 1, fall = 1";

/// A mapping `m`; `more` is further lines of it.
fn leading_to(port: u16, targets: &[SocketAddr], more: &str) -> String {
    let targets: Vec<_> = targets
        .iter()
        .map(|target| format!("\"{target}\""))
        .collect();
    let targets = targets.join(", ");
    config([format!(
        "\n[[mapping]]\nname = \"m\"\nlisten = {port}\ntarget = [{targets}]\n{more}\n"
    )])
}

/// What the log says of a target after the first `from` lines.
fn said(proxy: &Proxy, from: usize, what: &str, target: SocketAddr) -> Line {
    let target = target.to_string();
    proxy.log().wait(from, what, |line| {
        line.message() == what && line.text("target") == target
    })
}

/// A client of a port that is refused, for a reason.
#[track_caller]
fn refused(proxy: &Proxy, port: u16, reason: &str) {
    let mut client = Peer::connect(port);
    let addr = client.addr();
    client.expect_reset();
    assert_eq!(proxy.ended_session(addr).text("reason"), reason);
}

#[track_caller]
fn pair(port: u16, target: &Target) -> (Peer, Peer) {
    let mut client = Peer::connect(port);
    let mut server = target.accept();
    client.exchange(&mut server, b"is it you?");
    (client, server)
}

/// Answers each client in the same way, with what it asked at hand.
fn answering(
    addr: SocketAddr,
    answer: impl Fn(&str, std::net::TcpStream) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(addr).expect("a free port");
    let addr = listener.local_addr().expect("it has one");
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut client = client;
                let (mut asked, mut byte) = (Vec::new(), [0]);
                while !asked.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) > 0 {
                    asked.extend_from_slice(&byte);
                }
                answer(&String::from_utf8_lossy(&asked), client);
            });
        }
    });
    addr
}

fn loopback(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

#[test]
fn a_target_that_is_down_gets_no_session_until_it_is_up_again() {
    let (one, other) = (Target::bind(), Target::bind());
    let (port, gone) = (ports::free(), other.addr());
    let check = format!("check = {{ {OFTEN} }}");
    let proxy = Proxy::start(&leading_to(port, &[one.addr(), gone], &check));
    said(&proxy, 0, "target is up", gone);
    let from = proxy.log().len();
    drop(other);
    let line = said(&proxy, from, "target is down", gone);
    assert_eq!(line.text("error"), "Connection refused");
    for _ in 0..5 {
        pair(port, &one);
    }
    let other = Target::bind_to(gone);
    said(&proxy, from, "target is up", gone);
    wait_until("it has sessions again", || {
        let _client = Peer::connect(port);
        let called = other.is_called(Duration::from_millis(100));
        // Those of the other one are none of this.
        while one.is_called(Duration::ZERO) {
            one.accept();
        }
        called
    });
}

#[test]
fn clients_of_a_target_that_is_down_are_told_at_once_and_what_is_not_checked_any_more_is_tried() {
    let target = Target::bind();
    let (port, addr) = (ports::free(), target.addr());
    drop(target);
    let check = format!("check = {{ {OFTEN} }}");
    let proxy = Proxy::start(&leading_to(port, &[addr], &check));
    said(&proxy, 0, "target is down", addr);
    refused(&proxy, port, "no_target");
    proxy.reload(&leading_to(port, &[addr], ""));
    refused(&proxy, port, "connect_refused");
    let from = proxy.log().len();
    proxy.reload(&leading_to(port, &[addr], &check));
    said(&proxy, from, "target is down", addr);
}

#[test]
fn a_reload_disturbs_no_check_that_stays() {
    let target = Target::bind();
    let port = ports::free();
    let check = "check = { every = \"100ms\", rise = 1, fall = 3 }";
    let proxy = Proxy::start(&leading_to(port, &[target.addr()], check));
    said(&proxy, 0, "target is up", target.addr());
    let (mut client, mut server) = pair(port, &target);
    for idle in 1..5 {
        let more = format!("{check}\nidle_timeout = \"{idle}h\"");
        proxy.reload(&leading_to(port, &[target.addr()], &more));
        client.exchange(&mut server, b"still here");
    }
    let lines = proxy.said(|line| line.message().starts_with("target is"));
    assert_eq!(lines.len(), 1, "{lines:?}");
}

/// Two databases with a health port that says which is the primary, by the last part of its address.
struct Pair {
    databases: [Target; 2],
    health: u16,
    primary: Arc<AtomicU16>,
}

impl Pair {
    fn new() -> Self {
        let primary = Arc::new(AtomicU16::new(2));
        let patroni = |last: u8, port: u16| {
            let primary = Arc::clone(&primary);
            answering(loopback(last, port), move |asked, mut client| {
                let asks = asked.starts_with("GET /primary HTTP/1.1\r\n");
                let status = match asks && primary.load(Relaxed) == u16::from(last) {
                    true => "200 OK",
                    false => "503 Service Unavailable",
                };
                let _ = write!(
                    client,
                    "HTTP/1.0 {status}\r\n\r\n{{\"state\": \"running\"}}"
                );
            })
        };
        let (port, health) = (ports::free(), ports::free());
        patroni(2, health);
        patroni(3, health);
        Self {
            databases: [2, 3].map(|last| Target::bind_to(loopback(last, port))),
            health,
            primary,
        }
    }
}

#[test]
fn sessions_follow_the_primary_of_a_pair_of_databases() {
    let databases = Pair::new();
    let [first, second] = &databases.databases;
    let port = ports::free();
    let check = format!(
        "on_down = \"kill\"\ncheck = {{ {OFTEN}, http = \"/primary\", port = {} }}",
        databases.health
    );
    let proxy = Proxy::start(&leading_to(port, &[first.addr(), second.addr()], &check));
    said(&proxy, 0, "target is up", first.addr());
    let line = said(&proxy, 0, "target is down", second.addr());
    assert_eq!(line.text("error"), "the answer has status 503");
    let mut sessions: Vec<_> = (0..3).map(|_| pair(port, first)).collect();
    databases.primary.store(3, Relaxed);
    said(&proxy, 0, "target is up", second.addr());
    said(&proxy, 0, "target is down", first.addr());
    for (client, _) in &mut sessions {
        let addr = client.addr();
        client.expect_reset();
        assert_eq!(proxy.ended_session(addr).text("reason"), "target_down");
    }
    for _ in 0..3 {
        pair(port, second);
    }
}

#[test]
fn an_answer_that_never_ends_or_drips_makes_a_target_down_and_holds_up_no_other_check() {
    let endless = answering(loopback(1, 0), |_, mut client| {
        while client.write_all(&[b'a'; 4096]).is_ok() {}
    });
    let dripping = answering(loopback(1, 0), |_, mut client| {
        let drops = "HTTP/1.1 200 OK".bytes().chain(std::iter::repeat(b' '));
        for drop in drops {
            thread::sleep(Duration::from_millis(20));
            if client.write_all(&[drop]).is_err() {
                return;
            }
        }
    });
    let silent = Target::bind();
    let good = answering(loopback(1, 0), |_, mut client| {
        let _ = client.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    let all = [endless, dripping, silent.addr(), good];
    let port = ports::free();
    let check = format!("check = {{ {OFTEN}, timeout = \"500ms\", http = \"/\" }}");
    let proxy = Proxy::start(&leading_to(port, &all, &check));
    for (target, error) in [
        (endless, "the answer is not HTTP"),
        (dripping, "no answer within 500ms"),
        (silent.addr(), "no answer within 500ms"),
    ] {
        let line = said(&proxy, 0, "target is down", target);
        assert_eq!(line.text("error"), error);
    }
    said(&proxy, 0, "target is up", good);
}

#[test]
fn a_target_that_insists_on_a_header_is_not_found_down() {
    const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    // It says something to those who begin with a header, and hangs up on others.
    let listener = TcpListener::bind(loopback(1, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it has one");
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut first = [0; 16];
            if client.read_exact(&mut first).is_ok() && first.starts_with(HEADER) {
                // 0x20: the sender speaks for itself, 0x21: for a client.
                let _ = write!(client, "220 mail, command {:#04x}\r\n", first[12]);
            }
        }
    });
    let port = ports::free();
    let check = |more: &str| {
        let check = format!("check = {{ {OFTEN}, expect = \"220 mail, command 0x20\"{more} }}");
        leading_to(port, &[addr], &format!("send_proxy = \"v2\"\n{check}"))
    };
    let proxy = Proxy::start(&check(""));
    said(&proxy, 0, "target is up", addr);
    let mut client = Peer::connect(port);
    client.expect(b"220 mail, command 0x21\r\n");
    proxy.reload(&check(", send_proxy = \"off\""));
    said(&proxy, 0, "target is down", addr);
}

#[test]
fn why_and_since_when_a_target_is_down_is_said_and_survives_an_upgrade() {
    let (stays, goes) = (Target::bind(), Target::bind());
    let (port, addr) = (ports::free(), goes.addr());
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    let check = format!("check = {{ {OFTEN} }}");
    let text = leading_to(port, &[stays.addr(), addr], &check);
    let section = format!("[admin]\nsocket = {socket:?}\n");
    let proxy = Proxy::start(&text.replacen('\n', &format!("\n{section}"), 1));
    said(&proxy, 0, "target is up", addr);
    let labels = [("mapping", "m")];
    assert_eq!(
        proxy.metrics().sum("tml_proxy_mapping_targets_up", &labels),
        2
    );
    let before = SystemTime::now();
    drop(goes);
    said(&proxy, 0, "target is down", addr);
    let name = addr.to_string();
    let failures = |proxy: &Proxy| {
        let labels = [("mapping", "m"), ("target", &*name)];
        let metrics = proxy.metrics();
        metrics.sum("tml_proxy_target_check_failures_total", &labels)
    };
    let seen = failures(&proxy);
    assert!(seen >= 1);
    assert_eq!(
        proxy.metrics().sum("tml_proxy_mapping_targets_up", &labels),
        1
    );
    let found = SystemTime::now();
    for _ in 0..2 {
        let (_, page) = proxy.page("/api/v1/mappings");
        let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        let target = &page["mappings"][0]["targets"][1];
        assert_eq!(target["state"], "down", "{target}");
        assert_eq!(target["check_failure"]["error"], "Connection refused");
        let at = |text: &serde_json::Value| {
            let text = text.as_str().expect("a time");
            humantime::parse_rfc3339(text).expect("a time")
        };
        let since = at(&target["state_since"]);
        let millisecond = Duration::from_millis(1);
        assert!((before - millisecond..=found).contains(&since), "{target}");
        assert!(at(&target["check_failure"]["at"]) >= since, "{target}");
        assert!(target["check_failures"].as_u64() >= Some(seen), "{target}");
        let (_, status) = proxy.page("/api/v1/status");
        let problem = format!(
            "Targets of mapping m that are down: 1 of 2, of which {addr}: Connection refused."
        );
        assert!(status.contains(&problem), "{status}");
        let mut mappings = Command::new(PROGRAM);
        let mappings = process::output(mappings.arg("mappings").arg("--socket").arg(&socket));
        let mappings = String::from_utf8_lossy(&mappings.stdout).into_owned();
        let line = format!("m: {addr} is down since ");
        assert!(mappings.contains(&line), "{mappings}");
        let mut upgrade = Command::new(PROGRAM);
        process::succeed(upgrade.arg("upgrade").arg("--socket").arg(&socket));
    }
    let last = stays.addr();
    drop(stays);
    said(&proxy, 0, "target is down", last);
    let (_, status) = proxy.page("/api/v1/status");
    assert!(
        status.contains("Mapping m has no target that is up"),
        "{status}"
    );
}

#[test]
fn an_upgrade_takes_along_what_is_known_of_targets() {
    let target = Target::bind();
    let (port, addr) = (ports::free(), target.addr());
    drop(target);
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    // It is not found out again for an hour.
    let check = "check = { every = \"1h\", rise = 1, fall = 1 }";
    let section = format!("[admin]\nsocket = {socket:?}\n");
    let text = leading_to(port, &[addr], check).replacen('\n', &format!("\n{section}"), 1);
    let proxy = Proxy::start(&text);
    said(&proxy, 0, "target is down", addr);
    let mut upgrade = Command::new(PROGRAM);
    let upgraded = process::output(upgrade.arg("upgrade").arg("--socket").arg(&socket));
    assert!(upgraded.status.success(), "{upgraded:?}");
    refused(&proxy, port, "no_target");
}

/// Sessions that see nothing of targets that go and come.
#[test]
fn targets_that_come_and_go_under_load_lose_nobody_who_is_led_elsewhere() {
    let (stays, comes) = (Target::bind(), Target::bind());
    let (port, addr) = (ports::free(), comes.addr());
    let check = format!("check = {{ {OFTEN} }}");
    let proxy = Proxy::start(&leading_to(port, &[stays.addr(), addr], &check));
    said(&proxy, 0, "target is up", addr);
    drop(comes);
    said(&proxy, 0, "target is down", addr);
    let mut sessions = Vec::new();
    for round in 0..5 {
        sessions.push(pair(port, &stays));
        let from = proxy.log().len();
        let comes = Target::bind_to(addr);
        said(&proxy, from, "target is up", addr);
        drop(comes);
        said(&proxy, from, "target is down", addr);
        for (client, server) in &mut sessions {
            client.exchange(server, format!("round {round}").as_bytes());
        }
    }
}

/// What checks of a thousand targets cost, beside HAProxy doing the same. The targets share a socket that
/// listens on all of loopback, so that what a connection costs its target is in both.
#[test]
#[ignore = "measures; takes half a minute"]
fn measure_a_thousand_checked_targets() {
    const SECONDS: u64 = 15;
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    thread::spawn(move || {
        for client in listener.incoming() {
            drop(client);
        }
    });
    let all: Vec<_> = (0..1000_u16)
        .map(|number| {
            let [high, low] = (number + 1).to_be_bytes();
            SocketAddr::from(([127, 1, high, low], port))
        })
        .collect();
    let mut text = config([""]);
    for (number, some) in all.chunks(250).enumerate() {
        let targets: Vec<_> = some.iter().map(|target| format!("\"{target}\"")).collect();
        text += &format!(
            "[[mapping]]\nname = \"m{number}\"\nlisten = {}\ntarget = [{}]\ncheck = {{ every = \"2s\" }}\n",
            ports::free(),
            targets.join(", ")
        );
    }
    let dir = TempDir::new();
    let mut servers = format!(
        "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  \
         timeout server 1m\nlisten m\n  bind 127.0.0.1:{}\n  default-server check inter 2s\n",
        ports::free()
    );
    for (number, target) in all.iter().enumerate() {
        servers += &format!("  server s{number} {target}\n");
    }
    let haproxy_config = dir.write("haproxy.cfg", servers);
    let proxy = Proxy::start(&text);
    let mut haproxy = Command::new("haproxy");
    let haproxy = process::Running::start(haproxy.arg("-db").arg("-f").arg(haproxy_config));
    said(&proxy, 0, "target is up", all[999]);
    let spent = || [proxy.id(), haproxy.id()].map(process::cpu_ticks);
    for round in 0..2 {
        let before = spent();
        thread::sleep(Duration::from_secs(SECONDS));
        let after = spent();
        let percent = |which: usize| (after[which] - before[which]) as f64 / SECONDS as f64;
        figure(&format!("round {round}: % of a processor"), percent(0));
        figure(
            &format!("round {round}: % of a processor, HAProxy"),
            percent(1),
        );
    }
}
