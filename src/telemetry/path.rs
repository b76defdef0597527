//! How the network towards a mapping's target does, as sampled on its live sessions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// What the kernel knows of one connection (tcp(7) `TCP_INFO`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathInfo {
    /// Smoothed round trip time in microseconds.
    pub rtt_us: u32,
    /// The least round trip time of the last minutes in microseconds, if there was any.
    pub min_rtt_us: Option<u32>,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Segments with data sent since the connection began.
    pub segments: u32,
    /// The latest rate at which data was acknowledged, in bytes per second.
    pub delivery_rate: u64,
}

/// Several connections taken together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PathSummary {
    /// How many connections were looked at.
    pub connections: u64,
    /// Mean smoothed round trip time in seconds: with delays of acknowledgements, where little is sent.
    pub rtt: f64,
    /// The least round trip time in seconds.
    #[serde(default)]
    pub min_rtt: Option<f64>,
    /// Share of the segments that were sent again, 0 to 1.
    pub retransmit_ratio: f64,
    /// The fastest of the delivery rates, in bytes per second.
    pub delivery_rate: u64,
}

impl PathSummary {
    /// Sums up what was found; nothing if nothing was.
    pub fn of(found: &[PathInfo]) -> Option<Self> {
        let delivery_rate = found.iter().map(|path| path.delivery_rate).max()?;
        let sum =
            |part: fn(&PathInfo) -> u32| found.iter().map(|p| u64::from(part(p))).sum::<u64>();
        let connections = found.len() as u64;
        let segments = sum(|path| path.segments).max(1);
        Some(Self {
            connections,
            rtt: sum(|path| path.rtt_us) as f64 / connections as f64 / 1e6,
            min_rtt: (found.iter().filter_map(|path| path.min_rtt_us).min())
                .map(|micros| f64::from(micros) / 1e6),
            retransmit_ratio: (sum(|path| path.retransmits) as f64 / segments as f64).min(1.0),
            delivery_rate,
        })
    }
}

/// The latest summary of a mapping: written by the sampler, read by a scrape.
///
/// The parts are stored one by one. A scrape between two stores sees parts of two summaries, which
/// are a few seconds apart and each true.
#[derive(Debug, Default)]
pub struct PathStats {
    connections: AtomicU64,
    rtt: AtomicU64,
    /// Not a number where there is none.
    min_rtt: AtomicU64,
    retransmit_ratio: AtomicU64,
    delivery_rate: AtomicU64,
}

impl PathStats {
    /// Replaces the summary; none says that there was nothing to look at.
    pub fn store(&self, summary: Option<PathSummary>) {
        let summary = summary.unwrap_or_default();
        self.rtt.store(summary.rtt.to_bits(), Relaxed);
        let min_rtt = summary.min_rtt.unwrap_or(f64::NAN);
        self.min_rtt.store(min_rtt.to_bits(), Relaxed);
        self.retransmit_ratio
            .store(summary.retransmit_ratio.to_bits(), Relaxed);
        self.delivery_rate.store(summary.delivery_rate, Relaxed);
        self.connections.store(summary.connections, Relaxed);
    }

    /// The latest summary, if there was anything to look at.
    pub fn load(&self) -> Option<PathSummary> {
        let connections = self.connections.load(Relaxed);
        (connections > 0).then(|| PathSummary {
            connections,
            rtt: f64::from_bits(self.rtt.load(Relaxed)),
            min_rtt: Some(f64::from_bits(self.min_rtt.load(Relaxed))).filter(|rtt| !rtt.is_nan()),
            retransmit_ratio: f64::from_bits(self.retransmit_ratio.load(Relaxed)),
            delivery_rate: self.delivery_rate.load(Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_a_mean_a_share_and_a_maximum() {
        let path = |rtt_us, retransmits, delivery_rate| PathInfo {
            rtt_us,
            min_rtt_us: Some(rtt_us / 10).filter(|min| *min > 1000),
            retransmits,
            segments: 100,
            delivery_rate,
        };
        let summary = PathSummary::of(&[path(10_000, 0, 7), path(30_000, 50, 5)]);
        let expected = PathSummary {
            connections: 2,
            rtt: 0.02,
            min_rtt: Some(0.003),
            retransmit_ratio: 0.25,
            delivery_rate: 7,
        };
        assert_eq!(summary, Some(expected));
        assert_eq!(PathSummary::of(&[]), None);

        let stats = PathStats::default();
        assert_eq!(stats.load(), None);
        stats.store(summary);
        assert_eq!(stats.load(), summary);
        stats.store(None);
        assert_eq!(stats.load(), None);
    }
}
