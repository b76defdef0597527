//! Figures for the table in the README: what was survived, and how much of it.

use std::fmt::Display;

/// Prints a row of that table, seen with `--nocapture`.
pub fn figure(what: &str, how_much: impl Display) {
    println!("| {what} | {how_much} |");
}
