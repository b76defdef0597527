//! Bandwidth: one direction of one session under the rates it shares with others.
//!
//! A lane may always move a quantum, a hundredth of a second's worth. Then it is given a time to go
//! on, which is when everything moved so far by all who share the rate has been paid for: so lanes
//! take turns, a quantum each. One that moves little, as keystrokes do, spends a quantum seldom and
//! hardly ever waits behind those that move much. Nobody watches a bucket; each lane knows its time.
//!
//! What had been read before the rates came into force was granted already, and goes out without
//! being charged: a lane never waits for more than its turn.

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

/// A rate a lane is under, and what is counted for it.
#[derive(Debug, Clone, Copy)]
pub struct Toll<'a> {
    /// Bytes a second.
    pub rate: Rate,
    /// Of all who share it.
    pub bucket: &'a Bucket,
}

/// One direction of a session.
#[derive(Debug, Default)]
pub struct Lane {
    /// Bytes of the quantum that are used up.
    spent: u64,
    /// When it may go on.
    ready: Tick,
    /// Bytes on their way that were granted before the tolls were.
    granted: u64,
}

impl Lane {
    /// A lane that comes under tolls with so many bytes on their way.
    pub fn with_granted(bytes: u64) -> Self {
        Self {
            granted: bytes,
            ..Self::default()
        }
    }

    /// Bytes it may move now; no toll is no limit.
    pub fn allowance(&self, tolls: &[Option<Toll<'_>>], now: Tick) -> usize {
        match quantum(tolls) {
            None => usize::MAX,
            Some(_) if self.ready > now => 0,
            Some(quantum) => {
                usize::try_from(quantum.saturating_sub(self.spent).max(1)).unwrap_or(usize::MAX)
            }
        }
    }

    /// Counts bytes it has moved.
    pub fn charge(&mut self, tolls: &[Option<Toll<'_>>], bytes: u64, now: Tick) {
        let Some(quantum) = quantum(tolls) else {
            return;
        };
        let granted = bytes.min(self.granted);
        self.granted -= granted;
        let bytes = bytes - granted;
        if bytes == 0 {
            return;
        }
        let charged = tolls.iter().flatten();
        let paid = charged.map(|toll| toll.bucket.charge(toll.rate, bytes, now));
        let paid = paid.max().unwrap_or_default();
        self.spent += bytes;
        if self.spent >= quantum {
            self.spent = 0;
            self.ready = paid;
        }
    }

    /// When it may go on.
    pub fn ready(&self) -> Tick {
        self.ready
    }
}

/// The bytes of a turn under the strictest of the tolls.
fn quantum(tolls: &[Option<Toll<'_>>]) -> Option<u64> {
    let of = |rate: Rate| {
        let part = rate.per_second.get() / PARTS_OF_A_SECOND;
        part.clamp(*QUANTUM.start(), *QUANTUM.end())
            .min(rate.burst.get())
    };
    tolls.iter().flatten().map(|toll| of(toll.rate)).min()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(per_second: u64, burst: u64) -> Rate {
        let number = |n| NonZeroU64::new(n).expect("not 0");
        Rate {
            per_second: number(per_second),
            burst: number(burst),
        }
    }

    /// A lane that always has bytes, and one of so many bytes each tenth of a second.
    enum Load {
        Bulk,
        Keystrokes(u64),
    }

    /// Lets lanes run for so many seconds under one shared rate; bytes moved by each, and the
    /// longest each had to wait.
    fn run(loads: &[Load], rate: Rate, seconds: u64) -> Vec<(u64, u64)> {
        let bucket = Bucket::default();
        let toll = [Some(Toll {
            rate,
            bucket: &bucket,
        })];
        let mut lanes: Vec<(Lane, u64, u64, u64)> = Vec::new();
        lanes.resize_with(loads.len(), || (Lane::default(), 0, 0, 0));
        let step = SECOND / 1000;
        for at in (0..seconds * 1000).map(|turn| SECOND + turn * step) {
            for (load, (lane, moved, waiting, longest)) in loads.iter().zip(&mut lanes) {
                if let Load::Keystrokes(bytes) = load
                    && at % (SECOND / 10) == 0
                {
                    *waiting += bytes;
                }
                let wanted = match load {
                    Load::Bulk => u64::MAX,
                    Load::Keystrokes(_) => *waiting,
                };
                let allowed = lane.allowance(&toll, Tick(at)) as u64;
                let bytes = wanted.min(allowed);
                lane.charge(&toll, bytes, Tick(at));
                *moved += bytes;
                *waiting = waiting.saturating_sub(bytes);
                if wanted > 0 && allowed == 0 {
                    *longest = (*longest).max(lane.ready().0 - at);
                }
            }
        }
        lanes
            .into_iter()
            .map(|(_, moved, _, longest)| (moved, longest))
            .collect()
    }

    #[test]
    fn without_a_toll_there_is_no_limit() {
        let mut lane = Lane::default();
        lane.charge(&[None], u64::MAX, Tick(1));
        assert_eq!(lane.allowance(&[None, None], Tick(1)), usize::MAX);
    }

    #[test]
    fn bulk_moves_at_the_rate_and_starts_with_the_burst() {
        for (per_second, burst) in [(100_000, 100_000), (10_000_000, 50_000), (1 << 30, 1 << 20)] {
            let moved = run(&[Load::Bulk], rate(per_second, burst), 10)[0].0;
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
        let moved = run(&loads, rate(1_000_000, 100_000), 20);
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
        let moved = run(&loads, rate(1_000_000, 100_000), 10);
        let (keystrokes, longest) = moved[20];
        assert_eq!(keystrokes, 100 * 60);
        assert_eq!(longest, 0);
    }

    #[test]
    fn what_was_on_its_way_when_the_limit_came_does_not_stop_the_lane() {
        let bucket = Bucket::default();
        let toll = [Some(Toll {
            rate: rate(4096, 4096),
            bucket: &bucket,
        })];
        let now = Tick(SECOND);
        let mut lane = Lane::with_granted(1 << 20);
        lane.charge(&toll, 1 << 19, now);
        lane.charge(&toll, 1 << 19, now);
        assert_eq!(lane.allowance(&toll, now), 2048);
        lane.charge(&toll, 2048, now);
        lane.charge(&toll, 2048, now);
        assert!(lane.ready() <= now, "the burst was left");
        lane.charge(&toll, 2048, now);
        assert_eq!(lane.ready(), Tick(SECOND + SECOND / 2));
    }

    #[test]
    fn of_two_tolls_the_stricter_counts() {
        let buckets = [Bucket::default(), Bucket::default()];
        let tolls = [
            Some(Toll {
                rate: rate(1_000_000, 10_000),
                bucket: &buckets[0],
            }),
            Some(Toll {
                rate: rate(1_000, 2_000),
                bucket: &buckets[1],
            }),
        ];
        let mut lane = Lane::default();
        let now = Tick(SECOND);
        assert_eq!(lane.allowance(&tolls, now), 2_000);
        lane.charge(&tolls, 3_000, now);
        assert_eq!(lane.ready(), Tick(2 * SECOND));
        assert_eq!(lane.allowance(&tolls, now), 0);
        assert_eq!(lane.allowance(&tolls, Tick(2 * SECOND)), 2_000);
    }
}
