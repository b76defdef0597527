//! What of which job may be exposed, and why the rest may not.
//!
//! A pure decision over what is known. A job's state decides, never that it has an address: ended
//! jobs keep theirs for ever. Nothing a switchboard says is taken on trust: an address has to be in
//! the allowed prefixes, must be nobody's but the job's, and never ours.

mod address;
mod holders;
mod reason;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

pub use address::fit_for_any;
pub use holders::FirstHolders;
use holders::{Holders, holders};
pub use reason::{Closing, Reason};

use super::{Job, JobId, KnownJobs, Owner, Remembered, RuleName, Switchboard, ports::Kept};

/// Everything the decision depends on.
pub struct Inputs<'a> {
    /// What is known of the jobs.
    pub known_jobs: &'a KnownJobs,
    /// What was exposed before: it stands for remembered jobs of which nothing is known yet.
    pub before: &'a BTreeMap<Owner, Kept>,
    /// Who was exposed first where.
    pub first: &'a FirstHolders,
    /// What the operator wants.
    pub settings: &'a Switchboard,
    /// Whether an address is this machine's own.
    pub is_own: &'a dyn Fn(IpAddr) -> bool,
}

/// What may be exposed, and why the rest may not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// What may be exposed, in the order of importance.
    pub wanted: Vec<DesiredMapping>,
    /// What may not.
    pub refused: Vec<Refused>,
}

/// Something that may be exposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredMapping {
    /// The job and the rule.
    pub owner: Owner,
    /// Where its sessions go.
    pub target: SocketAddr,
    /// What says so.
    pub evidence: Evidence,
}

/// What says that something may be exposed, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// What was kept from before a start; the job was not asked about yet.
    Kept,
    /// What was kept from before a start, and nothing since: the job was asked about in vain.
    AskedInVain,
    /// What was kept from before a start, and a listing that has the job in a fit state since.
    Listed,
    /// The job.
    Job,
}

impl Evidence {
    /// Whether the switchboard has said all there is to say since the start.
    pub fn is_confirmed(self) -> bool {
        self == Self::Job
    }
}

/// Something that may not be exposed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refused {
    /// The job.
    pub job: JobId,
    /// The rule, where it is not the job as a whole.
    pub rule: Option<RuleName>,
    /// Why.
    pub reason: Reason,
    /// Where the job says it is.
    pub address: Option<IpAddr>,
}

/// Decides for every job.
pub fn decide(inputs: &Inputs<'_>) -> Decision {
    let remembered = remembered(inputs);
    let holders = holders(inputs, &remembered);
    let mut decision = Decision::default();
    for job in inputs.known_jobs.jobs.values() {
        let address = address_of(job, inputs.settings);
        match fit_job(job, address, inputs, &holders) {
            Ok(address) => add_rules(job, address, inputs.settings, &mut decision),
            Err(reason) => decision.refused.push(Refused {
                job: job.id.clone(),
                rule: None,
                reason,
                address,
            }),
        }
    }
    for (owner, address, remembered) in remembered {
        let rule = inputs
            .settings
            .expose
            .iter()
            .find(|rule| rule.name == owner.rule);
        let listed = remembered.listed;
        let fit = match listed.is_some_and(|state| !inputs.settings.states.contains(&state)) {
            true => Err(Reason::State),
            false => fit_address(&owner.job, address, inputs, &holders),
        };
        match (rule, fit) {
            (Some(rule), Ok(())) => decision.wanted.push(DesiredMapping {
                owner: owner.clone(),
                target: SocketAddr::new(address, rule.port),
                evidence: match (listed, remembered.asked) {
                    (Some(_), _) => Evidence::Listed,
                    (None, true) => Evidence::AskedInVain,
                    (None, false) => Evidence::Kept,
                },
            }),
            (Some(_), Err(reason)) => decision.refused.push(Refused {
                job: owner.job.clone(),
                rule: Some(owner.rule.clone()),
                reason,
                address: Some(address),
            }),
            // The operator does not want it any more.
            (None, _) => {}
        }
    }
    decision
}

/// What was exposed of jobs that are remembered and have not been heard of since.
fn remembered<'a>(inputs: &Inputs<'a>) -> Vec<(&'a Owner, IpAddr, Remembered)> {
    let before = inputs.before.iter();
    before
        .filter_map(|(owner, kept)| {
            let remembered = inputs.known_jobs.remembered.get(&owner.job)?;
            Some((owner, kept.address, *remembered))
        })
        .collect()
}

/// Where a job is: what it says itself goes before what the operator says of its host.
fn address_of(job: &Job, settings: &Switchboard) -> Option<IpAddr> {
    job.address.or_else(|| {
        let of = |host: &str| settings.addresses.get(host).copied();
        let by_name = job.host_name.as_deref().and_then(of);
        by_name.or_else(|| of(job.host.as_ref()?.as_str()))
    })
}

/// The address to expose a job at.
fn fit_job(
    job: &Job,
    address: Option<IpAddr>,
    inputs: &Inputs<'_>,
    holders: &Holders<'_>,
) -> Result<IpAddr, Reason> {
    if !inputs.settings.states.contains(&job.state) {
        return Err(Reason::State);
    }
    let address = address.ok_or(Reason::NoAddress)?;
    fit_address(&job.id, address, inputs, holders)?;
    let silent = inputs.known_jobs.silent.get(&job.id);
    let allowed = inputs.settings.host_gone;
    if silent
        .zip(allowed)
        .is_some_and(|(silent, allowed)| *silent >= allowed)
    {
        return Err(Reason::HostGone);
    }
    Ok(address)
}

fn fit_address(
    job: &JobId,
    address: IpAddr,
    inputs: &Inputs<'_>,
    holders: &Holders<'_>,
) -> Result<(), Reason> {
    address::fit(address, inputs.settings, inputs.is_own)?;
    match holders.get(&address) {
        Some(Some(holder)) if *holder == job => Ok(()),
        _ => Err(Reason::SharedAddress),
    }
}

/// Adds what the rules make of a job.
fn add_rules(job: &Job, address: IpAddr, settings: &Switchboard, decision: &mut Decision) {
    let rules = settings.expose.iter();
    let matching = rules.filter(|rule| rule.condition.holds(&job.services));
    let most = usize::try_from(settings.max_per_job).unwrap_or(usize::MAX);
    let mut count = 0;
    for rule in matching {
        count += 1;
        if count > most {
            decision.refused.push(Refused {
                job: job.id.clone(),
                rule: Some(rule.name.clone()),
                reason: Reason::TooMany,
                address: Some(address),
            });
            continue;
        }
        decision.wanted.push(DesiredMapping {
            owner: Owner {
                job: job.id.clone(),
                rule: rule.name.clone(),
            },
            target: SocketAddr::new(address, rule.port),
            evidence: Evidence::Job,
        });
    }
    if count == 0 {
        decision.refused.push(Refused {
            job: job.id.clone(),
            rule: None,
            reason: Reason::NoRule,
            address: Some(address),
        });
    }
}
