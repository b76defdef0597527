//! Which of many like events get a line in the log: so many in each second, the rest are counted.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

/// Grants lines, at most a number of them in each second.
#[derive(Debug)]
pub struct Sampler {
    per_second: Option<u32>,
    start: Instant,
    /// The second since the start in the upper half, the lines granted in it in the lower.
    granted: AtomicU64,
    withheld: AtomicU64,
}

impl Sampler {
    /// Grants `per_second` lines a second from `start` on; without a number, every line.
    pub fn new(per_second: Option<u32>, start: Instant) -> Self {
        Self {
            per_second,
            start,
            granted: AtomicU64::new(0),
            withheld: AtomicU64::new(0),
        }
    }

    /// Whether an event at `now` gets a line; if not, it has been counted.
    pub fn grant(&self, now: Instant) -> bool {
        let Some(most) = self.per_second else {
            return true;
        };
        let second = now.saturating_duration_since(self.start).as_secs() << 32;
        let granted = self.granted.fetch_update(Relaxed, Relaxed, |granted| {
            match granted & !u64::from(u32::MAX) == second {
                false => Some(second + 1),
                true if (granted as u32) < most => Some(granted + 1),
                true => None,
            }
        });
        if granted.is_err() {
            self.withheld.fetch_add(1, Relaxed);
        }
        granted.is_ok()
    }

    /// Events that got no line so far.
    pub fn withheld(&self) -> u64 {
        self.withheld.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_gets_its_share_of_each_second_and_the_rest_is_counted() {
        let start = Instant::now();
        let sampler = Sampler::new(Some(2), start);
        let lines = |seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..5).filter(|_| sampler.grant(now)).count()
        };
        assert_eq!([lines(0), lines(7)], [2, 2]);
        assert_eq!(sampler.withheld(), 6);
        assert!((0..100).all(|_| Sampler::new(None, start).grant(start)));
    }
}
