//! What is counted and remembered beside the data path, as it is handed over to the next image of the
//! program.

use serde::{Deserialize, Serialize};
use tracing::Level;

use super::{
    Events, History, LogControl, LogQueue, ReloadReport, Reloads, Sampler, SavedEvents,
    SavedTaskFailures, TaskFailures, Totals, Usage,
    events::level_of,
    go_on_from,
    recorder::{self, SavedCounters},
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
    #[serde(default)]
    syslog_lost: u64,
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
    /// For [`Syslog::after`](super::Syslog::after).
    pub syslog_lost: u64,
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
            counters: SavedCounters::of(recorder::of_process()),
            withheld: refusals.counted(),
            log_dropped: queue.dropped_in_all(),
            syslog_lost: log.syslog().lost_in_all(),
            workers: Usage::workers(),
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
            syslog_lost,
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
            syslog_lost,
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::Task;

    fn saved() -> SavedTelemetry {
        let events = Events::default();
        let subscriber = tracing_subscriber::registry().with(events.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..300 {
                tracing::warn!(number, name = "x", "something happened");
            }
        });
        let reloads = Reloads::started(3, Duration::from_millis(5));
        reloads.succeeded(Duration::from_millis(6));
        reloads.failed(Duration::from_millis(7), "no such key".to_owned());
        let failures = TaskFailures::default();
        failures.stopped(Task::Admin, "a bad day");
        let refusals = Sampler::new(Some(1), Instant::now());
        (0..5).for_each(|_| _ = refusals.grant(Instant::now()));
        let counters = r#"[["tml_proxy_switchboard_notices_total",[],4]]"#;
        SavedTelemetry {
            level: Level::DEBUG.to_string(),
            events: events.save(),
            history: vec![Totals {
                open: 1,
                bytes_up: 2,
                ..Totals::default()
            }],
            reloads: reloads.read(),
            failures: failures.save(),
            counters: serde_json::from_str(counters).expect("values"),
            withheld: refusals.counted(),
            log_dropped: 8,
            syslog_lost: 9,
            workers: vec![("0".to_owned(), 1.5)],
        }
    }

    #[test]
    fn everything_counted_and_remembered_survives() {
        let saved = saved();
        let text = serde_json::to_string(&saved).expect("plain values");
        let again: SavedTelemetry = serde_json::from_str(&text).expect("as it was written");
        assert_eq!(again, saved);
        let LoadedTelemetry {
            level,
            events,
            history,
            reloads,
            failures,
            withheld,
            log_dropped,
            syslog_lost,
            counters,
            workers,
        } = again.load().expect("as it was written");
        assert_eq!((level, withheld.0), (Level::DEBUG, 4));
        assert_eq!((log_dropped, syslog_lost), (8, 9));
        assert_eq!(events.save(), saved.events);
        assert_eq!(history.read(), saved.history);
        assert_eq!(reloads.read(), saved.reloads);
        assert_eq!(failures.save(), saved.failures);
        let admin = failures.of(Task::Admin);
        assert_eq!(
            (admin.count, admin.is_down),
            (1, false),
            "it is started again"
        );
        assert_eq!((counters, workers), (saved.counters, saved.workers));
        // The next event has the next number.
        let subscriber = tracing_subscriber::registry().with(events.clone());
        tracing::subscriber::with_default(subscriber, || tracing::warn!("one more"));
        assert_eq!(
            events.after(300).first().map(|event| event.number),
            Some(301)
        );
    }

    #[test]
    fn what_a_later_version_adds_is_ignored_and_what_cannot_be_refused() {
        let mut value = serde_json::to_value(saved()).expect("plain values");
        value["later"] = 1.into();
        value["failures"]["later"] = serde_json::json!({ "count": 1 });
        let load = |value: &serde_json::Value| {
            let saved: SavedTelemetry = serde_json::from_value(value.clone()).expect("values");
            saved.load().map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(load(&value), Ok(()));
        let mut without = value.clone();
        for key in [
            "events", "history", "failures", "counters", "withheld", "workers",
        ] {
            without.as_object_mut().expect("a struct").remove(key);
        }
        assert_eq!(load(&without), Ok(()));
        value["events"]["latest"] = 299.into();
        assert!(load(&value).is_err_and(|error| error.starts_with("number of an event: ")));
        value["level"] = "loud".into();
        assert!(load(&value).is_err_and(|error| error.contains("\"loud\"")));
    }
}
