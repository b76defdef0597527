//! The metrics page, written at each scrape from the counters as they are.
//!
//! Series of a mapping exist as long as the mapping does, or its last session: they come from the
//! table in force, not from a registry that would have to be told. Of the reasons and causes only those that have
//! occurred are listed.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
        text::encode,
    },
    metrics::MetricType,
    registry::Registry,
};

use super::Sources;
use crate::{
    table::Mapping,
    telemetry::{ConnectFailure, EndReason},
};

/// How reloads went. The start counts as a success that is not counted.
#[derive(Debug)]
pub struct ReloadStatus {
    last_failed: AtomicBool,
    last_success: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    listeners: AtomicU64,
}

impl ReloadStatus {
    /// The status after a start with `listeners` listeners.
    pub fn started(listeners: usize) -> Self {
        Self {
            last_failed: AtomicBool::new(false),
            last_success: AtomicU64::new(unix_seconds()),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            listeners: AtomicU64::new(listeners as u64),
        }
    }

    /// Notes a reload after which there are `listeners` listeners.
    pub fn succeeded(&self, listeners: usize) {
        self.succeeded.fetch_add(1, Relaxed);
        self.last_failed.store(false, Relaxed);
        self.last_success.store(unix_seconds(), Relaxed);
        self.listeners.store(listeners as u64, Relaxed);
    }

    /// Notes a reload that changed nothing because something was wrong.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.last_failed.store(true, Relaxed);
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The page in OpenMetrics text.
pub(super) fn text(sources: &Arc<Sources>) -> String {
    let mut registry = Registry::with_prefix("tml_proxy");
    registry.register_collector(Box::new(Page(Arc::clone(sources))));
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut page, &registry);
    page
}

#[derive(Debug)]
struct Page(Arc<Sources>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.mappings(&mut encoder)?;
        self.process(&mut encoder)
    }
}

impl Page {
    fn mappings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mappings = &self.0.shared.mappings();
        let name = |mapping: &Arc<Mapping>| mapping.name.as_str().to_owned();

        let mut family = gauges(encoder, "sessions_open", "Sessions open now")?;
        for mapping in mappings {
            let labels = [("mapping", name(mapping))];
            family
                .encode_family(&labels)?
                .encode_gauge(&i64::from(mapping.stats.open()))?;
        }
        let mut family = counters(encoder, "sessions_opened", "Sessions opened")?;
        for mapping in mappings {
            let labels = [("mapping", name(mapping))];
            count(&mut family, &labels, mapping.stats.opened())?;
        }
        let mut family = counters(
            encoder,
            "sessions_ended",
            "Sessions that ended or were refused, by reason",
        )?;
        for mapping in mappings {
            for reason in EndReason::ALL {
                let ended = mapping.stats.ended(reason);
                if ended > 0 {
                    let reason = reason.word().to_owned();
                    let labels = [("mapping", name(mapping)), ("reason", reason)];
                    count(&mut family, &labels, ended)?;
                }
            }
        }
        let mut family = counters(
            encoder,
            "bytes",
            "Bytes delivered: up to the target, down to the client",
        )?;
        for mapping in mappings {
            for (direction, bytes) in [
                ("up", mapping.stats.bytes_up()),
                ("down", mapping.stats.bytes_down()),
            ] {
                let labels = [
                    ("mapping", name(mapping)),
                    ("direction", direction.to_owned()),
                ];
                count(&mut family, &labels, bytes)?;
            }
        }
        let mut family = counters(
            encoder,
            "connect_failures",
            "Connections to the target that did not come about, by cause",
        )?;
        for mapping in mappings {
            for cause in ConnectFailure::ALL {
                let failures = mapping.stats.connect_failures(cause);
                if failures > 0 {
                    let cause = cause.word().to_owned();
                    let labels = [("mapping", name(mapping)), ("cause", cause)];
                    count(&mut family, &labels, failures)?;
                }
            }
        }
        Ok(())
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Sources { shared, reload } = &*self.0;
        let mut family = gauges(encoder, "build_info", "The version that runs")?;
        family
            .encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?
            .encode_gauge(&1i64)?;
        let mut family = counters(
            encoder,
            "accept_errors",
            "Errors of accept(2): lost connections, pauses for want of resources, lost listeners",
        )?;
        for (cause, value) in [
            ("retry", &shared.stats.accept_retries),
            ("pause", &shared.stats.accept_pauses),
            ("fatal", &shared.stats.accept_failures),
        ] {
            count(&mut family, &[("cause", cause)], value.load(Relaxed))?;
        }
        let mut family = counters(encoder, "config_reloads", "Reloads, by result")?;
        for (result, value) in [("success", &reload.succeeded), ("failure", &reload.failed)] {
            count(&mut family, &[("result", result)], value.load(Relaxed))?;
        }
        for (name, help, value) in [
            (
                "config_reload_success",
                "Whether the last reload, or the start, succeeded",
                u64::from(!reload.last_failed.load(Relaxed)),
            ),
            (
                "config_last_reload_success_timestamp_seconds",
                "When a configuration last came into force, in seconds since 1970",
                reload.last_success.load(Relaxed),
            ),
            (
                "mappings",
                "Mappings in force",
                shared.table.load().mappings().len() as u64,
            ),
            (
                "listeners",
                "Listening sockets open",
                reload.listeners.load(Relaxed),
            ),
            (
                "sessions_limit",
                "Sessions the process may have open",
                u64::from(shared.max_sessions),
            ),
            (
                "pipes_in_use",
                "Pipes lent to sessions",
                shared.pipes.in_use() as u64,
            ),
            (
                "pipes_free",
                "Pipes kept for the next session",
                shared.pipes.free() as u64,
            ),
            (
                "pipes_limit",
                "Pipes there may be",
                shared.pipes.limit() as u64,
            ),
        ] {
            gauges(encoder, name, help)?.encode_gauge(&Whole(value))?;
        }
        for (name, help, value) in [
            (
                "pipes_denied",
                "Times a session asked for a pipe and copied for want of one",
                shared.pipes.denied(),
            ),
            (
                "spliced_bytes",
                "Bytes of ended sessions that were spliced",
                shared.stats.spliced_bytes.load(Relaxed),
            ),
            (
                "copied_bytes",
                "Bytes of ended sessions that were copied",
                shared.stats.copied_bytes.load(Relaxed),
            ),
            (
                "session_log_dropped",
                "Session log lines lost because the log was too slow",
                shared.log.dropped(),
            ),
        ] {
            counters(encoder, name, help)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }
}

/// A gauge of whole numbers.
struct Whole(u64);

impl EncodeGaugeValue for Whole {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::GaugeValueEncoder<'_>,
    ) -> fmt::Result {
        i64::try_from(self.0).unwrap_or(i64::MAX).encode(encoder)
    }
}

fn counters<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

fn gauges<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn count(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    family
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, u64, u64>(&value, None)
}
