//! Deadlines, at most one entry a slot.
//!
//! An entry belongs to a slot, not to its occupant, and is only ever early: when it fires, the
//! occupant of the moment says when it really wants to be called, and the entry moves there. So
//! activity never touches the timers, a short session leaves nothing behind, and a session without
//! deadlines has no entry at all.
//!
//! An entry that is wanted earlier moves within the heap instead of being joined by another: what a
//! worker keeps follows its slots, however often and for how long they are armed.

use std::time::Instant;

/// The place of a slot that has no entry.
const NOWHERE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Timers {
    /// A binary heap, the earliest first.
    heap: Vec<(Instant, u32)>,
    /// For each slot, where in the heap its entry is.
    places: Vec<u32>,
}

impl Timers {
    /// Sees to it that `slot` is called no later than `at`.
    pub(super) fn arm(&mut self, slot: usize, at: Instant) {
        if self.places.len() <= slot {
            self.places.resize(slot + 1, NOWHERE);
        }
        match self.places[slot] {
            NOWHERE => {
                self.heap.push((at, slot as u32));
                self.rise(self.heap.len() - 1);
            }
            place => {
                let place = place as usize;
                if at < self.heap[place].0 {
                    self.heap[place].0 = at;
                    self.rise(place);
                }
            }
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// The next slot that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        let (at, slot) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.places[slot as usize] = NOWHERE;
        self.heap.swap_remove(0);
        if !self.heap.is_empty() {
            self.sink(0);
        }
        Some(slot as usize)
    }

    /// Moves the entry at `place` up to where it belongs.
    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.heap[above].0 <= self.heap[place].0 {
                break;
            }
            self.heap.swap(above, place);
            self.note(place);
            place = above;
        }
        self.note(place);
    }

    /// Moves the entry at `place` down to where it belongs.
    fn sink(&mut self, mut place: usize) {
        loop {
            let below = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let Some(earliest) = below.min_by_key(|&below| self.heap[below].0) else {
                break;
            };
            if self.heap[place].0 <= self.heap[earliest].0 {
                break;
            }
            self.heap.swap(place, earliest);
            self.note(place);
            place = earliest;
        }
        self.note(place);
    }

    /// Notes where the entry at `place` is.
    fn note(&mut self, place: usize) {
        let (_, slot) = self.heap[place];
        self.places[slot as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_fires_once_at_its_earliest_deadline() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut timers = Timers::default();
        timers.arm(7, at(10));
        timers.arm(7, at(20));
        timers.arm(7, at(5));
        timers.arm(3, at(6));
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!(timers.pop_due(at(4)), None);
        assert_eq!(timers.pop_due(at(30)), Some(7));
        assert_eq!(timers.pop_due(at(30)), Some(3));
        assert_eq!(timers.pop_due(at(30)), None);
        assert_eq!(timers.next(), None);
    }

    /// A session that moves bulk wants to be called a second later, and after that when it has been
    /// idle for a day, burst after burst.
    #[test]
    fn bursts_leave_no_entries_behind_until_a_long_idle_timeout_has_passed() {
        const SESSIONS: usize = 100;
        let day = Duration::from_secs(24 * 3600);
        let mut now = Instant::now();
        let mut timers = Timers::default();
        for slot in 0..SESSIONS {
            timers.arm(slot, now + day);
        }
        for _ in 0..1000 {
            for slot in 0..SESSIONS {
                timers.arm(slot, now + Duration::from_secs(1));
            }
            now += Duration::from_secs(2);
            while let Some(slot) = timers.pop_due(now) {
                timers.arm(slot, now + day);
            }
        }
        assert_eq!(timers.heap.len(), SESSIONS);
    }

    proptest! {
        /// Whatever is armed, slots fire in the order of their earliest deadlines.
        #[test]
        fn slots_fire_in_the_order_of_their_deadlines(
            steps in prop::collection::vec((0..20usize, 0..100u64, any::<bool>()), 0..200),
        ) {
            let start = Instant::now();
            let mut timers = Timers::default();
            let mut expected = [None::<u64>; 20];
            for (slot, at, pops) in steps {
                timers.arm(slot, start + Duration::from_secs(at));
                expected[slot] = Some(expected[slot].map_or(at, |armed| armed.min(at)));
                let first = expected.iter().flatten().min().copied();
                prop_assert_eq!(timers.next(), first.map(|at| start + Duration::from_secs(at)));
                if pops {
                    let now = start + Duration::from_secs(at);
                    while let Some(slot) = timers.pop_due(now) {
                        prop_assert_eq!(expected[slot], expected.iter().flatten().min().copied());
                        prop_assert!(expected[slot].take().is_some_and(|due| due <= at));
                    }
                    prop_assert!(expected.iter().flatten().all(|due| *due > at));
                }
            }
        }
    }
}
