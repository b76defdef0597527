//! Durations counted in buckets: plain atomics, one addition to each of two of them per observation.
//!
//! The buckets are those of a native histogram of Prometheus, further divided at the bounds of a classic
//! one, so that both are sums of the same counters.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The resolution of native histograms: 2^2 buckets from one power of two to the next.
pub const SCHEMA: i32 = 2;

/// Where buckets end.
#[derive(Debug)]
pub struct Buckets {
    bounds: &'static [Duration],
    ends: OnceLock<Vec<End>>,
}

/// The end of a bucket, in nanoseconds, and the native bucket that it is in.
type End = (u64, i32);

impl Buckets {
    /// Buckets for times around these bounds, which go up.
    pub const fn new(bounds: &'static [Duration]) -> Self {
        let ends = OnceLock::new();
        Self { bounds, ends }
    }

    fn ends(&self) -> &[End] {
        self.ends.get_or_init(|| {
            let of_bound = |bound: &Duration| (nanos(*bound), native(bound.as_secs_f64()));
            let mut ends: Vec<End> = self.bounds.iter().map(of_bound).collect();
            // What is far below the first bound is as good as nothing.
            let first = ends.first().map_or(0, |(_, index)| index - (4 << SCHEMA));
            let last = ends.last().map_or(0, |(_, index)| index + (1 << SCHEMA));
            let of_index = |index| (nanos(Duration::from_secs_f64(end(index))), index);
            ends.extend((first..=last).map(of_index));
            ends.sort_unstable();
            ends.dedup_by_key(|(nanos, _)| *nanos);
            ends
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The native bucket with so many seconds.
fn native(seconds: f64) -> i32 {
    (seconds.log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

/// Where a native bucket ends, in seconds.
fn end(index: i32) -> f64 {
    (f64::from(index) / f64::from(1 << SCHEMA)).exp2()
}

/// Counts durations.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    /// One for each bucket and one for what is beyond; made with the first observation.
    counts: OnceLock<Box<[AtomicU64]>>,
    sum_micros: AtomicU64,
}

/// A histogram as it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// Each bound in seconds, and how many observations did not exceed it.
    pub buckets: Vec<(f64, u64)>,
    /// All observations.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
    /// Up to how many seconds an observation counts as nothing in the native histogram.
    pub zero_threshold: f64,
    /// How many did.
    pub zero_count: u64,
    /// Every other bucket of the native histogram that is not empty.
    pub native: Vec<(i32, u64)>,
}

impl Histogram {
    /// An empty histogram.
    pub fn new(buckets: &'static Buckets) -> Self {
        Self {
            buckets,
            counts: OnceLock::new(),
            sum_micros: AtomicU64::new(0),
        }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        self.count(nanos(duration), 1);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    fn count(&self, nanos: u64, more: u64) {
        let ends = self.buckets.ends();
        let counts = self.counts.get_or_init(|| {
            let each = (0..=ends.len()).map(|_| AtomicU64::new(0));
            each.collect()
        });
        counts[ends.partition_point(|(end, _)| *end < nanos)].fetch_add(more, Relaxed);
    }

    /// What has been observed so far.
    pub fn read(&self) -> Distribution {
        let ends = self.buckets.ends();
        let counts = self.counts.get();
        let count = |place: usize| counts.map_or(0, |counts| counts[place].load(Relaxed));
        let mut read = Distribution {
            buckets: Vec::with_capacity(self.buckets.bounds.len()),
            ..Distribution::default()
        };
        let mut bounds = self.buckets.bounds.iter().peekable();
        for (place, (nanos, index)) in ends.iter().enumerate() {
            read.add(*index, count(place));
            if place == 0 {
                (read.zero_threshold, read.zero_count) = (end(*index), read.count);
                read.native.clear();
            }
            if let Some(bound) = bounds.next_if(|bound| self::nanos(**bound) == *nanos) {
                read.buckets.push((bound.as_secs_f64(), read.count));
            }
        }
        let beyond = ends.last().map_or(0, |(_, index)| index + 1);
        read.add(beyond, count(ends.len()));
        read.sum = Duration::from_micros(self.sum_micros.load(Relaxed)).as_secs_f64();
        read
    }
}

/// A histogram as it is handed over: the end of each bucket that is not empty in nanoseconds and what
/// is in it, what is beyond all of them with the largest number for an end. The next image may have
/// other buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHistogram {
    #[serde(default)]
    counts: Vec<(u64, u64)>,
    #[serde(default)]
    sum_micros: u64,
}

impl SavedHistogram {
    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

impl Histogram {
    /// The sum of all observations, which grows with each.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros.load(Relaxed)
    }

    /// What has been observed so far.
    pub fn save(&self) -> SavedHistogram {
        let Self {
            buckets,
            counts,
            sum_micros,
        } = self;
        let ends = buckets.ends().iter().map(|(end, _)| *end);
        let counts = counts.get().into_iter().flatten();
        let counts = ends
            .chain([u64::MAX])
            .zip(counts.map(|count| count.load(Relaxed)));
        SavedHistogram {
            counts: counts.filter(|(_, count)| *count > 0).collect(),
            sum_micros: sum_micros.load(Relaxed),
        }
    }

    /// Goes on from what was observed before.
    pub fn load(buckets: &'static Buckets, saved: &SavedHistogram) -> Self {
        let SavedHistogram { counts, sum_micros } = saved;
        let histogram = Self::new(buckets);
        for (end, count) in counts {
            histogram.count(*end, *count);
        }
        histogram.sum_micros.store(*sum_micros, Relaxed);
        histogram
    }
}

impl Distribution {
    fn add(&mut self, index: i32, count: u64) {
        self.count += count;
        match self.native.last_mut() {
            Some((last, sum)) if *last == index => *sum += count,
            _ if count > 0 => self.native.push((index, count)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_counts_in_its_bucket_and_in_all_wider_ones() {
        static BUCKETS: Buckets = Buckets::new(&[Duration::from_secs(1), Duration::from_secs(10)]);
        let histogram = Histogram::new(&BUCKETS);
        let empty = histogram.read();
        assert_eq!((empty.buckets, empty.count), (vec![(1.0, 0), (10.0, 0)], 0));
        for millis in [1, 500, 1000, 1001, 11_000, 100_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let read = histogram.read();
        assert_eq!(read.buckets, [(1.0, 3), (10.0, 4)]);
        assert_eq!(read.count, 6);
        assert!((read.sum - 113.502).abs() < 1e-9);
        assert_eq!((read.zero_threshold, read.zero_count), (0.0625, 1));
        // Up to 2^-1, 2^0, 2^(1/4) and 2^(14/4) seconds, and what is beyond all of them.
        assert_eq!(read.native, [(-4, 1), (0, 1), (1, 1), (14, 1), (19, 1)]);
    }

    #[test]
    fn every_bucket_is_in_one_native_bucket() {
        for buckets in [
            &super::super::metric::CONNECT_BUCKETS,
            &super::super::metric::LENGTH_BUCKETS,
        ] {
            for pair in buckets.ends().windows(2) {
                let [(before, _), (nanos, index)] = pair else {
                    unreachable!("two")
                };
                let (before, nanos) = (*before as f64 / 1e9, *nanos as f64 / 1e9);
                assert!(before >= end(index - 1) - 1e-9, "{before} {index}");
                assert!(nanos <= end(*index) + 1e-9, "{nanos} {index}");
            }
        }
    }
}
