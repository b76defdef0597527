#!/usr/bin/env bash
# PROXY protocol v2: a LOCAL header whose family byte says TCP over IPv4 and whose length is 0.
#
# The specification (section 2.2) has receivers of LOCAL use the real ends of the connection and
# ignore the family, and forbids them to assume anything about the length; so this header is whole and
# valid. HAProxy 2.6.12 and nginx 1.22.1 take it.
#
# Seen: five of five Rust parsers refuse it. proxy-header calls it too short, as it does a header of
# which more is still to come, so whoever then reads on waits for bytes that nobody sends.
#   ppp 2.3.0, proxy-header 0.1.3, proxy-protocol 0.5.0, proxy-protocol-codec 0.3.1, proxyproto 0.2.1
#
# Exit code: 0 if all of that is still so. Needs cargo and the registry of crates.
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
bytes = "1"
ppp = "=2.3.0"
proxy-header = "=0.1.3"
proxy-protocol = "=0.5.0"
proxy-protocol-codec = "=0.3.1"
proxyproto = "=0.2.1"
TOML
cat >"$dir/src/main.rs" <<'RUST'
fn main() {
    let header = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\0";
    println!("ppp: {}", ppp::v2::Header::try_from(&header[..]).is_err());
    let parsed = proxy_header::ProxyHeader::parse(header, Default::default());
    println!("proxy-header: {}", matches!(parsed, Err(proxy_header::Error::BufferTooShort)));
    println!("proxy-protocol: {}", proxy_protocol::parse(&mut &header[..]).is_err());
    println!("proxy-protocol-codec: {}", proxy_protocol_codec::v2::Header::decode(header).is_err());
    println!("proxyproto: {}", proxyproto::v2::Header::try_from_bytes(header).is_err());
}
RUST
cargo run --quiet --manifest-path "$dir/Cargo.toml" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
ppp: true
proxy-header: true
proxy-protocol: true
proxy-protocol-codec: true
proxyproto: true
SEEN
