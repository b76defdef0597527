//! What contradicts what in a set of mappings.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{ListenAddr, ListenHost, Mapping, MappingName, MappingSpec, Origin};

/// What a set of mappings must not contradict besides itself.
pub struct Surroundings<'a> {
    /// Listeners of our own that are not mappings.
    pub reserved: &'a [Reserved],
    /// Mappings that have left the table and may have sessions yet. One that comes back under its
    /// name goes on with its counters.
    pub departed: &'a [Arc<Mapping>],
    /// Whether an address belongs to this machine; decides if a wildcard listener is a loop.
    pub is_local: &'a dyn Fn(IpAddr) -> bool,
    /// Listeners that are closed because connections to their targets would come back: they stand
    /// in nobody's way.
    pub looping: &'a HashSet<ListenAddr>,
}

/// A listener of our own that is not a mapping.
#[derive(Debug, Clone)]
pub struct Reserved {
    pub addr: ListenAddr,
    /// What it is, as a message calls it.
    pub what: &'static str,
    pub origin: Origin,
}

/// Two statements of the operator that cannot both hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Two mappings carry one name.
    #[error("{second}: mapping name {name:?} is already used at {first}")]
    Name {
        name: MappingName,
        first: Origin,
        second: Origin,
    },
    /// Two listeners would claim the same connections.
    #[error(
        "{second}: {second_name} listens on {wanted}, which overlaps {taken} of {first_name} at {first}"
    )]
    Listen {
        taken: ListenAddr,
        first_name: String,
        first: Origin,
        wanted: ListenAddr,
        second_name: String,
        second: Origin,
    },
    /// A target is one of our own listeners: a connection would chase its own tail.
    #[error(
        "{at}: mapping {name:?} has the target {target}, which is this proxy's own listener {listener} at {listener_at}: connections would loop"
    )]
    Loop {
        name: MappingName,
        target: SocketAddr,
        at: Origin,
        listener: ListenAddr,
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

/// Every contradiction in `specs`. That no name is used twice may be known already.
pub(super) fn find(
    specs: &[MappingSpec],
    around: &Surroundings<'_>,
    names_are_unique: bool,
) -> Vec<Conflict> {
    let claims = Claims::new(specs, around);
    let names = match names_are_unique {
        true => Vec::new(),
        false => names_used_twice(specs),
    };
    let overlaps = claims.overlaps();
    let loops = specs.iter().flat_map(|spec| claims.loops(spec, around));
    names.into_iter().chain(overlaps).chain(loops).collect()
}

fn names_used_twice(specs: &[MappingSpec]) -> Vec<Conflict> {
    let mut known: HashMap<&MappingName, &Origin> = HashMap::with_capacity(specs.len());
    let twice = specs.iter().filter_map(|spec| {
        let first = known.insert(&spec.name, &spec.origin)?;
        Some(Conflict::Name {
            name: spec.name.clone(),
            first: first.clone(),
            second: spec.origin.clone(),
        })
    });
    twice.collect()
}

/// Who wants which listener.
struct Claims<'a> {
    /// By port, and wildcards first: if any two claims overlap, some two neighbours do.
    sorted: Vec<Claim<'a>>,
    /// Whether anybody listens on a port.
    ports: Vec<bool>,
}

#[derive(Clone, Copy)]
struct Claim<'a> {
    listen: ListenAddr,
    order: usize,
    holder: Holder<'a>,
}

#[derive(Clone, Copy)]
enum Holder<'a> {
    Reserved(&'a Reserved),
    Mapping(&'a MappingSpec),
}

impl<'a> Holder<'a> {
    fn origin(self) -> &'a Origin {
        match self {
            Self::Reserved(reserved) => &reserved.origin,
            Self::Mapping(spec) => &spec.origin,
        }
    }
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(reserved) => f.write_str(reserved.what),
            Self::Mapping(spec) => write!(f, "mapping {:?}", spec.name),
        }
    }
}

impl<'a> Claims<'a> {
    fn new(specs: &'a [MappingSpec], around: &Surroundings<'a>) -> Self {
        let reserved = around
            .reserved
            .iter()
            .map(|reserved| (reserved.addr, Holder::Reserved(reserved)));
        let wanted = specs.iter().flat_map(|spec| {
            let listens = spec.pairs.iter().map(|(listen, _)| *listen);
            listens.map(move |listen| (listen, Holder::Mapping(spec)))
        });
        let mut claims: Vec<_> = reserved
            .chain(wanted)
            .enumerate()
            .map(|(order, (listen, holder))| Claim {
                listen,
                order,
                holder,
            })
            .collect();
        claims.sort_unstable_by_key(|claim| (claim.listen.port(), claim.listen, claim.order));
        let mut ports = vec![false; usize::from(u16::MAX) + 1];
        for claim in &claims {
            ports[usize::from(claim.listen.port())] = true;
        }
        Self {
            sorted: claims,
            ports,
        }
    }

    /// The claims of a port.
    fn on_port(&self, port: u16) -> &[Claim<'a>] {
        if !self.ports[usize::from(port)] {
            return &[];
        }
        let start = self
            .sorted
            .partition_point(|claim| claim.listen.port() < port);
        let claims = &self.sorted[start..];
        let end = claims.partition_point(|claim| claim.listen.port() == port);
        &claims[..end]
    }

    /// Each claim that overlaps an earlier one, in the order of the wishes.
    fn overlaps(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        let same_port = |a: &Claim<'_>, b: &Claim<'_>| a.listen.port() == b.listen.port();
        let contested = self.sorted.chunk_by(same_port).filter(|claims| {
            let mut neighbours = claims.windows(2);
            neighbours.any(|pair| pair[0].listen.overlaps(&pair[1].listen))
        });
        for same_port in contested {
            let mut same_port = same_port.to_vec();
            same_port.sort_unstable_by_key(|claim| claim.order);
            for (index, second) in same_port.iter().enumerate() {
                let mut earlier = same_port[..index].iter();
                let first = earlier.find(|first| first.listen.overlaps(&second.listen));
                if let Some(first) = first {
                    let conflict = Conflict::Listen {
                        taken: first.listen,
                        first_name: first.holder.to_string(),
                        first: first.holder.origin().clone(),
                        wanted: second.listen,
                        second_name: second.holder.to_string(),
                        second: second.holder.origin().clone(),
                    };
                    found.push((second.order, conflict));
                }
            }
        }
        found.sort_by_key(|(order, _)| *order);
        found.into_iter().map(|(_, conflict)| conflict).collect()
    }

    /// Our listeners that a target of `spec` would come back to; of those on one address, or of all
    /// where the target is no address in particular, the first.
    fn loops(&self, spec: &MappingSpec, around: &Surroundings<'_>) -> Vec<Conflict> {
        let mut found = Vec::new();
        let each = spec.pairs.iter().flat_map(|(listen, target)| {
            let targets = target.addresses();
            targets.map(move |target| (listen, target))
        });
        for (listen, target) in each {
            let claims = self.on_port(target.port());
            if claims.is_empty() || around.looping.contains(listen) {
                continue;
            }
            for host in hosts_reached(&target) {
                let start = claims.partition_point(|claim| claim.listen.host() < host);
                let Some(claim) = claims.get(start) else {
                    continue;
                };
                if claim.listen.receives(&target, around.is_local) {
                    found.push(Conflict::Loop {
                        name: spec.name.clone(),
                        target,
                        at: spec.origin.clone(),
                        listener: claim.listen,
                        listener_at: claim.holder.origin().clone(),
                    });
                }
            }
        }
        found.dedup();
        found
    }
}

/// The hosts of those listeners that may receive a connection to `target`, in their order. The
/// first listener on one of them, or behind it, is the one to look at.
fn hosts_reached(target: &SocketAddr) -> [ListenHost; 3] {
    match target.ip().to_canonical() {
        IpAddr::V4(ip) => [
            ListenHost::Any,
            ListenHost::V4(Ipv4Addr::UNSPECIFIED),
            ListenHost::V4(ip),
        ],
        IpAddr::V6(ip) => [
            ListenHost::Any,
            ListenHost::V6(Ipv6Addr::UNSPECIFIED),
            ListenHost::V6(ip),
        ],
    }
}
