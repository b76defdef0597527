//! Which of many like events get a line in the log: so many in each second, the rest are counted.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::sleep};

/// Any number of lines.
const NO_LIMIT: u64 = u64::MAX;

/// Grants lines, at most a number of them in each second.
#[derive(Debug)]
pub struct Sampler {
    /// How many, or [`NO_LIMIT`].
    per_second: AtomicU64,
    start: Instant,
    /// The second since the start in the upper half, the lines granted in it in the lower.
    granted: AtomicU64,
    withheld: AtomicU64,
    /// How many of those have been read by [`Sampler::more_withheld`].
    reported: AtomicU64,
    more: Notify,
}

impl Sampler {
    /// Grants `per_second` lines a second from `start` on; without a number, every line.
    pub fn new(per_second: Option<u32>, start: Instant) -> Self {
        Self {
            per_second: AtomicU64::new(per_second.map_or(NO_LIMIT, u64::from)),
            start,
            granted: AtomicU64::new(0),
            withheld: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            more: Notify::new(),
        }
    }

    /// Goes on counting events that got no line after so many, of which so many have been reported.
    pub fn after(self, (withheld, reported): (u64, u64)) -> Self {
        Self {
            withheld: withheld.into(),
            reported: reported.min(withheld).into(),
            ..self
        }
    }

    /// How many events got no line, and how many of those have been reported.
    pub fn counted(&self) -> (u64, u64) {
        (self.withheld.load(SeqCst), self.reported.load(SeqCst))
    }

    /// From now on grants so many lines a second, or every line.
    pub fn set(&self, per_second: Option<u32>) {
        let most = per_second.map_or(NO_LIMIT, u64::from);
        self.per_second.store(most, Relaxed);
    }

    /// Whether an event at `now` gets a line; if not, it has been counted.
    pub fn grant(&self, now: Instant) -> bool {
        let most = self.per_second.load(Relaxed);
        if most == NO_LIMIT {
            return true;
        }
        let second = now.saturating_duration_since(self.start).as_secs() << 32;
        let granted = self.granted.fetch_update(Relaxed, Relaxed, |granted| {
            match granted & !u64::from(u32::MAX) == second {
                false => Some(second + 1),
                true if u64::from(granted as u32) < most => Some(granted + 1),
                true => None,
            }
        });
        if granted.is_err() && self.withheld.fetch_add(1, SeqCst) == self.reported.load(SeqCst) {
            self.more.notify_one();
        }
        granted.is_ok()
    }

    /// Events that got no line so far.
    pub fn withheld(&self) -> u64 {
        self.withheld.load(Relaxed)
    }

    /// Waits for an event that gets no line, lets more gather for a time, and says how many there
    /// were since the last call. One caller at a time.
    pub async fn more_withheld(&self, gather: Duration) -> u64 {
        // In one order with `grant`: either it sees what was reported last, or this its event.
        let reported = self.reported.load(SeqCst);
        while self.withheld.load(SeqCst) == reported {
            self.more.notified().await;
        }
        sleep(gather).await;
        let withheld = self.withheld.load(SeqCst);
        self.reported.store(withheld, SeqCst);
        withheld - reported
    }
}

#[cfg(test)]
mod tests {
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
        assert!(sampler.grant(start + Duration::from_secs(8)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let more = sampler.more_withheld(Duration::ZERO);
        assert_eq!(runtime.expect("a runtime").block_on(more), 6);
        assert!((0..100).all(|_| Sampler::new(None, start).grant(start)));
    }
}
