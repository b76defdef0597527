//! Jobs whose port a proxy of the region could not bind, for as long as they have no other one.
//!
//! Whoever leads gives them another at once, which others read a moment later. Until then they stay where
//! they are, so that they move and do not seem to have ended: nobody else gets such a port for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::provider::switchboard::{
    JobId, Owner,
    region::{PortMap, RegionPort},
};

/// How long a job stays at its port without another one.
const STAYS: Duration = Duration::from_secs(2);

/// Them, by their ports.
#[derive(Debug, Default)]
pub(super) struct Displaced(BTreeMap<u16, Stay>);

#[derive(Debug)]
struct Stay {
    owner: Owner,
    target: SocketAddr,
    /// What was known of the port, and until when it stays so here.
    known: Option<(RegionPort, Instant)>,
}

impl Displaced {
    /// Has jobs stay where they were `before` this map, if this proxy `serves`. Says of whom it is known
    /// what has become of them.
    pub fn hold(
        &mut self,
        before: &PortMap,
        map: &mut PortMap,
        serves: bool,
        now: Instant,
    ) -> Vec<Owner> {
        let differ = map.ports.differences(&before.ports, PartialEq::eq);
        let mut served = BTreeSet::new();
        for port in differ {
            let known = before.ports.get(port);
            match (map.ports.get(port), known) {
                (Some(RegionPort::Owned { owner, .. }), _) => _ = served.insert(owner.clone()),
                (
                    Some(RegionPort::Blocked),
                    Some(known @ RegionPort::Owned { owner, target, .. }),
                ) => {
                    self.0.entry(*port).or_insert_with(|| {
                        tracing::warn!(
                            %owner,
                            port,
                            "a port that a proxy of the region cannot bind is left alone, and its job gets another one"
                        );
                        Stay {
                            owner: owner.clone(),
                            target: *target,
                            known: Some((known.clone(), now + STAYS)),
                        }
                    });
                }
                _ => {}
            }
        }
        let is_blocked = |port: &u16| matches!(map.ports.get(port), Some(RegionPort::Blocked));
        let mut settled = Vec::new();
        self.0.retain(|port, stay| {
            let stays = is_blocked(port) && !served.contains(&stay.owner);
            if !stays {
                settled.push(stay.owner.clone());
            }
            stays
        });
        for (port, stay) in &mut self.0 {
            stay.known.take_if(|(_, until)| !serves || *until <= now);
            if let Some((known, _)) = &stay.known {
                map.ports.insert(*port, known.clone());
                // It is not in force as a whole.
                map.generation = before.generation;
            }
        }
        settled
    }

    /// When the first of those that stay goes.
    pub fn next(&self) -> Option<Instant> {
        let stays = self.0.values().filter_map(|stay| stay.known.as_ref());
        stays.map(|(_, until)| *until).min()
    }

    /// What of a job has no port any more, and where it led.
    pub fn of_job(&self, job: &JobId) -> impl Iterator<Item = (&Owner, &SocketAddr)> {
        let gone = self.0.values().filter(|stay| stay.known.is_none());
        let of_job = gone.filter(move |stay| stay.owner.job == *job);
        of_job.map(|stay| (&stay.owner, &stay.target))
    }
}
