//! An allocation as it is kept over a restart: in JSON, with what else is known of the owners.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Owner, Ports, Resting};
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

/// What has changed since a [`Record`]: all there is to keep now of some ports, and who waits, if that is
/// not who it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The ports.
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) owned: Vec<OwnedPort>,
    pub(crate) left: Vec<LeftPort>,
    pub(crate) blocked: Vec<BlockedPort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waiting: Option<Vec<Owner>>,
}

impl Record {
    /// What it is after some steps.
    pub(crate) fn after(self, steps: impl IntoIterator<Item = Step>) -> Self {
        let mut waiting = self.waiting;
        let owned = self.owned.into_iter().map(|one| (one.port, one));
        let left = self.left.into_iter().map(|one| (one.port, one));
        let blocked = self.blocked.into_iter().map(|one| (one.port, one));
        let mut owned = BTreeMap::from_iter(owned);
        let mut left = BTreeMap::from_iter(left);
        let mut blocked = BTreeMap::from_iter(blocked);
        for step in steps {
            for port in &step.ports {
                owned.remove(port);
                left.remove(port);
                blocked.remove(port);
            }
            owned.extend(step.owned.into_iter().map(|one| (one.port, one)));
            left.extend(step.left.into_iter().map(|one| (one.port, one)));
            blocked.extend(step.blocked.into_iter().map(|one| (one.port, one)));
            waiting = step.waiting.unwrap_or(waiting);
        }
        Self {
            boot: self.boot,
            owned: owned.into_values().collect(),
            left: left.into_values().collect(),
            blocked: blocked.into_values().collect(),
            waiting,
        }
    }
}

impl Ports {
    /// What has to be kept, with what is known of each owner.
    pub(crate) fn record(
        &self,
        boot: Option<String>,
        kept: impl Fn(&Owner) -> Option<Kept>,
    ) -> Record {
        let all = self.owned.keys().chain(self.resting.keys());
        let Step {
            ports: _,
            owned,
            left,
            blocked,
            waiting,
        } = self.step(all.copied().collect(), true, kept);
        Record {
            boot,
            owned,
            left,
            blocked,
            waiting: waiting.unwrap_or_default(),
        }
    }

    /// What of it has to be kept of some ports, and of who waits, if that is wanted.
    pub(crate) fn step(
        &self,
        ports: BTreeSet<u16>,
        with_queue: bool,
        kept: impl Fn(&Owner) -> Option<Kept>,
    ) -> Step {
        let mut step = Step::default();
        for port in ports.iter().copied() {
            if let Some(owner) = self.owned.get(&port)
                && let Some(kept) = kept(owner)
            {
                let owner = owner.clone();
                step.owned.push(OwnedPort { port, owner, kept });
            }
            let Some(resting) = self.resting.get(&port) else {
                continue;
            };
            if let Some((owner, at)) = &resting.left {
                let (owner, at) = (owner.clone(), *at);
                step.left.push(LeftPort { port, owner, at });
            }
            if let Some(at) = resting.blocked {
                step.blocked.push(BlockedPort { port, at });
            }
        }
        step.ports = ports;
        step.waiting = with_queue.then(|| self.queue.clone());
        step
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
            // Nobody can have two ports, nor a port two owners, whatever was kept.
            if !ports.owned.contains_key(port) && !ports.homes.contains_key(owner) {
                ports.give(*port, owner.clone());
            }
        }
        let is_resting = |port: &u16| !ports.owned.contains_key(port);
        let left = record.left.iter().filter(|one| is_resting(&one.port));
        let blocked = record.blocked.iter().filter(|one| is_resting(&one.port));
        let mut resting = BTreeMap::<u16, Resting>::new();
        for LeftPort { port, owner, at } in left {
            let left = (owner.clone(), instant(*at));
            resting.entry(*port).or_default().left = Some(left);
            // Who has a port now has that one for a home.
            ports.homes.entry(owner.clone()).or_insert(*port);
            if let Some(holder) = owner.holder() {
                ports.held.entry(holder).or_insert(*port);
            }
        }
        for BlockedPort { port, at } in blocked.filter(|_| same_boot) {
            resting.entry(*port).or_default().blocked = Some(instant(*at));
        }
        for (port, Resting { left, blocked, .. }) in &resting {
            let left = left.iter();
            ports
                .left
                .extend(left.map(|(owner, at)| (owner.host.is_some(), *at, *port)));
            ports.blocked.extend(blocked.iter().map(|at| (*at, *port)));
        }
        ports.resting = resting;
        ports
    }
}
