//! From what is known of the jobs to open ports: decide, allocate, keep, open, in this order.
//!
//! One task of the control plane. What may be closed or led elsewhere is done before anything is
//! written, what is opened only after its allocation is kept: a port that was reachable once is
//! known as somebody's after any crash. Everything that fails is tried again, and meanwhile the rest
//! goes on.

mod annotations;
mod exposure_log;
mod own;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, sleep_until, timeout},
};

use super::forwarding::NotOpened;
use crate::{
    files::{self, Answer, Unanswered},
    provider::AddressChanges,
    provider::switchboard::{
        BootInstant, Endpoint, Exposure, JobId, JobState, KnownJobs, Owner, Switchboard,
        SwitchboardStatus, boot,
        expose::{
            Decision, DesiredMapping, Evidence, FirstHolders, Inputs, Reason, Refused, decide,
        },
        ports::{Kept, Ports, Record, Terms, Wanted},
        state::{Found, StateDir, StateError},
    },
    table::{ListenAddr, ListenHost, MappingSpec, Origin},
    telemetry::metric,
};
use annotations::Annotations;
use exposure_log::ExposureLog;
use own::OwnAddresses;

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
pub(super) struct Proposal {
    /// All of them.
    pub specs: Vec<MappingSpec>,
    /// What is known of the jobs.
    pub known_jobs: Arc<KnownJobs>,
    /// Who waits for those that could not be.
    pub reply: oneshot::Sender<Vec<NotOpened>>,
}

/// Where an owner's sessions come in and go to.
type Plan = BTreeMap<Owner, (u16, std::net::SocketAddr)>;

/// A record on its way to the disk.
type Writing = (Arc<Record>, Answer<Result<(), StateError>>);

/// How far what was kept is trusted where the switchboard has not said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Not at all: it is asked first.
    Nothing,
    /// Where it was asked in vain: it answers, and the rest will be heard.
    AskedInVain,
    /// Everything: nobody answers.
    All,
}

impl Trust {
    fn suffices(self, evidence: Evidence) -> bool {
        match evidence {
            Evidence::Job | Evidence::Listed => true,
            Evidence::InVain => self != Self::Nothing,
            Evidence::Kept => self == Self::All,
        }
    }
}

/// Everything the task remembers.
#[derive(Debug)]
pub(super) struct Exposing {
    settings: Arc<Switchboard>,
    state: Arc<StateDir>,
    ports: Ports,
    /// What is known of owners of ports.
    kept: BTreeMap<Owner, Kept>,
    /// Which job was exposed first at each address.
    first: FirstHolders,
    /// What was kept last, and the ports in it.
    saved: Record,
    durable: BTreeMap<Owner, u16>,
    /// A write that did not end in time.
    late: Option<Writing>,
    not_kept: Option<String>,
    /// What control was last told.
    proposed: Plan,
    /// Whether something was opened for the first time in this round.
    opened: bool,
    /// What of it could not be opened.
    not_opened: BTreeSet<Owner>,
    /// Whether control has to be told again, whatever it was told last.
    stale: bool,
    own: OwnAddresses,
    log: ExposureLog,
    annotations: Annotations,
    status: Arc<SwitchboardStatus>,
    /// From when on what was kept stands for what nobody has confirmed.
    trusting_from: Instant,
    boot: Option<String>,
}

impl Exposing {
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
        let record = match state.load()? {
            Found::Nothing => Record::default(),
            Found::Record(record) => record,
            Found::Damaged { damage, aside } => {
                tracing::error!(
                    %damage,
                    aside = %aside.display(),
                    "the state of the ports was damaged and is put aside: jobs may get other ports, \
                     and ports that were cooling down may be given away"
                );
                Record::default()
            }
        };
        let boot = boot();
        let kept: BTreeMap<_, _> = (record.owned.iter())
            .map(|owned| (owned.owner.clone(), owned.kept))
            .collect();
        status.set(Some(Exposure {
            host: settings.public_host.as_str().into(),
            ..Exposure::default()
        }));
        Ok(Self {
            ports: Ports::restore(&record, boot.as_deref(), BootInstant::now()),
            settings,
            state: Arc::new(state),
            first: FirstHolders::of_kept(&kept),
            kept,
            durable: ports_of(&record),
            saved: record,
            late: None,
            not_kept: None,
            proposed: Plan::new(),
            opened: false,
            not_opened: BTreeSet::new(),
            stale: false,
            own: OwnAddresses::default(),
            log: ExposureLog::default(),
            annotations: Annotations::default(),
            status,
            trusting_from: Instant::now() + ASK_FIRST,
            boot,
        })
    }

    /// Exposes until nobody takes its proposals any more.
    pub async fn run(
        mut self,
        mut known_jobs: watch::Receiver<Arc<KnownJobs>>,
        mut settings: watch::Receiver<Arc<Switchboard>>,
        proposals: mpsc::Sender<Proposal>,
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
            let Some(again) = self.round(&known, &proposals).await else {
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

    /// One decision, put into force. Returns when the next is due at the latest, or nothing if
    /// nobody takes proposals.
    async fn round(
        &mut self,
        known_jobs: &Arc<KnownJobs>,
        proposals: &mpsc::Sender<Proposal>,
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
        let trust = self.trust(started);
        self.opened = false;
        for _ in 0..TRIES {
            self.allocate(&decision, known_jobs);
            let plan = self.plan(&decision, trust);
            let durable = self.durable(&plan);
            if durable.len() < plan.len() && durable != self.proposed {
                self.propose(&durable, known_jobs, proposals).await?;
            }
            self.save().await;
            let plan = self.durable(&plan);
            if plan != self.proposed || self.stale || !self.not_opened.is_empty() {
                self.propose(&plan, known_jobs, proposals).await?;
                self.stale = false;
            }
            if self.proposed.len() == plan.len() {
                break;
            }
        }
        if self.opened {
            metric::SWITCHBOARD_REACHABLE.observe(&[], started.elapsed());
        }
        self.publish(known_jobs, &decision, trust);
        Some(self.next(&decision, trust, now))
    }

    /// The jobs that ports are kept for.
    pub fn remembered(&self) -> impl Iterator<Item = JobId> {
        self.kept.keys().map(|owner| owner.job.clone())
    }

    fn trust(&self, now: Instant) -> Trust {
        let silent = |age| age >= SILENT;
        match self.status.availability.heard_ago().is_none_or(silent) {
            _ if now < self.trusting_from => Trust::Nothing,
            true => Trust::All,
            false => Trust::AskedInVain,
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
        let owners: Vec<_> = decision
            .wanted
            .iter()
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
        let settings = Arc::clone(&self.settings);
        self.ports
            .settle(wanted, Self::terms(&settings), BootInstant::now());
        // A remembered job may still be there, whatever speaks against its port for now.
        let remembered = self.kept.iter();
        let mut kept: BTreeMap<_, _> = remembered
            .filter(|(owner, _)| known_jobs.remembered.contains_key(&owner.job))
            .map(|(owner, kept)| (owner.clone(), *kept))
            .collect();
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

    /// What is to be open, as far as it may be already. What is open stays so: that less is trusted now
    /// than when it was opened says nothing about its job.
    fn plan(&self, decision: &Decision, trust: Trust) -> Plan {
        let may = |desired: &&DesiredMapping| {
            trust.suffices(desired.evidence) || self.proposed.contains_key(&desired.owner)
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
        let is_kept =
            |(owner, (port, _)): &(&Owner, &(u16, _))| self.durable.get(*owner) == Some(port);
        let each = plan.iter().filter(is_kept);
        each.map(|(owner, to)| (owner.clone(), *to)).collect()
    }

    /// Keeps what has changed since it was last kept.
    async fn save(&mut self) {
        let kept = |owner: &Owner| self.kept.get(owner).copied();
        let record = self.ports.record(self.boot.clone(), kept);
        if record == self.saved && self.late.is_none() {
            return;
        }
        let outcome = self.write(Arc::new(record)).await.err();
        self.status.kept(outcome.is_none());
        match &outcome {
            None => {}
            Some(error) if self.not_kept.is_none() => tracing::error!(
                error,
                "the state of the ports cannot be kept: no further port is opened"
            ),
            Some(_) => {}
        }
        if outcome.is_none() && self.not_kept.is_some() {
            tracing::info!("the state of the ports is kept again");
        }
        self.not_kept = outcome;
    }

    /// Writes a record, once a write before it has come to its end: one that wakes up late must not
    /// replace what is newer.
    async fn write(&mut self, record: Arc<Record>) -> Result<(), String> {
        while self.saved != *record || self.late.is_some() {
            let (written, mut answer) = match self.late.take() {
                Some(late) => late,
                None => {
                    let (state, writing) = (Arc::clone(&self.state), Arc::clone(&record));
                    let started = files::start(move || state.save(&writing));
                    let answer = started.map_err(|error| error.to_string())?;
                    (Arc::clone(&record), answer)
                }
            };
            match answer.within(files::WITHIN).await {
                Ok(Ok(())) => {
                    self.durable = ports_of(&written);
                    self.saved = Record::clone(&written);
                }
                Ok(Err(error)) => return Err(error.to_string()),
                Err(unanswered) => {
                    if let Unanswered::Late(_) = unanswered {
                        self.late = Some((written, answer));
                    }
                    return Err(unanswered.to_string());
                }
            }
        }
        Ok(())
    }

    /// Has control put a plan into force; what could not be opened is left out of what was
    /// proposed.
    async fn propose(
        &mut self,
        plan: &Plan,
        known_jobs: &Arc<KnownJobs>,
        proposals: &mpsc::Sender<Proposal>,
    ) -> Option<()> {
        let specs = plan.iter().map(|(owner, &(port, target))| MappingSpec {
            name: owner.mapping(),
            pairs: [(ListenAddr::new(ListenHost::Any, port), target)].into(),
            policy: Arc::clone(&self.settings.policy),
            origin: Origin::Switchboard,
        });
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal {
            specs: specs.collect(),
            known_jobs: Arc::clone(known_jobs),
            reply,
        };
        proposals.send(proposal).await.ok()?;
        let failed = answer.await.ok()?;
        self.opened |= plan.keys().any(|owner| !self.proposed.contains_key(owner));
        self.proposed.clone_from(plan);
        self.not_opened.clear();
        for failure in failed {
            let owner = plan.keys().find(|owner| owner.mapping() == failure.mapping);
            let Some(owner) = owner else { continue };
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
    fn publish(&mut self, known_jobs: &KnownJobs, decision: &Decision, trust: Trust) {
        let endpoint = |desired: &DesiredMapping| {
            let port = self.ports.port(&desired.owner);
            let closed = match port {
                None => Some(Reason::NoPort),
                Some(_) if self.not_opened.contains(&desired.owner) => Some(Reason::NotOpened),
                Some(_) if self.proposed.contains_key(&desired.owner) => None,
                Some(_) if !trust.suffices(desired.evidence) => Some(Reason::NotConfirmed),
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
        let unconfirmed = decision.wanted.iter().filter(unconfirmed).count();
        let exposure = Exposure {
            host: self.settings.public_host.as_str().into(),
            endpoints,
            refused: decision.refused.clone(),
            states: states(decision, known_jobs),
            ports: self
                .ports
                .counts(Self::terms(&self.settings), BootInstant::now()),
            jobs: known_jobs.jobs.len(),
            complete: known_jobs.complete,
            unconfirmed,
            not_kept: self.not_kept.clone(),
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
    fn next(&self, decision: &Decision, trust: Trust, now: BootInstant) -> Instant {
        let clock = Instant::now();
        let from = |moment: BootInstant| clock + moment.since(now);
        let mut due = vec![clock + Duration::from_secs(60)];
        if !self.ports.waiting().is_empty() {
            let free = self.ports.next_free(Self::terms(&self.settings), now);
            // The clock of cool-downs counts in milliseconds.
            due.extend(free.map(|free| from(free) + Duration::from_millis(1)));
        }
        if self.not_kept.is_some() || !self.not_opened.is_empty() {
            due.push(clock + AGAIN);
        }
        let waits = |desired: &DesiredMapping| {
            !trust.suffices(desired.evidence) && !self.proposed.contains_key(&desired.owner)
        };
        if decision.wanted.iter().any(waits) {
            due.push(self.trusting_from.max(clock + LISTEN_AGAIN));
        }
        due.into_iter().min().unwrap_or(clock)
    }
}

/// The states of jobs that are not exposed for it.
fn states(decision: &Decision, known_jobs: &KnownJobs) -> BTreeMap<JobId, JobState> {
    let for_state = |refused: &&Refused| refused.reason == Reason::State;
    let refused = decision.refused.iter().filter(for_state);
    refused
        .filter_map(|refused| {
            let job = known_jobs.jobs.get(&refused.job)?;
            Some((refused.job.clone(), job.state))
        })
        .collect()
}

/// Which port of a record is whose.
fn ports_of(record: &Record) -> BTreeMap<Owner, u16> {
    let owned = record.owned.iter();
    owned
        .map(|owned| (owned.owner.clone(), owned.port))
        .collect()
}

/// Waits for a task that was asked to end, so that what it held is free.
pub(super) async fn ended<T>(task: tokio::task::JoinHandle<T>) {
    const WITHIN: Duration = Duration::from_secs(5);
    task.abort();
    let _ = timeout(WITHIN, task).await;
}
