//! Limits: [limits] for the process, and the keys it shares with [defaults] and [[mapping]].

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use toml::de::DeValue;

use super::{
    reader::{Entry, Section},
    values::{
        ANY_DURATION, Parsed, Refusal, bytes, duration, is_off, number, or_auto, or_off, prefix,
    },
};
use crate::auto_or::AutoOr;
use crate::limit::{Ban, Limits, OnRefuse, Rate, SessionLimits};

/// How a client that gets no session is told.
pub(super) const ON_REFUSE: &[(&str, OnRefuse)] =
    &[("reset", OnRefuse::Reset), ("close", OnRefuse::Close)];

/// Any limit of a count.
fn count(value: &DeValue<'_>) -> Parsed<u32> {
    number(1..=u32::MAX)(value)
}

/// Sessions a second.
fn per_second(value: &DeValue<'_>) -> Parsed<NonZeroU64> {
    let number: NonZeroU32 = number(1..=1_000_000)(value)?;
    Ok(number.into())
}

/// What [limits] says: sessions open at once, and everything else.
pub(super) fn read_process(mut section: Section<'_>) -> (AutoOr<NonZeroU32>, Limits) {
    let mut limits = Limits::default();
    let mut max_sessions = AutoOr::Auto;
    section.set(
        "max_sessions",
        &mut max_sessions,
        or_auto(number(1..=u32::MAX)),
    );
    read_sessions(&mut section, &mut limits.sessions);
    section.set(
        "source_prefix_v4",
        &mut limits.source_prefix_v4,
        number(8..=32),
    );
    section.set(
        "source_prefix_v6",
        &mut limits.source_prefix_v6,
        number(16..=128),
    );
    if let Some(penalty) = section.entry("penalty").and_then(penalty) {
        limits.ban = penalty;
    }
    limits.exempt = section.list("exempt", prefix).unwrap_or_default();
    section.finish();
    (max_sessions, limits)
}

/// The limits that hold for the process as well as for a mapping.
pub(super) fn read_sessions(section: &mut Section<'_>, limits: &mut SessionLimits) {
    section.set(
        "max_sessions_per_source",
        &mut limits.max_sessions_per_source,
        or_off(count),
    );
    for (key, slot) in [
        ("new_sessions_per_second", &mut limits.new_sessions),
        (
            "new_sessions_per_second_per_source",
            &mut limits.new_sessions_per_source,
        ),
    ] {
        if let Some(entry) = section.entry(key)
            && let Some(limit) = rate(entry, "20", per_second, per_second)
        {
            *slot = limit;
        }
    }
    section.set("max_dialling", &mut limits.max_dialling, or_off(count));
}

/// A rate may be off, a value alone, or a table with the burst. Without a burst, as much may come
/// at once as in a second.
pub(super) fn rate(
    entry: Entry<'_>,
    example: &str,
    read_rate: impl Fn(&DeValue<'_>) -> Parsed<NonZeroU64>,
    read_burst: impl Fn(&DeValue<'_>) -> Parsed<NonZeroU64>,
) -> Option<Option<Rate>> {
    if is_off(entry.value()) {
        return Some(None);
    }
    if !entry.value().is_table() {
        let table = format!("{{ rate = {example}, burst = {example} }}");
        let rate = entry.read(|value| {
            let refused = |refusal: Refusal| refusal.or_first("\"off\"").or(table);
            read_rate(value).map_err(refused)
        })?;
        return Some(Some(Rate::even(rate)));
    }
    let mut section = entry.into_section()?;
    let per_second = section
        .required("rate", &format!("how much in a second, such as {example}"))
        .and_then(|entry| entry.read(read_rate));
    let mut burst = None;
    section.set("burst", &mut burst, |value| read_burst(value).map(Some));
    section.finish();
    let per_second = per_second?;
    Some(Some(Rate {
        per_second,
        burst: burst.unwrap_or(per_second),
    }))
}

/// Bytes a second, up and down alike.
pub(super) fn bandwidth(entry: Entry<'_>) -> Option<Option<Rate>> {
    rate(entry, "\"10MiB\"", bytes, bytes)
}

/// A penalty may be off, or a table of all three keys.
fn penalty(entry: Entry<'_>) -> Option<Option<Ban>> {
    const EXAMPLE: &str = "{ after = 20, within = \"1m\", lasts = \"10m\" }";
    if is_off(entry.value()) {
        return Some(None);
    }
    if !entry.value().is_table() {
        entry.refuse(format!("\"off\" or a table such as {EXAMPLE}"));
        return None;
    }
    let mut section = entry.into_section()?;
    let after = section
        .required("after", "how many refusals it takes")
        .and_then(|entry| entry.read(number(1..=1_000_000)));
    let mut span = |key, needed| -> Option<Duration> {
        let entry = section.required(key, needed)?;
        entry.read(duration(ANY_DURATION))
    };
    let within = span("within", "the time they have to fall into, such as \"1m\"");
    let lasts = span("lasts", "how long the source is refused, such as \"10m\"");
    section.finish();
    Some(Some(Ban {
        after: after?,
        within: within?,
        lasts: lasts?,
    }))
}
