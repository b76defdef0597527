#!/usr/bin/env bash
# Durations of whole days, written by the crate that many configuration files are read with.
#
# Seen: humantime 2.3.0 counts 30.44 days to a month and 365.25 to a year when it writes, too: 31 days
# become "1month 13h 26m 24s" and 365 days "11months 30days 3h 50m 24s". What an operator wrote as days
# cannot be recognized in what a program prints back.
#
# Exit code: 0 if that is still so. Needs cargo and the registry of crates.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"
cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "probe"
version = "0.0.0"
edition = "2021"
[dependencies]
humantime = "=2.3.0"
TOML
cat >"$dir/src/main.rs" <<'RUST'
use humantime::{format_duration, parse_duration};

fn main() {
    for text in ["30days", "31days", "90days", "365days"] {
        let span = parse_duration(text).expect("valid");
        println!("{text}: {}", format_duration(span));
    }
}
RUST
cargo run --quiet --manifest-path "$dir/Cargo.toml" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
30days: 30days
31days: 1month 13h 26m 24s
90days: 2months 29days 2h 52m 48s
365days: 11months 30days 3h 50m 24s
SEEN
