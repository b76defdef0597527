//! Mappings and routes, as they are handed over to the next image of the program.

mod policy;
mod route;
#[cfg(test)]
mod tests;
mod texts;

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use policy::SavedPolicy;
pub use route::{RouteNumber, RouteSaver, Routes, SavedRoutes};

use policy::{Policies, load_policies, policy_at};

use super::{ListenAddr, Mapping, MappingName, Placed, Policy, Route, SavedPrefixFile, Table};
use crate::{
    handover::LoadError,
    limit::{MappingGate, SavedMappingGate},
    shared_map::SharedMap,
    target::{SavedGroups, SavedTarget},
    telemetry::{MappingStats, SavedStats},
};

/// Every mapping of a table, and those that have left it and may have sessions yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedTable {
    #[serde(default)]
    policies: Vec<SavedPolicy>,
    #[serde(default, skip_serializing_if = "SavedGroups::is_empty")]
    groups: SavedGroups,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prefix_files: Vec<SavedPrefixFile>,
    #[serde(default)]
    mappings: Vec<SavedMapping>,
    #[serde(default)]
    departed: Vec<SavedMapping>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedMapping {
    name: MappingName,
    policy: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pairs: SavedPairs,
    #[serde(default, skip_serializing_if = "SavedStats::is_empty")]
    stats: SavedStats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gate: Option<SavedMappingGate>,
}

/// What mappings have counted since their table was saved: by the place of each, those that have left the
/// table after those in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedCounters(Vec<SavedCounter>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedCounter {
    place: usize,
    #[serde(default)]
    stats: SavedStats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gate: Option<SavedMappingGate>,
}

/// Public addresses with what each leads to.
type SavedPairs = Vec<(ListenAddr, SavedTarget)>;

impl SavedMapping {
    fn new(mapping: &Mapping, policies: &mut Policies, pairs: SavedPairs) -> Self {
        let Mapping {
            name,
            policy,
            stats,
            gate,
            left: _,
        } = mapping;
        Self {
            name: name.clone(),
            policy: policies.save(policy),
            pairs,
            stats: stats.save(),
            gate: gate.as_deref().map(MappingGate::save),
        }
    }

    fn load(self, policies: &[Arc<Policy>]) -> Result<(Arc<Mapping>, SavedPairs), LoadError> {
        let Self {
            name,
            policy,
            pairs,
            stats,
            gate,
        } = self;
        let gate = gate.map(MappingGate::load).transpose()?;
        let policy = policy_at(policies, policy)?;
        let mapping = Mapping::counting(name, policy, MappingStats::load(stats), gate);
        Ok((Arc::new(mapping), pairs))
    }
}

impl SavedTable {
    /// Of the table in force and those that have left it.
    pub fn new(table: &Table, departed: &[Arc<Mapping>]) -> Self {
        let mut policies = Policies::default();
        let mut groups = SavedGroups::default();
        let Table {
            routes: _,
            mappings,
            grouped: _,
            target_ports: _,
        } = table;
        let mappings = mappings.values().map(|Placed { mapping, pairs }| {
            let routes = pairs.iter().filter_map(|(listen, _)| table.route(listen));
            let pairs = routes.map(|route| (route.listen, groups.save(&route.target)));
            let pairs = pairs.collect();
            SavedMapping::new(mapping, &mut policies, pairs)
        });
        let mappings = mappings.collect();
        let departed = departed
            .iter()
            .map(|mapping| SavedMapping::new(mapping, &mut policies, Vec::new()));
        Self {
            groups,
            mappings,
            departed: departed.collect(),
            policies: policies.saved,
            prefix_files: policies.files.finish(),
        }
    }

    /// What has changed since, while the table and those that have left it stayed the same.
    pub fn counted_since(&self, table: &Table, departed: &[Arc<Mapping>]) -> SavedCounters {
        let saved = self.mappings.iter().chain(&self.departed);
        let now = table.mappings().chain(departed);
        let counted = saved
            .zip(now)
            .enumerate()
            .filter_map(|(place, (saved, now))| {
                let stats = now.stats.save();
                let gate = now.gate.as_deref().map(MappingGate::save);
                let is_news = stats != saved.stats || gate != saved.gate;
                is_news.then_some(SavedCounter { place, stats, gate })
            });
        SavedCounters(counted.collect())
    }

    /// The same with what has changed.
    ///
    /// # Errors
    ///
    /// There is no such mapping.
    pub fn with(mut self, SavedCounters(counters): SavedCounters) -> Result<Self, LoadError> {
        for SavedCounter { place, stats, gate } in counters {
            let mapping = match place.checked_sub(self.mappings.len()) {
                None => self.mappings.get_mut(place),
                Some(place) => self.departed.get_mut(place),
            };
            let Some(mapping) = mapping else {
                let why = format!("number {place} has counted something and is not there");
                return Err(LoadError::value("mapping", why));
            };
            (mapping.stats, mapping.gate) = (stats, gate);
        }
        Ok(self)
    }

    /// How many mappings are in the table.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// The same again, without a look at what contradicts what: it was in force.
    ///
    /// # Errors
    ///
    /// Two mappings have one name or one public address.
    pub fn load(self) -> Result<KnownMappings, LoadError> {
        let policies = load_policies(self.policies, self.prefix_files)?;
        let groups = self.groups.load();
        let mut routes = SharedMap::default();
        let mut mappings = Vec::with_capacity(self.mappings.len());
        let mut by_name = HashMap::with_capacity(self.mappings.len());
        let mut know = |mapping: &Arc<Mapping>| {
            let name = mapping.name.clone();
            match by_name.insert(name, Arc::clone(mapping)) {
                None => Ok(()),
                Some(twice) => Err(LoadError::value(
                    "name of a mapping",
                    format!("{:?} twice", twice.name),
                )),
            }
        };
        for saved in self.mappings {
            let (mapping, pairs) = saved.load(&policies)?;
            know(&mapping)?;
            let mut specs = Vec::with_capacity(pairs.len());
            for (listen, target) in pairs {
                let mapping = Arc::clone(&mapping);
                let target = groups.target(target)?;
                specs.push((listen, target.spec()));
                let route = Route {
                    listen,
                    target,
                    mapping,
                };
                if routes.insert(listen.into(), Arc::new(route)).is_some() {
                    return Err(LoadError::value(
                        "public address",
                        format!("{listen} twice"),
                    ));
                }
            }
            let pairs = specs.into();
            mappings.push(Placed { mapping, pairs });
        }
        let mut departed = Vec::with_capacity(self.departed.len());
        for saved in self.departed {
            let (mapping, _) = saved.load(&policies)?;
            know(&mapping)?;
            departed.push(mapping);
        }
        Ok(KnownMappings {
            table: Arc::new(Table::of(routes, mappings)),
            departed,
            by_name,
        })
    }
}

/// A table that was handed over, and the mappings that are no longer in it. Whoever loads what holds a
/// route finds its mapping here, so that each is counted in one place.
#[derive(Debug)]
pub struct KnownMappings {
    /// The table.
    pub table: Arc<Table>,
    /// Mappings that have left it, those among them that only a session knew.
    pub departed: Vec<Arc<Mapping>>,
    by_name: HashMap<MappingName, Arc<Mapping>>,
}

impl KnownMappings {
    /// The mapping of a name as it is under a policy.
    fn mapping(&mut self, name: MappingName, policy: Arc<Policy>) -> Arc<Mapping> {
        match self.by_name.get(&name) {
            Some(known) if known.policy == policy => Arc::clone(known),
            Some(known) => Arc::new(known.with_policy(policy)),
            None => {
                let mapping = Arc::new(Mapping::new(name.clone(), policy));
                self.departed.push(Arc::clone(&mapping));
                self.by_name.insert(name, Arc::clone(&mapping));
                mapping
            }
        }
    }
}
