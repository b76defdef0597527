//! Jobs that are known to have ended, so that whoever asks for one is not told that it never was.

use std::{
    collections::{HashSet, VecDeque},
    sync::Mutex,
};

use super::job::JobId;
use crate::mutex::lock;

/// How many are remembered; the oldest are forgotten.
const AT_MOST: usize = 8192;

/// Jobs that have ended lately.
#[derive(Debug, Default)]
pub struct Finished(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ids: HashSet<JobId>,
    order: VecDeque<JobId>,
}

impl Finished {
    /// Remembers that `id` has ended.
    pub(super) fn add(&self, id: &JobId) {
        let mut inner = lock(&self.0);
        if !inner.ids.insert(id.clone()) {
            return;
        }
        inner.order.push_back(id.clone());
        if inner.order.len() > AT_MOST
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.ids.remove(&oldest);
        }
    }

    /// All that are remembered, the oldest first.
    pub(super) fn all(&self) -> Vec<JobId> {
        let inner = lock(&self.0);
        inner.order.iter().cloned().collect()
    }

    /// Whether `id` is remembered to have ended.
    pub fn contains(&self, id: &JobId) -> bool {
        let inner = lock(&self.0);
        inner.ids.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_memory_is_bounded() {
        let id = |number: usize| {
            let text = format!("10b00000-0000-7000-8000-{number:012}");
            JobId::parse(&text).expect("an id")
        };
        let finished = Finished::default();
        for number in 0..=AT_MOST {
            finished.add(&id(number));
            finished.add(&id(number));
        }
        assert!(!finished.contains(&id(0)) && finished.contains(&id(1)));
        assert!(finished.contains(&id(AT_MOST)));
    }
}
