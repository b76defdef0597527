//! What `doctor` says of a switchboard.

use std::process::Command;

use serde_json::Value;

use super::{
    harness::{TempDir, config, process::output, proxy::PROGRAM},
    stage::Stage,
};

/// The grade and the words of the finding about something.
fn finding(stage: &Stage, about: &str) -> (String, String) {
    let dir = TempDir::new();
    let file = dir.write("proxy.toml", config([stage.section("")]));
    let mut command = Command::new(PROGRAM);
    command.args(["doctor", "--json", "--no-targets", "--config"]);
    let output = output(command.arg(file));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = findings.iter().find(|one| one["check"] == about);
    let found = found.unwrap_or_else(|| panic!("nothing about {about}: {findings:?}"));
    let word = |key: &str| found[key].as_str().expect("a word").to_owned();
    (word("grade"), word("found"))
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
