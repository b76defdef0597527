//! Hosts and ports as most programs write them.

use std::net::IpAddr;

use super::{Around, Remark, listen::Host};

/// `HOST:PORT`, with an address of IPv6 in brackets.
pub fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some((host, port))
}

/// The address of a host: itself, or that of its name if names are to be looked up.
pub fn ip(host: &str, around: &Around<'_>) -> Option<IpAddr> {
    let host = host.trim_matches(['[', ']']);
    let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let ip = ip.or_else(|| (host == "localhost").then_some(IpAddr::from([127, 0, 0, 1])));
    ip.or_else(|| (around.resolve)(host))
}

/// The address to listen on that a host is.
pub fn listen_host(host: &str, around: &Around<'_>) -> Option<Host> {
    ip(host, around).map(Host::of)
}

/// `remark` about a name that nobody looked up.
pub fn is_a_name(remark: Remark) -> Remark {
    remark.instead("write its address, or run this with --resolve to have the one of now written")
}
