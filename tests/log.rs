//! The log is for reading; that nobody reads it is no reason to stop forwarding.

mod harness;

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Command, Stdio},
};

use harness::{
    Peer, Proxy, Scene, Target, TempDir, config, mapping, ports, process::Running, wait_until,
};
use rustix::process::Signal;

/// A proxy whose outputs are not read beyond the line that says it listens.
fn unread(config: &str, dir: &TempDir) -> (Running, BufReader<std::process::ChildStdout>) {
    let file = dir.write("proxy.toml", config);
    let mut command = Command::new(harness::proxy::PROGRAM);
    command
        .args(["run", "--admin", "off", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    let stdout = running.child().stdout.take().expect("asked for");
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    stdout
        .read_line(&mut line)
        .expect("the proxy says something");
    assert!(line.contains("listening"), "{line}");
    (running, stdout)
}

fn short_sessions(port: u16, target: &Target, count: usize) {
    for _ in 0..count {
        let mut client = Peer::connect(port);
        let mut server = target.accept();
        client.exchange(&mut server, b"hello");
        client.reset();
        server.expect_reset();
    }
}

#[test]
fn a_log_that_is_closed_stops_nothing() {
    let target = Target::bind();
    let port = ports::free();
    let dir = TempDir::new();
    let text = config([mapping("m", port, target.addr(), "")]);
    let (mut running, stdout) = unread(&text, &dir);
    drop(stdout);
    drop(running.child().stderr.take());
    short_sessions(port, &target, 20);
    running.signal(Signal::HUP);
    short_sessions(port, &target, 20);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0));
}

/// The pipe is full after a few hundred lines.
#[test]
fn a_log_that_nobody_reads_stops_no_session() {
    let target = Target::bind();
    let port = ports::free();
    let dir = TempDir::new();
    let text = config([mapping("m", port, target.addr(), "")]);
    let (_running, _stdout) = unread(&text, &dir);
    short_sessions(port, &target, 1500);
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_reload_and_no_stop() {
    let target = Target::bind();
    let [port, added] = [ports::free(), ports::free()];
    let dir = TempDir::new();
    let text = config([mapping("m", port, target.addr(), "")]);
    let (mut running, _stdout) = unread(&text, &dir);
    short_sessions(port, &target, 1500);
    dir.write(
        "proxy.toml",
        config([
            mapping("m", port, target.addr(), ""),
            mapping("n", added, target.addr(), ""),
        ]),
    );
    running.signal(Signal::HUP);
    wait_until("the reload to open a port", || {
        TcpStream::connect(("127.0.0.1", added)).is_ok()
    });
    drop(target);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn a_session_is_one_line_of_text() {
    let target = Target::bind();
    let port = ports::free();
    let dir = TempDir::new();
    let text = config([mapping("m", port, target.addr(), "")]);
    let (running, mut stdout) = unread(&text, &dir);
    let client = Peer::connect(port);
    let addr = client.addr();
    let server = target.accept();
    drop((client, server));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line a session");
    for words in [
        " INFO session ended session=1 mapping=m ",
        &format!(" client={addr} "),
        &format!(" listen=*:{port} "),
        &format!(" target={} ", target.addr()),
        " source=[::1]:",
        " bytes_up=0 bytes_down=0 ",
        " end=-- reason=closed",
    ] {
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
    drop(running);
}

#[test]
fn session_lines_can_be_off() {
    let target = Target::bind();
    let port = ports::free();
    let text = config([
        "[log]\nsessions = false\n",
        &mapping("m", port, target.addr(), ""),
    ]);
    let proxy = Proxy::start(&text);
    short_sessions(port, &target, 3);
    proxy.settles();
    let reset = [("reason", "client_reset")];
    proxy.wait_until("tml_proxy_sessions_ended_total", &reset, 3);
    let log = proxy.log().clone();
    assert_eq!(proxy.stop().code(), Some(0));
    assert!(log.all(|line| line.message() == "session ended").is_empty());
}

/// Each session has one line, and only one, with a number of its own.
#[test]
fn every_session_has_one_line() {
    let scene = Scene::new("");
    short_sessions(scene.port, &scene.target, 200);
    scene.proxy.settles();
    let log = scene.proxy.log().clone();
    scene.finish();
    let lines = log.all(|line| line.message() == "session ended");
    let mut numbers: Vec<u64> = lines.iter().map(|line| line.number("session")).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((lines.len(), numbers.len()), (200, 200));
}
