//! Giving jobs the ports that this proxy has beforehand, while nobody can say whose another port is.
//!
//! Which they are, and that each is given away once at most, is the reserve's; here is who gets one.

use std::{
    collections::BTreeSet,
    time::{Instant, SystemTime},
};

use super::{Exposer, Region};
use crate::provider::switchboard::{BootInstant, Owner, ports::Told};

impl Exposer {
    /// While it is alone, has those who wait get the ports that this proxy has beforehand; who got one.
    /// One whose job has ended is not given away again.
    pub(in super::super) fn give_reserved(&mut self) -> BTreeSet<Owner> {
        let mut served = BTreeSet::new();
        if !self.region.as_ref().is_some_and(Region::is_alone) {
            return served;
        }
        let terms = Self::terms_of(&self.settings, self.region.as_ref());
        let room = terms.most.saturating_sub(self.ports.counts(terms).used);
        let Some(region) = &mut self.region else {
            return served;
        };
        let reserve = &region.client.reserve;
        for (port, owner) in reserve.given() {
            let desired = self.decisions.desired(&owner);
            let desired = desired.filter(|_| self.ports.owner(port) == Some(&owner));
            reserve.leads(port, desired.map(|desired| desired.target));
        }
        let (ranges, now) = (&self.settings.ports, BootInstant::now());
        for owner in self.ports.waiting().to_vec() {
            let desired = self.decisions.desired(&owner);
            let Some(desired) = desired.filter(|desired| desired.evidence.is_confirmed()) else {
                continue;
            };
            if served.len() >= room {
                break;
            }
            // Nobody else has that one as long as the lease is not over.
            let own = region.ports.get(&owner).copied();
            let own = own.filter(|port| ranges.contains(*port) && region.is_owner(&owner, *port));
            let fits = |port| ranges.contains(port) && self.ports.owner(port).is_none();
            let reserved = || reserve.give(&owner, desired.target, SystemTime::now(), fits);
            let Some(port) = own.or_else(reserved) else {
                if !reserve.ports().is_empty() && !region.reserve_spent {
                    tracing::warn!(
                        "every port is used that was reserved for when the database is away: further jobs wait \
                         for it"
                    );
                    region.reserve_spent = true;
                }
                continue;
            };
            if own.is_none() {
                tracing::info!(%owner, port, "job gets a reserved port, on this proxy alone");
            }
            self.ports.lent(port, &owner, ranges, now);
            served.insert(owner);
        }
        served
    }

    /// Has somebody who got a port that this proxy had beforehand get another one if it cannot be bound;
    /// whether it is such a port.
    pub(in super::super) fn skip_reserved(&mut self, owner: &Owner, port: u16, why: &str) -> bool {
        let Some(region) = self.region.as_mut().filter(|region| region.is_alone()) else {
            return false;
        };
        let is_reserved = region.client.reserve.has_given(owner, port);
        if is_reserved {
            tracing::warn!(%owner, port, why, "reserved port skipped");
            let may_block = region.may_block(Instant::now());
            region.client.reserve.spoil(port, may_block);
            let now = BootInstant::now();
            self.ports
                .told(port, Told::Blocked, &self.settings.ports, now);
            self.proposed.remove(owner);
        }
        is_reserved
    }
}
