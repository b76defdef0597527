//! What all mappings have counted together since the start, those that are gone included.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};

use crate::{end_reason::EndReason, mutex::lock};

use super::{
    MappingStats,
    stats::{Words, by_word, of_word},
};

/// Sums of what mappings have counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Sessions opened.
    pub opened: u64,
    /// Bytes delivered to targets.
    pub bytes_up: u64,
    /// Bytes delivered to clients.
    pub bytes_down: u64,
    /// Failed connections to targets.
    pub connect_failures: u64,
    ended: [u64; EndReason::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            opened: 0,
            bytes_up: 0,
            bytes_down: 0,
            connect_failures: 0,
            ended: [0; EndReason::ALL.len()],
        }
    }
}

impl Tally {
    /// Adds what one mapping has counted.
    pub fn add(&mut self, stats: &MappingStats) {
        // A session that went on in another mapping was opened there once more.
        let opened = stats.opened();
        self.opened += opened.saturating_sub(stats.ended(EndReason::Renamed));
        self.bytes_up += stats.bytes_up();
        self.bytes_down += stats.bytes_down();
        self.connect_failures += stats.connect_failures_in_all();
        for reason in EndReason::ALL {
            self.ended[reason as usize] += stats.ended(reason);
        }
    }

    /// Clients that got no session, by reason; only those reasons that there were.
    pub fn refusals(&self) -> impl Iterator<Item = (EndReason, u64)> {
        EndReason::ALL
            .into_iter()
            .filter(|reason| reason.is_refusal())
            .map(|reason| (reason, self.ended[reason as usize]))
            .filter(|(_, count)| *count > 0)
    }
}

/// A tally as it is handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedTally {
    opened: u64,
    bytes_up: u64,
    bytes_down: u64,
    connect_failures: u64,
    ended: Words,
}

impl Retired {
    /// The sum of all but the counters of `departed`.
    pub(super) fn save<'a>(
        &self,
        departed: impl Iterator<Item = &'a Arc<MappingStats>>,
    ) -> SavedTally {
        let mut state = lock(&self.0);
        state.settle();
        let departed: HashSet<_> = departed.map(Arc::as_ptr).collect();
        let mut sum = state.sum.clone();
        let others = state.counting.iter();
        for stats in others.filter(|stats| !departed.contains(&Arc::as_ptr(stats))) {
            sum.add(stats);
        }
        let Tally {
            opened,
            bytes_up,
            bytes_down,
            connect_failures,
            ended,
        } = sum;
        let ended = EndReason::ALL.iter().map(|reason| reason.word()).zip(ended);
        SavedTally {
            opened,
            bytes_up,
            bytes_down,
            connect_failures,
            ended: by_word(ended),
        }
    }

    pub(super) fn load<'a>(
        saved: &SavedTally,
        departed: impl Iterator<Item = &'a Arc<MappingStats>>,
    ) -> Self {
        let SavedTally {
            opened,
            bytes_up,
            bytes_down,
            connect_failures,
            ended,
        } = saved;
        let sum = Tally {
            opened: *opened,
            bytes_up: *bytes_up,
            bytes_down: *bytes_down,
            connect_failures: *connect_failures,
            ended: EndReason::ALL.map(|reason| of_word(ended, reason.word())),
        };
        let counting = departed.cloned().collect();
        Self(Mutex::new(State { sum, counting }))
    }
}

/// The counters of mappings that have left the table.
///
/// Sessions that outlive their mapping go on counting with them; what nobody counts with any more is
/// kept as a sum, so that mappings may come and go for ever.
#[derive(Debug, Default)]
pub struct Retired(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sum: Tally,
    counting: Vec<Arc<MappingStats>>,
}

impl Retired {
    /// Takes on the counters of a mapping that leaves the table.
    pub fn add(&self, stats: Arc<MappingStats>) {
        let mut state = lock(&self.0);
        state.settle();
        state.counting.push(stats);
    }

    /// Gives up the counters of a mapping that is back in the table.
    pub fn take_back(&self, stats: &Arc<MappingStats>) {
        let mut state = lock(&self.0);
        state.counting.retain(|known| !Arc::ptr_eq(known, stats));
    }

    /// What they have counted together.
    pub fn tally(&self) -> Tally {
        let mut state = lock(&self.0);
        state.settle();
        let mut tally = state.sum.clone();
        for stats in &state.counting {
            tally.add(stats);
        }
        tally
    }
}

impl State {
    fn settle(&mut self) {
        let sum = &mut self.sum;
        // Unlike a look at the count of owners, this sees everything the others did before they left.
        self.counting.retain_mut(|stats| match Arc::get_mut(stats) {
            Some(stats) => {
                sum.add(stats);
                false
            }
            None => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_a_renamed_mapping_is_counted_once_and_ends_no_more_often_than_it_was_opened() {
        let (old, new) = (MappingStats::default(), MappingStats::default());
        assert!(old.try_open(None) && old.try_open(None));
        old.hand_over(&new);
        new.close(EndReason::Closed);
        let mut tally = Tally::default();
        for stats in [&old, &new] {
            let ended: u64 = EndReason::ALL
                .map(|reason| stats.ended(reason))
                .iter()
                .sum();
            assert_eq!(stats.opened() - ended, u64::from(stats.open()));
            tally.add(stats);
        }
        assert_eq!(tally.opened, 2);
    }

    #[test]
    fn what_a_mapping_counted_stays_when_it_and_its_sessions_are_gone() {
        let retired = Retired::default();
        let stats = Arc::new(MappingStats::default());
        assert!(stats.try_open(None));
        stats.add_up(3);
        retired.add(Arc::clone(&stats));
        stats.add_up(4);
        stats.refuse(EndReason::Denied);
        assert_eq!(retired.tally().bytes_up, 7);
        drop(stats);
        for _ in 0..2 {
            let tally = retired.tally();
            assert_eq!((tally.opened, tally.bytes_up), (1, 7));
            assert_eq!(
                tally.refusals().collect::<Vec<_>>(),
                [(EndReason::Denied, 1)]
            );
        }
    }
}
