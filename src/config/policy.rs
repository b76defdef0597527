//! The keys that [defaults] and every [[mapping]] share, read over the policy they start from.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    limits,
    reader::{Entry, Section},
    values::{
        ANY_DURATION, Refusal, duration, flag, is_off, number, or_off, prefix, source_address,
        whole_seconds, word,
    },
};
use crate::{
    proxy_protocol::Version,
    table::{Keepalive, Policy, RelayMode, RemovalPolicy, SourceRules},
};

/// What tcp(7) takes, where the kernel has to judge: milliseconds in a signed 32-bit number.
const USER_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 24 * 60 * 60);

const RELAY_MODES: &[(&str, RelayMode)] = &[
    ("auto", RelayMode::Auto),
    ("copy", RelayMode::Copy),
    ("splice", RelayMode::Splice),
];

/// Ways to write a PROXY header.
pub(super) const PROXY_VERSIONS: &[(&str, Version)] = &[("v1", Version::V1), ("v2", Version::V2)];

const DEPARTURES: &[(&str, RemovalPolicy)] =
    &[("keep", RemovalPolicy::Keep), ("kill", RemovalPolicy::Kill)];

/// The policy that `section` makes of `base`; a key it does not have stays as it is there.
pub(super) fn read(section: &mut Section<'_>, base: &Policy) -> Policy {
    let mut policy = base.clone();
    section.set(
        "connect_timeout",
        &mut policy.connect_timeout,
        duration(ANY_DURATION),
    );
    section.set(
        "idle_timeout",
        &mut policy.idle_timeout,
        or_off(duration(ANY_DURATION)),
    );
    section.set(
        "half_close_timeout",
        &mut policy.half_close_timeout,
        or_off(duration(ANY_DURATION)),
    );
    if let Some(entry) = section.entry("keepalive")
        && let Some(keepalive) = keepalive(entry, base.keepalive)
    {
        policy.keepalive = keepalive;
    }
    section.set(
        "user_timeout",
        &mut policy.user_timeout,
        or_off(duration(USER_TIMEOUT)),
    );
    section.set("backlog", &mut policy.backlog, number(1..=65535));
    if let Some(trusted) = section.list("accept_proxy", prefix) {
        policy.accept_proxy = trusted;
    }
    section.set(
        "proxy_header_timeout",
        &mut policy.proxy_header_timeout,
        duration(ANY_DURATION),
    );
    section.set(
        "send_proxy",
        &mut policy.send_proxy,
        or_off(word(PROXY_VERSIONS)),
    );
    policy.sources = sources(section, &base.sources);
    section.set(
        "max_sessions",
        &mut policy.max_sessions,
        or_off(number(1..=u32::MAX)),
    );
    limits::read_sessions(section, &mut policy.limits);
    for (key, slot) in [
        ("bandwidth", &mut policy.bandwidth),
        ("bandwidth_per_source", &mut policy.bandwidth_per_source),
    ] {
        if let Some(limit) = section.entry(key).and_then(limits::bandwidth) {
            *slot = limit;
        }
    }
    section.set("on_refuse", &mut policy.on_refuse, word(limits::ON_REFUSE));
    for (key, slot) in [
        ("on_remove", &mut policy.on_remove),
        ("on_retarget", &mut policy.on_retarget),
    ] {
        if let Some(departure) = section.entry(key).and_then(departure) {
            *slot = departure;
        }
    }
    section.set("relay", &mut policy.relay, word(RELAY_MODES));
    section.set("bind", &mut policy.bind, or_off(source_address));
    section.set("transparent", &mut policy.transparent, flag);
    section.set("freebind", &mut policy.freebind, flag);
    section.set("each_port", &mut policy.each_port, flag);
    policy
}

/// Keepalive may be off, or a table whose missing keys are as in `base`.
fn keepalive(entry: Entry<'_>, base: Option<Keepalive>) -> Option<Option<Keepalive>> {
    if is_off(entry.value()) {
        return Some(None);
    }
    if !entry.value().is_table() {
        entry.refuse(
            "\"off\" or a table such as { idle = \"60s\", interval = \"60s\", count = 120 }",
        );
        return None;
    }
    let mut section = entry.into_section()?;
    let mut keepalive = base.or(Policy::default().keepalive)?;
    section.set("idle", &mut keepalive.idle, whole_seconds(1..=32767));
    section.set(
        "interval",
        &mut keepalive.interval,
        whole_seconds(1..=32767),
    );
    section.set("count", &mut keepalive.count, number(1..=127));
    section.finish();
    Some(Some(keepalive))
}

/// Allowed and denied sources, each list inherited unless it is given.
fn sources(section: &mut Section<'_>, base: &SourceRules) -> SourceRules {
    let allow = section.list("allow", prefix);
    let deny = section.list("deny", prefix);
    let given = if deny.is_some() { "deny" } else { "allow" };
    let allow = allow.unwrap_or_else(|| base.allow().to_vec());
    let deny = deny.unwrap_or_else(|| base.deny().to_vec());
    SourceRules::new(allow, deny).unwrap_or_else(|conflict| {
        if let Some(entry) = section.entry(given) {
            entry.contradicts(conflict.to_string());
        }
        base.clone()
    })
}

fn departure(entry: Entry<'_>) -> Option<RemovalPolicy> {
    if !entry.value().is_table() {
        let refusal = |refusal: Refusal| refusal.or("{ drain = \"30s\" }");
        return entry.read(|value| word(DEPARTURES)(value).map_err(refusal));
    }
    let mut section = entry.into_section()?;
    let deadline = section
        .required("drain", "the time that sessions have left, such as \"30s\"")
        .and_then(|entry| entry.read(duration(ANY_DURATION)));
    section.finish();
    deadline.map(RemovalPolicy::Drain)
}
