//! A histogram of durations with fixed bounds: plain atomics, one addition to each of two of them
//! per observation.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts durations by the smallest of `N` bounds that is not exceeded.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [Duration; N],
    within: [AtomicU64; N],
    beyond: AtomicU64,
    sum_micros: AtomicU64,
}

/// A histogram as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution<const N: usize> {
    /// Each bound in seconds, and how many observations did not exceed it.
    pub buckets: [(f64, u64); N],
    /// All observations.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

impl<const N: usize> Histogram<N> {
    /// An empty histogram; `bounds` go up.
    pub fn new(bounds: &'static [Duration; N]) -> Self {
        Self {
            bounds,
            within: array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum_micros: AtomicU64::new(0),
        }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let place = self.bounds.partition_point(|bound| *bound < duration);
        let bucket = self.within.get(place).unwrap_or(&self.beyond);
        bucket.fetch_add(1, Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    /// What has been observed so far.
    pub fn read(&self) -> Distribution<N> {
        let mut count = 0;
        let buckets = array::from_fn(|place| {
            count += self.within[place].load(Relaxed);
            (self.bounds[place].as_secs_f64(), count)
        });
        Distribution {
            buckets,
            count: count + self.beyond.load(Relaxed),
            sum: Duration::from_micros(self.sum_micros.load(Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_counts_in_its_bucket_and_in_all_wider_ones() {
        static BOUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
        let histogram = Histogram::new(&BOUNDS);
        for millis in [500, 1000, 1001, 11_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let read = histogram.read();
        assert_eq!(read.buckets, [(1.0, 2), (10.0, 3)]);
        assert_eq!(read.count, 4);
        assert!((read.sum - 13.501).abs() < 1e-9);
    }
}
