//! What is to be open, as mappings that are proposed to whoever opens them, and what came of it.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    provider::switchboard::{KnownJobs, Owner},
    shared_map::SharedMap,
    table::{ListenAddr, ListenHost, MappingName, MappingSpec, Origin, Policy, RemovalPolicy},
};

/// Mappings of jobs to be put into force.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// All of them.
    pub specs: SharedMap<MappingName, MappingSpec>,
    pub known_jobs: Arc<KnownJobs>,
    /// Who waits for what comes of it.
    pub reply: oneshot::Sender<Outcome>,
}

/// What came of a proposal.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What could not be put into force.
    pub not_opened: Vec<NotOpened>,
    /// Whether something is still open that was to be closed.
    pub leaves_open: bool,
}

/// A mapping of a job that could not be put into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotOpened {
    pub mapping: MappingName,
    pub listen: ListenAddr,
    /// Whether another port would do.
    pub blame_port: bool,
    pub why: String,
}

/// Where an owner's sessions come in and go to.
pub(crate) type Plan = SharedMap<Owner, (u16, SocketAddr)>;

/// A plan as mappings.
#[derive(Debug, Default)]
pub(super) struct Specs {
    plan: Plan,
    policy: Arc<Policy>,
    /// The same for ports of hosts: no session of one job there lives into the next.
    of_hosts: Arc<Policy>,
    all: SharedMap<MappingName, MappingSpec>,
}

impl Specs {
    /// Those of `plan`, under a policy.
    pub fn of(
        &mut self,
        plan: &Plan,
        policy: &Arc<Policy>,
    ) -> &SharedMap<MappingName, MappingSpec> {
        if !Arc::ptr_eq(&self.policy, policy) {
            *self = Self {
                policy: Arc::clone(policy),
                of_hosts: Arc::new(Policy {
                    on_remove: RemovalPolicy::Kill,
                    ..Policy::clone(policy)
                }),
                ..Self::default()
            };
        }
        for owner in plan.differences(&self.plan, PartialEq::eq) {
            let name = owner.mapping();
            let Some((port, target)) = plan.get(owner).copied() else {
                self.all.remove(&name);
                continue;
            };
            let spec = MappingSpec {
                name: name.clone(),
                pairs: [(ListenAddr::new(ListenHost::Any, port), target.into())].into(),
                policy: Arc::clone(match owner.host {
                    None => policy,
                    Some(_) => &self.of_hosts,
                }),
                origin: Origin::Switchboard,
            };
            self.all.insert(name, spec);
        }
        self.plan = plan.clone();
        &self.all
    }
}
