//! Deadlines, at most one entry a slot.
//!
//! An entry belongs to a slot, not to its occupant, and is only ever early: when it fires, the
//! occupant of the moment says when it really wants to be called, and the entry moves there. So
//! activity never touches the timers, a short session leaves nothing behind, and a session without
//! deadlines has no entry at all.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

/// The deadlines of a worker's slots.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BinaryHeap<Reverse<(Instant, u32)>>,
    /// For each slot, when its entry fires.
    armed: Vec<Option<Instant>>,
}

impl Timers {
    /// Sees to it that `slot` is called no later than `at`.
    pub(super) fn arm(&mut self, slot: usize, at: Instant) {
        if self.armed.len() <= slot {
            self.armed.resize(slot + 1, None);
        }
        if self.armed[slot].is_none_or(|armed| at < armed) {
            self.armed[slot] = Some(at);
            self.queue.push(Reverse((at, slot as u32)));
        }
    }

    /// When the next entry fires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// The next slot that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        while let Some(&Reverse((at, slot))) = self.queue.peek() {
            if at > now {
                return None;
            }
            self.queue.pop();
            let slot = slot as usize;
            // An entry that was overtaken by an earlier one says nothing any more.
            if self.armed[slot] == Some(at) {
                self.armed[slot] = None;
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
