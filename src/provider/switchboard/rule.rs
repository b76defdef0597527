//! What to expose of a job.

use std::{fmt, sync::Arc};

use super::Service;

/// A name that is part of a mapping's: 1 to 32 lower-case letters, digits and hyphens.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleName(Arc<str>);

impl RuleName {
    /// Takes a fit name.
    pub fn parse(text: &str) -> Option<Self> {
        let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let valid = (1..=32).contains(&text.len()) && text.chars().all(fit);
        valid.then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// One port of a job to be exposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called.
    pub name: RuleName,
    /// The port of the job.
    pub port: u16,
    /// Of which jobs.
    pub condition: Condition,
}

/// Of which jobs a rule exposes a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Of every job.
    Always,
    /// Of those that announce a service of this name.
    Service(String),
    /// Of those that announce a service of this protocol.
    Protocol(String),
}

impl Condition {
    /// Whether a job that announces `services` satisfies it.
    pub fn holds(&self, services: &[Service]) -> bool {
        match self {
            Self::Always => true,
            Self::Service(name) => services.iter().any(|service| *service.name == **name),
            Self::Protocol(protocol) => services
                .iter()
                .any(|service| *service.protocol == **protocol),
        }
    }
}
