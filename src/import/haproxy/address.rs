//! Addresses of `bind` and `server` lines.

use std::net::{IpAddr, Ipv6Addr};

/// A host as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Nothing or `*`: every IPv4 address, or the one that the client came to.
    Unspecified,
    /// `::`, `0.0.0.0` among them.
    Ip(IpAddr),
    Name(String),
}

/// A port as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Missing,
    Range(u16, u16),
    /// So many more, or fewer, than the one that the client came to.
    Offset(i32),
}

/// An address with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: Host,
    pub port: Port,
    /// The family that its prefix says.
    pub family: Option<Family>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Why an address is none that can be forwarded to or from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// HAProxy would refuse it.
    Invalid(String),
    /// It is something else than TCP over IP.
    Other(&'static str),
}

/// Reads an address: the last colon begins the port, brackets or not.
pub fn parse(text: &str) -> Result<Address, Unfit> {
    let invalid = |why: &str| Unfit::Invalid(why.to_owned());
    let mut rest = text;
    if let Some((prefix, behind)) = text.split_once('@') {
        let prefix = prefix.strip_prefix("stream+").unwrap_or(prefix);
        match prefix {
            "ipv4" | "tcp4" | "ipv6" | "tcp6" | "tcp" | "ip" => rest = behind,
            "unix" | "abns" | "abnsz" | "sockpair" | "fd" => {
                return Err(Unfit::Other(
                    "it is no address of TCP but a socket of this machine",
                ));
            }
            "mptcp" | "mptcp4" | "mptcp6" => return Err(Unfit::Other("it is multipath TCP")),
            "udp" | "udp4" | "udp6" | "quic4" | "quic6" | "dgram+unix" => {
                return Err(Unfit::Other("it is UDP"));
            }
            "rhttp" | "rev" => return Err(Unfit::Other("it is reverse HTTP")),
            _ => return Err(invalid("an address has no such prefix")),
        }
        let family = match prefix {
            "ipv4" | "tcp4" => Some(Family::V4),
            "ipv6" | "tcp6" => Some(Family::V6),
            _ => None,
        };
        let address = Address {
            family,
            ..plain(rest)?
        };
        return match (&address.host, family) {
            (Host::Unspecified, Some(Family::V6)) => {
                let host = Host::Ip(Ipv6Addr::UNSPECIFIED.into());
                Ok(Address { host, ..address })
            }
            (Host::Ip(ip), Some(family)) if ip.is_ipv6() != (family == Family::V6) => Err(invalid(
                "the address is of another family than its prefix says",
            )),
            _ => Ok(address),
        };
    }
    if text.starts_with('/') {
        return Err(Unfit::Other(
            "it is no address of TCP but a socket of this machine",
        ));
    }
    plain(rest)
}

fn plain(text: &str) -> Result<Address, Unfit> {
    let invalid = |why: &str| Unfit::Invalid(why.to_owned());
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match inside.unwrap_or(host) {
        "" | "*" => Host::Unspecified,
        host => match host.parse::<IpAddr>() {
            Ok(ip) => Host::Ip(ip),
            Err(_) if host.contains([':', '[', ']', '/', ',']) => {
                return Err(invalid(
                    "this is no address; its last colon begins the port",
                ));
            }
            Err(_) => Host::Name(host.to_owned()),
        },
    };
    Ok(Address {
        host,
        port: self::port(port)?,
        family: None,
    })
}

fn port(text: &str) -> Result<Port, Unfit> {
    let invalid = || Unfit::Invalid("a port is a number from 1 to 65535".to_owned());
    let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    match text.as_bytes() {
        [] => Ok(Port::Missing),
        [sign @ (b'+' | b'-'), ..] => {
            let offset = i32::from(number(&text[1..])?);
            Ok(Port::Offset(if *sign == b'+' { offset } else { -offset }))
        }
        _ => match text.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                match first <= last && first > 0 {
                    true => Ok(Port::Range(first, last)),
                    false => Err(invalid()),
                }
            }
            None => match number(text)? {
                0 => Ok(Port::Missing),
                port => Ok(Port::Range(port, port)),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_begins_the_port() {
        let ip = |text: &str| Host::Ip(text.parse().expect("an address"));
        let one = |port| Port::Range(port, port);
        for (text, host, port) in [
            (":22", Host::Unspecified, one(22)),
            ("*:22", Host::Unspecified, one(22)),
            (":::22", ip("::"), one(22)),
            ("[::]:22", ip("::"), one(22)),
            ("::1:1110", ip("::1"), one(1110)),
            ("ipv6@:22", ip("::"), one(22)),
            ("ipv6@[2001:db8::25]:110", ip("2001:db8::25"), one(110)),
            ("2001:db8::13:6443", ip("2001:db8::13"), one(6443)),
            ("192.0.2.1", ip("192.0.2.1"), Port::Missing),
            ("192.0.2.1:0", ip("192.0.2.1"), Port::Missing),
            ("192.0.2.1:+10", ip("192.0.2.1"), Port::Offset(10)),
            ("[2001:db8::1]", ip("2001:db8::1"), Port::Missing),
            ("tcp4@192.0.2.1:20-29", ip("192.0.2.1"), Port::Range(20, 29)),
            (
                "board.example:22",
                Host::Name("board.example".to_owned()),
                one(22),
            ),
        ] {
            let found = parse(text).map(|address| (address.host, address.port));
            assert_eq!(found, Ok((host, port)), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_of_tcp_is_said_to_be_none() {
        for text in [
            "unix@/run/a",
            "/run/a",
            "abns@a",
            "fd@3",
            "udp@:53",
            "mptcp@:22",
        ] {
            assert!(matches!(parse(text), Err(Unfit::Other(_))), "{text}");
        }
        for text in [
            "fd00::14",
            "22:65536",
            ":29-20",
            "ipv4@[::1]:22",
            "x@:22",
            "::1]:22",
        ] {
            assert!(matches!(parse(text), Err(Unfit::Invalid(_))), "{text}");
        }
    }
}
