//! Where what is counted of the control plane is kept.
//!
//! What happens goes to the recording of the process, which lasts, and whose counters go on in the next image
//! of the program. What is looked up at a scrape goes to one that the scrape brings and forgets, so that what
//! is gone leaves no series behind.
//!
//! It is the registry of `metrics-util` and not the exporter's recorder: making one of those takes 0.2 s
//! of a processor on the first occasion, to calibrate a clock that nothing here asks.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{AtomicStorage, Registry};
use serde::{Deserialize, Serialize};

use super::metric::{ALL, Kind, Metric};

/// What has been counted of the process's control plane.
pub(crate) fn of_process() -> &'static Recording {
    static PROCESS: OnceLock<Recording> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let recording = Recording::new();
        // It fails only where somebody else's recorder stands already, who then gets what is counted.
        let _ = metrics::set_global_recorder(recording.clone());
        recording
    })
}

/// Counters and gauges by their names and labels.
#[derive(Clone)]
pub(crate) struct Recording(Arc<Registry<Key, AtomicStorage>>);

/// A counter or gauge with the values of its labels.
#[derive(Debug)]
pub(crate) struct Series {
    pub metric: &'static Metric,
    pub labels: Vec<String>,
    pub value: Value,
}

/// What a series says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    /// A whole number, as counters have it.
    Whole(u64),
    /// Any number.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Recording {
    /// Nothing is recorded yet.
    pub fn new() -> Self {
        Self(Arc::new(Registry::atomic()))
    }

    /// Everything that was recorded, in the order of its metrics' names and its labels' values.
    pub fn series(&self) -> Vec<Series> {
        let mut all = Vec::new();
        let mut take = |key: &Key, value| {
            if let Some(metric) = ALL.iter().find(|metric| metric.name == key.name()) {
                let labels = key.labels().map(|label| label.value().to_owned());
                let labels = labels.collect();
                all.push(Series {
                    metric,
                    labels,
                    value,
                });
            }
        };
        self.0
            .visit_counters(|key, count| take(key, Value::Whole(count.load(Relaxed))));
        self.0.visit_gauges(|key, bits| {
            let value = f64::from_bits(bits.load(Relaxed));
            take(key, Value::Real(value));
        });
        all.sort_unstable_by(|one, other| {
            let by_name = one.metric.name.cmp(other.metric.name);
            by_name.then_with(|| one.labels.cmp(&other.labels))
        });
        all
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.series()).finish()
    }
}

impl Recorder for Recording {
    // What metrics mean stands in their definitions.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let shared = |counter: &Arc<AtomicU64>| Counter::from_arc(Arc::clone(counter));
        self.0.get_or_create_counter(key, shared)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let shared = |gauge: &Arc<AtomicU64>| Gauge::from_arc(Arc::clone(gauge));
        self.0.get_or_create_gauge(key, shared)
    }

    /// Histograms are written from where they are kept.
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// What has been counted of the process's control plane, as it is handed over to the next image of the
/// program: the name of a metric, the values of its labels, the count. What the next one does not
/// know, it forgets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedCounters(Vec<(String, Vec<String>, u64)>);

impl SavedCounters {
    /// The counters among what was recorded.
    pub(crate) fn of(recording: &Recording) -> Self {
        let counters = recording.series().into_iter().filter_map(|series| {
            let name = series.metric.name.to_owned();
            match series.value {
                Value::Whole(count) => Some((name, series.labels, count)),
                Value::Real(_) => None,
            }
        });
        Self(counters.collect())
    }

    /// Goes on counting from there.
    pub fn go_on(&self) {
        for (name, values, count) in &self.0 {
            let known = |metric: &&&Metric| {
                metric.name == name
                    && metric.kind == Kind::Counter
                    && metric.labels.len() == values.len()
            };
            if let Some(metric) = ALL.iter().find(known) {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                metric.set_total(&values, *count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metric::{MAPPINGS, REFUSALS, SWITCHBOARD_NOTICES};

    #[test]
    fn counters_go_on_and_do_not_begin_anew() {
        let counted = || {
            REFUSALS.add(&["m", "denied"], 3);
            SWITCHBOARD_NOTICES.add(&[], 4);
            MAPPINGS.set(&[], 5);
        };
        let (before, after) = (Recording::new(), Recording::new());
        metrics::with_local_recorder(&before, counted);
        let saved = SavedCounters::of(&before);
        let text = serde_json::to_string(&saved).expect("plain values");
        let later = r#"[["tml_proxy_later_total",[],1],["tml_proxy_mappings",[],1]]"#;
        for text in [&*text, later] {
            let saved: SavedCounters = serde_json::from_str(text).expect("values");
            metrics::with_local_recorder(&after, || saved.go_on());
        }
        assert_eq!(SavedCounters::of(&after), saved);
        metrics::with_local_recorder(&after, counted);
        let SavedCounters(total) = SavedCounters::of(&after);
        let counts: Vec<u64> = total.iter().map(|(_, _, count)| *count).collect();
        assert_eq!(counts, [6, 8]);
        assert_eq!(saved.0.len(), 2);
    }
}
