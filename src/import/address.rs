//! Hosts and ports as most programs write them.

use std::net::{IpAddr, Ipv4Addr};

use super::{Around, Remark, listen::Host, model::TargetHost};

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
    ip.or_else(|| of_name(host, around))
}

/// The address of a name: that of `localhost` is known, others if they are to be looked up.
pub fn of_name(name: &str, around: &Around<'_>) -> Option<IpAddr> {
    match name {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        name => around.resolve.and_then(|resolve| resolve(name)),
    }
}

/// The host of a target, nothing if it is neither an address nor a name.
pub fn target_host(host: &str, around: &Around<'_>) -> Option<TargetHost> {
    if let Some(ip) = ip(host, around) {
        return Some(TargetHost::Ip(ip));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = (1..=253).contains(&host.len()) && host.chars().all(fits);
    is_name.then(|| TargetHost::Name(host.to_owned()))
}

/// The address to listen on that a host is.
pub fn listen_host(host: &str, around: &Around<'_>) -> Option<Host> {
    ip(host, around).map(Host::of)
}

/// `remark` about a name that nobody looked up.
pub fn is_a_name(remark: Remark) -> Remark {
    remark.instead("write its address, or run this with --resolve to have the one of now written")
}
