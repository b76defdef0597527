//! What an operator may do to a mapping for a while, whatever the table says.

use std::collections::BTreeMap;

use super::MappingName;

/// A mapping that an operator keeps from taking new sessions.
///
/// It is held by its name: a reload that keeps the name keeps the hold, whatever else changes; one
/// that removes the mapping forgets it, and so does a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Listeners stay open and are not looked at: clients wait in the kernel's queue.
    Paused,
    /// Listeners are closed: clients are refused.
    Drained,
}

impl Hold {
    /// The hold in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Drained => "drained",
        }
    }
}

/// Every mapping held.
pub type Holds = BTreeMap<MappingName, Hold>;
