//! Where what is counted of the control plane is kept: recorders of `metrics-exporter-prometheus`.
//!
//! What happens goes to the one of the process, which lasts, and whose counters go on in the next image of
//! the program. What is looked up at a scrape goes to one that the scrape brings and forgets, so that what
//! is gone leaves no series behind.

use std::sync::OnceLock;

use metrics::{KeyName, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use serde::{Deserialize, Serialize};

use super::metric::{ALL, Kind, Metric};

/// What has been counted of the process's control plane, in the exporter's hands.
pub(crate) fn of_process() -> &'static PrometheusHandle {
    static PROCESS: OnceLock<PrometheusHandle> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let recorder = recorder();
        let handle = recorder.handle();
        // It fails only where somebody else's recorder stands already, who then gets what is counted.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

/// A recorder that knows every metric and has recorded nothing.
pub(crate) fn recorder() -> PrometheusRecorder {
    let recorder = PrometheusBuilder::new().build_recorder();
    for metric in ALL {
        let (name, help) = (KeyName::from_const_str(metric.name), metric.help.into());
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            // Those are ours.
            Kind::Histogram(_) => {}
        }
    }
    recorder
}

/// What has been counted of the process's control plane, as it is handed over to the next image of the
/// program: the name of a metric, the values of its labels, the count. What the next one does not
/// know, it forgets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedCounters(Vec<(String, Vec<String>, u64)>);

impl SavedCounters {
    /// What `exporter` has, which knows no other way to say it than its page.
    pub(crate) fn of(exporter: &PrometheusHandle) -> Self {
        let page = exporter.render();
        let counters = page.lines().filter_map(|line| {
            let (series, count) = line.rsplit_once(' ')?;
            let name = series.split('{').next()?;
            let metric = ALL.iter().find(|metric| metric.name == name)?;
            let is_counter = metric.kind == Kind::Counter;
            let values = metric.labels.iter().map(|label| {
                let (_, value) = series.split_once(&format!("{label}=\""))?;
                Some(value.split('"').next()?.to_owned())
            });
            let values: Option<Vec<String>> = values.collect();
            let count = count.parse().ok().filter(|_| is_counter)?;
            Some((name.to_owned(), values?, count))
        });
        let mut counters: Vec<_> = counters.collect();
        counters.sort_unstable();
        Self(counters)
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
    fn counters_of_the_exporter_go_on_and_do_not_begin_anew() {
        let counted = || {
            REFUSALS.add(&["m", "denied"], 3);
            SWITCHBOARD_NOTICES.add(&[], 4);
            MAPPINGS.set(&[], 5);
        };
        let (before, after) = (recorder(), recorder());
        metrics::with_local_recorder(&before, counted);
        let saved = SavedCounters::of(&before.handle());
        let text = serde_json::to_string(&saved).expect("plain values");
        let later = r#"[["tml_proxy_later_total",[],1],["tml_proxy_mappings",[],1]]"#;
        for text in [&*text, later] {
            let saved: SavedCounters = serde_json::from_str(text).expect("values");
            metrics::with_local_recorder(&after, || saved.go_on());
        }
        assert_eq!(SavedCounters::of(&after.handle()), saved);
        metrics::with_local_recorder(&after, counted);
        let page = after.handle().render();
        assert!(
            page.contains("{mapping=\"m\",cause=\"denied\"} 6"),
            "{page}"
        );
        assert!(
            page.contains("tml_proxy_switchboard_notices_total 8"),
            "{page}"
        );
        assert_eq!(saved.0.len(), 2);
    }
}
