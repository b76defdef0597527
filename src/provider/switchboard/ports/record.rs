//! An allocation as it is kept over a restart: in JSON, with what else is known of the owners.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Owner, Ports};
use crate::provider::switchboard::boot_instant::BootInstant;

/// Everything that has to outlive the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The run of the machine that its instants belong to.
    pub(crate) boot: Option<String>,
    /// Ports with their owners.
    pub owned: Vec<OwnedPort>,
    /// Ports that had one.
    pub left: Vec<LeftPort>,
    /// Ports that could not be bound.
    pub(crate) blocked: Vec<BlockedPort>,
    /// Who waits, in order.
    pub(crate) waiting: Vec<Owner>,
}

/// A port and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedPort {
    pub(crate) port: u16,
    #[serde(flatten)]
    pub(crate) owner: Owner,
    #[serde(flatten)]
    pub(crate) kept: Kept,
}

/// What is kept of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where its job was last.
    pub(crate) address: IpAddr,
    /// Since when it has its port.
    #[serde(serialize_with = "seconds", deserialize_with = "of_seconds")]
    pub(crate) since: SystemTime,
}

/// A port whose owner does not want it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftPort {
    pub(crate) port: u16,
    #[serde(flatten)]
    pub(crate) owner: Owner,
    pub(crate) at: BootInstant,
}

/// A port that could not be bound, and when that was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedPort {
    pub(crate) port: u16,
    pub(crate) at: BootInstant,
}

/// Seconds since 1970.
fn seconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u64(since.as_secs())
}

fn of_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.ok_or_else(|| D::Error::custom("no such time"))
}

impl Ports {
    /// What has to be kept, with what is known of each owner.
    pub(crate) fn record(
        &self,
        boot: Option<String>,
        kept: impl Fn(&Owner) -> Option<Kept>,
    ) -> Record {
        let mut record = Record {
            boot,
            waiting: self.queue.clone(),
            ..Record::default()
        };
        for (port, place) in &self.places {
            let port = *port;
            if let Some((owner, kept)) = place
                .owner
                .as_ref()
                .and_then(|owner| Some((owner, kept(owner)?)))
            {
                let owner = owner.clone();
                record.owned.push(OwnedPort { port, owner, kept });
            }
            if let Some((owner, at)) = &place.left {
                let (owner, at) = (owner.clone(), *at);
                record.left.push(LeftPort { port, owner, at });
            }
            if let Some(at) = place.blocked {
                record.blocked.push(BlockedPort { port, at });
            }
        }
        record
    }

    /// The allocation that was kept, by a process that runs in `boot`. Instants of another run of the
    /// machine are taken for `now`: a cool-down may become longer by that, and never shorter.
    pub(crate) fn restore(record: &Record, boot: Option<&str>, now: BootInstant) -> Self {
        let same_boot = boot.is_some() && boot == record.boot.as_deref();
        let instant = |at: BootInstant| if same_boot { at.min(now) } else { now };
        let mut ports = Self {
            queue: record.waiting.clone(),
            ..Self::default()
        };
        for OwnedPort { port, owner, .. } in &record.owned {
            let place = ports.places.entry(*port).or_default();
            // Nobody can have two ports, nor a port two owners, whatever was kept.
            if place.owner.is_none() && !ports.homes.contains_key(owner) {
                place.owner = Some(owner.clone());
                ports.homes.insert(owner.clone(), *port);
            }
        }
        for LeftPort { port, owner, at } in &record.left {
            let left = (owner.clone(), instant(*at));
            ports.places.entry(*port).or_default().left = Some(left);
            // Who has a port now has that one for a home.
            ports.homes.entry(owner.clone()).or_insert(*port);
        }
        for BlockedPort { port, at } in record.blocked.iter().filter(|_| same_boot) {
            ports.places.entry(*port).or_default().blocked = Some(instant(*at));
        }
        ports
    }
}
