//! When something is done again: regularly while it works, and after waits that grow while it fails.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub(super) use crate::units::jittered;

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

    /// Waits for `wait`, or until an outage ends, after which a wait makes no sense any more.
    pub(super) async fn wait(&mut self, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            () = self.recovered() => {}
        }
    }

    /// Waits until an outage ends.
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

/// When something is due that is done again and again, never twice at once.
#[derive(Debug)]
pub(super) struct Schedule {
    due: Instant,
    running: bool,
    ended: Option<Instant>,
    failing: bool,
    backoff: Backoff,
}

impl Schedule {
    /// Due at once.
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            due: Instant::now(),
            running: false,
            ended: None,
            failing: false,
            backoff,
        }
    }

    /// When it is due, unless it is being done.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.running).then_some(self.due)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether it is to begin, which it then has.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let begins = !self.running && self.due <= now;
        self.running |= begins;
        begins
    }

    /// It has worked, and is to be done again in `again`.
    pub(super) fn worked(&mut self, again: Duration) {
        self.backoff.reset();
        self.end(false, again);
    }

    pub(super) fn failed(&mut self) {
        let again = self.backoff.failed();
        self.end(true, again);
    }

    fn end(&mut self, failing: bool, again: Duration) {
        let now = Instant::now();
        self.running = false;
        self.failing = failing;
        self.ended = Some(now);
        self.due = now + again;
    }

    /// An outage has ended: what failed is done again at once.
    pub(super) fn recover(&mut self) {
        if self.failing {
            self.backoff.reset();
            self.due = Instant::now();
        }
    }

    /// Does it in `wait` at the latest.
    pub(super) fn within(&mut self, wait: Duration) {
        self.due = self.due.min(Instant::now() + wait);
    }

    /// Does it as soon as it is `apart` from the last time. What fails waits its time out.
    pub(super) fn hasten(&mut self, apart: Duration) {
        if !self.failing {
            let soonest = self.ended.map_or_else(Instant::now, |ended| ended + apart);
            self.due = self.due.min(soonest);
        }
    }
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
