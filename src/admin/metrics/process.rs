//! The series of the process as a whole.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, UNIX_EPOCH},
};

use super::{Sources, page::Page};
use crate::{
    handover::version,
    telemetry::{Task, Usage, metric},
};

/// Tells the scrape's recorder how things are.
pub(super) fn record(sources: &Sources, usage: &Usage) {
    let Sources { shared, .. } = sources;
    metric::BUILD_INFO.set(&[version()], 1);
    for (cause, count) in [
        ("retry", &shared.stats.accept_retries),
        ("pause", &shared.stats.accept_pauses),
        ("fatal", &shared.stats.accept_failures),
    ] {
        metric::ACCEPT_ERRORS.set_total(&[cause], count.load(Relaxed));
    }
    for &task in Task::ALL {
        let count = sources.failures.of(task).count;
        // Where there is no fleet, nothing is told of one.
        if task != Task::Fleet || count > 0 || sources.fleet.read().is_some() {
            metric::TASK_FAILURES.set_total(&[task.word()], count);
        }
    }
    let report = sources.reloads.read();
    metric::RELOADS.set_total(&["success"], report.succeeded);
    metric::RELOADS.set_total(&["failure"], report.failed);
    metric::RELOAD_SUCCESS.set(&[], u8::from(report.last_error.is_none()));
    let at = report.last_success.duration_since(UNIX_EPOCH);
    metric::RELOAD_TIME.set(&[], at.map_or(0, |since| since.as_secs()) as f64);
    metric::RELOAD_DURATION.set(&[], report.last_took);
    let upgrades = sources.upgrades.read();
    metric::UPGRADES.set_total(&["success"], upgrades.succeeded);
    metric::UPGRADES.set_total(&["failure"], upgrades.failed);
    let pause = upgrades.last.map_or(Duration::ZERO, |last| last.pause);
    metric::UPGRADE_PAUSE.set(&[], pause);
    let sources_known = shared.gate.sources();
    for (metric, total) in [
        (&metric::SOURCES_EVICTED, sources_known.evicted()),
        (&metric::CLIENTS_BANNED, sources_known.banned()),
        (&metric::PIPES_DENIED, shared.pipes.denied()),
        (&metric::SPLICED, shared.stats.spliced_bytes.load(Relaxed)),
        (&metric::COPIED, shared.stats.copied_bytes.load(Relaxed)),
        (&metric::SYSLOG_LOST, sources.log.syslog().lost()),
        (&metric::LOG_DROPPED, shared.log.dropped()),
        (&metric::LOG_SAMPLED, shared.refusals.withheld()),
    ] {
        metric.set_total(&[], total);
    }
    for (metric, value) in [
        (&metric::MAPPINGS, shared.table.load().mappings().len()),
        (&metric::SOURCES_TRACKED, sources_known.tracked()),
        (&metric::PIPES_IN_USE, shared.pipes.in_use()),
        (&metric::PIPES_FREE, shared.pipes.free()),
        (&metric::PIPES_LIMIT, shared.pipes.limit()),
        (&metric::LISTENERS, report.listeners),
        (&metric::LISTENERS_CLOSED, shared.closed.load().len()),
    ] {
        metric.set(&[], value as f64);
    }
    metric::SESSIONS_LIMIT.set(&[], shared.gate.max_sessions());
    for (worker, sessions) in sources.workers.session_counts() {
        metric::WORKER_SESSIONS.set(&[&worker], sessions as f64);
    }
    for (metric, value) in [
        (&metric::PROCESS_OPEN_FDS, usage.descriptors),
        (&metric::PROCESS_MAX_FDS, usage.descriptor_limit),
        (&metric::PROCESS_RESIDENT, usage.resident),
        (&metric::PROCESS_VIRTUAL, usage.address_space),
        (&metric::PROCESS_THREADS, usage.threads),
    ] {
        if let Some(value) = value {
            metric.set(&[], value as f64);
        }
    }
    if let Some(at) = usage.started {
        metric::PROCESS_START.set(&[], at);
    }
}

/// Writes processor times: the exporter's counters have no fractions.
pub(super) fn write(page: &mut Page, usage: &Usage) {
    {
        let mut family = page.family(&metric::WORKER_CPU);
        for (worker, seconds) in &usage.workers {
            family.sample(&[worker], *seconds);
        }
    }
    if let Some(seconds) = usage.cpu {
        page.family(&metric::PROCESS_CPU).sample(&[], seconds);
    }
}
