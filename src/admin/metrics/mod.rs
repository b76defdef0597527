//! The metrics page, written at each scrape.
//!
//! Series of a mapping exist as long as the mapping does, and as long as sessions do that outlived
//! it: they come from the table in force, not from a recorder, which never forgets one. What never
//! occurred for a mapping (a reason, a cause, an answered connection) is left out. All else comes from
//! recordings: what was counted so far, and what is looked up now.

mod fleet;
mod page;
mod process;
mod protobuf;
mod switchboard;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

pub use page::Format;
use page::{Family, Page};

use super::Sources;
use crate::{
    end_reason::EndReason,
    resolve::Name,
    table::{Mapping, Table},
    target::MemberState,
    telemetry::{
        ConnectFailure, PathSummary, Usage,
        metric::{self, Metric},
        recorder::{self, Recording},
    },
};

/// About how many bytes a mapping takes on the page: enough that a large page is not copied again
/// and again while it grows.
const BYTES_A_MAPPING: usize = 2048;

/// Targets of a mapping that have series of their own.
const TARGETS: usize = 256;

/// The page.
pub(super) fn text(sources: &Sources, format: Format) -> Vec<u8> {
    let usage = Usage::read();
    let now = Recording::new();
    metrics::with_local_recorder(&now, || {
        process::record(sources, &usage);
        switchboard::record(sources);
        fleet::record(sources);
    });
    let mappings = sources.shared.table.load().mappings().len();
    let mut page = Page::new(format, (1 + mappings) * BYTES_A_MAPPING);
    self::mappings(&mut page, sources);
    switchboard::write(&mut page, sources);
    process::write(&mut page, &usage);
    page.recorded(recorder::of_process());
    page.recorded(&now);
    page.finish()
}

fn mappings(page: &mut Page, sources: &Sources) {
    let table = sources.shared.table.load();
    let departed = sources.shared.departed.load();
    let lingering = departed.iter().filter(|mapping| mapping.stats.open() > 0);
    let all: Vec<&Arc<Mapping>> = table.mappings().chain(lingering).collect();
    let each = |mut family: Family<'_>, write: &dyn Fn(&mut Family<'_>, &str, &Mapping)| {
        for mapping in &all {
            write(&mut family, mapping.name.as_str(), mapping);
        }
    };
    each(page.family(&metric::SESSIONS_OPEN), &|family, name, of| {
        family.sample(&[name], of.stats.open());
    });
    each(
        page.family(&metric::SESSIONS_OPENED),
        &|family, name, of| {
            family.sample(&[name], of.stats.opened());
        },
    );
    each(page.family(&metric::SESSIONS_ENDED), &|family, name, of| {
        ends(family, name, of, |_| true);
    });
    each(page.family(&metric::REFUSALS), &|family, name, of| {
        ends(family, name, of, EndReason::is_refusal);
    });
    each(page.family(&metric::BYTES), &|family, name, of| {
        let (up, down) = of.stats.passed_on();
        family.sample(&[name, "up"], up);
        family.sample(&[name, "down"], down);
    });
    each(page.family(&metric::UNDELIVERED), &|family, name, of| {
        let (up, down) = of.stats.undelivered();
        for (direction, bytes) in [("up", up), ("down", down)] {
            if bytes > 0 {
                family.sample(&[name, direction], bytes);
            }
        }
    });
    each(
        page.family(&metric::BANDWIDTH_PAUSES),
        &|family, name, of| match of.stats.pauses() {
            0 => {}
            count => family.sample(&[name], count),
        },
    );
    let failures = page.family(&metric::CONNECT_FAILURES);
    each(failures, &|family, name, of| {
        for &cause in ConnectFailure::ALL {
            match of.stats.connect_failures(cause) {
                0 => {}
                count => family.sample(&[name, cause.word()], count),
            }
        }
    });
    each(
        page.family(&metric::CONNECT_LATENCY),
        &|family, name, of| {
            let read = of.stats.connect_latency.read();
            if read.count > 0 {
                family.histogram(&[name], &read);
            }
        },
    );
    each(page.family(&metric::SESSION_LENGTH), &|family, name, of| {
        let read = of.stats.session_length.read();
        if read.count > 0 {
            family.histogram(&[name], &read);
        }
    });
    let paths: Vec<(&str, PathSummary)> = all
        .iter()
        .filter(|mapping| mapping.stats.open() > 0)
        .filter_map(|mapping| Some((mapping.name.as_str(), mapping.stats.path.load()?)))
        .collect();
    type Part = fn(&PathSummary) -> Option<f64>;
    let parts: [(&'static Metric, Part); 5] = [
        (&metric::TARGET_RTT, |path| Some(path.rtt)),
        (&metric::TARGET_RTT_MIN, |path| path.min_rtt),
        (&metric::TARGET_RETRANSMITS, |path| {
            Some(path.retransmit_ratio)
        }),
        (&metric::TARGET_DELIVERY, |path| {
            Some(path.delivery_rate as f64)
        }),
        (&metric::TARGET_SAMPLED, |path| {
            Some(path.connections as f64)
        }),
    ];
    for (metric, part) in parts {
        let mut family = page.family(metric);
        for (name, path) in &paths {
            if let Some(value) = part(path) {
                family.sample(&[name], value);
            }
        }
    }
    targets(page, &table);
    names(page, &table, sources);
    let mut family = page.family(&metric::MAPPING_HELD);
    for (name, hold) in sources.shared.overrides.load().iter() {
        family.sample(&[name.as_str(), hold.word()], 1_u64);
    }
}

/// What is counted for one of several targets, by whichever ports of its mapping.
#[derive(Debug, Default, Clone, Copy)]
struct OfTarget {
    sessions: u64,
    opened: u64,
    failures: u64,
    down: bool,
    check_failures: Option<u64>,
}

fn targets(page: &mut Page, table: &Table) {
    let mut all: BTreeMap<(&str, SocketAddr), OfTarget> = BTreeMap::new();
    let mut queued: BTreeMap<&str, u64> = BTreeMap::new();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut up: BTreeMap<&str, BTreeSet<SocketAddr>> = BTreeMap::new();
    for (mapping, group) in table.groups() {
        let name = mapping.name.as_str();
        if mapping.policy.queue.is_some() {
            *queued.entry(name).or_default() += group.queue().len() as u64;
        }
        let up = up.entry(name).or_default();
        for member in group.members().iter() {
            let is_down = member.state() == MemberState::Down;
            if !is_down {
                up.insert(member.address);
            }
            let count = counts.entry(name).or_default();
            *count += 1;
            if *count > TARGETS {
                continue;
            }
            let of = all.entry((name, member.address)).or_default();
            of.sessions += u64::from(member.sessions());
            of.opened += member.chosen();
            of.failures += member.failures();
            of.down |= is_down;
            if mapping.policy.check.is_some() {
                *of.check_failures.get_or_insert(0) += member.check_failures();
            }
        }
    }
    if !all.is_empty() {
        let all: Vec<_> = all
            .into_iter()
            .map(|((name, target), of)| (name, target.to_string(), of))
            .collect();
        type Part = fn(&OfTarget) -> u64;
        let parts: [(&'static Metric, Part); 4] = [
            (&metric::TARGET_SESSIONS, |of| of.sessions),
            (&metric::TARGET_OPENED, |of| of.opened),
            (&metric::TARGET_FAILURES, |of| of.failures),
            (&metric::TARGET_UP, |of| u64::from(!of.down)),
        ];
        for (metric, part) in parts {
            let mut family = page.family(metric);
            for (name, target, of) in &all {
                family.sample(&[name, target], part(of));
            }
        }
        let mut family = page.family(&metric::TARGET_CHECK_FAILURES);
        for (name, target, of) in &all {
            if let Some(failures) = of.check_failures {
                family.sample(&[name, target], failures);
            }
        }
    }
    if !up.is_empty() {
        let mut family = page.family(&metric::TARGETS_UP);
        for (name, up) in up {
            family.sample(&[name], up.len() as u64);
        }
    }
    if !queued.is_empty() {
        let mut family = page.family(&metric::QUEUED);
        for (name, count) in queued {
            family.sample(&[name], count);
        }
    }
}

/// Names of which it is not known where they lead now.
fn names(page: &mut Page, table: &Table, sources: &Sources) {
    let mut failing: BTreeMap<&str, BTreeMap<Name, bool>> = BTreeMap::new();
    for (mapping, group) in table.groups() {
        let family = mapping.policy.family;
        for name in group.settings().names().cloned() {
            let of = failing.entry(mapping.name.as_str()).or_default();
            let name = Name { name, family };
            of.entry(name)
                .or_insert_with_key(|name| sources.names.of(name).error.is_some());
        }
    }
    if !failing.is_empty() {
        let mut family = page.family(&metric::NAMES_FAILING);
        for (mapping, names) in failing {
            let failing = names.values().filter(|fails| **fails);
            family.sample(&[mapping], failing.count() as u64);
        }
    }
}

fn ends(family: &mut Family<'_>, name: &str, of: &Mapping, wanted: fn(EndReason) -> bool) {
    for reason in EndReason::ALL.into_iter().filter(|reason| wanted(*reason)) {
        match of.stats.ended(reason) {
            0 => {}
            count => family.sample(&[name, reason.word()], count),
        }
    }
}
