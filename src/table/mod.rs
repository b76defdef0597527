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
mod job_lease;
mod listen_addr;
mod mapping;
mod mapping_override;
mod policy;
mod prefix_file;
mod saved;
mod sources;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

pub use conflict::Surroundings;
pub(crate) use conflict::{Conflict, Reserved};
pub(crate) use diff::{Diff, RouteChange};
pub use diff::{Summary, diff};
pub(crate) use ends::Ends;
pub use job_lease::JobLease;
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

use crate::{
    shared_map::SharedMap,
    target::{GroupSettings, Target, TargetGroup, TargetSpec},
};

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

/// An immutable snapshot of every mapping. What two snapshots have in common they share, so that one that
/// differs in a few places costs no more than these.
#[derive(Debug, Clone, Default)]
pub struct Table {
    routes: SharedMap<ByPort, Arc<Route>>,
    mappings: SharedMap<Rank, Placed>,
    /// Those of the routes that lead to a group. Mappings of jobs have none.
    grouped: Arc<[Arc<Route>]>,
    /// The ports that targets have, and perhaps some that targets had.
    target_ports: Arc<BTreeSet<u16>>,
}

/// Public addresses in the order of their ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ByPort(u16, ListenAddr);

impl From<ListenAddr> for ByPort {
    fn from(addr: ListenAddr) -> Self {
        Self(addr.port(), addr)
    }
}

/// The order of mappings: those of a file as they stand there, then those of jobs by their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    File(usize),
    Job(MappingName),
}

impl Rank {
    fn of(index: usize, name: &MappingName) -> Self {
        match name.job() {
            None => Self::File(index),
            Some(_) => Self::Job(name.clone()),
        }
    }
}

/// A mapping and what its routes were made of. If two tables share both, they have the same routes.
#[derive(Debug, Clone)]
struct Placed {
    mapping: Arc<Mapping>,
    pairs: Pairs,
}

impl Placed {
    /// Whether it is as `spec` wants it.
    fn is(&self, spec: &MappingSpec) -> bool {
        let Self { mapping, pairs } = self;
        let same_pairs = Arc::ptr_eq(pairs, &spec.pairs) || *pairs == spec.pairs;
        same_pairs && mapping.name == spec.name && mapping.policy == spec.policy
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
        let old: Vec<&Placed> = previous.mappings.values().collect();
        let kept = Ends::shared(specs.len(), old.len(), |index, before| {
            old[before].is(&specs[index])
        });
        let (changed, gone) = (kept.between(specs.len()), kept.between(old.len()));
        let known: HashMap<&MappingName, &Placed> = (old[gone.clone()].iter())
            .map(|placed| (&placed.mapping.name, *placed))
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
        let mut routes = previous.routes.clone();
        for (listen, _) in old[gone.clone()].iter().flat_map(|placed| &*placed.pairs) {
            routes.remove(&ByPort::from(*listen));
        }
        let mut mappings: Vec<Placed> = Vec::with_capacity(specs.len());
        mappings.extend(old[..kept.before].iter().copied().cloned());
        for spec in &specs[changed] {
            let before = known.get(&spec.name).copied();
            let mapping = before.map(|placed| &placed.mapping);
            let mapping = mapping_of(spec, mapping.or_else(|| departed.get(&spec.name).copied()));
            let mut groups = match (before, departed.get(&spec.name)) {
                (None, Some(departed)) => Groups::left(previous, departed),
                (before, _) => Groups::before(previous, before, &spec.name),
            };
            for (listen, target) in &*spec.pairs {
                let listen = *listen;
                let target = groups.target(&listen, target);
                let route = match previous.route(&listen) {
                    Some(old) if old.target == target && Arc::ptr_eq(&old.mapping, &mapping) => {
                        Arc::clone(old)
                    }
                    _ => Arc::new(Route {
                        listen,
                        target,
                        mapping: Arc::clone(&mapping),
                    }),
                };
                routes.insert(listen.into(), route);
            }
            let pairs = Arc::clone(&spec.pairs);
            mappings.push(Placed { mapping, pairs });
        }
        mappings.extend(old[gone.end..].iter().copied().cloned());
        Ok(Self::of(routes, mappings))
    }

    /// Of mappings in their order, and their routes.
    fn of(routes: SharedMap<ByPort, Arc<Route>>, mappings: Vec<Placed>) -> Self {
        let grouped = routes
            .values()
            .filter(|route| route.target.group().is_some());
        let targets = mappings.iter().flat_map(|placed| &*placed.pairs);
        let placed = mappings.iter().enumerate();
        Self {
            grouped: grouped.cloned().collect(),
            target_ports: Arc::new(targets.flat_map(|(_, target)| target.ports()).collect()),
            mappings: placed
                .map(|(index, placed)| (Rank::of(index, &placed.mapping.name), placed.clone()))
                .collect(),
            routes,
        }
    }

    /// The same with some mappings of jobs as `changes` want them, or without them. What that costs is as
    /// much as changes. Where anything could contradict anything there is no such table here, and
    /// [`Table::build`] has to look at everything.
    pub fn with_jobs(
        &self,
        changes: &[(&MappingName, Option<&MappingSpec>)],
        around: &Surroundings<'_>,
    ) -> Option<Table> {
        let mut table = self.clone();
        let mut before = HashMap::new();
        for (name, _) in changes {
            if let Some(gone) = table.mappings.remove(&Rank::Job((*name).clone())) {
                for (listen, _) in &*gone.pairs {
                    // A name may lead there now.
                    if table.target_ports.contains(&listen.port()) {
                        return None;
                    }
                    table.routes.remove(&ByPort::from(*listen));
                }
                before.insert(*name, gone.mapping);
            }
        }
        let mut targets = Vec::new();
        for (name, spec) in changes {
            let Some(spec) = spec else { continue };
            let mut departed = around.departed.iter();
            let known = before.get(name);
            let known = known.or_else(|| departed.find(|mapping| mapping.name == **name));
            let mapping = mapping_of(spec, known);
            for (listen, target) in &*spec.pairs {
                let (listen, target) = (*listen, target.address()?);
                if table.listens_on(listen.port(), around)
                    || table.target_ports.contains(&listen.port())
                {
                    return None;
                }
                let mapping = Arc::clone(&mapping);
                let route = Route {
                    listen,
                    target: Target::Address(target),
                    mapping,
                };
                table.routes.insert(listen.into(), Arc::new(route));
                targets.push(target);
            }
            let pairs = Arc::clone(&spec.pairs);
            let placed = Placed { mapping, pairs };
            table.mappings.insert(Rank::Job(spec.name.clone()), placed);
        }
        for target in targets {
            if table.is_own(&target, around.reserved, around.is_local) {
                return None;
            }
            if !table.target_ports.contains(&target.port()) {
                Arc::make_mut(&mut table.target_ports).insert(target.port());
            }
        }
        Some(table)
    }

    /// Whether there is any listener on a port.
    fn listens_on(&self, port: u16, around: &Surroundings<'_>) -> bool {
        let first = ByPort(port, ListenAddr::new(ListenHost::Any, 0));
        let mut from_there = self.routes.range_from(&first);
        from_there.next().is_some_and(|(found, _)| found.0 == port)
            || (around.reserved.iter()).any(|reserved| reserved.addr.port() == port)
    }

    /// The route behind a public address.
    pub fn route(&self, listen: &ListenAddr) -> Option<&Arc<Route>> {
        self.routes.get(&ByPort::from(*listen))
    }

    /// Every route, in the order of the ports.
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
            self.route(addr).is_some() || reserved.iter().any(|ours| ours.addr == *addr)
        };
        let listeners = hosts.iter();
        let mut listeners = listeners.map(|host| ListenAddr::new(*host, target.port()));
        listeners.any(|addr| is_ours(&addr) && addr.receives(target, is_local))
    }

    /// Every group of targets, with the mapping it belongs to.
    pub fn groups(&self) -> impl Iterator<Item = (&Arc<Mapping>, &Arc<TargetGroup>)> {
        let mut met = HashSet::new();
        let groups = self.grouped.iter().filter_map(|route| {
            let group = route.target.group()?;
            Some((&route.mapping, group))
        });
        groups.filter(move |(_, group)| met.insert(Arc::as_ptr(group)))
    }

    /// What it was made of, as far as there are places where that was asked for.
    pub(crate) fn specs(&self, origins: impl Iterator<Item = Origin>) -> Vec<MappingSpec> {
        let mappings = self.mappings.values();
        mappings
            .zip(origins)
            .map(|(Placed { mapping, pairs }, origin)| MappingSpec {
                name: mapping.name.clone(),
                pairs: Arc::clone(pairs),
                policy: Arc::clone(&mapping.policy),
                origin,
            })
            .collect()
    }

    /// Every mapping: those of the file in its order, then those of jobs by their names.
    pub fn mappings(&self) -> impl ExactSizeIterator<Item = &Arc<Mapping>> + Clone {
        self.mappings.values().map(|placed| &placed.mapping)
    }

    /// The mapping of a name. Those of jobs are found at once, for others all of the file are looked at.
    pub(crate) fn mapping(&self, name: &MappingName) -> Option<&Arc<Mapping>> {
        if name.job().is_some() {
            let placed = self.mappings.get(&Rank::Job(name.clone()))?;
            return Some(&placed.mapping);
        }
        self.file_mappings().find(|mapping| mapping.name == *name)
    }

    /// Every mapping of the file.
    pub(crate) fn file_mappings(&self) -> impl Iterator<Item = &Arc<Mapping>> {
        self.mappings()
            .take_while(|mapping| mapping.name.job().is_none())
    }
}

/// The mapping that `spec` wants, going on with the one there was under its name.
fn mapping_of(spec: &MappingSpec, before: Option<&Arc<Mapping>>) -> Arc<Mapping> {
    match before {
        Some(old) if old.policy == spec.policy => Arc::clone(old),
        Some(old) => Arc::new(old.with_policy(Arc::clone(&spec.policy))),
        None => Arc::new(Mapping::new(spec.name.clone(), Arc::clone(&spec.policy))),
    }
}

/// The groups of one mapping: those it had, and those it gets.
struct Groups<'t> {
    previous: &'t Table,
    name: &'t MappingName,
    had: Vec<(ListenAddr, Arc<TargetGroup>)>,
    made: Vec<(&'t Arc<GroupSettings>, Arc<TargetGroup>)>,
}

impl<'t> Groups<'t> {
    /// Those that the mapping had.
    fn before(previous: &'t Table, mapping: Option<&Placed>, name: &'t MappingName) -> Self {
        let pairs = mapping.map_or(&[][..], |placed| &placed.pairs);
        let had = pairs.iter().filter_map(|(listen, _)| {
            let route = previous.route(listen)?;
            Some((*listen, Arc::clone(route.target.group()?)))
        });
        Self {
            previous,
            name,
            had: had.collect(),
            made: Vec::new(),
        }
    }

    /// Those of a mapping that had gone, in which its sessions are counted.
    fn left(previous: &'t Table, mapping: &'t Mapping) -> Self {
        Self {
            previous,
            name: &mapping.name,
            had: mapping.left(),
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
        let had = self.had.iter().find(|(had, _)| had == listen);
        let first = self.had.first();
        let only = first.filter(|(_, first)| {
            let mut all = self.had.iter();
            all.all(|(_, group)| Arc::ptr_eq(group, first))
        });
        let group = match here.or(had.or(only).map(|(_, group)| group)) {
            Some(group) if group.settings() == settings => Arc::clone(group),
            Some(group) => Arc::new(group.with_settings(Arc::clone(settings))),
            None => Arc::new(TargetGroup::new(Arc::clone(settings))),
        };
        self.made.push((settings, Arc::clone(&group)));
        Target::Group(group)
    }

    /// The group that a public address led to before, if it was that of this mapping or leads to the
    /// same places: the mapping may have another name now.
    fn here(&self, listen: &ListenAddr, spec: &TargetSpec) -> Option<&Arc<TargetGroup>> {
        let route = self.previous.route(listen)?;
        let is_own = route.mapping.name == *self.name;
        let group = route.target.group();
        group.filter(|_| is_own || route.target.spec().is_same_place(spec))
    }
}

#[cfg(test)]
mod tests;
