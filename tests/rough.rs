//! Networks that lose, delay, repeat and swap packets, fall silent in the middle, or are hostile.
//!
//! Sessions end in the right way, in the time configured, for the right reason; or they go on and
//! nothing is lost. Needs root, for network namespaces.

mod harness;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddrV4},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Line, Peer, Proxy, Target, config, figure,
    forge::{Forger, Kind},
    lab::{CLIENT, Lab, PORT, PROXY},
    mapping, process,
    require::{Need, require},
    wait_until,
    wire::Faults,
};
use socket2::SockRef;

/// How much longer than configured anything may take on a machine that is busy. Without the
/// configuration it would be minutes.
const LATE: Duration = Duration::from_secs(20);

fn available() -> bool {
    require(&[Need::Root, Need::Tool("ip"), Need::Tool("ethtool")])
}

/// A proxy in the lab whose mapping `m` leads to a target in it.
fn start(lab: &Lab, more: &str) -> (Proxy, Target) {
    let target = lab.listen(22);
    (lab.proxy_to(target.addr(), more), target)
}

#[test]
fn packets_lost_late_doubled_or_swapped_cost_time_and_no_byte() {
    if !available() {
        return;
    }
    let faults = Faults {
        lost: 15,
        doubled: 20,
        delay: Duration::from_millis(3),
        jitter: Duration::from_millis(4),
        ..Faults::default()
    };
    let lab = Lab::with_faults([faults; 2]);
    let (proxy, target) = start(&lab, "");
    let (mut client, mut server) = lab.pair(&target);
    lab.bulk_passes(&proxy, &target, 1_000_000);
    for _ in 0..20 {
        client.exchange(&mut server, b"x");
    }
    for (wire, place) in lab.wires.iter().zip(["in front", "behind"]) {
        let befallen = wire.befallen();
        assert!(befallen.iter().all(|&count| count > 0), "{befallen:?}");
        let [lost, doubled, swapped] = befallen;
        figure(
            &format!("packets lost, doubled and swapped {place}, no byte of 6 MB with them"),
            format!("{lost}, {doubled}, {swapped}"),
        );
    }
    drop((client, server));
    proxy.settles();
}

#[test]
fn a_network_of_1280_bytes_without_modern_options_passes_bulk() {
    if !available() {
        return;
    }
    let lab = Lab::new();
    lab.without_offloads();
    let ends = [
        (&lab.client, ["near"].as_slice()),
        (&lab.proxy, &["front", "back"]),
        (&lab.target, &["far"]),
    ];
    for (netns, interfaces) in ends {
        for interface in interfaces {
            netns.ip(&format!("link set {interface} mtu 1280"));
        }
        for option in ["window_scaling", "sack", "timestamps"] {
            netns.sysctl(&format!("net.ipv4.tcp_{option}"), "0");
        }
    }
    let (proxy, target) = start(&lab, "");
    lab.bulk_passes(&proxy, &target, 5_000_000);
    proxy.settles();
}

/// The session of `client` ends within `limit` of `since`, which is before its last byte, and not
/// before it.
#[track_caller]
fn ends_in_time(proxy: &Proxy, client: &Peer, since: Instant, limit: Duration) -> Line {
    let line = proxy.ended_session(client.addr());
    let took = since.elapsed();
    assert!(
        took >= limit && took < limit + LATE,
        "{took:?}, and {limit:?} was configured"
    );
    line
}

/// Nobody says goodbye: what tells is that bytes are not acknowledged, or probes not answered.
#[test]
fn a_peer_that_falls_silent_is_given_up_in_the_configured_time() {
    if !available() {
        return;
    }
    let user_timeout = "user_timeout = \"2s\"\nkeepalive = \"off\"";
    let keepalive =
        "keepalive = { idle = \"1s\", interval = \"1s\", count = 2 }\nuser_timeout = \"off\"";
    let cases = [
        (0, user_timeout, Duration::from_millis(1900), "client_lost"),
        (1, user_timeout, Duration::from_millis(1900), "target_lost"),
        (0, keepalive, Duration::from_millis(2900), "client_lost"),
        (1, keepalive, Duration::from_millis(2900), "target_lost"),
    ];
    for (silent, more, limit, reason) in cases {
        let lab = Lab::with_faults([Faults::default(); 2]);
        let (proxy, target) = start(&lab, more);
        let since = Instant::now();
        let (mut client, mut server) = lab.pair(&target);
        // With bytes on their way there would be no keepalive but attempts to send them again.
        wait_until("every byte to be acknowledged", || {
            process::unacknowledged(proxy.id()) == 0
        });
        lab.wires[silent].silence();
        let other = match silent {
            0 => &mut server,
            _ => &mut client,
        };
        if more == user_timeout {
            other.send(b"into the void");
        }
        other.expect_reset();
        let line = ends_in_time(&proxy, &client, since, limit);
        assert_eq!(line.text("reason"), reason);
        proxy.settles();
    }
}

#[test]
fn a_network_silent_from_the_start_costs_the_client_the_configured_time() {
    if !available() {
        return;
    }
    let lab = Lab::with_faults([Faults::default(); 2]);
    let (proxy, target) = start(&lab, "connect_timeout = \"1s\"");
    drop(lab.pair(&target));
    proxy.settles();
    lab.wires[1].silence();
    let since = Instant::now();
    let mut client = lab.connect(PORT);
    client.expect_reset();
    let limit = Duration::from_millis(990);
    let line = ends_in_time(&proxy, &client, since, limit);
    assert_eq!(line.text("reason"), "connect_timeout");
    proxy.settles();
}

/// Receive buffer of the proxy's socket to a port, in bytes.
fn receive_buffer(lab: &Lab, port: u16) -> Option<u64> {
    let mut ss = lab.proxy.command("ss");
    let filter = format!("dport = :{port}");
    let output = ss.args(["-tmnHO", "state", "established", &filter]);
    let output = output.output().expect("ss runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let (_, behind) = text.split_once(",rb")?;
    behind.split(',').next()?.parse().ok()
}

/// What a near sender may have on its way does not do for one that is far.
#[test]
fn a_path_that_becomes_long_in_the_middle_of_bulk_gets_the_window_it_takes() {
    if !available() || !require(&[Need::Tool("ss")]) {
        return;
    }
    let lab = Lab::with_faults([Faults::default(); 2]);
    let (proxy, target) = start(&lab, "");
    let (client, server) = lab.pair(&target);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let bytes = vec![7; 256 * 1024];
            while !done.load(Relaxed) {
                (&mut server.stream())
                    .write_all(&bytes)
                    .expect("the proxy takes it");
            }
            drop(server);
        });
        scope.spawn(|| io::copy(&mut client.stream(), &mut io::sink()).expect("all of it arrives"));
        wait_until("a buffer for bulk", || {
            receive_buffer(&lab, target.port()).is_some_and(|size| size >= 1 << 20)
        });
        lab.wires[1].set(Faults {
            delay: Duration::from_millis(50),
            ..Faults::default()
        });
        wait_until("a larger one", || {
            receive_buffer(&lab, target.port()).is_some_and(|size| size >= 4 << 20)
        });
        done.store(true, Relaxed);
    });
    drop(client);
    proxy.settles();
}

/// Either may come first, and whichever does decides the whole session.
#[test]
fn an_answer_right_at_the_deadline_makes_a_session_or_none() {
    if !available() {
        return;
    }
    let slow = Faults {
        delay: Duration::from_millis(50),
        jitter: Duration::from_millis(20),
        ..Faults::default()
    };
    let lab = Lab::with_faults([Faults::default(), slow]);
    let (proxy, target) = start(&lab, "");
    // The first one also has to find out where the target's interface is.
    let took: Vec<u64> = (0..6)
        .map(|_| {
            let (client, server) = lab.pair(&target);
            let addr = client.addr();
            drop((client, server));
            proxy.ended_session(addr).number("connect_ms")
        })
        .skip(1)
        .collect();
    let usual = took.iter().sum::<u64>() / took.len() as u64;
    let more = format!("connect_timeout = \"{usual}ms\"");
    let text = mapping("m", PORT, target.addr(), &more);
    proxy.reload(&config([text]));
    // Whoever reaches the target is greeted by it.
    let greeter = target.socket().try_clone().expect("a descriptor to spare");
    let greeting = thread::spawn(move || {
        let mut open = Vec::new();
        for stream in greeter.incoming().map_while(Result::ok) {
            // The attempt may have been given up.
            let _ = (&stream).write_all(b"!");
            open.push(stream);
        }
    });
    let mut clients: Vec<Peer> = (0..40).map(|_| lab.connect(PORT)).collect();
    let mut served = 0;
    for client in &mut clients {
        let mut byte = [0];
        match client.stream().read(&mut byte) {
            Ok(1) => served += 1,
            Ok(_) => panic!("a clean end instead of a session or a reset"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                let line = proxy.ended_session(client.addr());
                assert_eq!(line.text("reason"), "connect_timeout");
                assert_eq!(line.number("bytes_down"), 0);
            }
        }
    }
    println!("{served} of {} served within {usual} ms", clients.len());
    drop(clients);
    SockRef::from(target.socket())
        .shutdown(Shutdown::Both)
        .expect("a listening socket");
    greeting.join().expect("the target's script");
    proxy.settles();
}

/// A firewall forgets the connection with its end: the other host learns neither of that nor of
/// anything else.
#[test]
fn a_goodbye_that_is_lost_for_ever_holds_no_session() {
    if !available() {
        return;
    }
    let forgetful = Faults {
        silent_from_fin: true,
        ..Faults::default()
    };
    let more = "keepalive = { idle = \"1s\", interval = \"1s\", count = 2 }\nuser_timeout = \"2s\"";

    // The client's goodbye never comes: it is one that is silent.
    let lab = Lab::with_faults([forgetful, Faults::default()]);
    let (proxy, target) = start(&lab, more);
    let since = Instant::now();
    let (client, mut server) = lab.pair(&target);
    client.finish();
    server.expect_reset();
    let line = ends_in_time(&proxy, &client, since, Duration::from_millis(1900));
    assert_eq!(line.text("reason"), "client_lost");
    proxy.settles();

    // The goodbye is passed on and never acknowledged.
    let lab = Lab::with_faults([Faults::default(), forgetful]);
    let (proxy, target) = start(&lab, more);
    let since = Instant::now();
    let (mut client, _server) = lab.pair(&target);
    client.finish();
    client.expect_reset();
    let line = ends_in_time(&proxy, &client, since, Duration::from_millis(1900));
    assert_eq!(line.text("reason"), "target_lost");
    proxy.settles();
}

#[test]
fn the_targets_interface_may_go_and_come_back() {
    if !available() {
        return;
    }
    let lab = Lab::new();
    let more = "user_timeout = \"1s\"\nkeepalive = \"off\"\nconnect_timeout = \"2s\"";
    let (proxy, target) = start(&lab, more);
    let (mut client, _server) = lab.pair(&target);
    lab.proxy.ip("link del back");
    client.send(b"into the void");
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "target_lost");

    let mut client = lab.connect(PORT);
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "connect_unreachable");

    lab.proxy.link("back", &lab.target, "far");
    lab.proxy
        .ip("addr add fd9d:773b:e6f8:1::1/64 dev back nodad");
    lab.target
        .ip("addr add fd9d:773b:e6f8:1::10/64 dev far nodad");
    let (mut client, mut server) = lab.pair(&target);
    client.exchange(&mut server, b"as before");
    drop((client, server));
    proxy.settles();
}

#[test]
fn forged_resets_break_no_session() {
    if !available() {
        return;
    }
    const FORGED: u32 = 20_000;
    let lab = Lab::new();
    let (proxy, target) = start(&lab, "");
    let (mut client, mut server) = lab.pair(&target);
    let source = SocketAddrV4::new(CLIENT, client.addr().port());
    lab.client.run(|| {
        let forger = Forger::new();
        for number in 0..FORGED {
            // All over the space of sequence numbers.
            let sequence = number.wrapping_mul(2_654_435_761);
            forger.send(Kind::Rst, source, SocketAddrV4::new(PROXY, PORT), sequence);
        }
    });
    client.exchange(&mut server, b"still there");
    proxy.rests();
    drop((client, server));
    proxy.settles();
    figure("forged resets against one session", FORGED);
}

#[test]
fn a_storm_of_resets_ends_those_sessions_and_no_other() {
    if !available() {
        return;
    }
    let lab = Lab::new();
    let (proxy, target) = start(&lab, "");
    let (mut client, mut server) = lab.pair(&target);
    for _ in 0..3 {
        let pairs: Vec<(Peer, Peer)> = (0..200).map(|_| lab.pair(&target)).collect();
        let addrs: Vec<_> = pairs.iter().map(|(client, _)| client.addr()).collect();
        let mut servers = Vec::new();
        for (client, server) in pairs {
            client.reset();
            servers.push(server);
        }
        for server in &mut servers {
            server.expect_reset();
        }
        for addr in addrs {
            assert_eq!(proxy.ended_session(addr).text("reason"), "client_reset");
        }
        client.exchange(&mut server, b"not affected");
    }
    proxy.rests();
    drop((client, server));
    proxy.settles();
}

/// Connections that are begun and never completed cost the kernel a bounded queue, and the proxy
/// nothing.
#[test]
fn a_flood_of_connections_that_never_complete_keeps_nobody_out() {
    if !available() {
        return;
    }
    const BACKLOG: usize = 128;
    const FORGED: u32 = 20_000;
    let lab = Lab::new();
    lab.proxy.ip(&format!("route add default via {CLIENT}"));
    let (proxy, target) = start(&lab, &format!("backlog = {BACKLOG}"));
    let (mut client, mut server) = lab.pair(&target);
    let before = process::resident_kib(proxy.id());
    let descriptors = process::descriptors(proxy.id());
    lab.client.run(|| {
        let forger = Forger::new();
        for number in 0..FORGED {
            // Networks for benchmarks, which are nobody's.
            let source = Ipv4Addr::from(0xc612_0000 + number);
            let source = SocketAddrV4::new(source, 1024 + (number % 60_000) as u16);
            forger.send(Kind::Syn, source, SocketAddrV4::new(PROXY, PORT), number);
        }
    });
    let begun = process::half_open(proxy.id());
    assert!((1..=2 * BACKLOG).contains(&begun), "{begun} half open");
    for _ in 0..20 {
        let (client, server) = lab.pair(&target);
        drop((client, server));
    }
    client.exchange(&mut server, b"not affected");
    proxy.rests();
    drop((client, server));
    proxy.settles();
    let grown = process::resident_kib(proxy.id()).saturating_sub(before);
    assert!(grown < 2 * 1024, "{grown} KiB more");
    assert!(process::descriptors(proxy.id()) <= descriptors + 8);
    let ended = proxy.metrics().sum("tml_proxy_sessions_ended_total", &[]);
    assert_eq!(ended, 21, "nobody but those who completed was accepted");
    figure(
        "connections begun and never completed, nobody kept out",
        FORGED,
    );
}
