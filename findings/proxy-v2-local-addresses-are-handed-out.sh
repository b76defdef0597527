#!/usr/bin/env bash
# PROXY protocol v2: a LOCAL header (a health check of the proxy in front) with an address block.
#
# The specification (section 2.2) has receivers discard the block and use the real ends.
#
# Seen: these return the addresses as they would a client's, and only a look at the command tells them
# apart: ppp 2.3.0, proxy-protocol 0.5.0, proxyproto 0.2.1 (`source_addr`) and, for Node.js,
# @balena/proxy-protocol-parser 1.0.2, whose result has no command to look at. proxy-header 0.1.3 and
# proxy-protocol-codec 0.3.1 return none.
#
# Exit code: 0 if that is still so. Needs cargo, node, npm and both registries.
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
use proxy_protocol::{ProxyHeader, version2::ProxyAddresses};
use proxy_protocol_codec::v2::{AddressPair, Decoded};

fn main() {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 1, 198, 51, 100, 2, 0, 9, 0, 22]);
    let ppp = ppp::v2::Header::try_from(&header[..]).expect("valid");
    println!("ppp: {}", matches!(ppp.addresses, ppp::v2::Addresses::IPv4(_)));
    let parsed = proxy_protocol::parse(&mut &header[..]).expect("valid");
    let ProxyHeader::Version2 { addresses, .. } = parsed else { panic!("version 2") };
    println!("proxy-protocol: {}", matches!(addresses, ProxyAddresses::Ipv4 { .. }));
    let (_, parsed) = proxyproto::v2::Header::try_from_bytes(&header).expect("valid");
    println!("proxyproto: {}", parsed.source_addr().is_some());
    let (parsed, _) = proxy_header::ProxyHeader::parse(&header, Default::default()).expect("valid");
    println!("proxy-header: {}", parsed.proxied_address().is_some());
    let decoded = proxy_protocol_codec::v2::Header::decode(&header).expect("valid");
    let Decoded::Some(decoded) = decoded else { panic!("whole") };
    let none = matches!(decoded.header.address_pair(), AddressPair::Unspecified);
    println!("proxy-protocol-codec: {}", !none);
}
RUST
cargo run --quiet --manifest-path "$dir/Cargo.toml" >"$dir/seen"
npm install --silent --no-audit --no-fund --prefix "$dir" @balena/proxy-protocol-parser@1.0.2 >/dev/null
cat >"$dir/probe.js" <<'JS'
const { v2_decode } = require('@balena/proxy-protocol-parser');
const header = Buffer.from('0d0a0d0a000d0a515549540a2011000cc0000201c633640200090016', 'hex');
console.log(`@balena/proxy-protocol-parser: ${v2_decode(header, true).remoteAddress === '192.0.2.1'}`);
JS
node "$dir/probe.js" >>"$dir/seen"
cat "$dir/seen"
diff "$dir/seen" - <<'SEEN'
ppp: true
proxy-protocol: true
proxyproto: true
proxy-header: false
proxy-protocol-codec: false
@balena/proxy-protocol-parser: true
SEEN
