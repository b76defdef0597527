use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

use rustix::fs::fstat;

use super::*;
use crate::health::settings::read;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

fn probe(target: SocketAddr, toml: &str) -> Arc<Probe> {
    Arc::new(Probe {
        target,
        from: None,
        freebind: false,
        header: None,
        check: read(&format!("every = \"100ms\"\n{toml}")).expect("a check"),
    })
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    (listener, address)
}

/// What is told first.
fn first(probe: Arc<Probe>) -> Outcome {
    let mut prober = Prober::new(Instant::now());
    prober.set([probe], 1, Instant::now());
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Some((_, outcome)) = prober.turn(Instant::now()).pop() {
            return outcome;
        }
        let next = prober.next().expect("there is something to try");
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    panic!("a try does not end");
}

/// Answers every client in the same way.
fn answering(answer: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let (listener, address) = listener();
    thread::spawn(move || {
        for client in listener.incoming() {
            answer(client.expect("a client"));
        }
    });
    address
}

fn asked(client: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) > 0 {
        request.extend_from_slice(&byte);
    }
    String::from_utf8(request).expect("text")
}

#[test]
fn a_target_that_listens_is_up_and_never_sees_the_connection() {
    let (listener, address) = listener();
    assert_eq!(first(probe(address, "")), Ok(()));
    // A client of its own comes first out of the queue.
    let client = TcpStream::connect(address).expect("it listens");
    let (_, from) = listener.accept().expect("a client");
    assert_eq!(from, client.local_addr().expect("it has one"));
}

#[test]
fn a_target_is_tried_again_and_again_with_one_socket_and_what_becomes_of_it_is_seen() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).expect("a port");
        let target = listener.local_addr().expect("it has one");
        let mut prober = Prober::new(Instant::now());
        prober.set([probe(target, "")], 1, Instant::now());
        let next = |prober: &mut Prober| loop {
            let next = prober.next().expect("there is something to try");
            thread::sleep(next.saturating_duration_since(Instant::now()));
            if let Some((_, outcome)) = prober.turn(Instant::now()).pop() {
                return outcome;
            }
        };
        assert_eq!(next(&mut prober), Ok(()));
        let socket = |prober: &Prober| {
            let spare = prober.spares.0.iter().flatten().next();
            let flight = prober.flights.iter().map(|flight| &flight.socket).next();
            let one = spare.or(flight).expect("a try leaves its socket");
            fstat(one).expect("it is open").st_ino
        };
        let first = socket(&prober);
        for _ in 0..3 {
            assert_eq!(next(&mut prober), Ok(()));
            assert_eq!(socket(&prober), first);
        }
        // Its program has seen none of them.
        listener.set_nonblocking(true).expect("a socket");
        assert!(listener.accept().is_err());
        drop(listener);
        let refused = Err(Failure::Refused(Errno::CONNREFUSED));
        assert_eq!(next(&mut prober), refused);
        assert_eq!(next(&mut prober), refused);
        let _again = TcpListener::bind(target).expect("it was free");
        while next(&mut prober) == refused {}
    }
}

#[test]
fn a_target_where_nobody_listens_is_refused() {
    let (listener, address) = listener();
    drop(listener);
    let outcome = first(probe(address, ""));
    assert_eq!(outcome, Err(Failure::Refused(Errno::CONNREFUSED)));
}

#[test]
fn a_target_is_tried_from_the_address_that_sessions_come_from() {
    let (listener, address) = listener();
    let probe = Probe {
        from: Some([127, 0, 0, 9].into()),
        ..(*probe(address, "expect = \"x\"")).clone()
    };
    thread::spawn(move || first(Arc::new(probe)));
    let (_, from) = listener.accept().expect("a client");
    assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 9]));
}

#[test]
fn the_health_port_of_a_database_says_which_is_the_primary() {
    let patroni = |status: &'static str| {
        answering(move |mut client| {
            let request = asked(&mut client);
            assert!(
                request.starts_with("GET /primary HTTP/1.1\r\n"),
                "{request}"
            );
            assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
            let answer =
                format!("HTTP/1.0 {status}\r\nServer: x\r\n\r\n{{\"state\": \"running\"}}");
            client.write_all(answer.as_bytes()).expect("it listens");
        })
    };
    for (status, outcome) in [
        ("200 OK", Ok(())),
        ("503 Service Unavailable", Err(Failure::Status(503))),
    ] {
        let health = patroni(status);
        let toml = format!("http = \"/primary\"\nport = {}", health.port());
        // Nobody is asked at the port of the target itself.
        let target = SocketAddr::new(health.ip(), 9);
        assert_eq!(first(probe(target, &toml)), outcome);
    }
}

#[test]
fn an_answer_that_never_comes_drips_or_never_ends_is_given_up() {
    let late = |timeout| Err(Failure::NotAnswered(Duration::from_millis(timeout)));
    let mut held = Vec::new();
    let (keep, kept) = std::sync::mpsc::channel();
    let silent = answering(move |client| keep.send(client).expect("it is kept"));
    let http = "http = \"/\"\ntimeout = \"200ms\"";
    assert_eq!(first(probe(silent, http)), late(200));
    held.extend(kept.try_iter());
    let dripping = answering(|mut client| {
        let drops = "HTTP/1.1 200 OK".bytes().chain(std::iter::repeat(b' '));
        for drop in drops {
            thread::sleep(Duration::from_millis(10));
            if client.write_all(&[drop]).is_err() {
                return;
            }
        }
    });
    assert_eq!(first(probe(dripping, http)), late(200));
    let endless = || {
        answering(
            |mut client| {
                while client.write_all(&[b'a'; 4096]).is_ok() {}
            },
        )
    };
    let outcome = first(probe(endless(), "http = \"/\""));
    assert_eq!(outcome, Err(Failure::NotHttp));
    let outcome = first(probe(endless(), "expect = \"b\""));
    assert_eq!(outcome, Err(Failure::NotExpected(16 << 10)));
}

#[test]
fn a_target_that_hangs_up_without_an_answer_is_down() {
    let closing = answering(|mut client| {
        asked(&mut client);
        let _ = client.shutdown(Shutdown::Write);
        thread::spawn(move || {
            let _client = client;
            thread::park_timeout(DEADLINE);
        });
    });
    assert_eq!(
        first(probe(closing, "http = \"/\"")),
        Err(Failure::BrokeOff)
    );
}

#[test]
fn a_service_that_answers_what_is_expected_is_up() {
    let redis = answering(|mut client| {
        let mut asked = [0; 6];
        client.read_exact(&mut asked).expect("it asks");
        assert_eq!(&asked, b"PING\r\n");
        client.write_all(b"+PO").expect("it listens");
        client.write_all(b"NG\r\n").expect("it listens");
    });
    let toml = "send = \"PING\\r\\n\"\nexpect = \"+PONG\"";
    assert_eq!(first(probe(redis, toml)), Ok(()));
}

#[test]
fn a_target_that_wants_a_header_is_sent_one_for_nobody_before_the_request() {
    for (version, header) in [
        (Version::V1, &b"PROXY UNKNOWN\r\n"[..]),
        (Version::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let strict = answering(move |mut client| {
            let mut first = vec![0; header.len()];
            let read = client.read_exact(&mut first);
            if read.is_ok() && first == header && asked(&mut client).starts_with("GET / ") {
                client
                    .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                    .expect("it listens");
            }
        });
        let with = Probe {
            header: Some(version),
            ..(*probe(strict, "http = \"/\"")).clone()
        };
        assert_eq!(first(Arc::new(with)), Ok(()));
        let without = first(probe(strict, "http = \"/\""));
        assert!(without.is_err(), "{without:?}");
    }
}

#[test]
fn many_targets_are_spread_over_the_time_and_tried_as_often_as_said() {
    let mut now = Instant::now();
    let began = now;
    let mut prober = Prober::new(now);
    // Nothing is connected to: a port that cannot be had stands in for the target.
    let none = Some(IpAddr::from([192, 0, 2, 1]));
    let probes: Vec<_> = (0..1000_u16)
        .map(|port| {
            let target = SocketAddr::from(([127, 0, 0, 1], port + 1));
            Arc::new(Probe {
                from: none,
                ..(*probe(target, "")).clone()
            })
        })
        .map(|probe| {
            Arc::new(Probe {
                check: Check {
                    every: Duration::from_secs(2),
                    ..probe.check.clone()
                },
                ..(*probe).clone()
            })
        })
        .collect();
    prober.set(probes.iter().cloned(), 1000, now);
    let mut turns = Vec::new();
    while let Some(next) = prober.next()
        && next < began + Duration::from_secs(20)
    {
        now = next;
        turns.push(prober.turn(now).len());
    }
    let tries: usize = turns.iter().sum();
    assert!((9_700..=10_600).contains(&tries), "{tries}");
    let most = turns.iter().max().copied().unwrap_or_default();
    assert!(most < 70, "{most} at a time, of 25 on average");
    assert!(turns.len() <= 401, "{} turns", turns.len());
}

#[test]
fn what_is_checked_as_before_is_tried_when_it_would_have_been() {
    let now = Instant::now();
    let mut prober = Prober::new(now);
    let (one, other) = (
        SocketAddr::from(([127, 0, 0, 1], 1)),
        SocketAddr::from(([127, 0, 0, 1], 2)),
    );
    prober.set([probe(one, "")], 1, now);
    let due = prober.next();
    prober.set([probe(one, ""), probe(one, "")], 1, now);
    assert_eq!((prober.next(), prober.places.len()), (due, 1));
    prober.set([probe(other, "")], 1, now);
    assert_eq!(prober.places.len(), 1);
    let outcomes = prober.turn(now + Duration::from_secs(1));
    assert!(outcomes.iter().all(|(probe, _)| probe.target == other));
}
