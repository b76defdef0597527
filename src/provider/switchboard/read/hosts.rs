//! The hosts that jobs run on.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::value::RawValue;

use super::raw::RawHost;
use crate::provider::switchboard::job::JobId;

/// A host's id: a UUID in its canonical lower-case form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(Arc<str>);

impl HostId {
    /// Takes 36 characters of a hyphenated UUID in either case.
    pub fn parse(text: &str) -> Option<Self> {
        // One form for every id.
        let id = JobId::parse(text)?;
        Some(Self(id.as_str().into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Every host there is, and what the switchboard says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(BTreeMap<HostId, Host>);

/// A host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// What people call it.
    pub name: Option<Arc<str>>,
    /// Whether it is alive, if the switchboard says so.
    pub live: Option<bool>,
}

impl Hosts {
    /// Of the rows of a valid answer; what is no host is left out, as nobody's life depends on
    /// its absence.
    pub(super) fn of_rows(rows: &[&RawValue]) -> Self {
        let hosts = rows.iter().filter_map(|text| {
            let raw: RawHost = serde_json::from_str(text.get()).ok()?;
            let host = Host {
                name: raw.name.map(Into::into),
                live: raw.live,
            };
            Some((HostId::parse(&raw.host_id)?, host))
        });
        Self(hosts.collect())
    }

    /// Whether `host` is alive, if anybody knows.
    pub fn live(&self, host: &HostId) -> Option<bool> {
        self.0.get(host)?.live
    }

    /// What `host` is called.
    pub fn name(&self, host: &HostId) -> Option<&Arc<str>> {
        self.0.get(host)?.name.as_ref()
    }

    /// Whether there is such a host.
    pub fn contains(&self, host: &HostId) -> bool {
        self.0.contains_key(host)
    }

    /// Every host.
    pub fn ids(&self) -> impl Iterator<Item = &HostId> {
        self.0.keys()
    }
}
