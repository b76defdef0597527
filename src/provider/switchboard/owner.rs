//! What a port belongs to, and what holds it beyond that.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

use serde::{Deserialize, Serialize};

use super::{HostId, JobId, RuleName};
use crate::table::{JobRule, MappingName};

/// A job and a rule: together they own a port. Who holds it says nothing about whose it is: two are the same
/// if job and rule are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owner {
    /// The job.
    pub job: JobId,
    /// What of it.
    pub rule: RuleName,
    /// The host whose port it is, where a rule's ports are those of hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
}

/// A host and a rule: the port of one job there is the next one's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The host.
    pub host: HostId,
    /// What of its jobs.
    pub rule: RuleName,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host/{}/{}", self.host, self.rule)
    }
}

impl Owner {
    /// What sorts before every owner of that job, and behind those of the jobs before it.
    pub(super) fn before(job: &JobId) -> Self {
        Self {
            job: job.clone(),
            rule: RuleName::least(),
            host: None,
        }
    }

    /// What holds the port when the job is gone; nothing but the job, if none.
    pub fn holder(&self) -> Option<Holder> {
        let host = self.host.clone()?;
        let rule = self.rule.clone();
        Some(Holder { host, rule })
    }

    const fn identity(&self) -> (&JobId, &RuleName) {
        (&self.job, &self.rule)
    }

    /// What its mapping is called.
    pub fn mapping(&self) -> MappingName {
        MappingName::of_job(JobRule {
            job: self.job.as_arc(),
            rule: self.rule.as_arc(),
        })
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Owner {}

impl PartialOrd for Owner {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Owner {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for Owner {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.rule)
    }
}
