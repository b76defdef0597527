//! Whose an address is, where more than one job is said to be there.
//!
//! A host may claim any address for its job, by mistake or to harm. Whoever is there first and is known
//! to be alive keeps what is exposed: no claim of another closes it. Where that cannot be told, nothing
//! at the address is exposed, because it would lead to whoever has it now.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{Inputs, Remembered, address_of};
use crate::provider::switchboard::{
    HostId, JobId, JobState, KnownJobs, Owner, Switchboard, ports::Kept,
};

/// Which job was exposed first at each address, for as long as it is said to be there.
#[derive(Debug, Clone, Default)]
pub struct FirstHolders(HashMap<IpAddr, JobId>);

/// Which job may be exposed at each address; nothing where none may.
pub(super) type Holders<'a> = HashMap<IpAddr, Option<&'a JobId>>;

/// A job that is said to be at an address, and its host as far as that is known.
type Claim<'a> = (IpAddr, &'a JobId, Option<&'a HostId>);

impl FirstHolders {
    /// With what was exposed before a start.
    pub fn of_kept(kept: &BTreeMap<Owner, Kept>) -> Self {
        let each = kept.iter();
        Self(
            each.map(|(owner, kept)| (kept.address, owner.job.clone()))
                .collect(),
        )
    }

    /// Lets go of jobs that have ended or moved, and takes note of those that are `exposed` now.
    pub fn follow<'a>(
        &mut self,
        known_jobs: &KnownJobs,
        settings: &Switchboard,
        exposed: impl Iterator<Item = (IpAddr, &'a JobId)>,
    ) {
        self.0
            .retain(|address, job| match known_jobs.jobs.get(job) {
                Some(job) => {
                    job.state != JobState::Finalized && address_of(job, settings) == Some(*address)
                }
                None => known_jobs.remembered.contains_key(job),
            });
        for (address, job) in exposed {
            self.0.entry(address).or_insert_with(|| job.clone());
        }
    }
}

/// Whose each address is.
pub(super) fn holders<'a>(
    inputs: &Inputs<'a>,
    remembered: &[(&'a Owner, IpAddr, Remembered)],
) -> Holders<'a> {
    let known = inputs.known_jobs.jobs.values();
    let known = known
        .filter(|job| job.state != JobState::Finalized)
        .filter_map(|job| {
            Some((
                address_of(job, inputs.settings)?,
                &job.id,
                job.host.as_ref(),
            ))
        });
    let kept = remembered
        .iter()
        .map(|(owner, address, _)| (*address, &owner.job, None));
    let canonical = |(address, job, host): Claim<'a>| (address.to_canonical(), job, host);
    let mut claims: Vec<Claim<'a>> = known.chain(kept).map(canonical).collect();
    claims.sort_unstable();
    claims.dedup();
    let same_address = |one: &Claim<'_>, other: &Claim<'_>| one.0 == other.0;
    let each = claims.chunk_by(same_address);
    each.map(|claims| (claims[0].0, holder(claims, inputs)))
        .collect()
}

/// Who of those that are said to be at one address may be exposed there.
fn holder<'a>(claims: &[Claim<'a>], inputs: &Inputs<'a>) -> Option<&'a JobId> {
    if let [(_, job, _)] = claims {
        return Some(job);
    }
    let first = inputs.first.0.get(&claims[0].0)?;
    let (_, job, host) = claims.iter().find(|(_, job, _)| *job == first)?;
    // A host has one job at a time: of two on one host, the first may have been dropped by it.
    let host = (*host)?;
    let elsewhere = |claim: &&Claim<'_>| claim.2.is_some_and(|other| other != host);
    let others = claims.iter().filter(|(_, other, _)| other != job);
    let is_alive = inputs.known_jobs.jobs.get(*job).is_some_and(|job| {
        inputs.settings.states.contains(&job.state) && job.host_live == Some(true)
    });
    let others_are_elsewhere = others.clone().filter(elsewhere).count() == others.count();
    (is_alive && others_are_elsewhere).then_some(*job)
}
