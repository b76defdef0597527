//! OpenSSH through the proxy, as in production: an IPv4 client, the proxy, and sshd on an internal
//! IPv6 address, each in a network of its own.
//!
//! Needs root, network namespaces and OpenSSH.

mod harness;

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "openssh/peers.rs"]
mod peers;

use std::{fs, process::Stdio, thread};

use rustix::process::Signal;

use harness::{
    Line, Proxy, Stream, TempDir, config,
    lab::{Lab, TARGET},
    mapping,
    metrics::Metrics,
    process::{Running, output, succeed},
    require::{Need, require},
    wait_until,
};
use peers::{Keys, Sshd, scp, ssh};

const PORT: u16 = 22014;

/// Everything in place: the proxy's mapping `board` leads to sshd.
struct Stage {
    keys: Keys,
    proxy: Proxy,
    sshd: Sshd,
    lab: Lab,
}

impl Stage {
    fn new() -> Option<Self> {
        let tools = ["ip", "ssh", "scp", "sshd", "ssh-keygen", "mount"].map(Need::Tool);
        if !require(&[&[Need::Root], &tools[..]].concat()) {
            return None;
        }
        let lab = Lab::new();
        let keys = Keys::new(PORT);
        let sshd = Sshd::start(&lab, &keys);
        let proxy = Proxy::start_with(&lab.setup(), &config([board("")]));
        Some(Self {
            keys,
            proxy,
            sshd,
            lab,
        })
    }

    #[track_caller]
    fn session_ended(&self, reason: &str) -> Line {
        let line = self.proxy.log().wait(0, "a session's end", |line| {
            line.message() == "session ended" && line.text("reason") == reason
        });
        assert_eq!(line.text("mapping"), "board");
        assert!(line.text("client").starts_with("198.51.100.2:"));
        assert_eq!(line.text("target"), format!("[{TARGET}]:22"));
        line
    }
}

fn board(policy: &str) -> String {
    mapping("board", PORT, format!("[{TARGET}]:22"), policy)
}

#[test]
fn commands_run_and_terminals_work() {
    let Some(stage) = Stage::new() else { return };
    let output = succeed(ssh(&stage.lab, &stage.keys).arg("echo to $SSH_CONNECTION"));
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words[3], TARGET.to_string(), "{output}");
    let line = stage.session_ended("closed");
    let source = format!("[{}]:{}", words[1], words[2]);
    assert_eq!(line.text("local"), source, "one line joins both logs");

    let mut terminal = peers::Remote::start(
        ssh(&stage.lab, &stage.keys).args(["-tt", "stty raw -echo; echo ready; exec cat"]),
    );
    terminal.hears("ready");
    for number in 0..50 {
        terminal.says_and_hears(&format!("line {number}"));
    }
    drop(terminal);
    stage.proxy.settles();
}

#[test]
fn files_arrive_whole_both_ways() {
    const LENGTH: usize = 200_000_000;
    let Some(stage) = Stage::new() else { return };
    let dir = TempDir::new();
    let [file, there, back] = ["file", "there", "back"].map(|name| dir.join(name));
    fs::write(&file, Stream::bytes(1, LENGTH)).expect("space for a file");
    succeed(&mut scp(&stage.lab, &stage.keys, &file, &there, true));
    assert!(same(&there, LENGTH), "the upload differs");
    fs::remove_file(&file).expect("own file");
    succeed(&mut scp(&stage.lab, &stage.keys, &back, &there, false));
    assert!(same(&back, LENGTH), "the download differs");
    stage.proxy.settles();
    let spliced = stage
        .proxy
        .metrics()
        .sum("tml_proxy_spliced_bytes_total", &[]);
    assert!(spliced > LENGTH as u64, "only {spliced} bytes spliced");
}

fn same(file: &std::path::Path, length: usize) -> bool {
    let bytes = fs::read(file).expect("the file arrived");
    Stream::new(1).check(&bytes);
    bytes.len() == length
}

#[test]
fn a_session_stays_while_other_mappings_come_go_and_move() {
    let Some(stage) = Stage::new() else { return };
    let mut remote = peers::Remote::start(ssh(&stage.lab, &stage.keys).arg("cat"));
    remote.says_and_hears("before");
    for round in 0..20_u16 {
        let mut parts = vec![board("")];
        if round % 3 != 0 {
            let target = format!("[{TARGET}]:{}", 1000 + round);
            let policy = "on_remove = \"kill\"\non_retarget = \"kill\"";
            parts.push(mapping("other", 22015, target, policy));
        }
        parts.push(mapping("new", 22100 + round, format!("[{TARGET}]:22"), ""));
        stage.proxy.reload(&config(parts));
        remote.says_and_hears(&format!("after reload {round}"));
    }
    let status = remote.closes();
    assert_eq!(status.code(), Some(0));
    stage.session_ended("closed");
    stage.proxy.settles();
}

#[test]
fn a_session_and_a_copy_go_on_through_upgrades() {
    const LENGTH: usize = 1_000_000_000;
    let Some(stage) = Stage::new() else { return };
    let mut remote = peers::Remote::start(ssh(&stage.lab, &stage.keys).arg("cat"));
    remote.says_and_hears("before");
    let dir = TempDir::new();
    let [file, there] = ["file", "there"].map(|name| dir.join(name));
    fs::write(&file, Stream::bytes(1, LENGTH)).expect("space for a file");
    let pid = stage.proxy.id();
    let upgrades = thread::scope(|scope| {
        let copied =
            scope.spawn(|| succeed(&mut scp(&stage.lab, &stage.keys, &file, &there, true)));
        let mut upgrades = 0;
        while !copied.is_finished() || upgrades < 20 {
            let from = stage.proxy.log().len();
            stage.proxy.signal(Signal::USR2);
            let line = stage.proxy.wait_for_line(from, "upgraded");
            assert!(line.number("sessions") >= 1);
            upgrades += 1;
            remote.says_and_hears(&format!("after upgrade {upgrades}"));
        }
        upgrades
    });
    assert!(same(&there, LENGTH), "the upload differs");
    assert_eq!(stage.proxy.id(), pid);
    assert_eq!(remote.closes().code(), Some(0));
    let ended = stage.proxy.log().wait(0, "the session's end", |line| {
        line.message() == "session ended" && line.number("bytes_up") < LENGTH as u64
    });
    assert_eq!(ended.number("upgrades"), upgrades);
    stage.proxy.settles();
}

#[test]
fn a_target_killed_at_odd_moments_ends_its_sessions_and_serves_the_next_when_it_is_back() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let down = |metrics: &Metrics| metrics.sum("tml_proxy_bytes_total", &[("direction", "down")]);
    for round in 0..4 {
        let mut quiet = peers::Remote::start(ssh(&stage.lab, &stage.keys).arg("cat"));
        quiet.says_and_hears("before");
        let mut bulk = Running::start(
            ssh(&stage.lab, &stage.keys)
                .arg("cat /dev/zero")
                .stdin(Stdio::null())
                .stdout(Stdio::null()),
        );
        let enough = down(&stage.proxy.metrics()) + 1_000_000 + 7_777_777 * round;
        stage
            .proxy
            .wait_until_metrics("bulk", |metrics| down(metrics) > enough);

        stage.sshd.kill();
        assert_eq!(quiet.ends().code(), Some(255), "ssh says that it failed");
        assert_eq!(bulk.wait().code(), Some(255));
        stage.proxy.settles();
        let refused = output(ssh(&stage.lab, &stage.keys).arg("true"));
        assert_eq!(refused.status.code(), Some(255));

        stage.sshd = Sshd::start(&stage.lab, &stage.keys);
        let answer = succeed(ssh(&stage.lab, &stage.keys).arg("echo back"));
        assert_eq!(answer.trim_end(), "back");
        stage.proxy.settles();
    }
    let log = stage.proxy.log();
    let ended = || log.all(|line| line.message() == "session ended");
    wait_until("a line of each session", || ended().len() == 4 * 4);
    let ended = ended();
    let refused = ended
        .iter()
        .filter(|line| line.text("reason") == "connect_refused");
    assert_eq!(refused.count(), 4);
    for line in &ended {
        // The kernel of a killed process resets where bytes were unread, and closes elsewhere.
        let reason = line.text("reason");
        assert!(
            ["closed", "target_reset", "connect_refused"].contains(&reason),
            "{reason}"
        );
    }
}

#[test]
fn a_session_whose_mapping_goes_is_kept() {
    let Some(stage) = Stage::new() else { return };
    let mut remote = peers::Remote::start(ssh(&stage.lab, &stage.keys).arg("cat"));
    remote.says_and_hears("before");
    stage.proxy.reload(&config([""]));
    remote.says_and_hears("after");
    assert_eq!(remote.closes().code(), Some(0));
    stage.session_ended("closed");
    stage.proxy.settles();
}

#[test]
fn a_session_whose_mapping_goes_may_finish_in_time() {
    let Some(stage) = Stage::new() else { return };
    stage
        .proxy
        .reload(&config([board("on_remove = { drain = \"1s\" }")]));
    let mut remote = peers::Remote::start(ssh(&stage.lab, &stage.keys).arg("cat"));
    remote.says_and_hears("before");
    stage.proxy.reload(&config([""]));
    remote.says_and_hears("after");
    assert_eq!(remote.ends().code(), Some(255));
    stage.session_ended("drain_deadline");
    stage.proxy.settles();
}

#[test]
fn a_session_whose_mapping_goes_is_killed_if_it_says_so() {
    let Some(stage) = Stage::new() else { return };
    stage.proxy.reload(&config([board("on_remove = \"kill\"")]));
    let mut remote = peers::Remote::start(ssh(&stage.lab, &stage.keys).arg("cat"));
    remote.says_and_hears("before");
    stage.proxy.reload(&config([""]));
    assert_eq!(remote.ends().code(), Some(255));
    stage.session_ended("mapping_removed");
    stage.proxy.settles();
}
