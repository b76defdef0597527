//! The hosts that jobs run on.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::provider::switchboard::job::HostId;

/// Every host there is, and what the switchboard says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(BTreeMap<HostId, Host>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Host {
    /// What people call it.
    name: Option<Arc<str>>,
    /// Whether it is alive, if the switchboard says so.
    live: Option<bool>,
}

impl Hosts {
    /// Of the rows of a valid answer; what is no host is left out, as nobody's life depends on
    /// its absence.
    pub(super) fn of_rows(rows: &[&RawValue]) -> Self {
        #[derive(Deserialize)]
        struct RawHost {
            host_id: String,
            live: Option<bool>,
            name: Option<String>,
        }
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
    pub(crate) fn name(&self, host: &HostId) -> Option<&Arc<str>> {
        self.0.get(host)?.name.as_ref()
    }

    pub(crate) fn contains(&self, host: &HostId) -> bool {
        self.0.contains_key(host)
    }

    /// Every host.
    pub fn ids(&self) -> impl Iterator<Item = &HostId> {
        self.0.keys()
    }
}
