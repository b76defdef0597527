//! The series of the process as a whole.

use std::{sync::atomic::Ordering::Relaxed, time::UNIX_EPOCH};

use super::{
    Sources,
    exposition::{Exposition, Value},
    series::{self, Series},
};
use crate::telemetry::{Task, Usage};

pub(super) fn write(page: &mut Exposition, sources: &Sources) {
    let Sources { shared, .. } = sources;
    page.family(&series::BUILD_INFO)
        .sample(&[env!("CARGO_PKG_VERSION")], true);
    let mut family = page.family(&series::ACCEPT_ERRORS);
    for (cause, count) in [
        ("retry", &shared.stats.accept_retries),
        ("pause", &shared.stats.accept_pauses),
        ("fatal", &shared.stats.accept_failures),
    ] {
        family.sample(&[cause], count.load(Relaxed));
    }
    let mut family = page.family(&series::TASK_FAILURES);
    for task in Task::ALL {
        family.sample(&[task.word()], sources.failures.of(task).count);
    }
    reloads(page, sources);
    let whole: [(&'static Series, u64); 15] = [
        (
            &series::MAPPINGS,
            shared.table.load().mappings().len() as u64,
        ),
        (&series::SESSIONS_LIMIT, shared.gate.max_sessions().into()),
        (
            &series::SOURCES_TRACKED,
            shared.gate.sources().tracked() as u64,
        ),
        (&series::SOURCES_EVICTED, shared.gate.sources().evicted()),
        (&series::CLIENTS_BANNED, shared.gate.sources().banned()),
        (&series::PIPES_IN_USE, shared.pipes.in_use() as u64),
        (&series::PIPES_FREE, shared.pipes.free() as u64),
        (&series::PIPES_LIMIT, shared.pipes.limit() as u64),
        (&series::PIPES_DENIED, shared.pipes.denied()),
        (&series::SPLICED, shared.stats.spliced_bytes.load(Relaxed)),
        (&series::COPIED, shared.stats.copied_bytes.load(Relaxed)),
        (&series::LOG_DROPPED, shared.log.dropped()),
        (&series::LOG_SAMPLED, shared.refusals.withheld()),
        (&series::LISTENERS, sources.reloads.read().listeners as u64),
        (&series::LISTENERS_CLOSED, shared.closed.load().len() as u64),
    ];
    for (series, value) in whole {
        page.family(series).sample(&[], value);
    }
    usage(page, sources);
}

fn reloads(page: &mut Exposition, sources: &Sources) {
    let report = sources.reloads.read();
    let mut family = page.family(&series::RELOADS);
    family.sample(&["success"], report.succeeded);
    family.sample(&["failure"], report.failed);
    page.family(&series::RELOAD_SUCCESS)
        .sample(&[], report.last_error.is_none());
    let at = report.last_success.duration_since(UNIX_EPOCH);
    page.family(&series::RELOAD_TIME)
        .sample(&[], at.map_or(0, |since| since.as_secs()));
    page.family(&series::RELOAD_DURATION)
        .sample(&[], report.last_took.as_secs_f64());
}

fn usage(page: &mut Exposition, sources: &Sources) {
    let usage = Usage::read();
    let mut family = page.family(&series::WORKER_CPU);
    for (worker, seconds) in &usage.workers {
        family.sample(&[worker], *seconds);
    }
    let mut family = page.family(&series::WORKER_SESSIONS);
    for (worker, sessions) in sources.workers.session_counts() {
        family.sample(&[&worker], sessions);
    }
    let parts: [(&'static Series, Option<Value>); 7] = [
        (&series::PROCESS_CPU, usage.cpu.map(Value::from)),
        (
            &series::PROCESS_OPEN_FDS,
            usage.descriptors.map(Value::from),
        ),
        (
            &series::PROCESS_MAX_FDS,
            usage.descriptor_limit.map(Value::from),
        ),
        (&series::PROCESS_RESIDENT, usage.resident.map(Value::from)),
        (
            &series::PROCESS_VIRTUAL,
            usage.address_space.map(Value::from),
        ),
        (&series::PROCESS_THREADS, usage.threads.map(Value::from)),
        (&series::PROCESS_START, usage.started.map(Value::from)),
    ];
    for (series, value) in parts {
        if let Some(value) = value {
            page.family(series).sample(&[], value);
        }
    }
}
