//! A mapping: the unit an operator names, with the policy of its sessions and their counters.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use super::{ListenAddr, Policy};
use crate::{
    limit::{MappingGate, SessionLimits},
    telemetry::MappingStats,
};

/// What an operator calls a mapping; unique in a table.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MappingName(Arc<str>);

impl MappingName {
    /// Takes any text: what is a fit name is the provider's to say.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MappingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MappingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
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

/// Public addresses, each with the target behind it.
pub type Pairs = Arc<[(ListenAddr, SocketAddr)]>;

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
}

impl Mapping {
    /// A mapping nobody has used yet.
    pub fn new(name: MappingName, policy: Arc<Policy>) -> Self {
        Self {
            gate: gate(&policy, None),
            name,
            policy,
            stats: Arc::default(),
        }
    }

    /// The same mapping under another policy.
    pub fn with_policy(&self, policy: Arc<Policy>) -> Self {
        Self {
            name: self.name.clone(),
            gate: gate(&policy, self.gate.as_ref()),
            policy,
            stats: Arc::clone(&self.stats),
        }
    }
}

/// What a policy has to have counted, going on with what was counted before.
fn gate(policy: &Policy, before: Option<&Arc<MappingGate>>) -> Option<Arc<MappingGate>> {
    let limited = policy.limits != SessionLimits::default()
        || policy.bandwidth.is_some()
        || policy.bandwidth_per_source.is_some();
    limited.then(|| before.map_or_else(Arc::default, Arc::clone))
}
