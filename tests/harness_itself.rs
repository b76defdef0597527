//! The scripted peers tell apart what the tests rest on, over a direct connection.

mod harness;

use std::{collections::HashSet, thread};

use harness::{Peer, Stream, Target, ports, require::summary};

fn pair() -> (Peer, Peer) {
    let target = Target::bind();
    let client = Peer::connect_to(target.addr());
    let server = target.accept();
    (client, server)
}

#[test]
fn an_end_is_an_end() {
    let (mut client, mut server) = pair();
    client.send(b"last words");
    client.finish();
    server.expect(b"last words");
    server.expect_end();
    server.send(b"answer");
    client.expect(b"answer");
    drop(server);
    client.expect_end();
}

#[test]
fn a_reset_is_a_reset() {
    let (mut client, mut server) = pair();
    server.send(b"before");
    client.expect(b"before");
    server.reset();
    client.expect_reset();
}

#[test]
#[should_panic(expected = "a clean end after 6 bytes, not a reset")]
fn an_end_is_not_taken_for_a_reset() {
    let (mut client, mut server) = pair();
    server.send(b"before");
    drop(server);
    client.receive_until_reset();
}

#[test]
#[should_panic(expected = "instead of the end")]
fn a_reset_is_not_taken_for_an_end() {
    let (mut client, server) = pair();
    server.reset();
    client.expect_end();
}

#[test]
fn a_stream_arrives_as_it_was_sent() {
    let (mut client, mut server) = pair();
    let length = 3_000_001;
    thread::scope(|scope| {
        scope.spawn(|| client.send_stream(&mut Stream::new(1), length));
        server.expect_stream(&mut Stream::new(1), length);
    });
    assert_eq!(Stream::bytes(1, 100), Stream::bytes(1, 200)[..100]);
    assert_ne!(Stream::bytes(1, 100), Stream::bytes(2, 100));
}

#[test]
#[should_panic(expected = "stream differs at byte 70000")]
fn a_lost_byte_is_noticed() {
    let mut bytes = Stream::bytes(1, 100_000);
    bytes.remove(70_000);
    Stream::new(1).check(&bytes);
}

#[test]
fn a_full_target_answers_nobody() {
    let (target, _fillers) = Target::full();
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None)
        .expect("a TCP socket");
    let error = socket
        .connect_timeout(&target.addr().into(), std::time::Duration::from_millis(100))
        .expect_err("the queue is full");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn no_port_is_given_twice() {
    let mut seen = HashSet::new();
    for _ in 0..150 {
        assert!(seen.insert(ports::free()));
    }
    let first = ports::range(250);
    assert!((first..first + 250).all(|port| seen.insert(port)));
    assert!(seen.insert(ports::free()));
}

#[test]
fn what_was_skipped_is_said_with_what_runs_it() {
    assert_eq!(summary(""), "no test was skipped\n");
    let said = summary("b: root\na: the program ip\n");
    assert!(said.starts_with("2 tests were skipped"), "{said}");
    assert!(
        said.contains("\n  a: the program ip\n  b: root\n"),
        "{said}"
    );
    assert!(said.contains("`.ci/run`"), "{said}");
}
