//! What the switchboard says of its jobs, as far as forwarding needs it.
//!
//! Plain values: read by the client, kept by the follower, turned into mappings by the exposer.
//! Everything in them comes from outside and has been checked for form only: an address may be
//! anybody's, a name anything that fits the type.

use std::{
    borrow::Borrow,
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::{region::Role, saved::shared_text};
use crate::shared_map::SharedMap;

/// A job's id: a UUID in its canonical lower-case form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(Arc<str>);

impl JobId {
    /// Takes 36 characters of a hyphenated UUID in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let hyphens = [8, 13, 18, 23];
        let fits = |(at, byte): (usize, u8)| match hyphens.contains(&at) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        };
        let valid = text.len() == 36 && text.bytes().enumerate().all(fits);
        valid.then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub(crate) fn as_arc(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Borrow<str> for JobId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.as_str().to_owned()
    }
}

impl TryFrom<String> for JobId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no UUID"))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a host, on which jobs run: a UUID in its canonical lower-case form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostId(Arc<str>);

impl HostId {
    /// Takes 36 characters of a hyphenated UUID in either case.
    pub fn parse(text: &str) -> Option<Self> {
        // One form for every id.
        let id = JobId::parse(text)?;
        Some(Self(id.as_str().into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<HostId> for String {
    fn from(id: HostId) -> Self {
        id.as_str().to_owned()
    }
}

impl TryFrom<String> for HostId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no UUID"))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a job is in its life.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum JobState {
    /// Waits for a host.
    Queued,
    /// Has a host that has not begun.
    Assigned,
    /// Is being started.
    Initializing,
    /// Runs.
    Ready,
    /// Is being stopped.
    Terminating,
    /// Has ended, for ever. Its address and services stay in the answers.
    Finalized,
    /// A state of a later switchboard; nothing is known of it, so nothing is exposed in it.
    #[serde(other)]
    Unknown,
}

impl JobState {
    /// The state in one word.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// A service that a job announces; name and protocol are free text from the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What the job calls it.
    pub name: Box<str>,
    /// What it says it speaks.
    pub protocol: Box<str>,
}

/// A job as the switchboard last described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id, never given to another.
    pub id: JobId,
    /// Its state.
    pub state: JobState,
    /// Where it can be reached, which says nothing about whether it still lives.
    pub address: Option<IpAddr>,
    /// What it announces, bounded in number.
    pub services: Vec<Service>,
    /// The host it is on.
    pub host: Option<HostId>,
    /// What that host is called; `None` where nobody knows.
    #[serde(default, with = "shared_text::option")]
    pub host_name: Option<Arc<str>>,
    /// Whether its host was last said to be alive; `None` where nobody knows.
    pub host_live: Option<bool>,
}

/// Everything known of the jobs that have not ended. A clone costs nothing, and what has changed is found
/// at the price of that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownJobs {
    /// By id. A job is here from the first valid answer about it to the first valid answer that
    /// says, or a complete listing that shows, that it has ended.
    pub jobs: SharedMap<JobId, Arc<Job>>,
    /// Jobs that are remembered from before a start and about which no valid answer has come yet.
    pub remembered: SharedMap<JobId, Remembered>,
    /// Jobs whose hosts are said not to be alive, and for how long that was said again and again.
    pub silent: SharedMap<JobId, Duration>,
    /// When a complete listing was last had; `None` until the first one.
    pub complete: Option<SystemTime>,
    /// As what the switchboard was followed for it, where several proxies share their ports: what was heard
    /// of jobs before another one began to lead says nothing of those that came since.
    pub followed_as: Role,
}

/// What is known of a job that is remembered from before a start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    /// It was asked about, and the answer said nothing about it.
    pub asked: bool,
    /// Its state, as a listing has it since.
    pub listed: Option<JobState>,
}

impl KnownJobs {
    /// Nothing but that there were these jobs.
    pub fn remembering(jobs: impl IntoIterator<Item = JobId>) -> Self {
        let remembered = jobs.into_iter().map(|job| (job, Remembered::default()));
        Self {
            remembered: remembered.collect(),
            ..Self::default()
        }
    }

    /// The jobs of which something else was known `before`.
    pub(crate) fn changed<'a>(&'a self, before: &'a Self) -> BTreeSet<&'a JobId> {
        let Self {
            jobs,
            remembered,
            silent,
            complete: _,
            followed_as: _,
        } = self;
        let jobs = jobs.differences(&before.jobs, Arc::ptr_eq);
        let remembered = remembered.differences(&before.remembered, Remembered::eq);
        let silent = silent.differences(&before.silent, Duration::eq);
        jobs.into_iter().chain(remembered).chain(silent).collect()
    }
}
