//! Telling everybody who looks what is exposed: the status, the log, and the users of the switchboard.

use std::collections::BTreeSet;

use super::{Changed, Exposer, Region};
use crate::provider::switchboard::{
    Endpoint, Exposure, KnownJobs, Owner,
    expose::{Evidence, Reason},
    region::Role,
};

impl Exposer {
    /// The endpoint that an owner has or should have.
    fn endpoint(&self, owner: &Owner, needed: Evidence) -> Option<Endpoint> {
        let desired = self.decisions.desired(owner)?;
        let port = self.ports.port(owner);
        let closed = match port {
            None => Some(Reason::NoPort),
            Some(_) if self.not_opened.contains(owner) => Some(Reason::NotOpened),
            Some(_) if self.proposed.contains_key(owner) => None,
            Some(_) if desired.evidence < needed => Some(Reason::NotConfirmed),
            Some(_) if self.region.is_some() => Some(Reason::NotAgreed),
            Some(_) => Some(Reason::NotKept),
        };
        Some(Endpoint {
            owner: owner.clone(),
            port,
            target: desired.target,
            closed,
            since: self.kept.get(owner).map(|kept| kept.since),
        })
    }

    /// Tells everybody who looks, and the log what is new.
    pub(super) fn publish(&mut self, known_jobs: &KnownJobs, changed: &Changed, needed: Evidence) {
        for owner in &changed.owners {
            let endpoint = self.endpoint(owner, needed);
            let lacks = |one: &Endpoint| one.closed.is_some_and(|why| why != Reason::NoPort);
            if endpoint.as_ref().is_some_and(lacks) {
                self.unsettled.insert(owner.clone());
            }
            let endpoints = &mut self.exposure.endpoints;
            match endpoint {
                None => _ = endpoints.remove(owner),
                Some(one) if endpoints.get(owner) == Some(&one) => {}
                Some(one) => _ = endpoints.insert(owner.clone(), one),
            }
        }
        let mut subjects = BTreeSet::new();
        for (job, before) in &changed.jobs {
            let now = self.decisions.of(job);
            let now = now.map_or(&[][..], |decision| &decision.refused);
            let refused = &mut self.exposure.refused;
            for one in &before.refused {
                refused.remove(&one.subject());
                subjects.insert(one.subject());
            }
            for one in now {
                refused.insert(one.subject(), one.clone());
                subjects.insert(one.subject());
            }
        }
        self.exposure = Exposure {
            host: self.settings.public_host.as_str().into(),
            unconfirmed: self.decisions.unconfirmed().len(),
            ports: self.ports.counts(self.terms()),
            jobs: match &self.region {
                Some(region) if !region.role().follows() => self.decisions.jobs().len(),
                _ => known_jobs.jobs.len(),
            },
            complete: known_jobs.complete,
            not_kept: self.keeper.failure.clone(),
            endpoints: self.exposure.endpoints.clone(),
            refused: self.exposure.refused.clone(),
            region: self.region.as_ref().map(Region::view),
        };
        let exposure = &self.exposure;
        let rules = &self.settings.expose;
        self.log.tell(
            exposure,
            (&changed.owners, subjects),
            &self.status,
            known_jobs,
            rules,
        );
        let tells = |region: &Region| matches!(region.role(), Role::Leading { .. });
        if self.region.as_ref().is_none_or(tells)
            && let Some(publisher) = self.status.publisher.load_full()
        {
            let jobs = changed.owners.iter().map(|owner| &owner.job);
            self.annotations
                .tell(exposure, jobs.collect(), rules.len(), known_jobs, publisher);
        }
        self.status.set(Some(exposure.clone()));
    }
}
