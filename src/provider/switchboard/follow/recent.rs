//! The ids that were seen last.

use std::collections::{HashSet, VecDeque};

use crate::provider::switchboard::job::JobId;

/// A set of ids that forgets the oldest.
#[derive(Debug)]
pub(super) struct Recent {
    at_most: usize,
    ids: HashSet<JobId>,
    order: VecDeque<JobId>,
}

impl Recent {
    pub(super) fn new(at_most: usize) -> Self {
        Self {
            at_most,
            ids: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn insert(&mut self, id: JobId) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > self.at_most
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, id: &JobId) -> bool {
        self.ids.contains(id)
    }
}
