//! How upgrades went, through all images of the process.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{mutex::lock, text::clipped};

/// Of what was wrong, so many bytes are kept.
const LONGEST: usize = 32 << 10;

/// The outcome of every upgrade so far.
#[derive(Debug, Default)]
pub struct Upgrades(Mutex<UpgradeReport>);

/// The outcomes as they were read. It is handed over as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// The number of the latest that was begun; numbers go up by one.
    #[serde(default)]
    pub latest: u64,
    /// Upgrades after which the new version served.
    #[serde(default)]
    pub succeeded: u64,
    /// Upgrades that changed nothing because something was wrong.
    #[serde(default)]
    pub failed: u64,
    /// What came of the last one that is over.
    #[serde(default)]
    pub last: Option<UpgradeOutcome>,
}

/// What came of an upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpgradeOutcome {
    /// Its number.
    pub number: u64,
    /// When it was over.
    pub at: SystemTime,
    /// The version that was there before.
    pub from: String,
    /// The version that was to take its place, if it said which it is.
    #[serde(default)]
    pub to: Option<String>,
    /// Sessions that were handed over.
    #[serde(default)]
    pub sessions: u64,
    /// How long the last of them stood still, if any did.
    #[serde(default)]
    pub pause: Duration,
    /// Why it failed, if it did.
    #[serde(default)]
    pub error: Option<String>,
}

impl Upgrades {
    /// Goes on counting.
    pub fn load(report: UpgradeReport) -> Self {
        Self(Mutex::new(report))
    }

    /// Notes that one has begun; its number.
    pub fn begun(&self) -> u64 {
        let mut report = lock(&self.0);
        report.latest += 1;
        report.latest
    }

    /// Notes what came of one.
    pub fn ended(&self, outcome: UpgradeOutcome) {
        let mut report = lock(&self.0);
        match outcome.error {
            None => report.succeeded += 1,
            Some(_) => report.failed += 1,
        }
        let error = outcome.error.map(|error| clipped(error, LONGEST));
        report.last = Some(UpgradeOutcome { error, ..outcome });
    }

    /// Everything noted so far.
    pub fn read(&self) -> UpgradeReport {
        lock(&self.0).clone()
    }
}
