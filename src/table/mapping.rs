//! A mapping: the unit an operator names, with the policy of its sessions and their counters.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
};

use super::{ListenAddr, Policy};
use crate::{
    limit::{MappingGate, SessionLimits},
    mutex::lock,
    target::{TargetGroup, TargetSpec},
    telemetry::MappingStats,
};

/// What an operator calls a mapping; unique in a table. That of a job's mapping knows whose it is, which
/// makes no difference between names that are the same text.
#[derive(Clone)]
pub struct MappingName {
    text: Arc<str>,
    job: Option<JobRule>,
}

/// A job of the switchboard, and the rule by which it has a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRule {
    /// The job's id.
    pub job: Arc<str>,
    /// The rule's name.
    pub rule: Arc<str>,
}

impl MappingName {
    /// How the names of mappings of jobs begin. No mapping of a file is called so, whether there is a
    /// switchboard or not: there may be one after a reload.
    pub const OF_JOBS: &str = "job/";

    /// Takes any text: what is a fit name is the provider's to say.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let text = name.into();
        Self { text, job: None }
    }

    /// What the mapping of a job is called.
    pub fn of_job(of: JobRule) -> Self {
        Self {
            text: format!("{}{}/{}", Self::OF_JOBS, of.job, of.rule).into(),
            job: Some(of),
        }
    }

    /// The name that is that text: that of a job's mapping, if it looks like one.
    pub(super) fn of_text(text: String) -> Self {
        let of_job = text.strip_prefix(Self::OF_JOBS);
        let parts = of_job.and_then(|of| of.split_once('/'));
        let job = parts.map(|(job, rule)| JobRule {
            job: job.into(),
            rule: rule.into(),
        });
        Self {
            text: text.into(),
            job,
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose mapping it is, if it is that of a job.
    pub fn job(&self) -> Option<&JobRule> {
        self.job.as_ref()
    }
}

impl PartialEq for MappingName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for MappingName {}

impl Hash for MappingName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Ord for MappingName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for MappingName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for MappingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for MappingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

/// Where somebody asked for something, as an error message names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A place in a configuration file; line and column count from 1.
    File {
        /// The file as the operator named it.
        path: Arc<PathBuf>,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// A command line argument, quoted as given.
    Argument(Arc<str>),
    /// The switchboard has such a job.
    Switchboard,
    /// Nobody did: it is what a setting is when it is left out.
    #[default]
    BuiltIn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Argument(text) => write!(f, "argument {text:?}"),
            Self::Switchboard => f.write_str("the switchboard"),
            Self::BuiltIn => f.write_str("its built-in default"),
        }
    }
}

/// Public addresses, each with the target behind it. Those that share settings share the group.
pub type Pairs = Arc<[(ListenAddr, TargetSpec)]>;

/// A mapping as a provider asks for it, with ranges already expanded. A clone shares its parts, by
/// which the next table knows what did not change.
#[derive(Debug, Clone)]
pub struct MappingSpec {
    /// Its name.
    pub name: MappingName,
    /// Every public address with the target behind it.
    pub pairs: Pairs,
    /// The policy of its sessions.
    pub policy: Arc<Policy>,
    /// Where it was asked for.
    pub origin: Origin,
}

/// A mapping in a table. What is counted for it outlives changes of its policy.
#[derive(Debug)]
pub struct Mapping {
    /// Its name.
    pub name: MappingName,
    /// The policy of its sessions.
    pub policy: Arc<Policy>,
    /// Its counters.
    pub stats: Arc<MappingStats>,
    /// What its limits count; none without limits.
    pub gate: Option<Arc<MappingGate>>,
    /// Where its sessions were led when it went, as long as there are any.
    pub(super) left: Mutex<Vec<(ListenAddr, Weak<TargetGroup>)>>,
}

impl Mapping {
    /// A mapping nobody has used yet.
    pub fn new(name: MappingName, policy: Arc<Policy>) -> Self {
        Self {
            gate: gate(&policy, None),
            name,
            policy,
            stats: Arc::default(),
            left: Mutex::default(),
        }
    }

    /// A mapping that goes on counting.
    pub(super) fn counting(
        name: MappingName,
        policy: Arc<Policy>,
        stats: MappingStats,
        counted: Option<MappingGate>,
    ) -> Self {
        Self {
            gate: gate(&policy, counted.map(Arc::new).as_ref()),
            name,
            policy,
            stats: Arc::new(stats),
            left: Mutex::default(),
        }
    }

    /// The same mapping under another policy.
    pub fn with_policy(&self, policy: Arc<Policy>) -> Self {
        Self {
            name: self.name.clone(),
            gate: gate(&policy, self.gate.as_ref()),
            policy,
            stats: Arc::clone(&self.stats),
            left: Mutex::default(),
        }
    }

    /// Takes note where the sessions of a public address were led: it goes with its mapping, and they
    /// count there again if both come back.
    pub fn leave(&self, listen: ListenAddr, group: &Arc<TargetGroup>) {
        let mut left = lock(&self.left);
        left.retain(|(other, group)| *other != listen && group.strong_count() > 0);
        left.push((listen, Arc::downgrade(group)));
    }

    /// Groups that have sessions from before it went.
    pub(super) fn left(&self) -> Vec<(ListenAddr, Arc<TargetGroup>)> {
        let left = lock(&self.left);
        let left = left.iter();
        left.filter_map(|(listen, group)| Some((*listen, group.upgrade()?)))
            .collect()
    }
}

/// What a policy has to have counted, going on with what was counted before.
fn gate(policy: &Policy, before: Option<&Arc<MappingGate>>) -> Option<Arc<MappingGate>> {
    let limited = policy.limits != SessionLimits::default()
        || policy.bandwidth.is_some()
        || policy.bandwidth_per_source.is_some();
    limited.then(|| before.map_or_else(Arc::default, Arc::clone))
}
