//! What is to be open, how far that is safe yet, and having it opened.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::{
    Changed, Exposer,
    proposal::{Outcome, Plan, Proposal},
};
use crate::provider::switchboard::{
    BootInstant, KnownJobs, Owner,
    expose::{DesiredMapping, Evidence},
};

impl Exposer {
    /// What is to be open, as far as it may be already. What is open stays so: that more evidence is
    /// needed now than when it was opened says nothing about its job.
    pub(super) fn plan(&self, changed: &Changed, needed: Evidence) -> Plan {
        let mut plan = self.proposed.clone();
        for owner in &changed.owners {
            let may = |desired: &&DesiredMapping| {
                desired.evidence >= needed || self.proposed.contains_key(owner)
            };
            let desired = self.decisions.desired(owner).filter(may);
            let wanted = desired.and_then(|one| {
                let port = self.ports.port(owner)?;
                Some((&one.owner, (port, one.target)))
            });
            match wanted {
                None => _ = plan.remove(owner),
                Some((_, to)) if plan.get(owner) == Some(&to) => {}
                Some((owner, to)) => _ = plan.insert(owner.clone(), to),
            }
        }
        plan
    }

    /// Those of a plan whose allocations are kept, where everybody who has to know finds them.
    pub(super) fn durable(&self, plan: &Plan, changed: &Changed) -> Plan {
        let mut durable = plan.clone();
        // Who waits to be accepted by one job is not to get to another: its port is closed in between.
        let leaves = |owner: &Owner| {
            let (port, _) = self.proposed.get(owner)?;
            let stays = plan.get(owner).is_some_and(|(to, _)| to == port);
            (!stays).then_some(*port)
        };
        let leaving: BTreeSet<u16> = changed.owners.iter().filter_map(leaves).collect();
        let is_free = |owner: &Owner, port: u16| owner.host.is_some() || !leaving.contains(&port);
        for owner in &changed.owners {
            let is_kept = |(port, _): &(u16, _)| match &self.region {
                None => self.keeper.has_kept(owner, *port),
                Some(region) => {
                    let open = self.proposed.get(owner);
                    open.is_some_and(|(open, _)| open == port) || region.has(owner, *port)
                }
            };
            let to = plan.get(owner);
            if !to.is_some_and(|to| is_kept(to) && is_free(owner, to.0)) {
                durable.remove(owner);
            }
        }
        durable
    }

    /// Has a plan put into force; what could not be opened for its port is left out of what was
    /// proposed, and comes for another.
    pub(super) async fn propose(
        &mut self,
        (plan, known_jobs): (Plan, &Arc<KnownJobs>),
        changed: &mut Changed,
        proposals: &mpsc::Sender<Proposal>,
        open: &ArcSwap<Plan>,
    ) -> Option<()> {
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal {
            specs: self.specs.of(&plan, &self.settings.policy).clone(),
            known_jobs: Arc::clone(known_jobs),
            reply,
        };
        // Before anybody can open it: whoever comes after this task has to know.
        open.store(Arc::new(plan.clone()));
        proposals.send(proposal).await.ok()?;
        let Outcome {
            not_opened: failed,
            leaves_open,
        } = answer.await.ok()?;
        self.leaves_open = leaves_open;
        let differ = plan.differences(&self.proposed, PartialEq::eq);
        let is_new = |owner: &Owner| !self.proposed.contains_key(owner);
        self.opened |= differ.into_iter().any(is_new);
        changed.owners.append(&mut self.not_opened);
        let owners = plan.keys().filter(|_| !failed.is_empty());
        let owners: HashMap<_, _> = owners
            .map(|owner| (owner.mapping(), owner.clone()))
            .collect();
        self.proposed = plan;
        for failure in failed {
            let Some(owner) = owners.get(&failure.mapping) else {
                continue;
            };
            let port = failure.listen.port();
            changed.owners.insert(owner.clone());
            if failure.blame_port && self.skip_reserved(owner, port, &failure.why) {
                changed.come.push(owner.clone());
                continue;
            }
            match &mut self.region {
                None if failure.blame_port => {
                    tracing::warn!(%owner, port, why = failure.why, "port skipped");
                    let terms = Self::terms_of(&self.settings, None);
                    self.ports.block(port, terms, BootInstant::now());
                    self.proposed.remove(owner);
                    changed.come.push(owner.clone());
                    continue;
                }
                Some(region) if failure.blame_port => region.block(port),
                None | Some(_) => {}
            }
            self.log.not_opened(owner, &failure.why);
            self.not_opened.insert(owner.clone());
        }
        Some(())
    }
}
