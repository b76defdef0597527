//! Listeners that were lost, and when to try again to open them: soon at first, then less and less
//! often. One that is lost again a moment after it was opened is no better than one that was not. Those
//! that lead back here wait until they do not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{handover::monotonic, table::ListenAddr, worker::ClosedListener};

/// The first wait, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// A listener that stays open for this long is well again.
const WELL_AFTER: Duration = Duration::from_secs(120);

/// Every listener that was lost lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost(BTreeMap<ListenAddr, Entry>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    why: String,
    /// The next wait.
    pause: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Closed, and when to try again.
    Closed(#[serde(with = "monotonic")] Instant),
    /// Closed until its target is elsewhere.
    Loops,
    /// Opened again, and when.
    Open(#[serde(with = "monotonic")] Instant),
}

impl Lost {
    /// Notes that a listener was lost, or could not be opened; how long to wait.
    pub(super) fn closed(&mut self, addr: ListenAddr, why: String, now: Instant) -> Duration {
        self.forget_well(now);
        let before = self.0.get(&addr).map(|entry| entry.pause);
        let pause = before.unwrap_or(PAUSE.0);
        let entry = Entry {
            why,
            pause: (pause * 2).min(PAUSE.1),
            state: State::Closed(now + pause),
        };
        self.0.insert(addr, entry);
        pause
    }

    /// Notes that a listener is closed because its target leads back here.
    pub(super) fn loops(&mut self, addr: ListenAddr, why: String) {
        let entry = Entry {
            why,
            pause: PAUSE.0,
            state: State::Loops,
        };
        self.0.insert(addr, entry);
    }

    /// Notes that a listener is open, which may have been lost; whether it had been.
    pub(super) fn opened(&mut self, addr: &ListenAddr, now: Instant) -> bool {
        match self.0.get_mut(addr) {
            Some(entry) => {
                let was_closed = !matches!(entry.state, State::Open(_));
                entry.state = State::Open(now);
                was_closed
            }
            None => false,
        }
    }

    /// Forgets those that are not wanted any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(&ListenAddr) -> bool) {
        self.0.retain(|addr, _| wanted(addr));
    }

    /// When to try again next.
    pub(super) fn next(&self) -> Option<Instant> {
        let times = self.0.values().filter_map(|entry| match entry.state {
            State::Closed(again) => Some(again),
            State::Loops | State::Open(_) => None,
        });
        times.min()
    }

    /// Those to try now.
    pub(super) fn due(&self, now: Instant) -> Vec<ListenAddr> {
        let is_due = |entry: &Entry| matches!(entry.state, State::Closed(again) if again <= now);
        let due = self.0.iter().filter(|(_, entry)| is_due(entry));
        due.map(|(addr, _)| *addr).collect()
    }

    /// All that are closed.
    pub(super) fn all_closed(&self) -> Vec<ClosedListener> {
        let closed = |entry: &Entry| !matches!(entry.state, State::Open(_));
        let closed = self.0.iter().filter(|(_, entry)| closed(entry));
        closed
            .map(|(addr, entry)| ClosedListener {
                addr: *addr,
                why: entry.why.clone(),
            })
            .collect()
    }

    fn forget_well(&mut self, now: Instant) {
        self.0.retain(|_, entry| match entry.state {
            State::Open(since) => now.duration_since(since) < WELL_AFTER,
            State::Closed(_) | State::Loops => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ListenHost;

    #[test]
    fn a_listener_that_is_lost_again_and_again_is_opened_less_and_less_often() {
        let addr = ListenAddr::new(ListenHost::Any, 22);
        let mut now = Instant::now();
        let mut lost = Lost::default();
        let lose = |lost: &mut Lost, now| lost.closed(addr, "gone".to_owned(), now).as_millis();
        let pauses: Vec<u128> = (0..9)
            .map(|_| {
                let pause = lose(&mut lost, now);
                assert_eq!(lost.due(now), []);
                now = lost.next().expect("it is closed");
                assert_eq!(lost.due(now), [addr]);
                assert!(lost.opened(&addr, now));
                assert_eq!((lost.next(), lost.all_closed().len()), (None, 0));
                pause
            })
            .collect();
        assert_eq!(
            pauses,
            [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
        );
        assert_eq!(lose(&mut lost, now + WELL_AFTER), 500);
    }
}
