//! `top` in a terminal.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    desk::Desk,
    harness::{
        Peer, mapping, ports,
        process::{self, Running},
        proxy::PROGRAM,
        require::{Need, require},
        wait_until,
    },
};

/// A terminal with `top` in it.
struct Terminal {
    running: Running,
    keys: ChildStdin,
    written: Arc<Mutex<String>>,
}

impl Terminal {
    fn new(desk: &Desk) -> Self {
        let socket = desk.socket();
        let line = format!(
            "stty cols 80 rows 24; exec {PROGRAM} top --every 1 --socket {}",
            socket.display()
        );
        let mut running = Running::start(
            Command::new("script")
                .args(["-q", "-e", "-c", &line, "/dev/null"])
                .env("TERM", "xterm")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let keys = running.child().stdin.take().expect("asked for");
        let mut screen = running.child().stdout.take().expect("asked for");
        let written = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&written);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]);
                into.lock().expect("nobody panics with it").push_str(&text);
            }
        });
        Self {
            running,
            keys,
            written,
        }
    }

    #[track_caller]
    fn press(&mut self, key: &[u8]) {
        self.keys.write_all(key).expect("top reads keys");
        self.keys.flush().expect("top reads keys");
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        wait_until(text, || {
            let written = self.written.lock().expect("nobody panics with it");
            written.contains(text)
        });
    }
}

#[test]
fn top_takes_keys_while_the_proxy_hangs() {
    if !require(&[Need::Tool("script"), Need::Tool("stty")]) {
        return;
    }
    for quit in [&b"q"[..], b"\x03"] {
        let desk = Desk::new("", "");
        let mut terminal = Terminal::new(&desk);
        terminal.shows("accepting");
        desk.scene.proxy.signal(Signal::STOP);
        wait_until("the proxy to hang", || {
            process::is_stopped(desk.scene.proxy.id())
        });
        terminal.shows("no answer for ");
        terminal.press(b" ");
        // Only cells that change are written, and all of these do.
        terminal.shows("go on");
        terminal.press(quit);
        let status = terminal.running.wait();
        desk.scene.proxy.signal(Signal::CONT);
        assert_eq!(status.code(), Some(0));
        desk.scene.finish();
    }
}

#[test]
fn top_prints_json_or_a_screen_of_the_width_asked_for() {
    let desk = Desk::new("", "");
    let (mut client, mut server) = desk.scene.pair();
    client.exchange(&mut server, b"something to count");
    let text = desk.succeed(&["top", "--once", "--every", "1", "--json"]);
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["status"]["sessions"], 1, "{json}");
    assert_eq!(json["mappings"][0]["mapping"], "m", "{json}");
    assert_eq!(json["sessions"][0]["bytes_up_per_second"], 0.0, "{json}");
    for width in [40, 120] {
        let mut command = desk.prepare(&["top", "--once", "--every", "1"]);
        let screen = process::succeed(command.env("COLUMNS", width.to_string()));
        let longest = screen.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest <= width), "{screen}");
        assert_eq!(screen.contains("REFUSED"), width == 120, "{screen}");
    }
}

#[test]
fn top_streams_a_line_for_each_look_until_nobody_reads() {
    let desk = Desk::new("", "");
    let mut command = desk.prepare(&["top", "--json", "--every", "1"]);
    let mut running = Running::start(command.stdout(Stdio::piped()));
    let written = running.child().stdout.take().expect("asked for");
    let mut lines = BufReader::new(written).lines();
    for _ in 0..2 {
        let line = lines.next().expect("a line").expect("text");
        let json: Value = serde_json::from_str(&line).expect("JSON in a line");
        assert_eq!(json["mappings"][0]["mapping"], "m", "{json}");
    }
    drop(lines);
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn top_scrolls_filters_and_does_what_was_answered_with_yes() {
    if !require(&[Need::Tool("script"), Need::Tool("stty")]) {
        return;
    }
    let desk = Desk::new("", "");
    let nobody = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let dead = ports::free();
    let more: String = (0..40)
        .map(|number| {
            let port = if number == 33 { dead } else { ports::free() };
            mapping(&format!("board-{number:02}"), port, nobody, "")
        })
        .collect();
    desk.scene.proxy.reload(&(desk.config("") + &more));
    let (mut client, mut server) = desk.scene.pair();
    client.exchange(&mut server, b"still here");
    Peer::connect(dead).expect_reset();
    let mut terminal = Terminal::new(&desk);
    // What fails comes first, though it is idle and the 34th.
    terminal.shows("board-33  failing");
    terminal.shows(&format!(" *:{dead} "));
    terminal.shows(&format!(" {nobody} "));
    // The last one is out of sight until it is selected.
    terminal.press(b"s\x1b[F");
    terminal.shows("board-39: *:");
    terminal.press(b"/board-0");
    terminal.shows("filter: board-0_");
    terminal.press(b"\r");
    terminal.shows("/ filter: board-0 ");
    terminal.press(b"\x1b\x1b[Hd");
    terminal.shows("drain m? New clients are refused; open: 1 session. y: yes");
    terminal.press(b"n");
    terminal.shows("nothing done");
    assert!(desk.succeed(&["mappings"]).contains("m         accepting"));
    terminal.press(b"dy");
    terminal.shows("m is drained");
    client.exchange(&mut server, b"still here");
    terminal.press(b"\t\x1b[Bk");
    terminal.shows("end session 1 of m, from 127.0.0.1:");
    terminal.press(b"y");
    terminal.shows("1 session told to end");
    client.expect_reset();
    terminal.press(b"q");
    assert_eq!(terminal.running.wait().code(), Some(0));
}
