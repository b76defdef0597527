//! The mapping table: an immutable snapshot of what is forwarded where.
//!
//! A [`Mapping`] is what an operator names; a [`Route`] is one of its public addresses with the
//! target behind it (a port range has many routes). Providers hand over whole sets of
//! [`MappingSpec`]; [`Table::build`] turns a set into a snapshot or says what contradicts what,
//! and [`diff()`] says what changed between two snapshots. Routes and mappings that did not change
//! are shared with the previous snapshot, so that "unchanged" is pointer equality.
//!
//! Nothing here does I/O: sockets follow the table, they are not in it.

mod conflict;
mod diff;
mod ends;
mod listen_addr;
mod mapping;
mod mapping_override;
mod policy;
mod prefix_file;
mod saved;
mod sources;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    sync::Arc,
};

pub use conflict::Surroundings;
pub(crate) use conflict::{Conflict, Reserved};
pub(crate) use diff::{Diff, RouteChange};
pub use diff::{Summary, diff};
pub(crate) use ends::Ends;
pub use listen_addr::{ListenAddr, ListenHost};
pub use mapping::{JobRule, Mapping, MappingName, MappingSpec, Origin, Pairs};
pub(crate) use mapping_override::{DrainEnd, DrainEnds, MappingOverride, MappingOverrides};
pub use policy::{Congestion, Keepalive, Policy, RemovalPolicy};
pub(crate) use prefix_file::{PrefixFile, PrefixFileSaver, SavedPrefixFile};

pub use crate::relay::RelayMode;
pub(crate) use saved::{
    KnownMappings, RouteNumber, RouteSaver, Routes, SavedCounters, SavedPolicy, SavedRoutes,
    SavedTable,
};
pub(crate) use sources::{Entry, Prefixes, SourceLists, SourceRules};

use crate::target::{GroupSettings, Target, TargetGroup, TargetSpec};

/// The hosts that take connections to any address of this machine.
const EVERY: [ListenHost; 3] = [
    ListenHost::Any,
    ListenHost::V4(Ipv4Addr::UNSPECIFIED),
    ListenHost::V6(Ipv6Addr::UNSPECIFIED),
];

/// One public address and the target behind it.
#[derive(Debug)]
pub struct Route {
    /// Where clients connect.
    pub listen: ListenAddr,
    /// Where their bytes go.
    pub target: Target,
    /// The mapping this route belongs to.
    pub mapping: Arc<Mapping>,
}

/// An immutable snapshot of every mapping.
#[derive(Debug, Default)]
pub struct Table {
    routes: HashMap<ListenAddr, Arc<Route>>,
    mappings: Vec<Arc<Mapping>>,
    /// What each mapping's routes were made of. A mapping and pairs that two tables share have the
    /// same routes in both.
    pairs: Vec<Pairs>,
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
        let kept = Ends::shared(specs.len(), previous.len(), |index, old| {
            previous.has(old, &specs[index])
        });
        let (changed, old) = (kept.between(specs.len()), kept.between(previous.len()));
        let known: HashMap<&MappingName, usize> = old
            .clone()
            .map(|index| (&previous.mappings[index].name, index))
            .collect();
        let departed: HashMap<&MappingName, &Arc<Mapping>> = around
            .departed
            .iter()
            .map(|mapping| (&mapping.name, mapping))
            .collect();
        // Names that were unique before are so in another order, too.
        let mut names = HashSet::new();
        let mut names_are_unique = true;
        for MappingSpec { name, .. } in &specs[changed.clone()] {
            names_are_unique &= known.contains_key(name) && names.insert(name);
        }
        let conflicts = conflict::find(specs, around, names_are_unique);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut table = Table {
            routes: previous.routes.clone(),
            mappings: Vec::with_capacity(specs.len()),
            pairs: Vec::with_capacity(specs.len()),
        };
        let gone = previous.pairs[old.clone()]
            .iter()
            .flat_map(|pairs| &**pairs);
        for (listen, _) in gone {
            table.routes.remove(listen);
        }
        table.keep(previous, 0..kept.before);
        for spec in &specs[changed] {
            let place = known.get(&spec.name).copied();
            let before = place.map(|index| &previous.mappings[index]);
            let mapping = match before.or_else(|| departed.get(&spec.name).copied()) {
                Some(old) if old.policy == spec.policy => Arc::clone(old),
                Some(old) => Arc::new(old.with_policy(Arc::clone(&spec.policy))),
                None => Arc::new(Mapping::new(spec.name.clone(), Arc::clone(&spec.policy))),
            };
            let mut groups = Groups::before(previous, place, &spec.name);
            for (listen, target) in &*spec.pairs {
                let listen = *listen;
                let target = groups.target(&listen, target);
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
            table.pairs.push(Arc::clone(&spec.pairs));
        }
        table.keep(previous, old.end..previous.len());
        Ok(table)
    }

    /// Whether its mapping number `index` is as `spec` wants it.
    fn has(&self, index: usize, spec: &MappingSpec) -> bool {
        let (mapping, pairs) = (&self.mappings[index], &self.pairs[index]);
        let same_pairs = Arc::ptr_eq(pairs, &spec.pairs) || *pairs == spec.pairs;
        same_pairs && mapping.name == spec.name && mapping.policy == spec.policy
    }

    /// Takes over some of the mappings of another table. Their routes are here already.
    fn keep(&mut self, other: &Table, mappings: Range<usize>) {
        let kept = &other.mappings[mappings.clone()];
        self.mappings.extend_from_slice(kept);
        self.pairs.extend_from_slice(&other.pairs[mappings]);
    }

    /// How many mappings there are.
    fn len(&self) -> usize {
        self.mappings.len()
    }

    /// The route behind a public address.
    pub fn route(&self, listen: &ListenAddr) -> Option<&Arc<Route>> {
        self.routes.get(listen)
    }

    /// Every route, in no particular order.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// Those whose targets have become listeners of ours, mappings or `reserved`, since the table was
    /// made. Only listeners on every address get others.
    pub fn loops<'t>(
        &'t self,
        reserved: &'t [Reserved],
        is_local: &'t dyn Fn(IpAddr) -> bool,
    ) -> impl Iterator<Item = &'t Arc<Route>> {
        self.routes().filter(move |route| {
            let targets = route.target.addresses();
            let mut targets = targets.iter();
            targets.any(|target| self.receives(target, &EVERY, reserved, is_local))
        })
    }

    /// Whether connections to an address would arrive at a listener of ours: a mapping's or one that is
    /// `reserved`.
    pub fn is_own(
        &self,
        target: &SocketAddr,
        reserved: &[Reserved],
        is_local: &dyn Fn(IpAddr) -> bool,
    ) -> bool {
        let alone = [ListenAddr::from(*target).host()];
        self.receives(target, &EVERY, reserved, is_local)
            || self.receives(target, &alone, reserved, is_local)
    }

    fn receives(
        &self,
        target: &SocketAddr,
        hosts: &[ListenHost],
        reserved: &[Reserved],
        is_local: &dyn Fn(IpAddr) -> bool,
    ) -> bool {
        let is_ours = |addr: &ListenAddr| {
            self.routes.contains_key(addr) || reserved.iter().any(|ours| ours.addr == *addr)
        };
        let listeners = hosts.iter();
        let mut listeners = listeners.map(|host| ListenAddr::new(*host, target.port()));
        listeners.any(|addr| is_ours(&addr) && addr.receives(target, is_local))
    }

    /// Every group of targets, with the mapping it belongs to.
    pub fn groups(&self) -> impl Iterator<Item = (&Arc<Mapping>, &Arc<TargetGroup>)> {
        let mut met = HashSet::new();
        let groups = self.routes().filter_map(|route| {
            let group = route.target.group()?;
            Some((&route.mapping, group))
        });
        groups.filter(move |(_, group)| met.insert(Arc::as_ptr(group)))
    }

    /// What it was made of, as far as there are places where that was asked for.
    pub(crate) fn specs(&self, origins: impl Iterator<Item = Origin>) -> Vec<MappingSpec> {
        let mappings = self.mappings.iter().zip(&self.pairs);
        mappings
            .zip(origins)
            .map(|((mapping, pairs), origin)| MappingSpec {
                name: mapping.name.clone(),
                pairs: Arc::clone(pairs),
                policy: Arc::clone(&mapping.policy),
                origin,
            })
            .collect()
    }

    /// Every mapping, in the order the provider gave them.
    pub fn mappings(&self) -> &[Arc<Mapping>] {
        &self.mappings
    }
}

/// The groups of one mapping: those it had, and those it gets.
struct Groups<'t> {
    previous: &'t Table,
    name: &'t MappingName,
    had: Vec<(ListenAddr, &'t Arc<TargetGroup>)>,
    made: Vec<(&'t Arc<GroupSettings>, Arc<TargetGroup>)>,
}

impl<'t> Groups<'t> {
    /// Those that the mapping with that number had.
    fn before(previous: &'t Table, mapping: Option<usize>, name: &'t MappingName) -> Self {
        let pairs = mapping.map_or(&[][..], |index| &previous.pairs[index]);
        let had = pairs.iter().filter_map(|(listen, _)| {
            let route = previous.routes.get(listen)?;
            Some((*listen, route.target.group()?))
        });
        Self {
            previous,
            name,
            had: had.collect(),
            made: Vec::new(),
        }
    }

    /// What a public address leads to. What is known of the targets of a group stays known if the
    /// address led to a group before, or the mapping has only one.
    fn target(&mut self, listen: &ListenAddr, spec: &'t TargetSpec) -> Target {
        let settings = match spec {
            TargetSpec::Address(address) => return Target::Address(*address),
            TargetSpec::Group(settings) => settings,
        };
        let mut made = self.made.iter();
        if let Some((_, group)) = made.find(|(known, _)| Arc::ptr_eq(known, settings)) {
            return Target::Group(Arc::clone(group));
        }
        let here = self.here(listen, spec);
        let first = self.had.first();
        let only = first.filter(|(_, first)| {
            let mut all = self.had.iter();
            all.all(|(_, group)| Arc::ptr_eq(group, first))
        });
        let group = match here.or(only.map(|(_, group)| *group)) {
            Some(group) if group.settings() == settings => Arc::clone(group),
            Some(group) => Arc::new(group.with_settings(Arc::clone(settings))),
            None => Arc::new(TargetGroup::new(Arc::clone(settings))),
        };
        self.made.push((settings, Arc::clone(&group)));
        Target::Group(group)
    }

    /// The group that a public address led to before, if it was that of this mapping or leads to the
    /// same places: the mapping may have another name now.
    fn here(&self, listen: &ListenAddr, spec: &TargetSpec) -> Option<&'t Arc<TargetGroup>> {
        let route = self.previous.routes.get(listen)?;
        let is_own = route.mapping.name == *self.name;
        let group = route.target.group();
        group.filter(|_| is_own || route.target.spec().is_same_place(spec))
    }
}

#[cfg(test)]
mod tests;
