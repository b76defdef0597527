//! The kernel's settings, the clock and the addresses of this machine.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, UdpSocket},
};

use super::report::Finding;
use crate::table::Table;

pub(super) fn examine(table: &Table) -> Vec<Finding> {
    let mut findings = vec![backlog(table), source_ports(table), clock()];
    findings.extend(ways(table));
    findings.extend(sources(table));
    findings
}

fn setting(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    Some(text.trim().to_owned())
}

fn backlog(table: &Table) -> Finding {
    let check = "net.core.somaxconn";
    let wanted = table
        .mappings()
        .iter()
        .map(|mapping| mapping.policy.backlog)
        .max();
    let limit = setting("net/core/somaxconn").and_then(|text| text.parse::<u32>().ok());
    match (wanted, limit) {
        (Some(wanted), Some(limit)) if limit < wanted => Finding::poor(
            check,
            format!("{limit} connections may wait to be accepted, the file asks for {wanted}"),
            format!("sysctl -w net.core.somaxconn={wanted}"),
        ),
        (_, Some(limit)) => Finding::good(check, limit.to_string()),
        (_, None) => Finding::note(check, "cannot be read", ""),
    }
}

/// Connections to one target address and port are limited by the source ports there are.
fn source_ports(table: &Table) -> Finding {
    let check = "source ports";
    let key = "net/ipv4/ip_local_port_range";
    let range: Vec<u16> = setting(key)
        .map(|text| {
            text.split_whitespace()
                .filter_map(|port| port.parse().ok())
                .collect()
        })
        .unwrap_or_default();
    let [first, last] = range[..] else {
        return Finding::note(check, "the range cannot be read", "");
    };
    let inside = table
        .routes()
        .filter(|route| (first..=last).contains(&route.listen.port()))
        .count();
    let count = u32::from(last.saturating_sub(first)) + 1;
    let found = format!("{first} to {last}: at most {count} sessions to one target");
    match inside {
        0 if count < 10_000 => Finding::poor(check, found, "widen net.ipv4.ip_local_port_range"),
        0 => Finding::good(check, found),
        _ => Finding::poor(
            check,
            format!(
                "{found}; {inside} public ports lie in it, and an outgoing connection may hold one when the proxy starts"
            ),
            "add them to net.ipv4.ip_local_reserved_ports, or use ports outside of the range",
        ),
    }
}

fn clock() -> Finding {
    let check = "clock";
    // systemd-timesyncd leaves this file at each success; chrony and ntpd have their own.
    let synchronised = [
        "/run/systemd/timesync/synchronized",
        "/run/chrony/chronyd.pid",
        "/run/ntpd.pid",
    ];
    match synchronised.iter().find(|path| fs::metadata(path).is_ok()) {
        Some(path) => Finding::good(check, format!("kept right ({path})")),
        None => Finding::poor(
            check,
            "nothing that keeps it right was found",
            "run systemd-timesyncd or chrony: log lines are joined with those of targets by time",
        ),
    }
}

/// Whether there is a way to each target at all, from which address, and over which interface.
fn ways(table: &Table) -> Vec<Finding> {
    let targets: BTreeSet<IpAddr> = table.routes().map(|route| route.target.ip()).collect();
    let unreachable: Vec<String> = targets
        .iter()
        .filter(|target| source_towards(**target).is_none())
        .map(ToString::to_string)
        .collect();
    let check = "ways to targets";
    if unreachable.is_empty() {
        return vec![Finding::good(
            check,
            format!("all {} addresses have one", targets.len()),
        )];
    }
    let some: Vec<&str> = unreachable.iter().take(5).map(String::as_str).collect();
    vec![Finding::bad(
        check,
        format!(
            "none to {} of {} addresses: {}",
            unreachable.len(),
            targets.len(),
            some.join(", ")
        ),
        "is the mesh interface up? (`ip -6 route get ADDRESS`)",
    )]
}

/// The address a packet to `target` would have; connecting a datagram socket sends nothing.
fn source_towards(target: IpAddr) -> Option<IpAddr> {
    let any = match target {
        IpAddr::V4(_) => "0.0.0.0:0",
        IpAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((target, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Whether each address to connect from is this machine's.
fn sources(table: &Table) -> Vec<Finding> {
    let policies = table.mappings().iter().map(|mapping| &mapping.policy);
    let wanted: BTreeSet<IpAddr> = policies
        .filter(|policy| !policy.freebind)
        .filter_map(|policy| policy.bind)
        .collect();
    let missing = wanted
        .into_iter()
        .filter(|ip| UdpSocket::bind((*ip, 0)).is_err());
    missing
        .map(|ip| {
            Finding::bad(
                "source address",
                format!("{ip} (bind) is not an address of this machine"),
                "add it, or set freebind = true if it appears later",
            )
        })
        .collect()
}
