//! The last minutes in steps: what was counted at each tick, for charts and for "lately".

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use serde::{Deserialize, Serialize};

use crate::mutex::lock;

/// The time between two ticks.
pub const STEP: Duration = Duration::from_secs(5);

/// Ticks kept: ten minutes.
const TICKS: usize = 121;

/// What was counted up to one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Sessions open at that moment.
    pub open: u64,
    /// Sessions opened so far.
    pub opened: u64,
    /// Clients refused so far.
    pub refused: u64,
    /// Connections to targets that failed so far.
    pub connect_failures: u64,
    /// Bytes delivered to targets so far.
    pub bytes_up: u64,
    /// Bytes delivered to clients so far.
    pub bytes_down: u64,
    /// Accept pauses so far.
    pub accept_pauses: u64,
    /// Pipes denied so far.
    pub pipes_denied: u64,
    /// Session log lines lost so far.
    pub log_dropped: u64,
}

/// The totals of the last minutes, oldest first.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Totals>>);

impl History {
    /// Goes on after these, oldest first.
    pub fn after(ticks: Vec<Totals>) -> Self {
        let history = Self::default();
        ticks.into_iter().for_each(|totals| history.push(totals));
        history
    }

    /// Adds the totals of a tick.
    pub fn push(&self, totals: Totals) {
        let mut ticks = lock(&self.0);
        if ticks.len() == TICKS {
            ticks.pop_front();
        }
        ticks.push_back(totals);
    }

    /// All of them.
    pub fn read(&self) -> Vec<Totals> {
        let ticks = lock(&self.0);
        ticks.iter().copied().collect()
    }
}
