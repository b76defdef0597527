//! How long to wait before something is tried again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The first wait after a failure, at most.
const FIRST: Duration = Duration::from_millis(250);

/// Waits that double up to a limit, each of a random length between half and all of that.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    limit: Duration,
}

impl Backoff {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            next: FIRST.min(limit),
            limit,
        }
    }

    /// How long to wait after one more failure.
    pub(super) fn failed(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.limit);
        jittered(wait)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.next = FIRST.min(self.limit);
    }
}

/// A random duration between half of `wait` and all of it, so that those who were stopped together
/// do not come back together.
pub(super) fn jittered(wait: Duration) -> Duration {
    // Keyed anew from the system's randomness every time.
    let random = RandomState::new().hash_one(0) as u32;
    wait.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_differ() {
        let limit = Duration::from_secs(30);
        let mut backoff = Backoff::new(limit);
        let waits: Vec<_> = (0..20).map(|_| backoff.failed()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits.iter().all(|wait| *wait <= limit));
        assert!(waits[10..].iter().all(|wait| *wait >= limit / 2));
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]));
        backoff.reset();
        assert!(backoff.failed() <= FIRST);
    }
}
