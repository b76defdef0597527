//! Bandwidth: one direction of one session under the rates it shares with others.
//!
//! A direction may always move a quantum, a hundredth of a second's worth. Then it is given a time to go
//! on, which is when everything moved so far by all who share the rate has been paid for: so directions
//! take turns, a quantum each. One that moves little, as keystrokes do, spends a quantum seldom and
//! hardly ever waits behind those that move much. Nobody watches a bucket; each [`Throttle`] knows its
//! time.
//!
//! What had been read before the rates came into force was granted already, and goes out without
//! being charged: a throttle never waits for more than its turn.

use serde::{Deserialize, Serialize};

use super::{Bucket, Rate, Tick};

/// A quantum is so much of a second.
const PARTS_OF_A_SECOND: u64 = 100;

/// The least and the most bytes of a quantum: smaller ones cost too many turns, larger ones are more
/// than a turn moves.
const QUANTUM: std::ops::RangeInclusive<u64> = 2048..=256 * 1024;

/// Bytes up and down, counted for all who share a rate.
#[derive(Debug, Default)]
pub struct Meter {
    /// Towards the target.
    pub up: Bucket,
    /// Towards the client.
    pub down: Bucket,
}

/// A rate a throttle is under, and what is counted for it.
#[derive(Debug, Clone, Copy)]
pub struct Quota<'a> {
    /// Bytes a second.
    pub rate: Rate,
    /// Of all who share it.
    pub bucket: &'a Bucket,
}

/// One direction of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttle {
    /// Bytes of the quantum that are used up.
    spent: u64,
    ready: Tick,
    /// Bytes on their way that were granted before the quotas were.
    granted: u64,
}

impl Throttle {
    /// A throttle that comes under quotas with so many bytes on their way.
    pub fn with_granted(bytes: u64) -> Self {
        Self {
            granted: bytes,
            ..Self::default()
        }
    }

    /// Bytes it may move now; no quota is no limit.
    pub fn allowance(&self, quotas: &[Option<Quota<'_>>], now: Tick) -> usize {
        match quantum(quotas) {
            None => usize::MAX,
            Some(_) if self.ready > now => 0,
            Some(quantum) => {
                usize::try_from(quantum.saturating_sub(self.spent).max(1)).unwrap_or(usize::MAX)
            }
        }
    }

    pub fn charge(&mut self, quotas: &[Option<Quota<'_>>], bytes: u64, now: Tick) {
        let Some(quantum) = quantum(quotas) else {
            return;
        };
        let granted = bytes.min(self.granted);
        self.granted -= granted;
        let bytes = bytes - granted;
        if bytes == 0 {
            return;
        }
        let charged = quotas.iter().flatten();
        let paid = charged.map(|quota| quota.bucket.charge(quota.rate, bytes, now));
        let paid = paid.max().unwrap_or_default();
        self.spent += bytes;
        if self.spent >= quantum {
            self.spent = 0;
            self.ready = paid;
        }
    }

    pub fn ready(&self) -> Tick {
        self.ready
    }
}

/// The bytes of a turn under the strictest of the quotas.
fn quantum(quotas: &[Option<Quota<'_>>]) -> Option<u64> {
    let of = |rate: Rate| {
        let part = rate.in_a_second() / PARTS_OF_A_SECOND;
        part.clamp(*QUANTUM.start(), *QUANTUM.end())
            .min(rate.burst.get())
    };
    quotas.iter().flatten().map(|quota| of(quota.rate)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A throttle that always has bytes, and one of so many bytes each tenth of a second.
    enum Load {
        Bulk,
        Keystrokes(u64),
    }

    /// Lets throttles run for so many seconds under one shared rate; bytes moved by each, and the
    /// longest each had to wait.
    fn run(loads: &[Load], rate: Rate, seconds: u64) -> Vec<(u64, u64)> {
        let bucket = Bucket::default();
        let quota = [Some(Quota {
            rate,
            bucket: &bucket,
        })];
        let mut throttles: Vec<(Throttle, u64, u64, u64)> = Vec::new();
        throttles.resize_with(loads.len(), || (Throttle::default(), 0, 0, 0));
        let step = SECOND / 1000;
        for at in (0..seconds * 1000).map(|turn| SECOND + turn * step) {
            for (load, (throttle, moved, waiting, longest)) in loads.iter().zip(&mut throttles) {
                if let Load::Keystrokes(bytes) = load
                    && at % (SECOND / 10) == 0
                {
                    *waiting += bytes;
                }
                let wanted = match load {
                    Load::Bulk => u64::MAX,
                    Load::Keystrokes(_) => *waiting,
                };
                let allowed = throttle.allowance(&quota, Tick(at)) as u64;
                let bytes = wanted.min(allowed);
                throttle.charge(&quota, bytes, Tick(at));
                *moved += bytes;
                *waiting = waiting.saturating_sub(bytes);
                if wanted > 0 && allowed == 0 {
                    *longest = (*longest).max(throttle.ready().0 - at);
                }
            }
        }
        throttles
            .into_iter()
            .map(|(_, moved, _, longest)| (moved, longest))
            .collect()
    }

    #[test]
    fn without_a_toll_there_is_no_limit() {
        let mut throttle = Throttle::default();
        throttle.charge(&[None], u64::MAX, Tick(1));
        assert_eq!(throttle.allowance(&[None, None], Tick(1)), usize::MAX);
    }

    #[test]
    fn bulk_moves_at_the_rate_and_starts_with_the_burst() {
        for (per_second, burst) in [(100_000, 100_000), (10_000_000, 50_000), (1 << 30, 1 << 20)] {
            let moved = run(&[Load::Bulk], Rate::of(per_second, burst), 10)[0].0;
            let expected = 10 * per_second + burst;
            let error = moved.abs_diff(expected) as f64 / expected as f64;
            // A step of the simulation is a millisecond, in which a quantum at most can be moved.
            let most = 10_000 * 256 * 1024;
            assert!(error < 0.03 || moved >= most, "{moved} of {expected}");
        }
    }

    #[test]
    fn those_who_share_a_rate_get_the_same() {
        let loads: Vec<Load> = (0..20).map(|_| Load::Bulk).collect();
        let moved = run(&loads, Rate::of(1_000_000, 100_000), 20);
        let all: u64 = moved.iter().map(|(moved, _)| moved).sum();
        assert!(all.abs_diff(20_100_000) < 500_000, "{all}");
        for (one, _) in moved {
            assert!(one.abs_diff(all / 20) < 50_000, "{one} of {all}");
        }
    }

    #[test]
    fn keystrokes_do_not_wait_behind_bulk() {
        let mut loads: Vec<Load> = (0..20).map(|_| Load::Bulk).collect();
        loads.push(Load::Keystrokes(60));
        let moved = run(&loads, Rate::of(1_000_000, 100_000), 10);
        let (keystrokes, longest) = moved[20];
        assert_eq!(keystrokes, 100 * 60);
        assert_eq!(longest, 0);
    }

    #[test]
    fn what_was_on_its_way_when_the_limit_came_does_not_stop_the_throttle() {
        let bucket = Bucket::default();
        let quota = [Some(Quota {
            rate: Rate::of(4096, 4096),
            bucket: &bucket,
        })];
        let now = Tick(SECOND);
        let mut throttle = Throttle::with_granted(1 << 20);
        throttle.charge(&quota, 1 << 19, now);
        throttle.charge(&quota, 1 << 19, now);
        assert_eq!(throttle.allowance(&quota, now), 2048);
        throttle.charge(&quota, 2048, now);
        throttle.charge(&quota, 2048, now);
        assert!(throttle.ready() <= now, "the burst was left");
        throttle.charge(&quota, 2048, now);
        assert_eq!(throttle.ready(), Tick(SECOND + SECOND / 2));
    }

    #[test]
    fn of_two_tolls_the_stricter_counts() {
        let buckets = [Bucket::default(), Bucket::default()];
        let quotas = [
            Some(Quota {
                rate: Rate::of(1_000_000, 10_000),
                bucket: &buckets[0],
            }),
            Some(Quota {
                rate: Rate::of(1_000, 2_000),
                bucket: &buckets[1],
            }),
        ];
        let mut throttle = Throttle::default();
        let now = Tick(SECOND);
        assert_eq!(throttle.allowance(&quotas, now), 2_000);
        throttle.charge(&quotas, 3_000, now);
        assert_eq!(throttle.ready(), Tick(2 * SECOND));
        assert_eq!(throttle.allowance(&quotas, now), 0);
        assert_eq!(throttle.allowance(&quotas, Tick(2 * SECOND)), 2_000);
    }
}
