//! The ids that were seen last.

use std::collections::{HashMap, VecDeque};

use super::book::Moment;
use crate::provider::switchboard::job::JobId;

/// Ids, each since a moment, of which the oldest are forgotten.
#[derive(Debug)]
pub(super) struct Recent {
    at_most: usize,
    since: HashMap<JobId, Moment>,
    order: VecDeque<(JobId, Moment)>,
}

impl Recent {
    pub(super) fn new(at_most: usize) -> Self {
        Self {
            at_most,
            since: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn insert(&mut self, id: JobId, now: Moment) {
        self.since.insert(id.clone(), now);
        self.order.push_back((id, now));
        while self.order.len() > self.at_most
            && let Some((oldest, then)) = self.order.pop_front()
        {
            if self.since.get(&oldest) == Some(&then) {
                self.since.remove(&oldest);
            }
        }
    }

    /// Since when it is there, if it is.
    pub(super) fn since(&self, id: &JobId) -> Option<Moment> {
        self.since.get(id).copied()
    }

    pub(super) fn remove(&mut self, id: &JobId) {
        self.since.remove(id);
    }
}
