//! From what is known of the jobs to open ports: decide, allocate, keep, open, in this order.
//!
//! One task of the control plane, which hands over whole sets of mappings and hears which of them could
//! not be opened. What may be closed or led elsewhere is done before anything is written, what is opened
//! only after its allocation is kept: a port that was reachable once is known as somebody's after any
//! crash. Everything that fails is tried again, and meanwhile the rest goes on.

mod annotations;
mod exposure_log;
mod keeper;
mod own_addresses;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, sleep_until},
};

use super::{
    BootInstant, Endpoint, Exposure, JobId, JobState, KnownJobs, Owner, Switchboard,
    SwitchboardStatus,
    expose::{Decision, DesiredMapping, Evidence, FirstHolders, Inputs, Reason, decide},
    ports::{Kept, Ports, Terms, Wanted},
    state::{StateDir, StateError},
};
use crate::{
    provider::AddressChanges,
    table::{ListenAddr, ListenHost, MappingName, MappingSpec, Origin},
};
use annotations::Annotations;
use exposure_log::ExposureLog;
use keeper::Keeper;
use own_addresses::OwnAddresses;

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
/// however many come, forwarding keeps most of the processor.
const REST: u32 = 3;

/// The longest such rest.
const REST_AT_MOST: Duration = Duration::from_millis(50);

/// Ports tried in one go for those whose ports turn out to be taken.
const TRIES: usize = 16;

/// Mappings of jobs to be put into force.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// All of them.
    pub specs: Vec<MappingSpec>,
    pub known_jobs: Arc<KnownJobs>,
    /// Who waits for those that could not be.
    pub reply: oneshot::Sender<Vec<NotOpened>>,
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
pub(crate) type Plan = BTreeMap<Owner, (u16, SocketAddr)>;

/// Everything the task remembers.
#[derive(Debug)]
pub(crate) struct Exposer {
    settings: Arc<Switchboard>,
    keeper: Keeper,
    ports: Ports,
    /// What is known of owners of ports.
    kept: BTreeMap<Owner, Kept>,
    /// Which job was exposed first at each address.
    first: FirstHolders,
    /// What was last proposed, without what could not be opened for its port.
    proposed: Plan,
    /// Whether something was opened for the first time in this round.
    opened: bool,
    /// What of it could not be opened.
    not_opened: BTreeSet<Owner>,
    /// Whether it has to be proposed again even if it is the same.
    stale: bool,
    own: OwnAddresses,
    log: ExposureLog,
    annotations: Annotations,
    status: Arc<SwitchboardStatus>,
    /// From when on what was kept stands for what nobody has confirmed.
    trusting_from: Instant,
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
            ports: keeper.ports(),
            keeper,
            first: FirstHolders::of_kept(&kept),
            kept,
            proposed: Plan::new(),
            opened: false,
            not_opened: BTreeSet::new(),
            stale: false,
            own: OwnAddresses::default(),
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
    /// before this one has proposed: what no longer has a job is closed.
    pub fn run(
        mut self,
        known_jobs: watch::Receiver<Arc<KnownJobs>>,
        settings: watch::Receiver<Arc<Switchboard>>,
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
        self.work(known_jobs, settings, proposals, open)
    }

    async fn work(
        mut self,
        mut known_jobs: watch::Receiver<Arc<KnownJobs>>,
        mut settings: watch::Receiver<Arc<Switchboard>>,
        proposals: mpsc::Sender<Proposal>,
        open: Arc<ArcSwap<Plan>>,
    ) {
        let mut addresses = AddressChanges::listen();
        loop {
            let known = Arc::clone(&known_jobs.borrow_and_update());
            let wanted = Arc::clone(&settings.borrow_and_update());
            // A reload may have taken a mapping away that contradicts the file now.
            if !Arc::ptr_eq(&wanted, &self.settings) {
                self.settings = wanted;
                self.stale = true;
            }
            let started = Instant::now();
            let Some(again) = self.round(&known, &proposals, &open).await else {
                return;
            };
            sleep((started.elapsed() * REST).min(REST_AT_MOST)).await;
            tokio::select! {
                changed = known_jobs.changed() => if changed.is_err() { return },
                changed = settings.changed() => if changed.is_err() { return },
                () = sleep_until(again.into()) => {}
                () = addresses.next() => self.own.forget_all(),
                () = proposals.closed() => return,
            }
        }
    }

    /// Goes on from what a task before this one has proposed. It may not have heard what became of it.
    fn take_over(&mut self, open: &Plan) {
        self.stale = !open.is_empty();
        self.proposed = open.clone();
        self.log = ExposureLog::after(open, self.status.read().as_deref());
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
        let settings = Arc::clone(&self.settings);
        let now = BootInstant::now();
        self.own.forget(started);
        let decision = decide(&Inputs {
            known_jobs,
            before: &self.kept,
            first: &self.first,
            settings: &settings,
            is_own: &|ip| self.own.contains(ip, started),
        });
        let exposed = decision.wanted.iter();
        let exposed = exposed.map(|desired| (desired.target.ip(), &desired.owner.job));
        self.first.follow(known_jobs, &settings, exposed);
        let needed = self.evidence_needed(started);
        self.opened = false;
        for _ in 0..TRIES {
            self.allocate(&decision, known_jobs);
            let plan = self.plan(&decision, needed);
            let durable = self.durable(&plan);
            if durable.len() < plan.len() && durable != self.proposed {
                let proposal = (durable, known_jobs);
                self.propose(proposal, proposals, open).await?;
            }
            self.keeper
                .save(&self.ports, &self.kept, &self.status)
                .await;
            let plan = self.durable(&plan);
            let count = plan.len();
            if plan != self.proposed || self.stale || !self.not_opened.is_empty() {
                self.propose((plan, known_jobs), proposals, open).await?;
                self.stale = false;
            }
            if self.proposed.len() == count {
                break;
            }
        }
        if self.opened {
            self.status.reachable.observe(started.elapsed());
        }
        let waits = |desired: &DesiredMapping| {
            desired.evidence < needed && !self.proposed.contains_key(&desired.owner)
        };
        let waits_for_evidence = decision.wanted.iter().any(waits);
        self.publish(known_jobs, decision, needed);
        Some(self.next(waits_for_evidence, now))
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

    fn terms(settings: &Switchboard) -> Terms<'_> {
        Terms {
            ranges: &settings.ports,
            cooldown: settings.cooldown,
            most: settings.max_total.map_or(usize::MAX, |most| {
                usize::try_from(most).unwrap_or(usize::MAX)
            }),
        }
    }

    fn allocate(&mut self, decision: &Decision, known_jobs: &KnownJobs) {
        let owners: Vec<_> = (decision.wanted.iter())
            .map(|desired| desired.owner.clone())
            .collect();
        let wanted = Wanted {
            owners: &owners,
            everybody: known_jobs.complete.is_some(),
        };
        // In the order of the ports.
        let before: Vec<(u16, Owner)> = (self.ports.owned())
            .map(|(owner, port)| (port, owner.clone()))
            .collect();
        self.ports
            .settle(wanted, Self::terms(&self.settings), BootInstant::now());
        // A remembered job may still be there, whatever speaks against its port for now.
        let mut kept = self.kept.clone();
        kept.retain(|owner, _| known_jobs.remembered.contains_key(&owner.job));
        for desired in &decision.wanted {
            let Some(port) = self.ports.port(&desired.owner) else {
                continue;
            };
            let place = before.binary_search_by_key(&port, |(port, _)| *port);
            let same = place.is_ok_and(|place| before[place].1 == desired.owner);
            let since = self.kept.get(&desired.owner).filter(|_| same);
            let since = since.map_or_else(SystemTime::now, |kept| kept.since);
            let address = desired.target.ip();
            kept.insert(desired.owner.clone(), Kept { address, since });
        }
        self.kept = kept;
    }

    /// What is to be open, as far as it may be already. What is open stays so: that more evidence is
    /// needed now than when it was opened says nothing about its job.
    fn plan(&self, decision: &Decision, needed: Evidence) -> Plan {
        let may = |desired: &&DesiredMapping| {
            desired.evidence >= needed || self.proposed.contains_key(&desired.owner)
        };
        let wanted = decision.wanted.iter().filter(may);
        wanted
            .filter_map(|desired| {
                let port = self.ports.port(&desired.owner)?;
                Some((desired.owner.clone(), (port, desired.target)))
            })
            .collect()
    }

    /// Those of a plan whose allocations are kept.
    fn durable(&self, plan: &Plan) -> Plan {
        let mut durable = plan.clone();
        durable.retain(|owner, (port, _)| self.keeper.has_kept(owner, *port));
        durable
    }

    /// Has a plan put into force; what could not be opened for its port is left out of what was
    /// proposed.
    async fn propose(
        &mut self,
        (plan, known_jobs): (Plan, &Arc<KnownJobs>),
        proposals: &mpsc::Sender<Proposal>,
        open: &ArcSwap<Plan>,
    ) -> Option<()> {
        let specs = plan.iter().map(|(owner, &(port, target))| MappingSpec {
            name: owner.mapping(),
            pairs: [(ListenAddr::new(ListenHost::Any, port), target.into())].into(),
            policy: Arc::clone(&self.settings.policy),
            origin: Origin::Switchboard,
        });
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal {
            specs: specs.collect(),
            known_jobs: Arc::clone(known_jobs),
            reply,
        };
        // Before anybody can open it: whoever comes after this task has to know.
        open.store(Arc::new(plan.clone()));
        proposals.send(proposal).await.ok()?;
        let failed = answer.await.ok()?;
        self.opened |= plan.keys().any(|owner| !self.proposed.contains_key(owner));
        self.not_opened.clear();
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
            if failure.blame_port {
                tracing::warn!(%owner, port, why = failure.why, "port skipped");
                self.ports.block(port, BootInstant::now());
                self.proposed.remove(owner);
            } else {
                self.log.not_opened(owner, &failure.why);
                self.not_opened.insert(owner.clone());
            }
        }
        Some(())
    }

    /// Tells everybody who looks, and the log what is new.
    fn publish(&mut self, known_jobs: &KnownJobs, decision: Decision, needed: Evidence) {
        let endpoint = |desired: &DesiredMapping| {
            let port = self.ports.port(&desired.owner);
            let closed = match port {
                None => Some(Reason::NoPort),
                Some(_) if self.not_opened.contains(&desired.owner) => Some(Reason::NotOpened),
                Some(_) if self.proposed.contains_key(&desired.owner) => None,
                Some(_) if desired.evidence < needed => Some(Reason::NotConfirmed),
                Some(_) => Some(Reason::NotKept),
            };
            Endpoint {
                owner: desired.owner.clone(),
                port,
                target: desired.target,
                closed,
                since: self.kept.get(&desired.owner).map(|kept| kept.since),
            }
        };
        let mut endpoints: Vec<_> = decision.wanted.iter().map(endpoint).collect();
        endpoints.sort_unstable_by(|one, other| one.owner.cmp(&other.owner));
        let unconfirmed = |desired: &&DesiredMapping| !desired.evidence.is_confirmed();
        let exposure = Exposure {
            host: self.settings.public_host.as_str().into(),
            endpoints,
            states: states(&decision, known_jobs),
            unconfirmed: decision.wanted.iter().filter(unconfirmed).count(),
            refused: decision.refused,
            ports: self
                .ports
                .counts(Self::terms(&self.settings), BootInstant::now()),
            jobs: known_jobs.jobs.len(),
            complete: known_jobs.complete,
            not_kept: self.keeper.failure.clone(),
        };
        self.log
            .tell(&exposure, &self.status, known_jobs, &self.settings.expose);
        if let Some(publisher) = self.status.publisher.load_full() {
            let rules = self.settings.expose.len();
            self.annotations
                .tell(&exposure, rules, known_jobs, publisher);
        }
        self.status.set(Some(exposure));
    }

    /// When something may change by itself.
    fn next(&self, waits_for_evidence: bool, now: BootInstant) -> Instant {
        let clock = Instant::now();
        let from = |instant: BootInstant| clock + instant.since(now);
        let mut due = clock + Duration::from_secs(60);
        if !self.ports.waiting().is_empty()
            && let Some(free) = self.ports.next_free(Self::terms(&self.settings), now)
        {
            // The clock of cool-downs counts in milliseconds.
            due = due.min(from(free) + Duration::from_millis(1));
        }
        if self.keeper.failure.is_some() || !self.not_opened.is_empty() {
            due = due.min(clock + AGAIN);
        }
        if waits_for_evidence {
            due = due.min(self.trusting_from.max(clock + LISTEN_AGAIN));
        }
        due
    }
}

/// The states of jobs that are not exposed for it.
fn states(decision: &Decision, known_jobs: &KnownJobs) -> BTreeMap<JobId, JobState> {
    let refused = decision.refused.iter();
    refused
        .filter(|refused| refused.reason == Reason::State)
        .filter_map(|refused| {
            let job = known_jobs.jobs.get(&refused.job)?;
            Some((refused.job.clone(), job.state))
        })
        .collect()
}
