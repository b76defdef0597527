//! Pausing, draining and resuming a mapping.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    net::SocketAddr,
    process::{ChildStdout, Stdio},
};

use serde_json::Value;

use crate::{
    desk::Desk,
    harness::{Peer, Target, mapping, ports, process::Running, wait_until},
};

fn try_connect(desk: &Desk) -> Result<Peer, ErrorKind> {
    let addr = SocketAddr::from(([127, 0, 0, 1], desk.scene.port));
    Peer::try_connect_to(addr).map_err(|error| error.kind())
}

/// The ports of a drained mapping are closed by its worker, a moment after the answer.
fn wait_until_closed(desk: &Desk) {
    wait_until("the port to be closed", || {
        try_connect(desk).is_err_and(|kind| kind == ErrorKind::ConnectionRefused)
    });
}

#[test]
fn clients_of_a_paused_mapping_wait_until_it_is_resumed() {
    let desk = Desk::new("", "");
    let (mut before, mut server) = desk.scene.pair();
    assert_eq!(desk.succeed(&["pause", "m"]), "m is paused\n");
    // The worker hears of it before it can hear of the next client.
    desk.succeed(&["sessions"]);
    let mut waiting = Peer::connect(desk.scene.port);
    waiting.send(b"patience");
    before.exchange(&mut server, b"still here");
    assert!(
        !desk
            .scene
            .target
            .is_called(std::time::Duration::from_millis(200))
    );

    // It outlives a reload that changes the mapping.
    desk.scene.proxy.reload(&desk.config("max_sessions = 7"));
    assert!(desk.succeed(&["mappings"]).contains("paused"));
    assert!(
        !desk
            .scene
            .target
            .is_called(std::time::Duration::from_millis(200))
    );

    assert_eq!(desk.succeed(&["resume", "m"]), "m is accepting\n");
    desk.scene.target.accept().expect(b"patience");
}

#[test]
fn a_drained_mapping_refuses_clients_and_keeps_its_sessions() {
    let desk = Desk::new("", "");
    let (mut client, mut server) = desk.scene.pair();
    desk.succeed(&["drain", "m"]);
    wait_until_closed(&desk);
    client.exchange(&mut server, b"still here");

    desk.scene.proxy.reload(&desk.config("max_sessions = 7"));
    wait_until_closed(&desk);
    assert!(desk.succeed(&["status"]).contains("m is drained"));

    desk.succeed(&["resume", "m"]);
    let _served = desk.scene.pair();
}

#[test]
fn a_drain_with_a_time_ends_those_that_are_left() {
    let desk = Desk::new("", "");
    let (mut client, _server) = desk.scene.pair();
    desk.succeed(&["drain", "m", "--within", "50ms"]);
    client.expect_reset();
    let line = desk.scene.ended(client.addr(), "drain_deadline");
    assert_eq!(line.text("end"), "KD");
}

#[test]
fn the_time_of_a_drain_is_that_of_the_last_word_on_the_mapping() {
    let port = ports::free();
    let target = Target::bind();
    let other = mapping("n", port, target.addr(), "");
    let desk = Desk::new(&other, "");
    let (mut client, mut server) = desk.scene.pair();
    for word in [
        &["resume", "m"][..],
        &["drain", "m", "--within", "1h"],
        &["drain", "m"],
    ] {
        // Long enough for a slow machine to say the next word within it.
        desk.succeed(&["drain", "m", "--within", "2s"]);
        desk.succeed(word);
        let mut clock = Peer::connect(port);
        let _accepted = target.accept();
        desk.succeed(&["drain", "n", "--within", "2s"]);
        clock.expect_reset();
        client.exchange(&mut server, b"not in a hurry");
        desk.succeed(&["resume", "n"]);
        desk.succeed(&["resume", "m"]);
    }
}

#[test]
fn a_hold_is_forgotten_with_its_mapping() {
    let desk = Desk::new("", "");
    desk.succeed(&["drain", "m"]);
    let without = desk.config("").replace("name = \"m\"", "name = \"other\"");
    desk.scene.proxy.reload(&without);
    wait_until("the port to be open again", || try_connect(&desk).is_ok());
    desk.scene.proxy.reload(&desk.config(""));
    assert!(desk.succeed(&["mappings"]).contains("accepting"));
}

#[test]
fn a_port_taken_meanwhile_keeps_the_mapping_drained() {
    let desk = Desk::new("", "");
    desk.succeed(&["drain", "m"]);
    wait_until_closed(&desk);
    let addr = SocketAddr::from(([0, 0, 0, 0], desk.scene.port));
    let _thief = crate::harness::Target::bind_to(addr);
    let output = desk.command(&["resume", "m"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("in use"),
        "{output:?}"
    );
    assert!(desk.succeed(&["mappings"]).contains("drained"));
}

#[test]
fn a_client_in_the_queue_of_a_removed_mapping_has_to_finish_in_time_too() {
    let desk = Desk::new("", "on_remove = { drain = \"300ms\" }");
    desk.succeed(&["pause", "m"]);
    desk.succeed(&["sessions"]);
    let mut waiting = Peer::connect(desk.scene.port);
    let addr = waiting.addr();
    let config = desk.config("");
    let (without, _) = config.split_once("[[mapping]]").expect("a mapping");
    desk.scene.proxy.reload(without);
    let mut server = desk.scene.target.accept();
    waiting.expect_reset();
    server.expect_reset();
    desk.scene.ended(addr, "drain_deadline");
    desk.scene.proxy.settles();
}

/// A drain that waits, and what it says.
struct Drain {
    running: Running,
    said: BufReader<ChildStdout>,
}

impl Drain {
    fn start(desk: &Desk, options: &[&str]) -> Self {
        let arguments = [&["drain", "m", "--wait"], options].concat();
        let mut running = Running::start(desk.prepare(&arguments).stdout(Stdio::piped()));
        let said = running.child().stdout.take().expect("asked for");
        Self {
            running,
            said: BufReader::new(said),
        }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it is text");
        line
    }
}

#[test]
fn a_drain_says_how_many_sessions_are_left_and_waits_for_them_if_it_is_to() {
    let desk = Desk::new("", "");
    let pairs = [desk.scene.pair(), desk.scene.pair()];
    assert_eq!(
        desk.succeed(&["drain", "m"]),
        "m is drained, 2 sessions are left\n"
    );
    let mut drain = Drain::start(&desk, &[]);
    assert_eq!(drain.line(), "m is drained, 2 sessions are left\n");
    let [one, other] = pairs;
    drop(one);
    assert_eq!(drain.line(), "m is drained, 1 session is left\n");
    drop(other);
    assert_eq!(drain.line(), "m is drained, no session is left\n");
    assert_eq!(drain.running.wait().code(), Some(0));
}

#[test]
fn a_drain_that_is_waited_for_streams_json_with_its_countdown_and_says_who_ended_it() {
    let desk = Desk::new("", "");
    let _pair = desk.scene.pair();
    let mut drain = Drain::start(&desk, &["--json", "--within", "1h"]);
    let first: Value = serde_json::from_str(&drain.line()).expect("JSON");
    assert_eq!(first["sessions"], 1, "{first}");
    let left = first["sessions_end_in_ms"].as_u64().expect("a time");
    assert!((1..=3_600_000).contains(&left), "{first}");
    let mappings: Value = desk.get("/api/v1/mappings?mapping=m");
    let counting = mappings["mappings"][0]["sessions_end_in_ms"].as_u64();
    assert!(counting.is_some_and(|now| now <= left), "{mappings}");
    assert!(
        desk.succeed(&["drain", "m", "--within", "1h"])
            .contains("1 session is left; in ")
    );

    desk.succeed(&["resume", "m"]);
    let last: Value = serde_json::from_str(&drain.line()).expect("JSON");
    assert_eq!(last["error"], "m is accepting, no longer drained");
    assert_eq!(drain.running.wait().code(), Some(1));
    let mappings: Value = desk.get("/api/v1/mappings?mapping=m");
    assert!(
        mappings["mappings"][0]["sessions_end_in_ms"].is_null(),
        "{mappings}"
    );
}
