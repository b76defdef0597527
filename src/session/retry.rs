//! Trying again what this machine refused for a reason that may pass.
//!
//! Memory that has run out comes back, and a security module may be told better. No event tells when, so
//! a session asks again after a while, and is given up when nothing helps.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::handover::monotonic;

/// How long until the next attempt: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// How long a session may be refused before it is given up.
pub(super) const GIVE_UP: Duration = Duration::from_secs(30);

/// A session that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retry {
    #[serde(with = "monotonic")]
    since: Instant,
    pause: Duration,
    #[serde(with = "monotonic")]
    at: Instant,
}

impl Retry {
    pub(super) fn begin(now: Instant) -> Self {
        Self {
            since: now,
            pause: PAUSE.0,
            at: now + PAUSE.0,
        }
    }

    /// Another one; whether there is still hope.
    pub(super) fn go_on(&mut self, now: Instant) -> bool {
        // An event may have had it try early, which says nothing of how long to wait.
        if now >= self.at {
            self.pause = (self.pause * 2).min(PAUSE.1);
        }
        self.at = now + self.pause;
        now.duration_since(self.since) < GIVE_UP
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_for_half_a_minute_and_not_all_the_time() {
        let start = Instant::now();
        let mut retry = Retry::begin(start);
        let mut attempts = 1;
        while retry.go_on(retry.at()) {
            attempts += 1;
        }
        assert!((100..200).contains(&attempts), "{attempts}");
        assert!(retry.at() > start + GIVE_UP);
    }
}
