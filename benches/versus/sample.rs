//! Measured values and what becomes of several rounds of them.

use std::time::Duration;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Processor time of the proxy per unit of work.
    ProxyCpu(Unit),
    /// Processor time of the whole machine per unit of work.
    MachineCpu(Unit),
    /// Memory of all sockets while bytes flow: the median of many moments.
    InFlight,
    /// The most of it.
    InFlightMax,
    /// Work done per second.
    Rate(Unit),
    /// Median latency.
    P50,
    /// Latency of the slowest hundredth.
    P99,
    /// Longest latency.
    Worst,
    /// User memory per open session.
    Memory,
    /// Descriptors per open session.
    Descriptors,
    /// Wake-ups per second of the whole proxy while every session is idle.
    WakeUps,
    /// From the start of the program to the first byte through it.
    Start,
    /// From the signal to the line that says the new table is in force.
    Reload,
    /// Share of one core that reloading once a second takes.
    ReloadCpu,
    /// From asking for the metrics to their end.
    Scrape,
    /// How long the metrics are.
    ScrapeSize,
    /// Time without service of a session whose proxy is replaced: in the middle.
    PauseP50,
    /// The same, of the slowest hundredth.
    PauseP99,
    /// The longest.
    PauseMax,
    /// Clients that came meanwhile and got no session.
    Refused,
    /// Sessions that did not survive.
    Lost,
    /// User memory a second later, as a share of what it was.
    MemoryAfter,
    /// The most user memory meanwhile, as a share of what it was.
    MemoryPeak,
    /// Processes a second later.
    Processes,
    /// Bulk's throughput in the second of the replacement, as a share of what it was.
    BulkKept,
}

/// What work is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// 10⁹ bytes that arrived.
    Gigabyte,
    /// A session from connect to close.
    Connection,
    /// A message there and back.
    RoundTrip,
}

impl Unit {
    /// Its name in the title of a column.
    fn name(self) -> &'static str {
        match self {
            Self::Gigabyte => "GB",
            Self::Connection => "connection",
            Self::RoundTrip => "round trip",
        }
    }

    /// `time` per unit, after `count` of them (bytes for gigabytes), in what [`Metric::title`] says.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn cost(self, time: Duration, count: u64) -> f64 {
        match self {
            Self::Gigabyte => time.as_secs_f64() * 1e3 / (count as f64 / 1e9),
            Self::Connection | Self::RoundTrip => time.as_secs_f64() * 1e6 / count as f64,
        }
    }

    /// `count` in a second's time.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn rate(self, count: u64, time: Duration) -> f64 {
        let per_second = count as f64 / time.as_secs_f64();
        match self {
            Self::Gigabyte => per_second / 1e9,
            Self::Connection | Self::RoundTrip => per_second,
        }
    }
}

impl Metric {
    /// The column title, with the unit.
    pub fn title(self) -> String {
        let small = |unit| if unit == Unit::Gigabyte { "ms" } else { "µs" };
        match self {
            Self::ProxyCpu(unit) => format!("proxy CPU {}/{}", small(unit), unit.name()),
            Self::MachineCpu(unit) => format!("machine CPU {}/{}", small(unit), unit.name()),
            Self::InFlight => "TCP memory MB".to_owned(),
            Self::InFlightMax => "at most MB".to_owned(),
            Self::Rate(Unit::Gigabyte) => "GB/s".to_owned(),
            Self::Rate(unit) => format!("{}s/s", unit.name()),
            Self::P50 => "p50 µs".to_owned(),
            Self::P99 => "p99 µs".to_owned(),
            Self::Worst => "max µs".to_owned(),
            Self::Memory => "bytes/session".to_owned(),
            Self::Descriptors => "descriptors/session".to_owned(),
            Self::WakeUps => "wake-ups/s".to_owned(),
            Self::Start => "start ms".to_owned(),
            Self::Reload => "reload ms".to_owned(),
            Self::ReloadCpu => "% of a core at 1 reload/s".to_owned(),
            Self::Scrape => "scrape ms".to_owned(),
            Self::ScrapeSize => "MB".to_owned(),
            Self::PauseP50 => "pause p50 ms".to_owned(),
            Self::PauseP99 => "pause p99 ms".to_owned(),
            Self::PauseMax => "pause max ms".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::Lost => "lost".to_owned(),
            Self::MemoryAfter => "memory after ÷ before".to_owned(),
            Self::MemoryPeak => "peak memory ÷ before".to_owned(),
            Self::Processes => "processes".to_owned(),
            Self::BulkKept => "bulk ÷ before".to_owned(),
        }
    }

    /// The column title where it is compared.
    pub fn short(self) -> String {
        match self {
            Self::ProxyCpu(_) => "proxy".to_owned(),
            Self::MachineCpu(_) => "machine".to_owned(),
            other => other.title(),
        }
    }

    /// The key in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::ProxyCpu(Unit::Gigabyte) => "proxy_cpu_ms_per_gb",
            Self::ProxyCpu(Unit::Connection) => "proxy_cpu_us_per_connection",
            Self::ProxyCpu(Unit::RoundTrip) => "proxy_cpu_us_per_round_trip",
            Self::MachineCpu(Unit::Gigabyte) => "machine_cpu_ms_per_gb",
            Self::MachineCpu(Unit::Connection) => "machine_cpu_us_per_connection",
            Self::MachineCpu(Unit::RoundTrip) => "machine_cpu_us_per_round_trip",
            Self::InFlight => "tcp_memory_mb",
            Self::InFlightMax => "tcp_memory_max_mb",
            Self::Rate(Unit::Gigabyte) => "gb_per_s",
            Self::Rate(Unit::Connection) => "connections_per_s",
            Self::Rate(Unit::RoundTrip) => "round_trips_per_s",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::Worst => "max_us",
            Self::Memory => "bytes_per_session",
            Self::Descriptors => "descriptors_per_session",
            Self::WakeUps => "wake_ups_per_s",
            Self::Start => "start_ms",
            Self::Reload => "reload_ms",
            Self::ReloadCpu => "reload_core_percent",
            Self::Scrape => "scrape_ms",
            Self::ScrapeSize => "scrape_mb",
            Self::PauseP50 => "pause_p50_ms",
            Self::PauseP99 => "pause_p99_ms",
            Self::PauseMax => "pause_max_ms",
            Self::Refused => "clients_refused",
            Self::Lost => "sessions_lost",
            Self::MemoryAfter => "memory_after_ratio",
            Self::MemoryPeak => "memory_peak_ratio",
            Self::Processes => "processes",
            Self::BulkKept => "bulk_ratio",
        }
    }

    /// A value as text, with as many digits as are worth reading.
    pub fn format(self, value: f64) -> String {
        match self {
            Self::Descriptors => format!("{value:.2}"),
            Self::Rate(_) if value < 0.1 => format!("{value:.4}"),
            _ if value.abs() < 10.0 => format!("{value:.2}"),
            _ if value.abs() < 100.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        }
    }
}

/// What one round of one workload measured.
pub type Sample = Vec<(Metric, f64)>;

/// A metric over several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// What was measured.
    pub metric: Metric,
    /// The value in the middle.
    pub median: f64,
    /// The lowest.
    pub least: f64,
    /// The highest.
    pub most: f64,
}

impl Summary {
    /// Median and range, as a table shows them.
    pub fn text(&self) -> String {
        let [median, least, most] =
            [self.median, self.least, self.most].map(|value| self.metric.format(value));
        if least == most {
            median
        } else {
            format!("{median} [{least}–{most}]")
        }
    }
}

/// How a metric of one compares with that of another: the median of what it is round by round, so
/// that a machine whose speed drifts is no advantage to either.
pub fn ratio(one: &[Sample], other: &[Sample], metric: Metric) -> Option<f64> {
    let value = |sample: &Sample| {
        let found = sample.iter().find(|(measured, _)| *measured == metric);
        found.map(|(_, value)| *value)
    };
    let mut ratios: Vec<f64> = (one.iter().zip(other))
        .filter_map(|(one, other)| Some(value(one)? / value(other).filter(|other| *other > 0.0)?))
        .collect();
    ratios.sort_by(f64::total_cmp);
    (!ratios.is_empty()).then(|| in_the_middle(&ratios))
}

fn in_the_middle(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Summarises rounds that measured the same metrics.
pub fn summarise(rounds: &[Sample]) -> Vec<Summary> {
    let Some(first) = rounds.first() else {
        return Vec::new();
    };
    let summary = |(column, &(metric, _)): (usize, &(Metric, f64))| {
        let mut values: Vec<f64> = rounds.iter().map(|round| round[column].1).collect();
        values.sort_by(f64::total_cmp);
        Summary {
            metric,
            median: in_the_middle(&values),
            least: values[0],
            most: values[values.len() - 1],
        }
    };
    first.iter().enumerate().map(summary).collect()
}
