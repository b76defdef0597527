//! Addresses as texts have them, and those that nobody can listen on or connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Refusal;
use crate::host_port::in_brackets;

/// What to say of an IPv6 address that means nothing without the name of an interface.
pub(crate) const NOT_LINK_LOCAL: &str =
    "an address that is not link-local: \"fe80::…\" means another host on every interface";

/// Whether an address means something on one interface only. IPv4 routes link-local addresses as
/// any other.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Whether `text` is an IPv6 address with an interface.
pub(crate) fn is_scoped(text: &str) -> bool {
    let parts = text.split_once('%');
    parts.is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok())
}

pub(crate) fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// An IPv4 address, or an IPv6 address in brackets; `allowed` if it is neither.
pub(crate) fn host_ip(text: &str, allowed: &str) -> Result<IpAddr, Refusal> {
    let inside = in_brackets(text);
    let ip = match inside {
        Some(inside) => inside.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => text.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
    };
    match ip {
        Some(ip) => Ok(ip),
        None if inside.is_some_and(is_scoped) => Err(Refusal::new(NOT_LINK_LOCAL)),
        None => Err(Refusal::new(allowed)),
    }
}

/// A port from 1 to 65535.
pub(crate) fn port(text: &str) -> Result<u16, Refusal> {
    Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| Refusal::new("a port from 1 to 65535"))
}
