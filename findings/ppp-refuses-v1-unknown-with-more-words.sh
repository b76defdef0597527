#!/usr/bin/env bash
# PROXY protocol v1: "PROXY UNKNOWN" with more than four words behind it.
#
# The specification (section 2.1) has receivers ignore whatever stands between UNKNOWN and the end of
# the line.
#
# Seen: ppp 2.3.0 ignores up to four words, as many as the other families have, and refuses a fifth for
# want of a new line. proxy-header 0.1.3 takes all of them.
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
ppp = "=2.3.0"
proxy-header = "=0.1.3"
TOML
cat >"$dir/src/main.rs" <<'RUST'
fn main() {
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN a b c d\r\n", "PROXY UNKNOWN a b c d e\r\n"] {
        let ppp = ppp::v1::Header::try_from(line).map(|_| ());
        let other = proxy_header::ProxyHeader::parse(line.as_bytes(), Default::default());
        println!("{:?}: ppp {ppp:?}, proxy-header {}", line.trim_end(), other.is_ok());
    }
}
RUST
cargo run --quiet --manifest-path "$dir/Cargo.toml" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
"PROXY UNKNOWN": ppp Ok(()), proxy-header true
"PROXY UNKNOWN a b c d": ppp Ok(()), proxy-header true
"PROXY UNKNOWN a b c d e": ppp Err(MissingNewLine), proxy-header true
SEEN
