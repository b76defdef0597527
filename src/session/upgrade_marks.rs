//! Through how many upgrades a session went, without a word in the session about it.

use serde::{Deserialize, Serialize};

use super::SessionId;

/// The upgrades that the process went through: of each the number of the first session after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpgradeMarks(Vec<u64>);

impl UpgradeMarks {
    /// Notes one more; `next` is the number of the next session.
    pub fn add(&mut self, next: u64) {
        self.0.push(next);
    }

    /// How many there were since a session began.
    pub fn since(&self, SessionId(id): SessionId) -> usize {
        self.0.len() - self.0.partition_point(|first| *first <= id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_went_through_the_upgrades_since_it_began() {
        let mut upgrades = UpgradeMarks::default();
        for next in [5, 5, 9] {
            upgrades.add(next);
        }
        let since = [1, 4, 5, 8, 9, 100].map(|id| upgrades.since(SessionId(id)));
        assert_eq!(since, [3, 3, 1, 1, 0, 0]);
    }
}
