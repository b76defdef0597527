//! The commands, as an operator types them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixListener,
    process::Command,
};

use serde_json::Value;

use crate::{
    desk::Desk,
    harness::{TempDir, process, process::Running, proxy::PROGRAM, wait_for},
};

#[test]
fn one_session_is_killed_and_the_others_go_on() {
    let desk = Desk::new("", "");
    let (mut first, _first_server) = desk.scene.pair();
    let (mut second, mut second_server) = desk.scene.pair();
    let sessions = json(&desk, &["sessions", "--json"]);
    let wanted = first.addr().to_string();
    let all = sessions["sessions"].as_array().expect("a list");
    let found = all
        .iter()
        .find(|session| session["client"] == wanted.as_str());
    let number = found.expect("it is live")["session"].to_string();

    assert_eq!(desk.succeed(&["kill", &number]), "1 session told to end\n");
    first.expect_reset();
    let line = desk.scene.ended(first.addr(), "killed");
    assert_eq!(line.text("end"), "KD");
    second.exchange(&mut second_server, b"still here");

    let killed = json(
        &desk,
        &[
            "kill",
            "--mapping",
            "m",
            "--source",
            "127.0.0.0/8",
            "--json",
        ],
    );
    assert_eq!(killed["sessions"], 1);
    second.expect_reset();
}

#[test]
fn every_reading_command_prints_json_and_aligned_text() {
    let desk = Desk::new("", "");
    let _pair = desk.scene.pair();
    for command in ["status", "mappings", "sessions", "events"] {
        json(&desk, &[command, "--json"]);
        let text = desk.succeed(&[command]);
        assert!(!text.contains('\x1b'), "no colour in a pipe: {text}");
        let narrow = process::succeed(desk.prepare(&[command]).env("COLUMNS", "40"));
        let fits = narrow.lines().all(|line| line.chars().count() <= 40);
        assert!(fits, "{narrow}");
    }
    let sessions = desk.succeed(&["sessions"]);
    let lines: Vec<&str> = sessions.lines().collect();
    assert_eq!(lines.len(), 2, "{sessions}");
    assert_eq!(lines[0].find("MAPPING"), lines[1].find("m "), "{sessions}");
}

#[test]
fn exit_codes_tell_a_refusal_from_nobody_there() {
    let desk = Desk::new("", "");
    let code = |arguments: &[&str]| desk.command(arguments).status.code();
    assert_eq!(code(&["kill", "999"]), Some(1));
    assert_eq!(code(&["drain", "nothing"]), Some(1));
    assert_eq!(code(&["kill"]), Some(2));
    desk.scene.proxy.write_config("version = ");
    assert_eq!(code(&["reload"]), Some(1));

    let nobody = process::output(Command::new(PROGRAM).args(["status", "--socket", "/nobody"]));
    assert_eq!(nobody.status.code(), Some(5));
    let stderr = String::from_utf8_lossy(&nobody.stderr);
    assert!(
        stderr.contains("/nobody") && stderr.contains("running"),
        "{stderr}"
    );
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = process::succeed(Command::new(PROGRAM).args(["completions", shell]));
        assert!(script.contains("log-level"), "{shell}");
    }
    let dir = TempDir::new();
    process::succeed(Command::new(PROGRAM).arg("man").arg(dir.path()));
    for page in ["tml-proxy.1", "tml-proxy-run.1", "tml-proxy-drain.1"] {
        let page = fs::read_to_string(dir.join(page)).expect("a page for each command");
        assert!(page.contains(".SH NAME"), "{page}");
    }
}

#[test]
fn the_first_event_is_followed_too_where_there_was_none_before() {
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    let listener = UnixListener::bind(&socket).expect("a socket of its own");
    listener
        .set_nonblocking(true)
        .expect("an open socket does as it is told");
    let mut follower = Running::start(
        Command::new(PROGRAM)
            .args(["events", "--follow", "--socket"])
            .arg(&socket),
    );
    let first = answer(&listener, r#"{"events":[]}"#);
    assert!(first.starts_with("GET /api/v1/events?after=0&wait=0 "));
    let second = answer(&listener, r#"{"events":[]}"#);
    assert!(
        second.starts_with("GET /api/v1/events?after=0&wait=25 "),
        "{second}"
    );
    drop(listener);
    assert_eq!(follower.wait().code(), Some(5));
}

/// Answers the next request and gives what was asked.
#[track_caller]
fn answer(listener: &UnixListener, body: &str) -> String {
    let (mut stream, _) = wait_for("a request", || listener.accept().ok());
    let mut asked = vec![0; 4096];
    let read = stream.read(&mut asked).expect("a request in one piece");
    let answer = format!("HTTP/1.0 200 OK\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).expect("taken");
    String::from_utf8_lossy(&asked[..read]).into_owned()
}

#[track_caller]
fn json(desk: &Desk, arguments: &[&str]) -> Value {
    serde_json::from_str(&desk.succeed(arguments)).expect("JSON")
}
