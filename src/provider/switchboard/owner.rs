//! What a port belongs to.

use std::fmt;

use super::{JobId, RuleName, Switchboard};
use crate::table::MappingName;

/// A job and a rule: together they own a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
