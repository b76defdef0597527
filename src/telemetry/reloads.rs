//! How reloads went.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{mutex::lock, text::clipped};

/// Of what was wrong, so many bytes are kept.
const LONGEST: usize = 32 << 10;

/// The outcome of every reload so far. The start counts as a success that is not counted.
#[derive(Debug)]
pub struct Reloads(Mutex<ReloadReport>);

/// The outcomes as they were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Reloads that came into force.
    pub succeeded: u64,
    /// Reloads that changed nothing because something was wrong.
    pub failed: u64,
    /// When a configuration last came into force.
    pub last_success: SystemTime,
    /// How long the last reload took, whatever came of it.
    pub last_took: Duration,
    /// What was wrong with the last one, if it failed.
    pub last_error: Option<String>,
    /// Listening sockets open after the last one that came into force.
    pub listeners: usize,
}

impl Reloads {
    /// After a start with `listeners` listeners that took `took`.
    pub fn started(listeners: usize, took: Duration) -> Self {
        Self(Mutex::new(ReloadReport {
            succeeded: 0,
            failed: 0,
            last_success: SystemTime::now(),
            last_took: took,
            last_error: None,
            listeners,
        }))
    }

    /// Goes on after those that an earlier image of the program has seen.
    pub fn after(report: ReloadReport) -> Self {
        Self(Mutex::new(report))
    }

    /// Notes a reload that came into force.
    pub fn succeeded(&self, took: Duration) {
        let mut report = lock(&self.0);
        report.succeeded += 1;
        report.last_success = SystemTime::now();
        report.last_took = took;
        report.last_error = None;
    }

    /// Notes a reload that changed nothing.
    pub fn failed(&self, took: Duration, error: String) {
        let mut report = lock(&self.0);
        report.failed += 1;
        report.last_took = took;
        report.last_error = Some(clipped(error, LONGEST));
    }

    /// Notes how many listening sockets are open now.
    pub fn set_listeners(&self, listeners: usize) {
        lock(&self.0).listeners = listeners;
    }

    /// Everything noted so far.
    pub fn read(&self) -> ReloadReport {
        lock(&self.0).clone()
    }
}
