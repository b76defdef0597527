//! The mapping table: an immutable snapshot of what is forwarded where.
//!
//! A [`Mapping`] is what an operator names; a [`Route`] is one of its public addresses with the
//! target behind it (a port range has many routes). Providers hand over whole sets of
//! [`MappingSpec`]; [`Table::build`] turns a set into a snapshot or says what contradicts what,
//! and [`diff`] says what changed between two snapshots. Routes and mappings that did not change
//! are shared with the previous snapshot, so that "unchanged" is pointer equality.
//!
//! Nothing here does I/O: sockets follow the table, they are not in it.

mod diff;
mod listen_addr;
mod mapping;
mod policy;
mod sources;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

pub use diff::{Diff, RouteChange, diff};
pub use listen_addr::{ListenAddr, ListenHost};
pub use mapping::{Mapping, MappingName, MappingSpec, Origin};
pub use policy::{Departure, Keepalive, Policy};

pub use crate::relay::RelayMode;
pub use sources::{RuleConflict, SourceRules};

/// One public address and the target behind it.
#[derive(Debug)]
pub struct Route {
    /// Where clients connect.
    pub listen: ListenAddr,
    /// Where their bytes go.
    pub target: SocketAddr,
    /// The mapping this route belongs to.
    pub mapping: Arc<Mapping>,
}

/// An immutable snapshot of every mapping.
#[derive(Debug, Default)]
pub struct Table {
    routes: HashMap<ListenAddr, Arc<Route>>,
    mappings: Vec<Arc<Mapping>>,
}

/// What a set of mappings must not contradict besides itself.
pub struct Surroundings<'a> {
    /// Listeners of our own that are not mappings (the admin endpoint), and where they were asked for.
    pub reserved: &'a [(SocketAddr, Origin)],
    /// Whether an address belongs to this machine; decides if a wildcard listener is a loop.
    pub is_local: &'a dyn Fn(IpAddr) -> bool,
}

/// Two statements of the operator that cannot both hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Two mappings carry one name.
    #[error("{second}: mapping name {name:?} is already used at {first}")]
    Name {
        /// The name in question.
        name: MappingName,
        /// Who has it.
        first: Origin,
        /// Who wants it too.
        second: Origin,
    },
    /// Two listeners would claim the same connections.
    #[error(
        "{second}: mapping {second_name:?} listens on {wanted}, which overlaps {taken} of {first_name} at {first}"
    )]
    Listen {
        /// The address that came first.
        taken: ListenAddr,
        /// Who has it, as it is called.
        first_name: String,
        /// Where that was written.
        first: Origin,
        /// The address that overlaps it.
        wanted: ListenAddr,
        /// The mapping that wants it.
        second_name: MappingName,
        /// Where that was written.
        second: Origin,
    },
    /// A target is one of our own listeners: a connection would chase its own tail.
    #[error(
        "{at}: mapping {name:?} has the target {target}, which is this proxy's own listener {listener} at {listener_at}: connections would loop"
    )]
    Loop {
        /// The mapping with the target.
        name: MappingName,
        /// The target.
        target: SocketAddr,
        /// Where the mapping was written.
        at: Origin,
        /// The listener it would come back to.
        listener: ListenAddr,
        /// Where that listener was written.
        listener_at: Origin,
    },
}

impl Conflict {
    /// Where the later of the two statements stands.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Name { second, .. } | Self::Listen { second, .. } => second,
            Self::Loop { at, .. } => at,
        }
    }
}

impl Table {
    /// Makes a snapshot of `specs`, sharing with `previous` what did not change.
    ///
    /// # Errors
    ///
    /// Every contradiction found, not only the first.
    pub fn build(
        specs: &[MappingSpec],
        previous: &Table,
        around: &Surroundings<'_>,
    ) -> Result<Table, Vec<Conflict>> {
        let conflicts = conflicts(specs, around);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let known: HashMap<&MappingName, &Arc<Mapping>> =
            previous.mappings.iter().map(|m| (&m.name, m)).collect();
        let mut table = Table {
            routes: HashMap::with_capacity(specs.iter().map(|s| s.pairs.len()).sum()),
            mappings: Vec::with_capacity(specs.len()),
        };
        for spec in specs {
            let mapping = match known.get(&spec.name) {
                Some(old) if old.policy == spec.policy => Arc::clone(old),
                Some(old) => Arc::new(old.with_policy(spec.policy.clone())),
                None => Arc::new(Mapping::new(spec.name.clone(), spec.policy.clone())),
            };
            for &(listen, target) in &spec.pairs {
                let route = match previous.routes.get(&listen) {
                    Some(old) if old.target == target && Arc::ptr_eq(&old.mapping, &mapping) => {
                        Arc::clone(old)
                    }
                    _ => Arc::new(Route {
                        listen,
                        target,
                        mapping: Arc::clone(&mapping),
                    }),
                };
                table.routes.insert(listen, route);
            }
            table.mappings.push(mapping);
        }
        Ok(table)
    }

    /// The route behind a public address.
    pub fn route(&self, listen: &ListenAddr) -> Option<&Arc<Route>> {
        self.routes.get(listen)
    }

    /// Every route, in no particular order.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// Every mapping, in the order the provider gave them.
    pub fn mappings(&self) -> &[Arc<Mapping>] {
        &self.mappings
    }
}

fn conflicts(specs: &[MappingSpec], around: &Surroundings<'_>) -> Vec<Conflict> {
    let mut found = Vec::new();
    let mut names: HashMap<&MappingName, &Origin> = HashMap::new();
    // Only equal ports can overlap, and a port rarely has more than one listener.
    let mut by_port: HashMap<u16, Vec<(ListenAddr, String, &Origin)>> = HashMap::new();
    for (addr, origin) in around.reserved {
        let listen = ListenAddr::from(*addr);
        by_port.entry(listen.port()).or_default().push((
            listen,
            "the admin listener".to_owned(),
            origin,
        ));
    }
    for spec in specs {
        if let Some(first) = names.insert(&spec.name, &spec.origin) {
            found.push(Conflict::Name {
                name: spec.name.clone(),
                first: first.clone(),
                second: spec.origin.clone(),
            });
        }
        for &(wanted, _) in &spec.pairs {
            let same_port = by_port.entry(wanted.port()).or_default();
            if let Some((taken, first_name, first)) =
                same_port.iter().find(|(addr, _, _)| addr.overlaps(&wanted))
            {
                found.push(Conflict::Listen {
                    taken: *taken,
                    first_name: first_name.clone(),
                    first: (*first).clone(),
                    wanted,
                    second_name: spec.name.clone(),
                    second: spec.origin.clone(),
                });
            }
            same_port.push((wanted, format!("mapping {:?}", spec.name), &spec.origin));
        }
    }
    for spec in specs {
        for &(_, target) in &spec.pairs {
            let listeners = by_port.get(&target.port()).into_iter().flatten();
            for (listener, _, listener_at) in listeners {
                if listener.receives(&target, around.is_local) {
                    found.push(Conflict::Loop {
                        name: spec.name.clone(),
                        target,
                        at: spec.origin.clone(),
                        listener: *listener,
                        listener_at: (*listener_at).clone(),
                    });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
