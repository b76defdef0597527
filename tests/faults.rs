//! The table of faults names tests that exist.

use std::{collections::BTreeSet, fs, path::Path};

const TABLE: &str = include_str!("FAULTS.md");

/// What stands between backticks and has the form of a test's name: its file and its function.
fn named() -> BTreeSet<(&'static str, &'static str)> {
    TABLE
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|name| name.split_once(".rs::"))
        .collect()
}

#[test]
fn every_test_in_the_table_of_faults_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for (file, function) in named() {
        let path = match file.starts_with("src/") {
            true => root.join(file),
            false => root.join("tests").join(file),
        };
        let text = fs::read_to_string(path.with_extension("rs")).unwrap_or_default();
        if !text.contains(&format!("fn {function}(")) {
            missing.push(format!("{file}.rs::{function}"));
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    assert!(named().len() > 100, "the table has been emptied");
}

#[test]
fn every_row_of_the_table_of_faults_has_a_proof_or_a_reason() {
    let rows = TABLE
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let proof = cells.last().expect("a row has cells").trim();
        assert!(cells.len() > 1 && !proof.is_empty(), "{row}");
    }
}
