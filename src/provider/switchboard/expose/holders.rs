//! Whose an address is, where more than one job is said to be there.
//!
//! A host may claim any address for its job, by mistake or to harm. Whoever is there first and is known
//! to be alive keeps what is exposed: no claim of another closes it. Where that cannot be told, nothing
//! at the address is exposed, because it would lead to whoever has it now.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::Inputs;
use crate::provider::switchboard::{HostId, JobId, Owner, ports::Kept};

/// Which jobs are said to be at each address, and which of them was exposed there first. Addresses are
/// canonical.
#[derive(Debug, Clone, Default)]
pub(super) struct Holders {
    /// The jobs that are said to be at an address, each with its host as far as that is known.
    claims: HashMap<IpAddr, BTreeMap<JobId, Option<HostId>>>,
    /// Where each job is said to be; one that is remembered may be at several addresses.
    places: HashMap<JobId, Vec<IpAddr>>,
    first: HashMap<IpAddr, JobId>,
}

impl Holders {
    /// With what was exposed before a start.
    pub fn of_kept(kept: &BTreeMap<Owner, Kept>) -> Self {
        let first = kept.iter();
        let first = first.map(|(owner, kept)| (kept.address.to_canonical(), owner.job.clone()));
        Self {
            first: first.collect(),
            ..Self::default()
        }
    }

    /// Takes in where a job is said to be now. Says whose address may be theirs or another's by that.
    pub fn moved(
        &mut self,
        job: &JobId,
        places: Vec<IpAddr>,
        host: Option<&HostId>,
    ) -> BTreeSet<JobId> {
        let mut concerned = BTreeSet::new();
        let before = self.places.remove(job).unwrap_or_default();
        for address in before.iter().filter(|address| !places.contains(address)) {
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(job);
                concerned.extend(claims.keys().cloned());
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
            if self.first.get(address) == Some(job) {
                self.first.remove(address);
            }
        }
        for address in &places {
            let claims = self.claims.entry(*address).or_default();
            claims.insert(job.clone(), host.cloned());
            concerned.extend(claims.keys().cloned());
        }
        if !places.is_empty() {
            self.places.insert(job.clone(), places);
        }
        concerned
    }

    /// Takes note that a job is exposed at an address, which another may have been before.
    pub fn exposed(&mut self, address: IpAddr, job: &JobId) {
        let claims = self.claims.get(&address);
        let is_there = |first: &JobId| claims.is_some_and(|claims| claims.contains_key(first));
        if !self.first.get(&address).is_some_and(is_there) {
            self.first.insert(address, job.clone());
        }
    }

    /// Who of those that are said to be at an address may be exposed there.
    pub fn holder(&self, address: IpAddr, inputs: &Inputs<'_>) -> Option<&JobId> {
        let claims = self.claims.get(&address)?;
        if claims.len() == 1 {
            return claims.keys().next();
        }
        let (job, host) = claims.get_key_value(self.first.get(&address)?)?;
        // A host has one job at a time: of two on one host, the first may have been dropped by it.
        let host = host.as_ref()?;
        let mut others = claims.iter().filter(|(other, _)| *other != job);
        let is_alive = inputs.known_jobs.jobs.get(job).is_some_and(|job| {
            inputs.settings.states.contains(&job.state) && job.host_live == Some(true)
        });
        let others_are_elsewhere =
            others.all(|(_, other)| other.as_ref().is_some_and(|other| other != host));
        (is_alive && others_are_elsewhere).then_some(job)
    }
}
