//! Version 2: a fixed beginning, the addresses, then values of a type and a length.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Endpoints, Header, LONGEST, Malformed, Parsed, Value, crc32c::crc32c};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a sender says that speaks for itself: signature, version and command (`LOCAL`), no family, nothing
/// behind.
pub(super) const OWN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Signature, version and command, family and protocol, length of the rest.
const FIXED: usize = 16;

/// `PP2_TYPE_CRC32C`.
const CHECKSUM: u8 = 0x03;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        return Ok(Parsed::Partly);
    };
    let [.., command, family, high, low] = *fixed;
    let is_own = match command {
        0x20 => true,
        0x21 => false,
        other => return Err(Malformed::Command(other)),
    };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > LONGEST {
        return Err(Malformed::Length(len));
    }
    let Some(whole) = bytes.get(..len) else {
        return Ok(Parsed::Partly);
    };
    let rest = &whole[FIXED..];
    let (header, values) = match (is_own, family) {
        // What a sender says that speaks for itself is to be ignored.
        (true, _) => (Header::Own, None),
        (false, 0x11) => {
            let (addresses, values) = rest.split_first_chunk::<12>().ok_or(Malformed::Short)?;
            (Header::Proxied(ipv4(*addresses)), Some(values))
        }
        (false, 0x21) => {
            let (addresses, values) = rest.split_first_chunk::<36>().ok_or(Malformed::Short)?;
            (Header::Proxied(ipv6(addresses)), Some(values))
        }
        // A connection of no address, or of a unix socket, has none to pass on.
        (false, 0x00) => (Header::Own, None),
        (false, 0x31) => {
            let (_, values) = rest.split_first_chunk::<216>().ok_or(Malformed::Short)?;
            (Header::Own, Some(values))
        }
        (false, other) => return Err(Malformed::Family(other)),
    };
    if let Some(values) = values {
        check(whole, len - values.len())?;
    }
    Ok(Parsed::Whole { header, len })
}

/// Whether the values from `start` on are whole, and the checksum right if there is one.
fn check(whole: &[u8], start: usize) -> Result<(), Malformed> {
    let mut at = start;
    while at < whole.len() {
        let head = whole[at..].first_chunk::<3>().ok_or(Malformed::Short)?;
        let len = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let content = whole.get(at + 3..at + 3 + len).ok_or(Malformed::Short)?;
        if head[0] == CHECKSUM {
            let sum: [u8; 4] = content.try_into().map_err(|_| Malformed::Checksum)?;
            // It is made with zeros in its own place.
            let parts = [&whole[..at + 3], &[0; 4], &whole[at + 7..]];
            if crc32c(&parts) != u32::from_be_bytes(sum) {
                return Err(Malformed::Checksum);
            }
        }
        at += 3 + len;
    }
    Ok(())
}

fn ipv4(bytes: [u8; 12]) -> Endpoints {
    let [s0, s1, s2, s3, d0, d1, d2, d3, ports @ ..] = bytes;
    let (source, destination) = ports_of(ports);
    Endpoints {
        source: SocketAddr::from((Ipv4Addr::new(s0, s1, s2, s3), source)),
        destination: SocketAddr::from((Ipv4Addr::new(d0, d1, d2, d3), destination)),
    }
}

fn ipv6(bytes: &[u8; 36]) -> Endpoints {
    let ip = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let (source, destination) = ports_of([bytes[32], bytes[33], bytes[34], bytes[35]]);
    Endpoints {
        source: SocketAddr::from((ip(0), source)),
        destination: SocketAddr::from((ip(16), destination)),
    }
}

fn ports_of([s0, s1, d0, d1]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]))
}

pub(super) fn write(of: Endpoints, values: &[Value<'_>]) -> Vec<u8> {
    let mut rest = Vec::new();
    let family = match (of.source, of.destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            rest.extend(source.ip().octets());
            rest.extend(destination.ip().octets());
            0x11
        }
        (source, destination) => {
            for end in [source, destination] {
                rest.extend(match end.ip() {
                    std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    std::net::IpAddr::V6(v6) => v6.octets(),
                });
            }
            0x21
        }
    };
    rest.extend(of.source.port().to_be_bytes());
    rest.extend(of.destination.port().to_be_bytes());
    for value in values {
        // What is put in here is a name or a number; nothing longer than a length can say.
        let content = &value.content[..value.content.len().min(LONGEST / 8)];
        rest.push(value.kind);
        rest.extend((content.len() as u16).to_be_bytes());
        rest.extend(content);
    }
    let mut header = SIGNATURE.to_vec();
    header.extend([0x21, family]);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}
