//! Version 1: a line of text.

use std::{
    fmt::Display,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{Endpoints, Header, Malformed, Parsed};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// What a sender says that speaks for itself.
pub(super) const OWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// The longest line there can be, its end included.
const LONGEST_LINE: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let looked_at = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = looked_at.windows(2).position(|pair| pair == b"\r\n") else {
        return match looked_at.len() {
            LONGEST_LINE => Err(Malformed::Line),
            _ => Ok(Parsed::Partly),
        };
    };
    let line = str::from_utf8(&bytes[SIGNATURE.len()..end]).map_err(|_| Malformed::Words)?;
    Ok(Parsed::Whole {
        header: header(line).ok_or(Malformed::Words)?,
        len: end + 2,
    })
}

/// What stands behind `PROXY `.
fn header(line: &str) -> Option<Header> {
    let mut words = line.split(' ');
    let header = match words.next()? {
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Some(Header::Own),
        "TCP4" => endpoints::<Ipv4Addr>(&mut words)?,
        "TCP6" => endpoints::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    words.next().is_none().then_some(header)
}

fn endpoints<'w, Ip: FromStr + Into<std::net::IpAddr>>(
    words: &mut impl Iterator<Item = &'w str>,
) -> Option<Header> {
    let source: Ip = words.next()?.parse().ok()?;
    let destination: Ip = words.next()?.parse().ok()?;
    let source_port = port(words.next()?)?;
    let destination_port = port(words.next()?)?;
    Some(Header::Proxied(Endpoints {
        source: SocketAddr::new(source.into(), source_port),
        destination: SocketAddr::new(destination.into(), destination_port),
    }))
}

/// A port in digits and nothing else, without zeros in front.
fn port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}

pub(super) fn write(of: Endpoints) -> Vec<u8> {
    let family = if of.source.is_ipv4() { "TCP4" } else { "TCP6" };
    let words: [&dyn Display; 5] = [
        &family,
        &of.source.ip(),
        &of.destination.ip(),
        &of.source.port(),
        &of.destination.port(),
    ];
    let line = words.map(|word| word.to_string()).join(" ");
    format!("PROXY {line}\r\n").into_bytes()
}
