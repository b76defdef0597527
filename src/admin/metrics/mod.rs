//! The metrics page, written at each scrape from the counters as they are.
//!
//! Series of a mapping exist as long as the mapping does, and as long as sessions do that outlived
//! it: they come from the table in force, not from a registry that would have to be told. What never occurred for a mapping (a reason, a
//! cause, an answered connection) is left out.

mod exposition;
mod process;
pub mod series;
mod switchboard;

pub use exposition::Format;
use std::sync::Arc;

use exposition::{Exposition, Family};

use super::Sources;
use crate::{
    end_reason::EndReason,
    table::Mapping,
    telemetry::{ConnectFailure, PathSummary},
};

/// About how many bytes a mapping takes on the page: enough that a large page is not copied again
/// and again while it grows.
const BYTES_A_MAPPING: usize = 2048;

/// The page.
pub(super) fn text(sources: &Sources, format: Format) -> String {
    let table = sources.shared.table.load();
    let capacity = (1 + table.mappings().len()) * BYTES_A_MAPPING;
    let mut page = Exposition::new(format, capacity);
    mappings(&mut page, sources);
    switchboard::write(&mut page, sources);
    process::write(&mut page, sources);
    page.finish()
}

fn mappings(page: &mut Exposition, sources: &Sources) {
    let table = sources.shared.table.load();
    let departed = sources.shared.departed.load();
    let lingering = departed.iter().filter(|mapping| mapping.stats.open() > 0);
    let all: Vec<&Arc<Mapping>> = table.mappings().iter().chain(lingering).collect();
    let each = |mut family: Family<'_>, write: &dyn Fn(&mut Family<'_>, &str, &Mapping)| {
        for mapping in &all {
            write(&mut family, mapping.name.as_str(), mapping);
        }
    };
    each(page.family(&series::SESSIONS_OPEN), &|family, name, of| {
        family.sample(&[name], of.stats.open());
    });
    each(
        page.family(&series::SESSIONS_OPENED),
        &|family, name, of| {
            family.sample(&[name], of.stats.opened());
        },
    );
    each(page.family(&series::SESSIONS_ENDED), &|family, name, of| {
        ends(family, name, of, |_| true);
    });
    each(page.family(&series::REFUSALS), &|family, name, of| {
        ends(family, name, of, EndReason::is_refusal);
    });
    each(page.family(&series::BYTES), &|family, name, of| {
        let (up, down) = of.stats.passed_on();
        family.sample(&[name, "up"], up);
        family.sample(&[name, "down"], down);
    });
    each(page.family(&series::UNDELIVERED), &|family, name, of| {
        let (up, down) = of.stats.undelivered();
        for (direction, bytes) in [("up", up), ("down", down)] {
            if bytes > 0 {
                family.sample(&[name, direction], bytes);
            }
        }
    });
    each(
        page.family(&series::BANDWIDTH_PAUSES),
        &|family, name, of| match of.stats.pauses() {
            0 => {}
            count => family.sample(&[name], count),
        },
    );
    let failures = page.family(&series::CONNECT_FAILURES);
    each(failures, &|family, name, of| {
        for cause in ConnectFailure::ALL {
            match of.stats.connect_failures(cause) {
                0 => {}
                count => family.sample(&[name, cause.word()], count),
            }
        }
    });
    each(
        page.family(&series::CONNECT_LATENCY),
        &|family, name, of| {
            let read = of.stats.connect_latency.read();
            if read.count > 0 {
                family.histogram(&[name], &read);
            }
        },
    );
    each(page.family(&series::SESSION_LENGTH), &|family, name, of| {
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
    let mut family = page.family(&series::TARGET_RTT);
    for (name, path) in &paths {
        family.sample(&[name], path.rtt);
    }
    let mut family = page.family(&series::TARGET_RETRANSMITS);
    for (name, path) in &paths {
        family.sample(&[name], path.retransmit_ratio);
    }
    let mut family = page.family(&series::TARGET_DELIVERY);
    for (name, path) in &paths {
        family.sample(&[name], path.delivery_rate);
    }
    let mut family = page.family(&series::TARGET_SAMPLED);
    for (name, path) in &paths {
        family.sample(&[name], path.connections);
    }
    let mut family = page.family(&series::MAPPING_HELD);
    for (name, hold) in sources.shared.overrides.load().iter() {
        family.sample(&[name.as_str(), hold.word()], true);
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
