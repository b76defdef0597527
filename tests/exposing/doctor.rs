//! What `doctor` says of a switchboard.

use std::{fs, process::Command};

use serde_json::Value;

use super::{
    harness::{TempDir, config, process::output, proxy::PROGRAM, require::skip},
    stage::Stage,
};

/// The grade and the words of the finding about something.
fn finding(stage: &Stage, about: &str) -> (String, String) {
    let found = finding_with(stage, "", about);
    let word = |key: &str| found[key].as_str().expect("a word").to_owned();
    (word("grade"), word("found"))
}

/// The same as a whole, with further keys in the file.
fn finding_with(stage: &Stage, keys: &str, about: &str) -> Value {
    let dir = TempDir::new();
    let file = dir.write("proxy.toml", config([stage.section(keys)]));
    let mut command = Command::new(PROGRAM);
    command.args(["doctor", "--json", "--no-targets", "--config"]);
    let output = output(command.arg(file));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = findings.iter().find(|one| one["check"] == about);
    let found = found.unwrap_or_else(|| panic!("nothing about {about}: {findings:?}"));
    found.clone()
}

#[test]
fn ports_of_jobs_that_outgoing_connections_may_take_are_named_with_what_reserves_them() {
    let stage = Stage::new(10);
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        text.expect("a setting of the kernel").trim().to_owned()
    };
    let range = read("ip_local_port_range");
    let reserved = read("ip_local_reserved_ports");
    let bounds: Vec<u16> = (range.split_whitespace())
        .map(|bound| bound.parse().expect("a port"))
        .collect();
    let [first, last] = bounds[..] else {
        panic!("{range}");
    };
    if !reserved.is_empty() {
        return skip("source ports of which none is reserved");
    }
    let (from, below) = (last - 99, stage.first);
    assert!(below < first && first < from, "{range}");
    let keys = format!("ports = [{below}, \"{from}-{last}\"]\n");
    let found = finding_with(&stage, &keys, "source ports");
    assert_eq!(found["grade"], "poor", "{found}");
    let words = found["found"].as_str().expect("words");
    assert!(words.ends_with(&format!(": {from}-{last}")), "{words}");
    let line = format!("sysctl -w net.ipv4.ip_local_reserved_ports={from}-{last}, ");
    let advice = found["advice"].as_str().expect("words");
    assert!(advice.starts_with(&line), "{advice}");
    let found = finding_with(&stage, "", "source ports");
    assert_eq!(found["grade"], "good", "{found}");
}

#[test]
fn a_switchboard_that_answers_and_a_token_that_lasts_are_good() {
    let stage = Stage::new(10);
    assert_eq!(finding(&stage, "switchboard").0, "good");
    assert_eq!(finding(&stage, "switchboard token").0, "good");
    assert_eq!(finding(&stage, "switchboard.state_dir").0, "note");
    assert_eq!(finding(&stage, "switchboard account").0, "good");
    stage.board.set_admin(false);
    let (grade, words) = finding(&stage, "switchboard account");
    assert_eq!(grade, "poor");
    assert!(words.contains("may not read all jobs"), "{words}");
    stage.board.token_expires("2000-01-01T00:00:00Z");
    assert_eq!(finding(&stage, "switchboard token").0, "bad");
}

#[test]
fn a_token_that_is_refused_and_a_switchboard_that_is_away_are_bad() {
    let stage = Stage::new(10);
    stage.board.accept_only("another");
    let (grade, words) = finding(&stage, "switchboard");
    assert_eq!(grade, "bad");
    assert!(words.contains("401"), "{words}");
    stage.board.stop();
    assert_eq!(finding(&stage, "switchboard").0, "bad");
}
