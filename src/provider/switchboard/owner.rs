//! What a port belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{JobId, RuleName, Switchboard};
use crate::table::MappingName;

/// A job and a rule: together they own a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Texts", into = "Texts")]
pub struct Owner {
    /// The job.
    pub job: JobId,
    /// What of it.
    pub rule: RuleName,
}

impl Owner {
    /// What its mapping is called.
    pub fn mapping(&self) -> MappingName {
        MappingName::new(Switchboard::mapping_name(
            self.job.as_str(),
            self.rule.as_str(),
        ))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.rule)
    }
}

/// An owner as it is written.
#[derive(Serialize, Deserialize)]
struct Texts {
    job: String,
    rule: String,
}

impl From<Owner> for Texts {
    fn from(owner: Owner) -> Self {
        Self {
            job: owner.job.to_string(),
            rule: owner.rule.to_string(),
        }
    }
}

impl TryFrom<Texts> for Owner {
    type Error = String;

    fn try_from(texts: Texts) -> Result<Self, String> {
        let job = JobId::parse(&texts.job).ok_or("job: allowed: a UUID")?;
        let rule = RuleName::parse(&texts.rule).ok_or("rule: allowed: the name of a rule")?;
        Ok(Self { job, rule })
    }
}
