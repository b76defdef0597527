//! An allocation as it is kept over a restart.

use serde::{Deserialize, Serialize};

use super::{Owner, Ports};
use crate::provider::switchboard::boot_instant::BootInstant;

/// Everything that has to outlive the process. Owners are kept by whoever keeps this, with what
/// else it knows of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortsRecord {
    /// Ports with their owners.
    pub owned: Vec<(u16, Owner)>,
    /// Ports that had one.
    pub left: Vec<LeftRecord>,
    /// Ports that could not be bound.
    pub blocked: Vec<BlockedRecord>,
    /// Who waits, in order.
    pub waiting: Vec<Owner>,
}

/// A port whose owner does not want it any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftRecord {
    /// The port.
    pub port: u16,
    /// Who had it.
    pub owner: Owner,
    /// Until when.
    pub at: BootInstant,
}

/// A port that could not be bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedRecord {
    /// The port.
    pub port: u16,
    /// When that was found out.
    pub at: BootInstant,
}

impl Ports {
    /// What has to be kept.
    pub fn record(&self) -> PortsRecord {
        let mut record = PortsRecord {
            waiting: self.queue.clone(),
            ..PortsRecord::default()
        };
        for (port, place) in &self.places {
            let port = *port;
            if let Some(owner) = &place.owner {
                record.owned.push((port, owner.clone()));
            }
            if let Some((owner, at)) = &place.left {
                let (owner, at) = (owner.clone(), *at);
                record.left.push(LeftRecord { port, owner, at });
            }
            if let Some(at) = place.blocked {
                record.blocked.push(BlockedRecord { port, at });
            }
        }
        record
    }

    /// The allocation that was kept. Moments of another run of the machine are taken for `now`: a
    /// cool-down may become longer by that, and never shorter.
    pub fn restore(record: PortsRecord, same_boot: bool, now: BootInstant) -> Self {
        let moment = |at: BootInstant| if same_boot { at.min(now) } else { now };
        let mut ports = Self {
            queue: record.waiting,
            ..Self::default()
        };
        for (port, owner) in record.owned {
            let place = ports.places.entry(port).or_default();
            // Nobody can have two ports, nor a port two owners, whatever was kept.
            if place.owner.is_none() && !ports.homes.contains_key(&owner) {
                place.owner = Some(owner.clone());
                ports.homes.insert(owner, port);
            }
        }
        for LeftRecord { port, owner, at } in record.left {
            ports.places.entry(port).or_default().left = Some((owner.clone(), moment(at)));
            // Who has a port now has that one for a home.
            ports.homes.entry(owner).or_insert(port);
        }
        if same_boot {
            for BlockedRecord { port, at } in record.blocked {
                ports.places.entry(port).or_default().blocked = Some(moment(at));
            }
        }
        ports
    }
}
