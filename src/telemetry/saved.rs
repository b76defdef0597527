//! What is counted and remembered beside the data path, as it is handed over to the next image of the
//! program.

use serde::{Deserialize, Serialize};
use tracing::Level;

use super::{
    Events, History, LogControl, LogQueue, ReloadReport, Reloads, Sampler, SavedEvents,
    SavedTaskFailures, TaskFailures, Totals, Usage,
    events::level_of,
    go_on_from,
    metric::{self, SavedCounters},
};
use crate::handover::LoadError;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedTelemetry {
    /// The least important lines written, which may be an operator's wish.
    level: String,
    #[serde(default)]
    events: SavedEvents,
    #[serde(default)]
    history: Vec<Totals>,
    reloads: ReloadReport,
    #[serde(default)]
    failures: SavedTaskFailures,
    #[serde(default)]
    counters: SavedCounters,
    /// Refusals that got no line of their own, and how many of them have been reported.
    #[serde(default)]
    withheld: (u64, u64),
    #[serde(default)]
    log_dropped: u64,
    /// Processor time of each data path thread.
    #[serde(default)]
    workers: Vec<(String, f64)>,
}

/// Where all of it is.
#[derive(Debug)]
pub struct TelemetryParts<'a, T> {
    /// The level of the log.
    pub log: &'a LogControl,
    /// What the log has lost.
    pub queue: &'a LogQueue<T>,
    /// The latest events.
    pub events: &'a Events,
    /// The last minutes.
    pub history: &'a History,
    /// How reloads went.
    pub reloads: &'a Reloads,
    /// How tasks failed.
    pub failures: &'a TaskFailures,
    /// Refusals that got no line.
    pub refusals: &'a Sampler,
}

/// All of it, to go on with.
#[derive(Debug)]
pub struct LoadedTelemetry {
    /// The least important lines to be written.
    pub level: Level,
    /// The latest events.
    pub events: Events,
    /// The last minutes.
    pub history: History,
    /// How reloads went.
    pub reloads: Reloads,
    /// How tasks failed.
    pub failures: TaskFailures,
    /// For [`Sampler::after`].
    pub withheld: (u64, u64),
    /// For [`LogQueue::after`].
    pub log_dropped: u64,
    counters: SavedCounters,
    workers: Vec<(String, f64)>,
}

impl SavedTelemetry {
    /// What there is to save.
    pub fn new<T>(parts: TelemetryParts<'_, T>) -> Self {
        let TelemetryParts {
            log,
            queue,
            events,
            history,
            reloads,
            failures,
            refusals,
        } = parts;
        Self {
            level: log.level().to_string(),
            events: events.save(),
            history: history.read(),
            reloads: reloads.read(),
            failures: failures.save(),
            counters: SavedCounters::of(metric::of_process()),
            withheld: refusals.counted(),
            log_dropped: queue.dropped_in_all(),
            workers: Usage::read().workers,
        }
    }

    /// Takes it up.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn load(self) -> Result<LoadedTelemetry, LoadError> {
        let Self {
            level,
            events,
            history,
            reloads,
            failures,
            counters,
            withheld,
            log_dropped,
            workers,
        } = self;
        Ok(LoadedTelemetry {
            level: level_of(&level)?,
            events: Events::load(events)?,
            history: History::after(history),
            reloads: Reloads::after(reloads),
            failures: TaskFailures::load(failures),
            withheld,
            log_dropped,
            counters,
            workers,
        })
    }
}

impl LoadedTelemetry {
    /// Has what is counted for the process as a whole go on, once and for all: not in a rehearsal.
    pub fn go_on(&mut self) {
        self.counters.go_on();
        go_on_from(std::mem::take(&mut self.workers));
    }
}
