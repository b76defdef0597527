//! What of which job may be exposed, and why the rest may not.
//!
//! A pure decision over what is known, job by job: only of one that has changed, and of those that are said
//! to be where it is or was, it is made again. A job's state decides, never that it has an address: ended
//! jobs keep theirs for ever. Nothing a switchboard says is taken on trust: an address has to be in
//! the allowed prefixes, must be nobody's but the job's, and never ours.

mod address;
mod holders;
mod reason;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

pub use address::fit_for_any;
use holders::Holders;
pub use reason::{Closing, Reason};

use super::{
    Allocate, Job, JobId, JobState, KnownJobs, Owner, Rule, RuleName, Switchboard, ports::Kept,
};

/// Everything the decision depends on.
pub struct Inputs<'a> {
    /// What is known of the jobs.
    pub known_jobs: &'a KnownJobs,
    /// What was exposed before: it stands for remembered jobs of which nothing is known yet.
    pub before: &'a BTreeMap<Owner, Kept>,
    /// What the operator wants.
    pub settings: &'a Switchboard,
    /// Whether an address is this machine's own.
    pub is_own: &'a dyn Fn(IpAddr) -> bool,
}

/// What of a job may be exposed, and why the rest may not.
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
    /// Its state, if that is why.
    #[serde(default)]
    pub state: Option<JobState>,
}

impl Refused {
    /// What is not exposed.
    pub fn subject(&self) -> (JobId, Option<RuleName>) {
        (self.job.clone(), self.rule.clone())
    }
}

/// What was decided for every job.
#[derive(Debug, Clone, Default)]
pub struct Decisions {
    /// Jobs of which nothing is wanted or refused are not there.
    made: BTreeMap<JobId, Decision>,
    holders: Holders,
    /// What is wanted and not confirmed.
    unconfirmed: BTreeSet<Owner>,
}

impl Decisions {
    /// None yet, beside what was exposed before a start.
    pub fn after(kept: &BTreeMap<Owner, Kept>) -> Self {
        Self {
            holders: Holders::of_kept(kept),
            ..Self::default()
        }
    }

    /// Takes what is not exposed for what was decided before.
    pub fn go_on_from(&mut self, refused: impl Iterator<Item = Refused>) {
        for one in refused {
            let decision = self.made.entry(one.job.clone()).or_default();
            decision.refused.push(one);
        }
    }

    /// Begins to decide by what jobs say, after somebody else has decided: who is where is not known yet but
    /// for what is exposed.
    pub fn begin_after(&mut self, kept: &BTreeMap<Owner, Kept>) {
        self.holders = Holders::of_kept(kept);
    }

    /// Every job about which something is decided.
    pub fn jobs(&self) -> impl ExactSizeIterator<Item = &JobId> {
        self.made.keys()
    }

    /// Everything that may be exposed, in the order of importance.
    pub fn wanted(&self) -> impl Iterator<Item = &DesiredMapping> {
        self.made.values().flat_map(|decision| &decision.wanted)
    }

    /// What was decided for a job.
    pub fn of(&self, job: &JobId) -> Option<&Decision> {
        self.made.get(job)
    }

    /// What `owner` is to have, if anything.
    pub fn desired(&self, owner: &Owner) -> Option<&DesiredMapping> {
        let mut wanted = self.made.get(&owner.job)?.wanted.iter();
        wanted.find(|desired| desired.owner.rule == owner.rule)
    }

    /// What may be exposed although the switchboard has not said all there is to say.
    pub fn unconfirmed(&self) -> &BTreeSet<Owner> {
        &self.unconfirmed
    }

    /// Decides again for jobs of which something has changed. Returns the jobs for which something else is
    /// decided now, with what that was before.
    pub fn update<'j>(
        &mut self,
        changed: impl IntoIterator<Item = &'j JobId>,
        inputs: &Inputs<'_>,
    ) -> BTreeMap<JobId, Decision> {
        let mut again = BTreeSet::new();
        for job in changed {
            let known = inputs.known_jobs.jobs.get(job);
            let (places, host) = match known.filter(|job| job.state != JobState::Finalized) {
                Some(job) => (
                    Vec::from_iter(address_of(job, inputs.settings)),
                    job.host.as_ref(),
                ),
                None => {
                    let kept = remembered(job, inputs);
                    (kept.map(|(_, kept)| kept.address).collect(), None)
                }
            };
            let places = places.into_iter().map(|place| place.to_canonical());
            let concerned = self.holders.moved(job, places.collect(), host);
            again.extend(concerned);
            again.insert(job.clone());
        }
        let mut before = BTreeMap::new();
        let mut exposed = Vec::new();
        for job in again {
            let now = decide(&job, inputs, &self.holders);
            let confirmed = now.wanted.iter();
            exposed.extend(confirmed.map(|desired| (desired.target.ip(), job.clone())));
            let Some(old) = self.decided(&job, now) else {
                continue;
            };
            before.insert(job, old);
        }
        for (address, job) in exposed {
            self.holders.exposed(address, &job);
        }
        before
    }

    /// Takes in what is decided for a job. Returns what was decided before, if that is something else.
    pub fn decided(&mut self, job: &JobId, now: Decision) -> Option<Decision> {
        let known = self.made.get(job);
        if known.map_or(now == Decision::default(), |known| *known == now) {
            return None;
        }
        let old = self.made.remove(job).unwrap_or_default();
        for desired in &old.wanted {
            self.unconfirmed.remove(&desired.owner);
        }
        for desired in &now.wanted {
            if !desired.evidence.is_confirmed() {
                self.unconfirmed.insert(desired.owner.clone());
            }
        }
        if now != Decision::default() {
            self.made.insert(job.clone(), now);
        }
        Some(old)
    }
}

/// What may be exposed here of what another proxy has decided: an owner, its port and where that leads.
/// Nothing is taken on trust: the map may come from one with other settings.
pub fn add_told(
    (owner, port, target): (&Owner, u16, SocketAddr),
    settings: &Switchboard,
    is_own: &dyn Fn(IpAddr) -> bool,
    decision: &mut Decision,
) {
    let fit = match settings.ports.contains(port) {
        true => address::fit(target.ip(), settings, is_own),
        false => Err(Reason::OtherPorts),
    };
    match fit {
        Ok(()) => decision.wanted.push(DesiredMapping {
            owner: owner.clone(),
            target,
            evidence: Evidence::Job,
        }),
        Err(reason) => decision.refused.push(Refused {
            job: owner.job.clone(),
            rule: Some(owner.rule.clone()),
            reason,
            address: Some(target.ip()),
            state: None,
        }),
    }
}

/// Decides for one job.
fn decide(id: &JobId, inputs: &Inputs<'_>, holders: &Holders) -> Decision {
    let mut decision = Decision::default();
    if let Some(job) = inputs.known_jobs.jobs.get(id) {
        let address = address_of(job, inputs.settings);
        match fit_job(job, address, inputs, holders) {
            Ok(address) => add_rules(job, address, inputs.settings, &mut decision),
            Err(reason) => decision.refused.push(Refused {
                job: job.id.clone(),
                rule: None,
                reason,
                address,
                state: (reason == Reason::State).then_some(job.state),
            }),
        }
    }
    for (owner, kept) in remembered(id, inputs) {
        add_remembered(owner, kept.address, inputs, holders, &mut decision);
    }
    decision
}

/// What was exposed of a job that is remembered and has not been heard of since.
fn remembered<'a>(job: &JobId, inputs: &Inputs<'a>) -> impl Iterator<Item = (&'a Owner, &'a Kept)> {
    let is_remembered = inputs.known_jobs.remembered.contains_key(job);
    let from = is_remembered.then(|| inputs.before.range(Owner::before(job)..));
    let kept = from.into_iter().flatten();
    kept.take_while(move |(owner, _)| owner.job == *job)
}

fn add_remembered(
    owner: &Owner,
    address: IpAddr,
    inputs: &Inputs<'_>,
    holders: &Holders,
    decision: &mut Decision,
) {
    let mut rules = inputs.settings.expose.iter();
    let Some(rule) = rules.find(|rule| rule.name == owner.rule) else {
        // The operator does not want it any more.
        return;
    };
    let known = inputs.known_jobs.remembered.get(&owner.job);
    let remembered = known.copied().unwrap_or_default();
    let listed = remembered.listed;
    let fit = match listed.is_some_and(|state| !inputs.settings.states.contains(&state)) {
        true => Err(Reason::State),
        false if !rule.is_for(address) => Err(Reason::OtherHosts),
        false => fit_address(&owner.job, address, inputs, holders),
    };
    match fit {
        Ok(()) => decision.wanted.push(DesiredMapping {
            owner: owner.clone(),
            target: SocketAddr::new(address, rule.port),
            evidence: match (listed, remembered.asked) {
                (Some(_), _) => Evidence::Listed,
                (None, true) => Evidence::AskedInVain,
                (None, false) => Evidence::Kept,
            },
        }),
        Err(reason) => decision.refused.push(Refused {
            job: owner.job.clone(),
            rule: Some(owner.rule.clone()),
            reason,
            address: Some(address),
            state: None,
        }),
    }
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
    holders: &Holders,
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
    holders: &Holders,
) -> Result<(), Reason> {
    address::fit(address, inputs.settings, inputs.is_own)?;
    match holders.holder(address, inputs) {
        Some(holder) if holder == job => Ok(()),
        _ => Err(Reason::SharedAddress),
    }
}

/// Adds what the rules make of a job.
fn add_rules(job: &Job, address: IpAddr, settings: &Switchboard, decision: &mut Decision) {
    let rules = settings.expose.iter();
    let mut matching = rules
        .filter(|rule| rule.condition.holds(&job.services))
        .peekable();
    let refused = |rule: Option<&Rule>, reason| Refused {
        job: job.id.clone(),
        rule: rule.map(|rule| rule.name.clone()),
        reason,
        address: Some(address),
        state: None,
    };
    if matching.peek().is_none() {
        decision.refused.push(refused(None, Reason::NoRule));
    }
    let most = usize::try_from(settings.max_per_job).unwrap_or(usize::MAX);
    for rule in matching {
        let reason = match () {
            () if !rule.is_for(address) => Some(Reason::OtherHosts),
            () if rule.allocate == Allocate::Host && job.host.is_none() => {
                Some(Reason::HostUnknown)
            }
            () if decision.wanted.len() >= most => Some(Reason::TooMany),
            () => None,
        };
        if let Some(reason) = reason {
            decision.refused.push(refused(Some(rule), reason));
            continue;
        }
        decision.wanted.push(DesiredMapping {
            owner: Owner {
                job: job.id.clone(),
                rule: rule.name.clone(),
                host: match rule.allocate {
                    Allocate::Job => None,
                    Allocate::Host => job.host.clone(),
                },
            },
            target: SocketAddr::new(address, rule.port),
            evidence: Evidence::Job,
        });
    }
}
