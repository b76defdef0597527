//! `tml-proxy import`: what a configuration of another proxy comes to, and what is said of the rest.
//!
//! Each folder of `tests/import/cases` has a configuration, what it has to come to (the equivalent: `check`
//! judges) and what is said of it. `UPDATE=1` writes the latter anew. Where HAProxy is installed, it
//! decides what is valid, and both proxies are run from one source.

mod harness;

#[path = "import/differential.rs"]
mod differential;
#[path = "import/haproxy.rs"]
mod haproxy;
#[path = "import/others.rs"]
mod others;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use harness::proxy::PROGRAM;
use serde_json::{Value, json};

/// Runs `tml-proxy import` in `directory`.
fn import(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("import").args(arguments).current_dir(directory);
    command.output().expect("the program runs")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn written(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// What `check` makes of a file: what counts of it.
fn checked(file: &Path) -> Value {
    let output = Command::new(PROGRAM)
        .args(["check", "--json", "--config"])
        .arg(file)
        .output()
        .expect("the program runs");
    let errors = said(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}: {errors}",
        file.display()
    );
    let mut all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // Where a value is given makes no difference.
    all["defaults"] = json!(null);
    all
}

/// The cases of `tests/import/cases`.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/cases");
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    cases.sort();
    assert!(cases.len() > 10, "cases are not found any more");
    cases
}
