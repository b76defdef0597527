//! What an operator may do to a mapping for a while, whatever the table says.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::MappingName;
use crate::handover::monotonic;

/// How an operator keeps a mapping from taking new sessions.
///
/// It belongs to the name: a reload that keeps the name keeps the override, whatever else changes; one
/// that removes the mapping forgets it, and so does a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MappingOverride {
    /// Listeners stay open and are not looked at: clients wait in the kernel's queue.
    Paused,
    /// Listeners are closed: clients are refused.
    Drained,
}

impl MappingOverride {
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Every mapping that is paused or drained.
pub type MappingOverrides = BTreeMap<MappingName, MappingOverride>;

/// When the sessions of a drained mapping are ended that are left then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DrainEnd(#[serde(with = "monotonic")] Instant);

impl DrainEnd {
    pub fn within(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// How long that is.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Every drained mapping whose sessions have a time.
pub type DrainEnds = BTreeMap<MappingName, DrainEnd>;
