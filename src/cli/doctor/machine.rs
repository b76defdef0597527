//! The kernel's settings, the clock and the addresses of this machine.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, UdpSocket},
    ops::RangeInclusive,
    sync::Arc,
};

use super::report::Finding;
use crate::{
    config::Config,
    listen::has_ipv6,
    provider::LocalAddresses,
    session::AckProbe,
    table::{ListenHost, Route, Table},
};

pub(super) fn examine(config: &Config, table: &Table) -> Vec<Finding> {
    let mut findings = vec![backlog(table), source_ports(config, table), clock()];
    findings.extend(lacking(table));
    findings.push(routes_to_targets(table));
    findings.extend(sources(table));
    findings
}

pub(super) fn kernel_setting(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    Some(text.trim().to_owned())
}

fn backlog(table: &Table) -> Finding {
    let check = "net.core.somaxconn";
    let wanted = table.mappings().map(|mapping| mapping.policy.backlog).max();
    let limit = kernel_setting("net/core/somaxconn").and_then(|text| text.parse::<u32>().ok());
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
fn source_ports(config: &Config, table: &Table) -> Finding {
    let range = kernel_setting("net/ipv4/ip_local_port_range").unwrap_or_default();
    let reserved = kernel_setting("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let of_jobs = config.switchboard.iter();
    let of_jobs = of_jobs.flat_map(|switchboard| switchboard.ports.ranges().flatten());
    let of_file = table.routes().map(|route| route.listen.port());
    let public = of_file.chain(of_jobs).collect();
    judge_source_ports(&range, &reserved, &public)
}

/// As the kernel writes them: `range` is `32768\t60999`, `reserved` is `40000-40010,40100`.
fn judge_source_ports(range: &str, reserved: &str, public: &BTreeSet<u16>) -> Finding {
    let check = "source ports";
    let range: Vec<u16> = range
        .split_whitespace()
        .filter_map(|port| port.parse().ok())
        .collect();
    let [first, last] = range[..] else {
        return Finding::note(check, "the range cannot be read", "");
    };
    let before = reserved;
    let reserved: Vec<RangeInclusive<u16>> = reserved.split(',').filter_map(port_range).collect();
    let is_reserved = |port: &u16| reserved.iter().any(|range| range.contains(port));
    let count = (first..=last).filter(|port| !is_reserved(port)).count();
    let exposed: Vec<u16> = public
        .range(first..=last.max(first))
        .copied()
        .filter(|port| !is_reserved(port))
        .collect();
    let found = format!("{first} to {last}: at most {count} sessions to one target");
    match exposed.len() {
        0 if count < 10_000 => Finding::poor(check, found, "widen net.ipv4.ip_local_port_range"),
        0 => Finding::good(check, found),
        _ => Finding::poor(
            check,
            format!(
                "{found}; public ports lie in it, and an outgoing connection may hold one that is to be opened: {}",
                in_ranges(&exposed, NAMED)
            ),
            format!(
                "sysctl -w net.ipv4.ip_local_reserved_ports={}{}{}, and the same in /etc/sysctl.d, or use ports \
                 outside of the range",
                before,
                if before.is_empty() { "" } else { "," },
                in_ranges(&exposed, usize::MAX)
            ),
        ),
    }
}

/// `40000-40010` or `40100`.
pub(super) fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

/// Ranges that are shown.
const NAMED: usize = 10;

/// Ports that go up, in the form the kernel takes them in; so many ranges, and the number of the rest.
fn in_ranges(ports: &[u16], most: usize) -> String {
    let ranges: Vec<_> = ports
        .chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .collect();
    let named: Vec<String> = ranges
        .iter()
        .take(most)
        .map(|range| match range {
            [first, .., last] => format!("{first}-{last}"),
            _ => range.iter().map(u16::to_string).collect(),
        })
        .collect();
    let left: usize = ranges.iter().skip(most).map(|range| range.len()).sum();
    match left {
        0 => named.join(","),
        _ => format!("{} and {left} more", named.join(",")),
    }
}

/// What this kernel lacks and the proxy would use.
fn lacking(table: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    if AckProbe::works() == Some(false) {
        findings.push(Finding::poor(
            "sock_diag",
            "this kernel does not tell what a client has acknowledged: when one side resets, a slow \
             other side may lose what was sent before",
            "run on Linux itself with CONFIG_INET_DIAG, and let the unit use AF_NETLINK",
        ));
    }
    let of_both = |route: &Arc<Route>| route.listen.host() == ListenHost::Any;
    if !has_ipv6() && table.routes().any(of_both) {
        findings.push(Finding::note(
            "IPv6",
            "this kernel has none: ports of every address are listened on with IPv4 alone",
            "",
        ));
    }
    findings
}

fn clock() -> Finding {
    let check = "clock";
    // systemd-timesyncd leaves this file at each success.
    const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
    if fs::metadata(SYNCHRONISED).is_ok() {
        return Finding::good(check, format!("kept right ({SYNCHRONISED})"));
    }
    match keeper(processes()) {
        Some(name) => Finding::good(check, format!("{name} runs")),
        None => Finding::poor(
            check,
            "nothing that keeps it right was found",
            "run systemd-timesyncd or chrony: log lines are joined with those of targets by time",
        ),
    }
}

/// Which of those that keep a clock right is among `names`. What they leave in /run may be left
/// over, and is not for everybody to see.
fn keeper(mut names: impl Iterator<Item = String>) -> Option<String> {
    names.find(|name| ["chronyd", "ntpd"].contains(&name.as_str()))
}

fn processes() -> impl Iterator<Item = String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    // What is no process has no such file.
    all.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
}

/// Whether there is a way to each target at all, from which address, and over which interface.
fn routes_to_targets(table: &Table) -> Finding {
    let targets = table.routes().flat_map(|route| route.target.addresses());
    let targets: BTreeSet<IpAddr> = targets.map(|target| target.ip()).collect();
    let unreachable: Vec<String> = targets
        .iter()
        .filter(|target| source_towards(**target).is_none())
        .map(ToString::to_string)
        .collect();
    let check = "ways to targets";
    if unreachable.is_empty() {
        return Finding::good(check, format!("{0} of {0} found", targets.len()));
    }
    let some: Vec<&str> = unreachable.iter().take(5).map(String::as_str).collect();
    Finding::bad(
        check,
        format!(
            "none to {} of {} addresses: {}",
            unreachable.len(),
            targets.len(),
            some.join(", ")
        ),
        "is the mesh interface up? (`ip -6 route get ADDRESS`)",
    )
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
    let policies = table.mappings().map(|mapping| &mapping.policy);
    let wanted: BTreeSet<IpAddr> = policies
        .filter(|policy| !policy.freebind)
        .filter_map(|policy| policy.bind)
        .collect();
    let own = LocalAddresses::default();
    let missing = wanted.into_iter().filter(|ip| !own.contains(*ip));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Grade;

    #[test]
    fn public_ports_that_are_reserved_are_no_trouble() {
        let public = BTreeSet::from([22, 40_000, 40_009, 40_010, 40_100]);
        let range = "32768\t60999";
        let finding = judge_source_ports(range, "40000-40010,40100", &public);
        assert_eq!(finding.grade, Grade::Good, "{finding:?}");
        assert!(finding.found.contains("at most 28220 "), "{finding:?}");
        let finding = judge_source_ports(range, "40100", &public);
        assert_eq!(finding.grade, Grade::Poor, "{finding:?}");
        assert!(
            finding.found.ends_with(": 40000,40009-40010"),
            "{finding:?}"
        );
        assert!(
            finding.advice.contains("=40100,40000,40009-40010, and"),
            "{finding:?}"
        );
        let finding = judge_source_ports(range, "", &public);
        assert!(finding.found.ends_with("40010,40100"), "{finding:?}");
        assert!(finding.advice.contains("=40000,40009"), "{finding:?}");
    }

    #[test]
    fn a_daemon_that_does_not_run_keeps_no_clock_right() {
        let names = |names: &[&str]| keeper(names.iter().copied().map(str::to_owned));
        assert_eq!(names(&["systemd", "chronyd"]).as_deref(), Some("chronyd"));
        assert_eq!(names(&["systemd", "chronyc", "ntpdate"]), None);
        let own = fs::read_to_string("/proc/self/comm").expect("there is one");
        assert!(processes().any(|name| name == own.trim_end()));
    }

    #[test]
    fn many_ports_are_not_all_listed() {
        let every_other: Vec<u16> = (0..30).map(|place| 40_000 + 2 * place).collect();
        assert!(in_ranges(&every_other, NAMED).ends_with("40018 and 20 more"));
        assert_eq!(in_ranges(&[65_534, 65_535], NAMED), "65534-65535");
    }
}
