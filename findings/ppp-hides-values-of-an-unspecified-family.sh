#!/usr/bin/env bash
# PROXY protocol v2: type-length-values behind an unspecified address family.
#
# Such a family has no address block, so what the length counts are values (a unique id, say, of a
# connection whose ends cannot be told).
#
# Seen: ppp 2.3.0 lists none of them, though the same value behind IPv4 addresses is listed, and gives
# no error. proxy-header 0.1.3 lists it in both.
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
    let id = b"\x05\0\x02id";
    let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 0, 9, 0, 22];
    for (name, family, addresses) in [("ipv4", 0x11, &addresses[..]), ("unspecified", 0, &[])] {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
        header.extend([family, 0, (addresses.len() + id.len()) as u8]);
        header.extend(addresses);
        header.extend(id);
        let ppp = ppp::v2::Header::try_from(&header[..]).expect("valid");
        let config = proxy_header::ParseConfig { include_tlvs: true, ..Default::default() };
        let (other, _) = proxy_header::ProxyHeader::parse(&header, config).expect("valid");
        println!("{name}: ppp {}, proxy-header {}", ppp.tlvs().count(), other.tlvs().count());
    }
}
RUST
cargo run --quiet --manifest-path "$dir/Cargo.toml" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
ipv4: ppp 1, proxy-header 1
unspecified: ppp 0, proxy-header 1
SEEN
