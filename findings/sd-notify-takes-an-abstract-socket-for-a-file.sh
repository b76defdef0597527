#!/usr/bin/env bash
# NOTIFY_SOCKET=@name, an abstract socket, as sd_notify(3) describes it.
#
# Seen: sd-notify 0.5.0 looks for a file of that name, "@" included, and READY=1 fails with "No such
# file or directory" while a socket listens in the abstract name space.
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
sd-notify = "=0.5.0"
TOML
cat >"$dir/src/main.rs" <<'RUST'
use std::os::{linux::net::SocketAddrExt, unix::net::{SocketAddr, UnixDatagram}};

fn main() {
    let name = std::env::var("NOTIFY_SOCKET").expect("given");
    let addr = SocketAddr::from_abstract_name(&name[1..]).expect("an address");
    let listening = UnixDatagram::bind_addr(&addr).expect("listens");
    listening.set_nonblocking(true).expect("does not wait");
    let sent = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    println!("notify: {:?}", sent.map_err(|error| error.kind()));
    println!("arrived: {}", listening.recv(&mut [0; 64]).is_ok());
}
RUST
NOTIFY_SOCKET=@probe-$$ cargo run --quiet --manifest-path "$dir/Cargo.toml" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
notify: Err(NotFound)
arrived: false
SEEN
