//! The mapping table: an immutable snapshot of what is forwarded where.
//!
//! A [`Mapping`] is what an operator names; a [`Route`] is one of its public addresses with the
//! target behind it (a port range has many routes). Providers hand over whole sets of
//! [`MappingSpec`]; [`Table::build`] turns a set into a snapshot or says what contradicts what,
//! and [`diff`] says what changed between two snapshots. Routes and mappings that did not change
//! are shared with the previous snapshot, so that "unchanged" is pointer equality.
//!
//! Nothing here does I/O: sockets follow the table, they are not in it.

mod conflict;
mod diff;
mod hold;
mod listen_addr;
mod mapping;
mod policy;
mod sources;

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

pub use conflict::{Conflict, Reserved, Surroundings};
pub use diff::{Diff, RouteChange, Summary, diff};
pub use hold::{Hold, Holds};
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
        let conflicts = conflict::find(specs, around);
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

#[cfg(test)]
mod tests;
