//! Reloads, upgrades, and targets that come and go under load.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    Stage,
    harness::{Peer, Proxy, Stream, Target, both_ways, ports, wait_until},
    leading_to, plain,
};

#[test]
fn the_sessions_of_a_mapping_that_comes_back_count_at_their_targets() {
    let (port, target) = (ports::free(), Target::bind());
    let with = leading_to(
        port,
        &format!("{{ address = \"{}\", max_sessions = 1 }}", target.addr()),
        "",
    );
    let proxy = Proxy::start(&with);
    let mut client = Peer::connect(port);
    let mut server = target.accept();
    client.exchange(&mut server, b"hello");
    proxy.reload("version = 1\n");
    proxy.reload(&with);
    let mut second = Peer::connect(port);
    second.expect_reset();
    let reason = proxy.ended_session(second.addr()).text("reason").to_owned();
    assert_eq!(reason, "target_full");
    client.exchange(&mut server, b"still here");
    drop((client, server));
    wait_until("there is room", || {
        let mut third = Peer::connect(port);
        third.send(b"x");
        target.is_called(Duration::from_millis(100))
    });
}

#[test]
fn sessions_go_on_while_targets_are_added_removed_reweighted_and_renamed() {
    const LENGTH: u64 = 30_000_000;
    let more = "on_retarget = \"kill\"";
    let mut stage = Stage::new(3, more);
    let mut sessions: Vec<_> = (0..6).map(|_| stage.pair()).collect();
    let gone: Vec<_> = sessions.extract_if(.., |one| one.1 == 1).collect();
    let streams: Vec<_> = (0..4)
        .map(|seed| [Stream::new(seed), Stream::new(90 + seed)])
        .collect();
    stage.targets.push(Target::bind());
    let list = |order: &[usize]| {
        let each = order.iter().map(|number| {
            let weight = number + order.len();
            let address = stage.targets[*number].addr();
            format!("{{ address = \"{address}\", weight = {weight} }}")
        });
        each.collect::<Vec<_>>().join(", ")
    };
    thread::scope(|scope| {
        let passed = scope.spawn(|| {
            let each = sessions.iter().zip(&streams);
            both_ways(
                each.map(|((client, _, server), streams)| (client, server, streams.clone())),
                LENGTH,
            );
        });
        // Not both at once: that is another mapping on the port.
        let changes: [(&[usize], &str); 6] = [
            (&[0, 1, 2, 3], "m"),
            (&[3, 2, 1, 0], "m"),
            (&[3, 2, 1, 0], "n"),
            (&[0, 1, 2, 3], "n"),
            (&[0, 1, 2, 3], "m"),
            (&[1, 0, 2], "m"),
        ];
        for (order, name) in changes.into_iter().cycle() {
            let text = leading_to(stage.port, &list(order), more);
            stage
                .proxy
                .reload(&text.replace("\"m\"", &format!("{name:?}")));
            if passed.is_finished() && order.len() == 3 {
                break;
            }
        }
    });
    // Only those of a target that goes are told to.
    stage
        .proxy
        .reload(&leading_to(stage.port, &list(&[0, 2]), more));
    for (mut client, _, server) in gone {
        client.expect_reset();
        let line = stage.proxy.ended_session(client.addr());
        assert_eq!(line.text("reason"), "mapping_retargeted");
        drop(server);
    }
    for (client, _, server) in sessions {
        let addr = client.addr();
        drop((client, server));
        let line = stage.proxy.ended_session(addr);
        assert_eq!(line.text("reason"), "closed");
    }
    stage.finish();
}

#[test]
fn a_mapping_of_one_target_gets_another_and_keeps_its_sessions() {
    let targets = [Target::bind(), Target::bind()];
    let port = ports::free();
    let more = "balance = \"least-sessions\"\non_retarget = \"kill\"";
    let proxy = Proxy::start(&leading_to(port, &plain(&targets[..1]), more));
    let mut first = Peer::connect(port);
    let mut at_first = targets[0].accept();
    first.exchange(&mut at_first, b"hello");
    proxy.reload(&leading_to(port, &plain(&targets), more));
    // The session that is there counts.
    let mut second = Peer::connect(port);
    let mut at_second = targets[1].accept();
    second.exchange(&mut at_second, b"hello");
    let labels = |target: &Target| {
        let target = target.addr().to_string();
        proxy.metrics().sum(
            "tml_proxy_target_sessions",
            &[("mapping", "m"), ("target", &target)],
        )
    };
    assert_eq!((labels(&targets[0]), labels(&targets[1])), (1, 1));
    first.exchange(&mut at_first, b"still there");
    proxy.reload(&leading_to(port, &plain(&targets[1..]), more));
    first.expect_reset();
    second.exchange(&mut at_second, b"still there");
    drop((first, second, at_first, at_second));
    proxy.settles();
}

#[test]
fn an_upgrade_keeps_what_is_known_of_targets() {
    let closed = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let targets = [Target::bind(), Target::bind()];
    let port = ports::free();
    let list = format!("\"{closed}\", {}", plain(&targets));
    let more = "balance = \"least-sessions\"";
    let proxy = Proxy::start(&leading_to(port, &list, more));
    let mut stage = Stage {
        proxy,
        targets: targets.into(),
        port,
    };
    let mut held: Vec<_> = (0..4).map(|_| stage.pair()).collect();
    let from = stage.proxy.log().len();
    stage.proxy.signal(Signal::USR2);
    let line = stage.proxy.wait_for_line(from, "upgraded");
    assert_eq!(line.number("sessions"), 4);
    for (client, _, server) in &mut held {
        client.exchange(server, b"still there");
    }
    // It goes on to share them, and does not try the closed one before its time.
    let gone: Vec<_> = held.extract_if(.., |one| one.1 == 0).collect();
    for (client, _, server) in gone {
        let addr = client.addr();
        drop((client, server));
        stage.proxy.ended_session(addr);
    }
    for _ in 0..2 {
        let (client, number, server) = stage.pair();
        assert_eq!(number, 0);
        held.push((client, number, server));
    }
    let metrics = stage.proxy.metrics();
    let labels = [("mapping", "m"), ("target", &*closed.to_string())];
    assert_eq!(
        metrics.sum("tml_proxy_target_connect_failures_total", &labels),
        1
    );
    drop(held);
    stage.targets.clear();
    stage.finish();
}

#[test]
fn a_client_that_waits_for_a_restart_is_served_through_an_upgrade() {
    let addr = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let port = ports::free();
    let more = "retries = 30\nconnect_timeout = \"1m\"";
    let proxy = Proxy::start(&leading_to(port, &format!("\"{addr}\""), more));
    let mut client = Peer::connect(port);
    client.send(b"early");
    proxy.wait_until("tml_proxy_connect_failures_total", &[("mapping", "m")], 1);
    proxy.signal(Signal::USR2);
    proxy.wait_for_line(0, "upgraded");
    let target = Target::bind_to(addr);
    let mut server = target.accept();
    server.expect(b"early");
    server.exchange(&mut client, b"welcome");
    drop((client, server));
    proxy.settles();
}

/// A server that gives back what it gets, and can be stopped and started.
struct Echo {
    addr: SocketAddr,
    open: AtomicBool,
}

impl Echo {
    fn new() -> Self {
        Self {
            addr: ([127, 0, 0, 1], ports::free()).into(),
            open: AtomicBool::new(true),
        }
    }

    /// Serves while it is open, until the end; sessions that have begun are served in any case.
    fn serve<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        ends: &'scope AtomicBool,
    ) {
        while !ends.load(Relaxed) {
            if !self.open.load(Relaxed) {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let listener = TcpListener::bind(self.addr).expect("a port of its own");
            listener.set_nonblocking(true).expect("an open socket");
            while self.open.load(Relaxed) && !ends.load(Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => _ = scope.spawn(|| echo(stream)),
                    Err(_) => thread::sleep(Duration::from_micros(200)),
                }
            }
        }
    }
}

fn echo(mut stream: TcpStream) {
    stream.set_nonblocking(false).expect("an open socket");
    let mut bytes = [0; 4096];
    // Who is gone needs no answer.
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

/// Sends and gets back; whether the connection was reset instead.
fn is_reset(port: u16, seed: u64) -> bool {
    let bytes = Stream::bytes(seed, 20_000);
    let pass = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let mut got = vec![0; bytes.len()];
        stream.write_all(&bytes)?;
        stream.read_exact(&mut got)?;
        assert!(got == bytes, "others than were sent");
        Ok::<_, std::io::Error>(())
    };
    match pass() {
        Ok(()) => false,
        Err(error) => {
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(kinds.contains(&error.kind()), "{error}");
            true
        }
    }
}

#[test]
fn no_client_notices_targets_that_come_and_go_but_those_they_had_accepted() {
    let echoes = [Echo::new(), Echo::new(), Echo::new()];
    let port = ports::free();
    let list = echoes
        .each_ref()
        .map(|echo| format!("\"{}\"", echo.addr))
        .join(", ");
    let proxy = Proxy::start(&leading_to(port, &list, "balance = \"least-sessions\""));
    let [enough, ends] = [const { AtomicBool::new(false) }; 2];
    let [served, reset] = [const { AtomicUsize::new(0) }; 2];
    thread::scope(|scope| {
        for echo in &echoes {
            scope.spawn(|| echo.serve(scope, &ends));
        }
        thread::scope(|clients| {
            for seed in 0..4 {
                let (enough, served, reset) = (&enough, &served, &reset);
                clients.spawn(move || {
                    while !enough.load(Relaxed) {
                        let count = match is_reset(port, seed) {
                            true => reset,
                            false => served,
                        };
                        count.fetch_add(1, Relaxed);
                    }
                });
            }
            for round in 0..12 {
                let more = served.load(Relaxed) + 20;
                wait_until("clients to be served", || served.load(Relaxed) >= more);
                let echo = &echoes[round % 3];
                echo.open.store(round % 2 == 1, Relaxed);
                echoes[(round + 2) % 3].open.store(true, Relaxed);
            }
            enough.store(true, Relaxed);
        });
        // The last client has ended: what serves may end.
        ends.store(true, Relaxed);
    });
    proxy.settles();
    // What was in the queue of a listener that was closed had been connected.
    let ended = proxy.said(|line| line.message() == "session ended");
    let unlucky = ended
        .iter()
        .filter(|line| line.text("reason") == "target_reset");
    let (reset, unlucky) = (reset.into_inner(), unlucky.count());
    assert!(reset <= unlucky, "{reset} of {unlucky}");
    let others = ["closed", "target_reset", "client_reset"];
    for line in ended {
        assert!(others.contains(&line.text("reason")), "{line}");
    }
}

#[test]
fn what_is_counted_of_targets_is_shown() {
    let stage = Stage::new(2, "");
    let held = [stage.pair(), stage.pair(), stage.pair()];
    let (_, mappings) = stage.proxy.page("/api/v1/mappings");
    let (_, page) = stage.proxy.page("/");
    for target in &stage.targets {
        let target = target.addr().to_string();
        assert!(mappings.contains(&format!("{{\"target\":\"{target}\",\"state\":\"unknown\"")));
        assert!(page.contains(&format!("<td>{target}</td>")), "{page}");
        let labels = [("mapping", "m"), ("target", &*target)];
        let metrics = stage.proxy.metrics();
        assert_eq!(metrics.sum("tml_proxy_target_up", &labels), 1);
    }
    let first = stage.targets[0].addr().to_string();
    let labels = [("mapping", "m"), ("target", &*first)];
    let metrics = stage.proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_target_sessions", &labels), 2);
    assert_eq!(
        metrics.sum("tml_proxy_target_sessions_opened_total", &labels),
        2
    );
    drop(held);
    stage.finish();
}
