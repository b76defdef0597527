//! What names lead to, put into the groups of a table: the addresses that may be targets there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    config::Config,
    provider::LocalAddresses,
    resolve::{Name, Names, Refresh, Unfit, judge},
    table::{Mapping, MappingSpec, Reserved, Table},
    target::{TargetAddr, TargetGroup, TargetSpec},
};

/// A name that is looked up, and how it is followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Followed {
    pub name: Name,
    pub refresh: Option<Refresh>,
}

/// What decides which addresses may be targets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judges<'a> {
    /// Prefixes that must contain a target, if there are any.
    pub allow: &'a [IpNet],
    /// Listeners of our own beside those of the table.
    pub reserved: &'a [Reserved],
}

/// A group some of whose addresses are gone.
#[derive(Debug)]
pub(crate) struct Moved {
    pub mapping: Arc<Mapping>,
    pub group: Arc<TargetGroup>,
    pub gone: Arc<[SocketAddr]>,
}

/// Every name that mappings lead to, each as often as it is followed in another way.
pub(crate) fn names(config: &Config) -> Vec<Followed> {
    let mut met = BTreeSet::new();
    let mut all = Vec::new();
    for spec in &config.mappings {
        for name in names_of(spec) {
            let name = Name {
                name,
                family: spec.policy.family,
            };
            let often = spec.policy.resolve.map(|refresh| match refresh {
                Refresh::Every(every) => Some(every),
                Refresh::Ttl => None,
            });
            if met.insert((name.clone(), often)) {
                let refresh = spec.policy.resolve;
                all.push(Followed { name, refresh });
            }
        }
    }
    all
}

/// The names that a mapping leads to, each once.
fn names_of(spec: &MappingSpec) -> BTreeSet<Arc<str>> {
    // Most mappings lead to addresses, of which there may be thousands.
    let groups = spec.pairs.iter().filter_map(|(_, target)| match target {
        TargetSpec::Address(_) => None,
        TargetSpec::Group(group) => Some(group),
    });
    groups.flat_map(|group| group.names().cloned()).collect()
}

/// Has the groups of a table lead where their names lead, as far as these are known. Says what is left
/// out, once, and returns the groups that had addresses which they have no more.
pub(crate) fn lead(table: &Table, names: &Names, judges: Judges<'_>) -> Vec<Moved> {
    let own = LocalAddresses::default();
    let mut moved = Vec::new();
    let mut left_out = BTreeMap::<Name, BTreeSet<(IpAddr, Unfit)>>::new();
    for (mapping, group) in table.groups() {
        let of_group: BTreeSet<&Arc<str>> = group.settings().names().collect();
        for name in of_group {
            let key = Name {
                name: Arc::clone(name),
                family: mapping.policy.family,
            };
            let known = names.of(&key);
            let unfit = left_out.entry(key).or_default();
            let mut fit = Vec::new();
            for ip in known.addresses {
                let judged = judge(ip, known.from_server, judges.allow);
                let judged = judged.and_then(|ip| match mapping.policy.bind {
                    Some(bind) if bind.is_ipv4() != ip.is_ipv4() => Err(Unfit::OtherFamily),
                    _ => Ok(ip),
                });
                let judged = judged.and_then(|ip| {
                    let at = |port| SocketAddr::new(ip, port);
                    let is_own =
                        |port| table.is_own(&at(port), judges.reserved, &|ip| own.contains(ip));
                    match ports(group, name).any(is_own) {
                        true => Err(Unfit::Own),
                        false => Ok(ip),
                    }
                });
                match judged {
                    Ok(ip) => fit.push(ip),
                    Err(why) => _ = unfit.insert((ip, why)),
                }
            }
            let gone = group.set_addresses(name, &fit);
            if let Some(gone) = gone.filter(|gone| !gone.is_empty()) {
                moved.push(Moved {
                    mapping: Arc::clone(mapping),
                    group: Arc::clone(group),
                    gone: gone.into(),
                });
            }
        }
    }
    for (name, unfit) in left_out {
        let new = names.leave_out(&name, unfit.into_iter().collect());
        if let Some((address, why)) = new.first() {
            let (name, more) = (name.name, new.len() - 1);
            tracing::warn!(%name, %address, %why, more, "an address of a name is no target");
        }
    }
    moved
}

/// The ports of a name in a group.
fn ports<'g>(group: &'g TargetGroup, name: &'g str) -> impl Iterator<Item = u16> + 'g {
    let targets = group.settings().targets.iter();
    targets.filter_map(move |target| match &target.address {
        TargetAddr::Name(own, port) if **own == *name => Some(*port),
        _ => None,
    })
}
