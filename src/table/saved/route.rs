//! Routes, as they are handed over. Those who hold one of their own, as sessions do, leave it with a
//! [`RouteSaver`] and get it back from [`SavedRoutes`]: what is in the table they share with it.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    KnownMappings, SavedPolicy,
    policy::{Policies, load_policies, policy_at},
};
use crate::{
    handover::LoadError,
    table::{ListenAddr, MappingName, Route, SavedPrefixFile, Table},
    target::{LoadedGroups, SavedGroups, SavedTarget},
};

/// A route that was left with a [`RouteSaver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouteNumber(u32);

/// Takes routes, each once.
#[derive(Debug)]
pub struct RouteSaver<'t> {
    table: &'t Table,
    /// By where they are in memory.
    known: HashMap<usize, RouteNumber>,
    routes: Vec<SavedRoute>,
    policies: Policies,
    /// Those that are in the table no more.
    groups: SavedGroups,
}

/// Routes that were handed over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedRoutes {
    #[serde(default)]
    policies: Vec<SavedPolicy>,
    #[serde(default, skip_serializing_if = "SavedGroups::is_empty")]
    groups: SavedGroups,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prefix_files: Vec<SavedPrefixFile>,
    #[serde(default)]
    routes: Vec<SavedRoute>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedRoute {
    listen: ListenAddr,
    /// Of a route of the table that leads to a group, only that it does counts.
    target: SavedTarget,
    /// Its mapping and the place of its policy, if it is not a route of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mapping: Option<(MappingName, u32)>,
}

impl<'t> RouteSaver<'t> {
    /// None yet; `table` is the one in force.
    pub fn new(table: &'t Table) -> Self {
        Self {
            table,
            known: HashMap::new(),
            routes: Vec::new(),
            policies: Policies::default(),
            groups: SavedGroups::default(),
        }
    }

    /// Takes a route.
    pub fn route(&mut self, route: &Arc<Route>) -> RouteNumber {
        let Self {
            table,
            known,
            routes,
            policies,
            groups,
        } = self;
        let number = known.entry(Arc::as_ptr(route) as usize);
        *number.or_insert_with(|| {
            let Route {
                listen,
                target,
                mapping,
            } = &**route;
            let now = table.route(listen);
            let is_current = now.is_some_and(|now| Arc::ptr_eq(now, route));
            let other = || (mapping.name.clone(), policies.save(&mapping.policy));
            let target = match is_current && target.group().is_some() {
                true => SavedTarget::Group(u32::MAX),
                false => groups.save(target),
            };
            routes.push(SavedRoute {
                listen: *listen,
                target,
                mapping: (!is_current).then(other),
            });
            RouteNumber(u32::try_from(routes.len() - 1).unwrap_or(u32::MAX))
        })
    }

    /// All of them.
    pub fn finish(self) -> SavedRoutes {
        SavedRoutes {
            policies: self.policies.saved,
            groups: self.groups,
            prefix_files: self.policies.files.finish(),
            routes: self.routes,
        }
    }
}

impl SavedRoutes {
    /// The routes, those of the table shared with it.
    ///
    /// # Errors
    ///
    /// One that should be in the table is not.
    pub fn load(self, known: &mut KnownMappings) -> Result<Routes, LoadError> {
        let policies = load_policies(self.policies, self.prefix_files)?;
        let groups: LoadedGroups = self.groups.load();
        let load = |saved: SavedRoute| {
            let SavedRoute {
                listen,
                target,
                mapping,
            } = saved;
            if let Some((name, policy)) = mapping {
                let mapping = known.mapping(name, policy_at(&policies, policy)?);
                return Ok(Arc::new(Route {
                    listen,
                    target: groups.target(target)?,
                    mapping,
                }));
            }
            let current = known.table.route(&listen);
            let current = current.filter(|route| match (target, route.target.address()) {
                (SavedTarget::Address(target), Some(now)) => target == now,
                (SavedTarget::Group(_), None) => true,
                _ => false,
            });
            current.cloned().ok_or_else(|| {
                let to = match target {
                    SavedTarget::Address(target) => target.to_string(),
                    SavedTarget::Group(_) => "several targets".to_owned(),
                };
                LoadError::value("route", format!("{listen} to {to} is not in the table"))
            })
        };
        let routes: Result<_, _> = self.routes.into_iter().map(load).collect();
        Ok(Routes(routes?))
    }
}

/// Routes that were handed over, by their numbers.
#[derive(Debug)]
pub struct Routes(Vec<Arc<Route>>);

impl Routes {
    /// The route of a number.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn get(&self, RouteNumber(number): RouteNumber) -> Result<Arc<Route>, LoadError> {
        let route = self.0.get(number as usize);
        route.cloned().ok_or_else(|| {
            let why = format!("number {number} of {}", self.0.len());
            LoadError::value("route", why)
        })
    }
}
