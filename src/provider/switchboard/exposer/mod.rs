//! From what is known of the jobs to open ports: decide, allocate, keep, open, in this order.
//!
//! One task of the control plane, which hands over whole sets of mappings and hears which of them could
//! not be opened. It looks at what has changed: at all jobs only at its beginning, for other settings, and
//! once in a while. What may be closed or led elsewhere is done before anything is written, what is opened
//! only after its allocation is kept: a port that was reachable once is known as somebody's after any
//! crash. Everything that fails is tried again, and meanwhile the rest goes on. What is different where
//! several proxies share their ports is in [`region`].

mod allocation;
mod annotations;
mod displaced;
mod exposure_log;
mod keeper;
mod own_addresses;
mod planning;
mod proposal;
mod publishing;
mod region;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};

use super::{
    BootInstant, Exposure, JobId, KnownJobs, Owner, Switchboard, SwitchboardStatus,
    expose::{Decision, Decisions, Evidence, Inputs},
    ports::{Kept, Ports},
    region::RegionClient,
    state::{StateDir, StateError},
};
use crate::provider::AddressChanges;
use annotations::Annotations;
use exposure_log::ExposureLog;
use keeper::Keeper;
use own_addresses::{GOOD_FOR, OwnAddresses};
use proposal::Specs;
pub(crate) use proposal::{NotOpened, Outcome, Plan, Proposal};
use region::{Course, Region};

/// How long a start waits for the switchboard before it falls back on what was kept: what is kept
/// may be out of date, and an address somebody else's.
const ASK_FIRST: Duration = Duration::from_secs(2);

/// A switchboard of which nothing was heard for so long does not answer.
const SILENT: Duration = Duration::from_secs(5);

/// Until it is looked at again whether the switchboard still answers.
const LISTEN_AGAIN: Duration = Duration::from_millis(250);

/// Until something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// After a round, so many times what it took nothing is done: changes that come together are one, and
/// however many come, forwarding keeps most of the processor. As long as something comes during every rest,
/// the next is twice as long: most of what a round costs does not depend on how much there is to do in it.
const REST: u32 = 3;

/// The longest such rest.
const REST_AT_MOST: Duration = Duration::from_millis(50);

/// Ports tried in one go for those whose ports turn out to be taken.
const TRIES: usize = 16;

/// Everything the task remembers.
#[derive(Debug)]
pub(crate) struct Exposer {
    settings: Arc<Switchboard>,
    /// The region whose ports are shared, if they are.
    region: Option<Region>,
    keeper: Keeper,
    ports: Ports,
    /// What is known of owners of ports.
    kept: BTreeMap<Owner, Kept>,
    decisions: Decisions,
    /// What the decisions were made of, and when they were last made for all jobs.
    decided: Option<(Arc<KnownJobs>, Instant)>,
    /// What was last proposed, without what could not be opened for its port.
    proposed: Plan,
    specs: Specs,
    /// Whether something was opened for the first time in this round.
    opened: bool,
    /// Whether something is still open that was to be closed.
    leaves_open: bool,
    /// What of it could not be opened.
    not_opened: BTreeSet<Owner>,
    /// What is to be open and is not, but for lack of a port.
    unsettled: BTreeSet<Owner>,
    /// Whether it has to be proposed again even if it is the same.
    stale: bool,
    own: OwnAddresses,
    exposure: Exposure,
    log: ExposureLog,
    annotations: Annotations,
    status: Arc<SwitchboardStatus>,
    /// From when on what was kept stands for what nobody has confirmed.
    trusting_from: Instant,
}

/// What is different in a round.
#[derive(Debug, Default)]
struct Changed {
    /// Jobs for which something else is decided, with what that was before.
    jobs: BTreeMap<JobId, Decision>,
    /// Owners whose endpoints may be different.
    owners: BTreeSet<Owner>,
    /// Those of them that want a port now, and those that do not any more.
    come: Vec<Owner>,
    gone: Vec<Owner>,
    /// Whether all owners are to be looked at.
    everything: bool,
}

impl Exposer {
    /// Takes the state directory and reads what was kept there.
    ///
    /// # Errors
    ///
    /// The directory cannot be had. A damaged file is no error.
    pub fn new(
        settings: Arc<Switchboard>,
        status: Arc<SwitchboardStatus>,
    ) -> Result<Self, StateError> {
        let state = StateDir::open(&settings.state_dir)?;
        Self::with(state, settings, status)
    }

    /// Reads what was kept in the state directory, which this process has.
    ///
    /// # Errors
    ///
    /// It cannot be read. A damaged file is no error.
    pub fn with(
        state: StateDir,
        settings: Arc<Switchboard>,
        status: Arc<SwitchboardStatus>,
    ) -> Result<Self, StateError> {
        let keeper = Keeper::with(state)?;
        let kept = keeper.owners();
        Ok(Self {
            settings,
            region: None,
            ports: keeper.ports(),
            keeper,
            decisions: Decisions::after(&kept),
            decided: None,
            kept,
            proposed: Plan::default(),
            specs: Specs::default(),
            opened: false,
            leaves_open: false,
            not_opened: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            stale: false,
            own: OwnAddresses::default(),
            exposure: Exposure::default(),
            log: ExposureLog::default(),
            annotations: Annotations::default(),
            status,
            trusting_from: Instant::now() + ASK_FIRST,
        })
    }

    /// The state directory, for as long as it is used.
    pub fn state_dir(&self) -> Weak<StateDir> {
        self.keeper.state_dir()
    }

    /// The jobs that ports are kept for.
    pub fn remembered(&self) -> impl Iterator<Item = JobId> {
        self.kept.keys().map(|owner| owner.job.clone())
    }

    /// Exposes until nobody takes its proposals any more. What `open` holds is taken for what a task
    /// before this one has proposed: what no longer has a job is closed. With a region, its ports are those
    /// of the region.
    pub fn run(
        mut self,
        known_jobs: watch::Receiver<Arc<KnownJobs>>,
        settings: watch::Receiver<Arc<Switchboard>>,
        region: watch::Receiver<Option<RegionClient>>,
        proposals: mpsc::Sender<Proposal>,
        open: Arc<ArcSwap<Plan>>,
    ) -> impl Future<Output = ()> + Send {
        if self.status.read().is_none() {
            self.status.set(Some(Exposure {
                host: self.settings.public_host.as_str().into(),
                ..Exposure::default()
            }));
        }
        self.take_over(&open.load());
        self.work(known_jobs, settings, region, proposals, open)
    }

    async fn work(
        mut self,
        mut known_jobs: watch::Receiver<Arc<KnownJobs>>,
        mut settings: watch::Receiver<Arc<Switchboard>>,
        mut regions: watch::Receiver<Option<RegionClient>>,
        proposals: mpsc::Sender<Proposal>,
        open: Arc<ArcSwap<Plan>>,
    ) {
        let mut addresses = AddressChanges::listen();
        let mut rest = Duration::ZERO;
        loop {
            let known = Arc::clone(&known_jobs.borrow_and_update());
            let wanted = Arc::clone(&settings.borrow_and_update());
            // A reload may have taken a mapping away that contradicts the file now.
            if !Arc::ptr_eq(&wanted, &self.settings) {
                self.settings = wanted;
                self.stale = true;
                self.decided = None;
            }
            self.be_in(regions.borrow_and_update().as_ref());
            let started = Instant::now();
            let Some(again) = self.round(&known, &proposals, &open).await else {
                return;
            };
            let short = started.elapsed() * REST;
            rest = short.max(rest * 2).min(REST_AT_MOST);
            sleep(rest).await;
            if known_jobs.has_changed().is_ok_and(|changed| !changed) {
                rest = Duration::ZERO;
            }
            tokio::select! {
                changed = known_jobs.changed() => if changed.is_err() { return },
                changed = settings.changed() => if changed.is_err() { return },
                changed = regions.changed() => if changed.is_err() { return },
                () = of_region(&mut self.region) => {}
                () = sleep_until(again.into()) => {}
                () = addresses.next() => {
                    self.own.forget_all();
                    self.decided = None;
                }
                () = proposals.closed() => return,
            }
        }
    }

    /// Shares the ports of a region from now on, or of none.
    fn be_in(&mut self, region: Option<&RegionClient>) {
        let is_same = match (&self.region, region) {
            (Some(known), Some(client)) => known.is_of(client),
            (known, client) => known.is_none() && client.is_none(),
        };
        if !is_same {
            self.region = region.cloned().map(Region::new);
            self.decided = None;
        }
    }

    /// Goes on from what a task before this one has proposed. It may not have heard what became of it.
    fn take_over(&mut self, open: &Plan) {
        self.stale = !open.is_empty();
        self.proposed = open.clone();
        let before = self.status.read();
        self.log = ExposureLog::after(open, before.as_deref());
        self.exposure = before.as_deref().cloned().unwrap_or_default();
        self.decisions
            .go_on_from(self.exposure.refused.values().cloned());
        self.annotations = Annotations::after(open, self.status.publisher.load_full());
    }

    /// One decision, put into force. Returns when the next is due at the latest, or nothing if
    /// nobody takes proposals.
    async fn round(
        &mut self,
        known_jobs: &Arc<KnownJobs>,
        proposals: &mpsc::Sender<Proposal>,
        open: &ArcSwap<Plan>,
    ) -> Option<Instant> {
        let started = Instant::now();
        let now = BootInstant::now();
        let course = self.course(known_jobs);
        let mut changed = match course {
            Course::Hold => Changed::default(),
            Course::Decide => {
                let owners = self.take_in_map();
                let mut changed = self.decide(known_jobs, started);
                self.note_displaced(owners, &mut changed);
                changed
            }
            Course::Serve => self.serve(started),
        };
        let needed = self.evidence_needed(started);
        self.opened = false;
        self.leaves_open = false;
        for _ in 0..TRIES {
            if course == Course::Decide {
                self.allocate(&mut changed, known_jobs);
            }
            let plan = self.plan(&changed, needed);
            let durable = self.durable(&plan, &changed);
            let unwritten = self.unwritten();
            let waits = durable.len() < plan.len() || !unwritten.is_empty();
            if waits && durable != self.proposed {
                let proposal = (durable, known_jobs);
                self.propose(proposal, &mut changed, proposals, open)
                    .await?;
            }
            let is_refused = self.write(unwritten, &mut changed).await;
            self.keeper
                .save(&mut self.ports, &self.kept, &self.status)
                .await;
            let plan = self.durable(&plan, &changed);
            let count = plan.len();
            if plan != self.proposed || self.stale || !self.not_opened.is_empty() {
                self.propose((plan, known_jobs), &mut changed, proposals, open)
                    .await?;
                self.stale = false;
            }
            if self.proposed.len() == count && !is_refused {
                break;
            }
        }
        if let Some(region) = &self.region
            && course != Course::Hold
            && !self.leaves_open
        {
            region.applied(&self.settings.ports);
        }
        if self.opened {
            self.status.reachable.observe(started.elapsed());
        }
        let mut unconfirmed = self.decisions.unconfirmed().iter();
        let waits_for_evidence = unconfirmed.any(|owner| {
            let desired = self.decisions.desired(owner);
            let lacks = desired.is_some_and(|desired| desired.evidence < needed);
            lacks && !self.proposed.contains_key(owner)
        });
        self.publish(known_jobs, &changed, needed);
        if let Some(region) = self.region.as_ref().filter(|_| course != Course::Hold) {
            region.counted(self.exposure.ports);
        }
        Some(self.next(waits_for_evidence, now))
    }

    /// Decides for the jobs of which something has changed, or for all.
    fn decide(&mut self, known_jobs: &Arc<KnownJobs>, now: Instant) -> Changed {
        self.own.forget(now);
        let inputs = Inputs {
            known_jobs,
            before: &self.kept,
            settings: &self.settings,
            is_own: &|ip| self.own.contains(ip, now),
        };
        let before = self.decided.take();
        // What the kernel says of addresses is asked again now and then.
        let before = before.filter(|(_, at)| now.duration_since(*at) < GOOD_FOR);
        let mut changed = Changed {
            everything: before.is_none(),
            owners: std::mem::take(&mut self.unsettled),
            ..Changed::default()
        };
        let mut at = now;
        changed.jobs = match &before {
            Some((before, all_at)) => {
                at = *all_at;
                // Others cannot be told from those that were there whose queue is kept.
                changed.everything = before.complete.is_some() != known_jobs.complete.is_some();
                self.decisions.update(known_jobs.changed(before), &inputs)
            }
            None => {
                let known = known_jobs.jobs.keys().chain(known_jobs.remembered.keys());
                let decided: Vec<JobId> = self.decisions.jobs().cloned().collect();
                self.decisions.update(known.chain(&decided), &inputs)
            }
        };
        self.decided = Some((Arc::clone(known_jobs), at));
        for (job, before) in &changed.jobs {
            let now = self.decisions.of(job);
            let now = now.map_or(&[][..], |decision| &decision.wanted);
            changed.come.extend(now.iter().map(|one| one.owner.clone()));
            let gone = before.wanted.iter().map(|one| &one.owner);
            let gone = gone.filter(|owner| now.iter().all(|one| one.owner != **owner));
            changed.gone.extend(gone.cloned());
        }
        changed.owners.extend(changed.come.iter().cloned());
        changed.owners.extend(changed.gone.iter().cloned());
        if changed.everything {
            self.look_at_all(&mut changed);
        }
        changed
    }

    fn look_at_all(&self, changed: &mut Changed) {
        let wanted = self.decisions.wanted().map(|desired| &desired.owner);
        let open = self.proposed.keys().chain(self.exposure.endpoints.keys());
        let all = wanted.chain(open).chain(self.kept.keys());
        changed.owners.extend(all.cloned());
    }

    /// How much has to speak for a mapping before it is opened. Where the switchboard has not said
    /// anything, it is asked first; where it answers, the rest will be heard once it was asked about;
    /// where nobody answers, what was kept will do.
    fn evidence_needed(&self, now: Instant) -> Evidence {
        let heard_ago = self.status.availability.heard_ago();
        match heard_ago.is_none_or(|age| age >= SILENT) {
            _ if now < self.trusting_from => Evidence::Listed,
            true => Evidence::Kept,
            false => Evidence::AskedInVain,
        }
    }

    /// When something may change by itself.
    fn next(&self, waits_for_evidence: bool, now: BootInstant) -> Instant {
        let clock = Instant::now();
        let from = |instant: BootInstant| clock + instant.since(now);
        let mut due = clock + Duration::from_secs(60);
        if !self.ports.waiting().is_empty()
            && self.region.is_none()
            && let Some(free) = self.ports.next_free(self.terms(), now)
        {
            // The clock of cool-downs counts in milliseconds.
            due = due.min(from(free) + Duration::from_millis(1));
        }
        if self.keeper.failure.is_some() || !self.not_opened.is_empty() {
            due = due.min(clock + AGAIN);
        }
        if let Some(next) = self.region.as_ref().and_then(Region::next) {
            due = due.min(next);
        }
        if waits_for_evidence {
            due = due.min(self.trusting_from.max(clock + LISTEN_AGAIN));
        }
        due
    }
}

/// Waits until something else is known of a region, for ever if there is none.
async fn of_region(region: &mut Option<Region>) {
    match region {
        Some(region) => region.changed().await,
        None => std::future::pending().await,
    }
}
