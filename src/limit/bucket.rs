//! A token bucket that is one number: the time at which it will be full again.
//!
//! Nothing refills it; how full it is follows from the clock. The rate is given with each use, so a
//! changed rate counts from the next use on, and what was granted under another is not owed: the
//! most that a change leaves behind is an empty bucket. (GCRA, ITU-T I.371.)

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Tick;

const SECOND: u64 = 1_000_000_000;

/// So much in each span of time, and so much at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    pub amount: NonZeroU64,
    pub per: Duration,
    pub burst: NonZeroU64,
}

impl Rate {
    /// So much in each second, and as much at once.
    pub const fn even(amount: NonZeroU64) -> Self {
        Self {
            amount,
            per: Duration::from_secs(1),
            burst: amount,
        }
    }

    /// How much that is in a second, in whole units.
    pub(super) fn in_a_second(self) -> u64 {
        let amount = u128::from(self.amount.get()) * u128::from(SECOND);
        let amount = amount / self.per.as_nanos().max(1);
        u64::try_from(amount).unwrap_or(u64::MAX)
    }

    #[cfg(test)]
    pub(super) fn of(per_second: u64, burst: u64) -> Self {
        let number = |n| NonZeroU64::new(n).expect("not 0");
        Self {
            burst: number(burst),
            ..Self::even(number(per_second))
        }
    }

    /// The time that `units` take, in nanoseconds.
    fn span(self, units: u64) -> u64 {
        let span = u128::from(units) * self.per.as_nanos() / u128::from(self.amount.get());
        u64::try_from(span).unwrap_or(u64::MAX)
    }

    /// When a bucket that would be full at `full` is so after `units` more.
    ///
    /// # Errors
    ///
    /// It does not hold them; when it is full without.
    pub(super) fn take(self, full: Tick, units: u64, now: Tick) -> Result<Tick, Tick> {
        take(full, self.span(units), self.span(self.burst.get()), now)
    }
}

/// When a bucket that would be full at `full` is so after something that takes `span`, if that is
/// not later than `allowance` from now.
///
/// # Errors
///
/// It is; when the bucket is full without.
pub(super) fn take(full: Tick, span: u64, allowance: u64, now: Tick) -> Result<Tick, Tick> {
    let empty = now.after_nanos(allowance);
    // It is later than that only if a larger allowance was in force before.
    let before = full.max(now).min(empty);
    let after = before.after_nanos(span);
    if after <= empty {
        Ok(after)
    } else {
        Err(before)
    }
}

/// A bucket shared between threads.
#[derive(Debug, Default)]
pub struct Bucket {
    pub(super) full: AtomicU64,
    /// The time that the burst took when it was last charged.
    pub(super) allowance: AtomicU64,
}

impl Bucket {
    pub fn take(&self, rate: Rate, now: Tick) -> bool {
        let take = |full: u64| rate.take(Tick(full), 1, now);
        let update = |full| Some(take(full).unwrap_or_else(|full| full).0);
        let before = self.full.fetch_update(Relaxed, Relaxed, update);
        before.is_ok_and(|full| take(full).is_ok())
    }

    /// Takes units out that are used up already, and says from when on there are any again.
    pub fn charge(&self, rate: Rate, units: u64, now: Tick) -> Tick {
        let span = rate.span(units);
        let allowance = rate.span(rate.burst.get());
        let most = match self.allowance.swap(allowance, Relaxed) == allowance {
            true => u64::MAX,
            false => now.0.saturating_add(allowance),
        };
        let add = |full: u64| full.max(now.0).min(most).saturating_add(span);
        let before = self
            .full
            .fetch_update(Relaxed, Relaxed, |full| Some(add(full)));
        let full = before.map_or(now.0, add);
        Tick(full.saturating_sub(allowance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_at_once_and_then_the_rate() {
        let (bucket, rate) = (Bucket::default(), Rate::of(10, 3));
        let granted = |at| (0..100).filter(|_| bucket.take(rate, Tick(at))).count();
        assert_eq!(granted(SECOND), 3);
        assert_eq!(granted(SECOND + SECOND / 10 - 1), 0);
        assert_eq!(granted(SECOND + SECOND / 10), 1);
        assert_eq!(granted(100 * SECOND), 3, "a long pause saves up one burst");
    }

    #[test]
    fn a_rate_may_be_less_than_one_a_second() {
        let thirty_a_minute = Rate {
            per: Duration::from_secs(60),
            ..Rate::of(30, 2)
        };
        let bucket = Bucket::default();
        let granted = |at| {
            let take = |_: &i32| bucket.take(thirty_a_minute, Tick(at));
            (0..100).filter(take).count()
        };
        assert_eq!(granted(SECOND), 2);
        assert_eq!(granted(3 * SECOND - 1), 0);
        assert_eq!(granted(3 * SECOND), 1);
        assert_eq!(granted(1000 * SECOND), 2);
        assert_eq!(thirty_a_minute.in_a_second(), 0);
    }

    #[test]
    fn what_is_charged_is_waited_for() {
        let (bucket, rate) = (Bucket::default(), Rate::of(1000, 500));
        let now = Tick(SECOND);
        assert!(bucket.charge(rate, 500, now) <= now);
        assert_eq!(bucket.charge(rate, 100, now), Tick(SECOND + SECOND / 10));
        assert_eq!(
            bucket.charge(rate, 100, now),
            Tick(SECOND + 2 * SECOND / 10)
        );
    }

    #[test]
    fn what_a_larger_burst_granted_is_not_owed_under_a_smaller_one() {
        let (bucket, now) = (Bucket::default(), Tick(SECOND));
        assert!(bucket.charge(Rate::of(1000, 60_000), 60_000, now) <= now);
        let tight = Rate::of(1000, 1000);
        assert_eq!(bucket.charge(tight, 100, now), Tick(SECOND + SECOND / 10));
        assert_eq!(
            bucket.charge(tight, 100, now),
            Tick(SECOND + 2 * SECOND / 10),
            "what is granted from then on is"
        );
        let sessions = Bucket::default();
        assert!((0..60).all(|_| sessions.take(Rate::of(1, 60), now)));
        assert!(!sessions.take(Rate::of(1, 2), now));
        assert!(sessions.take(Rate::of(1, 2), Tick(2 * SECOND)));
    }

    #[test]
    fn no_amount_overflows() {
        let (bucket, rate) = (Bucket::default(), Rate::of(1, 1));
        for _ in 0..3 {
            bucket.charge(rate, u64::MAX, Tick(SECOND));
        }
        assert!(!bucket.take(rate, Tick(SECOND)));
    }
}
