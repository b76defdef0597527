//! The difference between two tables: what a reload has to act on, and nothing else.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{MappingName, Route, Table};
use crate::text::{TOLD, enumerated};

/// A route that exists before and after, but not as it was.
#[derive(Debug, Clone)]
pub struct RouteChange {
    pub old: Arc<Route>,
    pub new: Arc<Route>,
}

impl RouteChange {
    /// Whether connections now go somewhere else.
    pub fn retargeted(&self) -> bool {
        // One of several targets that has another weight now leads nobody elsewhere.
        let (old, new) = (&self.old.target, &self.new.target);
        old != new && !old.spec().is_same_place(&new.spec())
    }

    /// Whether the route now belongs to a mapping of another name.
    pub fn renamed(&self) -> bool {
        self.old.mapping.name != self.new.mapping.name
    }
}

/// What changed between two tables, per route.
#[derive(Debug, Default)]
pub struct Diff {
    pub added: Vec<Arc<Route>>,
    pub removed: Vec<Arc<Route>>,
    /// Routes that kept their public address and changed their target, policy or name.
    pub changed: Vec<RouteChange>,
    pub unchanged: usize,
}

impl Diff {
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// What came of it, `self` being what changed from `old` to `new`.
    pub fn summary(&self, old: &Table, new: &Table) -> Summary {
        let retargeted = self.changed.iter().filter(|c| c.retargeted()).count();
        let routes = self.added.iter().chain(&self.removed);
        let changed = self.changed.iter();
        let touched: BTreeSet<&MappingName> = routes
            .map(|route| &route.mapping.name)
            .chain(changed.flat_map(|c| [&c.old.mapping.name, &c.new.mapping.name]))
            .collect();
        let among = |table: &Table| -> BTreeSet<MappingName> {
            let names = table.mappings().map(|mapping| &mapping.name);
            names
                .filter(|name| touched.contains(name))
                .cloned()
                .collect()
        };
        let (before, now) = match touched.is_empty() {
            true => Default::default(),
            false => (among(old), among(new)),
        };
        Summary {
            added: self.added.len(),
            removed: self.removed.len(),
            retargeted,
            repolicied: self.changed.len() - retargeted,
            unchanged: self.unchanged,
            mappings_added: SomeNames::of(now.difference(&before)),
            mappings_removed: SomeNames::of(before.difference(&now)),
            mappings_changed: SomeNames::of(now.intersection(&before)),
        }
    }
}

/// What a new table changed, counted in routes, and which mappings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Reloaded"))]
pub struct Summary {
    /// Routes that came.
    pub added: usize,
    /// Routes that went.
    pub removed: usize,
    /// Routes with another target.
    pub retargeted: usize,
    /// Routes with another policy or name only.
    pub repolicied: usize,
    /// Routes as they were.
    pub unchanged: usize,
    /// Mappings that came.
    #[serde(default)]
    pub mappings_added: SomeNames,
    /// Mappings that went.
    #[serde(default)]
    pub mappings_removed: SomeNames,
    /// Mappings of which a route came, went or changed.
    #[serde(default)]
    pub mappings_changed: SomeNames,
}

/// Mappings of which the first 20 are named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SomeNames {
    /// How many there are.
    pub count: usize,
    /// The first of their names.
    pub names: Vec<String>,
}

impl SomeNames {
    fn of<'a>(names: impl Iterator<Item = &'a MappingName> + Clone) -> Self {
        Self {
            count: names.clone().count(),
            names: names.take(TOLD).map(ToString::to_string).collect(),
        }
    }

    /// Them, if there are any.
    pub fn some(&self) -> Option<&Self> {
        (self.count > 0).then_some(self)
    }
}

impl fmt::Display for SomeNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&enumerated(self.names.iter(), self.count))
    }
}

/// What changed from `old` to `new`.
pub fn diff(old: &Table, new: &Table) -> Diff {
    let mut diff = Diff::default();
    for addr in new.routes.differences(&old.routes, Arc::ptr_eq) {
        match (old.routes.get(addr), new.routes.get(addr)) {
            (None, Some(route)) => diff.added.push(Arc::clone(route)),
            (Some(route), None) => diff.removed.push(Arc::clone(route)),
            (Some(before), Some(route)) => diff.changed.push(RouteChange {
                old: Arc::clone(before),
                new: Arc::clone(route),
            }),
            (None, None) => {}
        }
    }
    diff.unchanged = new.routes.len() - diff.added.len() - diff.changed.len();
    diff
}
