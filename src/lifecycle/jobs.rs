//! The switchboard's part of the process: whoever follows the jobs, whoever exposes them, and whoever
//! answers for them in public, started, changed and ended as the configuration says.

use std::{
    collections::BTreeSet,
    io, mem,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    limits,
    setup::open_own,
    tasks::{Ended, Tasks, end, why_ended},
};
use crate::{
    admin::{self, Sources},
    handover::{Descriptor, LoadError, Loader, Saver},
    os_error::in_words,
    provider::switchboard::{
        BootInstant, JobId, KnownJobs, SavedKnowledge, Switchboard, SwitchboardStatus,
        exposer::{Exposer, Plan, Proposal},
        following::{self, Withdrawals},
        region::{Heard, KnownMap, RegionClient, Role},
        reserve::SavedReserve,
        state::StateDir,
    },
    table::{JobLease, ListenAddr},
    telemetry::{Task, TaskFailures},
};

/// Everything there is of it.
#[derive(Debug)]
pub(super) struct Jobs {
    tasks: Tasks,
    status: Arc<SwitchboardStatus>,
    proposals: mpsc::Sender<Proposal>,
    withdrawals: Withdrawals,
    /// The region whose ports are shared, if they are.
    region: watch::Sender<Option<RegionClient>>,
    running: Option<Running>,
}

/// What there is while there is a switchboard in the configuration. A part that has ended by itself is
/// not there; what it knew is left to the next.
#[derive(Debug)]
struct Running {
    settings: watch::Sender<Arc<Switchboard>>,
    known_jobs: watch::Sender<Arc<KnownJobs>>,
    /// What was last proposed to be open.
    open: Arc<ArcSwap<Plan>>,
    exposing: Option<JoinHandle<String>>,
    /// Where allocations are kept, as long as somebody exposes.
    state_dir: Weak<StateDir>,
    following: Option<JoinHandle<String>>,
    lookup: Option<Lookup>,
    /// What this proxy is in its region, as far as that was looked at.
    role: Role,
    /// The jobs that had ports when it was alone in it for the first time, as long as it is.
    had_ports: BTreeSet<JobId>,
}

/// Who answers in public.
#[derive(Debug)]
struct Lookup {
    addr: ListenAddr,
    socket: OwnedFd,
    serving: JoinHandle<String>,
}

/// The switchboard's part, as it is handed over to the next image of the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedJobs {
    #[serde(default)]
    knowledge: SavedKnowledge,
    #[serde(default)]
    state_dir: Option<(PathBuf, Descriptor)>,
    #[serde(default)]
    lookup: Option<(ListenAddr, Descriptor)>,
    /// When the database was last heard of that has the ports of the region.
    #[serde(default)]
    region_heard: Option<BootInstant>,
    /// The lease that it was told.
    #[serde(default)]
    region_lease: Option<Duration>,
    /// The map that it gave.
    #[serde(default)]
    region_map: Option<KnownMap>,
    /// The ports of the region that this proxy has beforehand.
    #[serde(default)]
    reserve: SavedReserve,
    /// The jobs that had ports when this proxy was alone in the region for the first time, if it is.
    #[serde(default)]
    had_ports: BTreeSet<JobId>,
    /// When the lease of those ports ends, in the time since the machine booted.
    #[serde(default)]
    lease_ends: Option<Duration>,
}

/// What of the switchboard's part was handed over.
#[derive(Debug)]
pub(super) struct LoadedJobs {
    pub known_jobs: Arc<KnownJobs>,
    open: Plan,
    state_dir: Option<(PathBuf, OwnedFd)>,
    lookup: Option<(ListenAddr, OwnedFd)>,
    heard: Heard,
    reserve: SavedReserve,
    had_ports: BTreeSet<JobId>,
    pub lease_ends: Option<Duration>,
}

impl SavedJobs {
    /// Takes it up.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn load(self, loader: &mut Loader) -> Result<LoadedJobs, LoadError> {
        let Self {
            knowledge,
            state_dir,
            lookup,
            region_heard,
            region_lease,
            region_map,
            reserve,
            had_ports,
            lease_ends,
        } = self;
        let (known, open) = knowledge.load()?;
        let state_dir = state_dir.map(|(path, fd)| Ok((path, loader.descriptor(fd)?)));
        let state_dir = state_dir.transpose()?;
        let lookup = lookup.map(|(addr, fd)| Ok((addr, loader.descriptor(fd)?)));
        Ok(LoadedJobs {
            known_jobs: Arc::new(known),
            open,
            state_dir,
            lookup: lookup.transpose()?,
            heard: Heard::at(region_heard, region_lease, region_map),
            reserve,
            had_ports,
            lease_ends,
        })
    }
}

impl LoadedJobs {
    /// What was heard of the database that has the ports of the region, and those that this proxy has beforehand.
    pub fn take_region(&mut self) -> (Heard, SavedReserve) {
        (mem::take(&mut self.heard), mem::take(&mut self.reserve))
    }

    /// The state directory, if somebody exposed.
    pub fn take_state_dir(&mut self) -> Option<StateDir> {
        let (path, directory) = self.state_dir.take()?;
        Some(StateDir::handed_over(path, directory))
    }
}

/// What a change of the settings needs, had before anything is changed.
pub(super) struct Prepared {
    exposer: Option<Exposer>,
    lookup: Option<TcpListener>,
}

/// Work that has no end.
async fn for_ever(work: impl Future<Output = ()>) -> String {
    work.await;
    "it ended by itself".to_owned()
}

impl Jobs {
    /// Nothing runs yet; the other end takes the proposals.
    pub fn new(
        tasks: Tasks,
        status: Arc<SwitchboardStatus>,
        failures: Arc<TaskFailures>,
    ) -> (Self, mpsc::Receiver<Proposal>) {
        let (proposals, proposed) = mpsc::channel(1);
        let jobs = Self {
            tasks,
            status,
            proposals,
            withdrawals: Withdrawals::new(failures),
            region: watch::Sender::default(),
            running: None,
        };
        (jobs, proposed)
    }

    /// The state directory with its lock, for [`Jobs::save`].
    pub fn state_dir(&self) -> Option<(PathBuf, OwnedFd)> {
        let state_dir = self.running.as_ref()?.state_dir.upgrade()?;
        state_dir.hand_over().ok()
    }

    /// What there is, if there is a switchboard in the configuration.
    pub fn save<'a>(
        &'a self,
        state_dir: Option<&'a (PathBuf, OwnedFd)>,
        lease: &JobLease,
        saver: &mut Saver<'a>,
    ) -> Option<SavedJobs> {
        let Self {
            tasks: _,
            status: _,
            proposals: _,
            withdrawals: _,
            region,
            running,
        } = self;
        let region = region.borrow();
        let Running {
            settings: _,
            known_jobs,
            open,
            exposing: _,
            state_dir: _,
            following: _,
            lookup,
            role: _,
            had_ports,
        } = running.as_ref()?;
        let lookup = lookup.as_ref();
        Some(SavedJobs {
            knowledge: SavedKnowledge::new(&known_jobs.borrow(), &open.load()),
            state_dir: state_dir.map(|(path, fd)| (path.clone(), saver.descriptor(fd.as_fd()))),
            lookup: lookup.map(|lookup| (lookup.addr, saver.descriptor(lookup.socket.as_fd()))),
            region_heard: region.as_ref().and_then(|region| region.heard.last()),
            region_lease: region.as_ref().and_then(|region| region.heard.lease()),
            region_map: region.as_ref().and_then(|region| region.heard.map()),
            reserve: region
                .as_ref()
                .map(|region| region.reserve.saved())
                .unwrap_or_default(),
            had_ports: had_ports.clone(),
            lease_ends: lease.end(),
        })
    }

    /// Goes on with `wanted`, which was in force, from what was handed over: with who exposes there, if
    /// the state of the ports could be had, and on the socket of who answers in public.
    ///
    /// # Errors
    ///
    /// That socket is of no use, in words. The rest goes on.
    pub fn adopt(
        &mut self,
        wanted: &Switchboard,
        loaded: LoadedJobs,
        exposer: Option<Exposer>,
        sources: &Arc<Sources>,
    ) -> Result<(), String> {
        let LoadedJobs {
            known_jobs,
            open,
            state_dir: _,
            lookup,
            heard: _,
            reserve: _,
            had_ports,
            lease_ends: _,
        } = loaded;
        self.running = Some(Running {
            settings: watch::Sender::new(Arc::new(wanted.clone())),
            known_jobs: watch::Sender::new(known_jobs),
            open: Arc::new(ArcSwap::from_pointee(open)),
            exposing: None,
            state_dir: Weak::new(),
            following: None,
            lookup: None,
            role: Role::Unknown,
            had_ports,
        });
        if let Some(exposer) = exposer {
            self.expose(exposer);
        }
        self.take_role();
        let lookup = lookup.filter(|(addr, _)| wanted.lookup == Some(*addr));
        let Some((_, socket)) = lookup else {
            return Ok(());
        };
        let served = TcpListener::from_std(socket.into())
            .and_then(|listener| self.serve_lookup(listener, sources));
        served.map_err(|error| format!("the lookup listener: {}", in_words(&error)))
    }

    /// Whether nobody exposes, so that the state of the ports has to be opened first.
    pub fn needs_exposer(&self) -> bool {
        (self.running.as_ref()).is_none_or(|running| running.exposing.is_none())
    }

    /// Lets go of what has ended by itself, and says what and why. What is wanted and not there is
    /// started by the next change, be it one to the same settings; ports and sessions stay meanwhile.
    pub async fn take_ended(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        let Some(running) = &mut self.running else {
            return ended;
        };
        let lookup = &mut running.lookup;
        let lookup = lookup.take_if(|lookup| lookup.serving.is_finished());
        for (task, what, part) in [
            (Task::Exposing, "exposing jobs", &mut running.exposing),
            (
                Task::Following,
                "following the switchboard",
                &mut running.following,
            ),
            (
                Task::Lookup,
                "switchboard.lookup",
                &mut lookup.map(|lookup| lookup.serving),
            ),
        ] {
            if let Some(part) = part.take_if(|part| part.is_finished()) {
                ended.push(Ended {
                    task,
                    what: what.to_owned(),
                    why: why_ended(part).await,
                });
            }
        }
        ended
    }

    /// Takes what `wanted` needs and is not there yet; `exposer` is what came of opening the state
    /// of the ports.
    ///
    /// # Errors
    ///
    /// What cannot be had, in words. Nothing has changed then.
    pub fn prepare(
        &self,
        wanted: Option<&Switchboard>,
        exposer: Option<Result<Exposer, String>>,
    ) -> Result<Prepared, String> {
        let lookup = self
            .running
            .as_ref()
            .and_then(|running| running.lookup.as_ref());
        let known = lookup.map(|lookup| lookup.addr);
        let lookup = wanted.and_then(|wanted| wanted.lookup);
        let lookup = lookup.filter(|addr| Some(*addr) != known);
        let lookup = lookup.map(|addr| open_lookup(&addr)).transpose()?;
        let exposer = exposer.filter(|_| wanted.is_some()).transpose()?;
        Ok(Prepared { exposer, lookup })
    }

    /// Puts `wanted` into force with what was prepared for it.
    pub async fn set(
        &mut self,
        wanted: Option<&Switchboard>,
        prepared: Prepared,
        sources: &Arc<Sources>,
    ) {
        let Some(wanted) = wanted.cloned().map(Arc::new) else {
            self.stop().await;
            return;
        };
        let before = match (&self.running, &prepared.exposer) {
            (Some(running), _) => running.settings.send_replace(Arc::clone(&wanted)),
            (None, Some(exposer)) => {
                let remembered = KnownJobs::remembering(exposer.remembered());
                self.running = Some(Running {
                    settings: watch::Sender::new(Arc::clone(&wanted)),
                    known_jobs: watch::Sender::new(Arc::new(remembered)),
                    open: Arc::default(),
                    exposing: None,
                    state_dir: Weak::new(),
                    following: None,
                    lookup: None,
                    role: Role::Unknown,
                    had_ports: BTreeSet::new(),
                });
                Arc::clone(&wanted)
            }
            (None, None) => return,
        };
        // A reload is how an operator says that files have changed.
        self.status.token.look();
        if before.state_dir != wanted.state_dir && prepared.exposer.is_none() {
            tracing::warn!("a change of switchboard.state_dir takes effect at the next start");
        }
        if let Some(exposer) = prepared.exposer {
            self.expose(exposer);
        }
        if let Some(running) = &mut self.running {
            if following::differs(&before, &wanted) {
                self.status.token.forget();
                if let Some(before) = running.following.take() {
                    before.abort();
                }
            }
            let is_elsewhere = |old: &mut Lookup| wanted.lookup != Some(old.addr);
            if let Some(old) = running.lookup.take_if(is_elsewhere) {
                end(old.serving).await;
            }
        }
        self.take_role();
        if let Some(listener) = prepared.lookup
            && let Err(error) = self.serve_lookup(listener, sources)
        {
            let error = in_words(&error);
            tracing::error!(error, "nobody answers in public");
        }
    }

    /// Starts again what has ended by itself, if that has not been done.
    ///
    /// # Errors
    ///
    /// Why it cannot be, in words.
    pub fn start_again(
        &mut self,
        task: Task,
        exposer: Option<Exposer>,
        sources: &Arc<Sources>,
    ) -> Result<(), String> {
        match (task, &self.running, exposer) {
            (Task::Exposing, _, Some(exposer)) => self.expose(exposer),
            (Task::Following, ..) => self.follow(),
            (Task::Lookup, Some(running), _) if running.lookup.is_none() => {
                let lookup = running.settings.borrow().lookup;
                if let Some(addr) = lookup {
                    let served = self.serve_lookup(open_lookup(&addr)?, sources);
                    served.map_err(|error| in_words(&error))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn expose(&mut self, exposer: Exposer) {
        if let Some(running) = &mut self.running {
            running.state_dir = exposer.state_dir();
            let exposing = exposer.run(
                running.known_jobs.subscribe(),
                running.settings.subscribe(),
                self.region.subscribe(),
                self.proposals.clone(),
                Arc::clone(&running.open),
            );
            running.exposing = Some(self.tasks.spawn(for_ever(exposing)));
        }
    }

    /// Shares the ports of a region from now on, or of none.
    pub fn share(&mut self, region: Option<RegionClient>) {
        let is_same = match (&*self.region.borrow(), &region) {
            (Some(before), Some(now)) => before.ports.same_channel(&now.ports),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !is_same {
            self.region.send_replace(region);
            self.take_role();
        }
    }

    /// Waits until this proxy is something else in its region than it was when that was last
    /// [taken](Self::take_role).
    pub async fn role_changed(&self) {
        let (Some(running), Some(mut region)) = (&self.running, self.region.borrow().clone())
        else {
            return std::future::pending().await;
        };
        let role = running.role;
        if region.ports.wait_for(|now| now.role != role).await.is_err() {
            std::future::pending().await
        }
    }

    /// Follows the switchboard if that is what this proxy is for, and ceases to if it is not. Whoever begins
    /// knows of nothing but the jobs that have ports, and which of them have ended while it was alone: a job
    /// may be in the place of one of those.
    pub fn take_role(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        let ports = self.region.borrow().clone().map(|region| {
            // It is asked again what it is.
            Arc::clone(&region.ports.borrow())
        });
        let role = ports.as_ref().map(|ports| ports.role);
        running.role = role.unwrap_or_default();
        if role == Some(Role::Unknown) {
            return;
        }
        let follows = role.is_none_or(Role::follows);
        let known = Arc::clone(&running.known_jobs.borrow());
        if known.followed_as != running.role {
            if let Some(before) = running.following.take() {
                before.abort();
                // Whoever leads now goes on with what was written for users.
                self.status.publisher.store(None);
            }
            let open = running.open.load();
            let map = ports.as_ref().and_then(|ports| ports.map.as_ref());
            let shared = map.into_iter().flat_map(|map| map.owners());
            let jobs = open.keys().chain(shared).map(|owner| owner.job.clone());
            let jobs: BTreeSet<_> = jobs.filter(|_| follows).collect();
            let was_alone = matches!(known.followed_as, Role::Alone { .. });
            let had_ports = match was_alone && known.complete.is_some() {
                true => std::mem::take(&mut running.had_ports),
                false => BTreeSet::new(),
            };
            let is_there = |job: &&JobId| {
                !had_ports.contains(*job)
                    || known.jobs.contains_key(*job)
                    || known.remembered.contains_key(*job)
            };
            let remembered = KnownJobs::remembering(jobs.iter().filter(is_there).cloned());
            running.had_ports = match running.role {
                Role::Alone { .. } => jobs,
                _ => BTreeSet::new(),
            };
            running.known_jobs.send_replace(Arc::new(KnownJobs {
                followed_as: running.role,
                ..remembered
            }));
        }
        self.follow();
    }

    fn follow(&mut self) {
        let is_shared = self.region.borrow().is_some();
        if let Some(running) = &mut self.running
            && running.following.is_none()
            && (!is_shared || running.role.follows())
        {
            let following = following::run(
                running.settings.borrow().clone(),
                limits::watches(limits::descriptor_limit()),
                running.known_jobs.clone(),
                Arc::clone(&self.status),
                self.withdrawals.clone(),
            );
            running.following = Some(self.tasks.spawn(for_ever(following)));
        }
    }

    fn serve_lookup(&mut self, listener: TcpListener, sources: &Arc<Sources>) -> io::Result<()> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let Some(addr) = running.settings.borrow().lookup else {
            return Ok(());
        };
        let socket = listener.as_fd().try_clone_to_owned()?;
        let serving = admin::serve_lookup(listener, Arc::clone(sources));
        running.lookup = Some(Lookup {
            addr,
            socket,
            serving: self.tasks.spawn(async { in_words(&serving.await) }),
        });
        Ok(())
    }

    /// Waits until what was written for users of the switchboard is removed, after everything was ended.
    pub async fn withdrawn(&self) {
        self.withdrawals.done().await;
    }

    /// Ends everything. What was kept stays where it is.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        let lookup = running.lookup.map(|lookup| lookup.serving);
        let parts = [running.following, running.exposing, lookup];
        for part in parts.into_iter().flatten() {
            end(part).await;
        }
        // Whoever leads next goes on with it.
        let is_shared = self.region.borrow().is_some();
        let withdraw = running.settings.borrow().withdraw && !is_shared;
        self.withdrawals.replace(&self.status, None, withdraw);
        self.status.set_unusable(None);
        self.status.set(None);
    }
}

fn open_lookup(addr: &ListenAddr) -> Result<TcpListener, String> {
    open_own("switchboard.lookup", addr, None).map_err(|error| {
        let why = in_words(&error);
        format!("cannot open the lookup listener {addr}: {why}")
    })
}
