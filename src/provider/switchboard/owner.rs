//! What a port belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{JobId, RuleName};
use crate::table::{JobRule, MappingName};

/// A job and a rule: together they own a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The job.
    pub job: JobId,
    /// What of it.
    pub rule: RuleName,
}

impl Owner {
    /// What sorts before every owner of that job, and behind those of the jobs before it.
    pub(super) fn before(job: &JobId) -> Self {
        Self {
            job: job.clone(),
            rule: RuleName::least(),
        }
    }

    /// What its mapping is called.
    pub fn mapping(&self) -> MappingName {
        MappingName::of_job(JobRule {
            job: self.job.as_arc(),
            rule: self.rule.as_arc(),
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.rule)
    }
}
