//! What control does from time to time for whoever watches: totals for the charts, samples of the
//! ways to the targets, lines for sessions that go on and on.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::admin_listeners::can_be_seen;
use crate::{
    admin::Sources,
    config::Config,
    session::{SessionFilter, SessionLine, SessionView},
    table::MappingName,
    telemetry::{HISTORY_STEP, MappingStats, PathInfo, PathSummary, Totals},
    worker::PathSample,
};

/// Between two samples of the ways to the targets, and between two reports on refusals that got no
/// line.
const SAMPLE_EVERY: Duration = Duration::from_secs(15);

/// Runs until it is ended, by the settings that are in force as it begins.
pub(super) async fn run(sources: Arc<Sources>) -> String {
    let config = sources.config.load_full();
    tokio::join!(
        observe(&sources, can_be_seen(&config.admin)),
        report_withheld(&sources),
        report_ongoing(&sources, config.log.session_every),
    );
    "there was nothing to do any more".to_owned()
}

/// Whether it has to begin again for other settings.
pub(super) fn differs(before: &Config, now: &Config) -> bool {
    before.log.session_every != now.log.session_every
        || can_be_seen(&before.admin) != can_be_seen(&now.admin)
}

/// Keeps what can be looked at up to date, if anybody can. Otherwise an idle proxy sleeps.
async fn observe(sources: &Sources, can_be_seen: bool) {
    if can_be_seen {
        tokio::join!(count(sources), sample_paths(sources));
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn count(sources: &Sources) {
    let mut ticks = every(HISTORY_STEP);
    loop {
        let now = ticks.tick().await.into_std();
        sources.history.push(totals(sources));
        for mapping in sources.shared.table.load().mappings() {
            mapping.stats.look(now);
        }
    }
}

fn totals(sources: &Sources) -> Totals {
    let shared = &sources.shared;
    let tally = shared.tally();
    Totals {
        open: shared.stats.sessions_open().into(),
        accept_pauses: shared.stats.accept_pauses.load(Relaxed),
        pipes_denied: shared.pipes.denied(),
        log_dropped: shared.log.dropped(),
        opened: tally.opened,
        refused: tally.refusals().map(|(_, count)| count).sum(),
        connect_failures: tally.connect_failures,
        bytes_up: tally.bytes_up,
        bytes_down: tally.bytes_down,
    }
}

/// Keeps what is known of the ways to the targets up to date.
async fn sample_paths(sources: &Sources) {
    let mut ticks = every(SAMPLE_EVERY);
    loop {
        ticks.tick().await;
        let samples = sources.workers.sample_paths().await;
        let mut found: HashMap<MappingName, (Arc<MappingStats>, Vec<PathInfo>)> = HashMap::new();
        for PathSample { mapping, path } in samples {
            let of_mapping = || (Arc::clone(&mapping.stats), Vec::new());
            let (_, paths) = found.entry(mapping.name.clone()).or_insert_with(of_mapping);
            paths.push(path);
        }
        for (stats, paths) in found.into_values() {
            stats.path.store(PathSummary::of(&paths));
        }
    }
}

/// Says how many refusals got no line of their own, if there were any.
async fn report_withheld(sources: &Sources) {
    loop {
        let count = sources.shared.refusals.more_withheld(SAMPLE_EVERY).await;
        tracing::warn!(count, "more refusals than lines for them");
    }
}

/// Gives sessions that go on a line now and then.
async fn report_ongoing(sources: &Sources, period: Option<Duration>) {
    let Some(period) = period else { return };
    let all = SessionFilter::default();
    let report = |session: SessionView| {
        if session.age >= period {
            sources.shared.record(SessionLine::Ongoing(session));
        }
    };
    let mut ticks = every(period);
    loop {
        ticks.tick().await;
        sources.workers.list_sessions(&all, report).await;
    }
}
