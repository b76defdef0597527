//! How long to wait before something is tried again.

use std::{
    future::pending,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::sync::watch;

/// The first wait after a failure, at most.
const FIRST: Duration = Duration::from_millis(250);

/// Waits that double up to a limit, each of a random length between half and all of that. They begin
/// anew when an outage ends.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    limit: Duration,
    /// Changes when an outage ends.
    recoveries: watch::Receiver<u64>,
}

impl Backoff {
    pub(super) fn new(limit: Duration, recoveries: watch::Receiver<u64>) -> Self {
        Self {
            next: FIRST.min(limit),
            limit,
            recoveries,
        }
    }

    /// How long to wait after one more failure.
    pub(super) fn failed(&mut self) -> Duration {
        // What failed was asked during the outage, and how often it had failed before means nothing.
        if self.recoveries.has_changed().unwrap_or(false) {
            self.recoveries.mark_unchanged();
            self.reset();
        }
        let wait = self.next;
        self.next = (wait * 2).min(self.limit);
        jittered(wait)
    }

    /// Waits until an outage ends, after which a wait makes no sense any more.
    pub(super) async fn recovered(&mut self) {
        if self.recoveries.changed().await.is_err() {
            pending::<()>().await;
        }
        self.reset();
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
        let outages = watch::Sender::new(0);
        let mut backoff = Backoff::new(limit, outages.subscribe());
        let waits: Vec<_> = (0..20).map(|_| backoff.failed()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits.iter().all(|wait| *wait <= limit));
        assert!(waits[10..].iter().all(|wait| *wait >= limit / 2));
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]));
        backoff.reset();
        assert!(backoff.failed() <= FIRST);
    }

    #[test]
    fn what_still_fails_after_an_outage_is_tried_again_soon() {
        let outages = watch::Sender::new(0);
        let mut backoff = Backoff::new(Duration::from_secs(30), outages.subscribe());
        let waits = (0..20).map(|_| backoff.failed());
        assert!(waits.last().expect("some") > FIRST);
        outages.send_replace(1);
        assert!(backoff.failed() <= FIRST);
    }
}
