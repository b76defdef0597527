//! Building everything that a proxy is made of from its configuration, or around what another image of
//! the program handed over.

use std::{
    collections::HashSet,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{
    admin_listeners::AdminListeners,
    checking::Checks,
    control::Control,
    echo,
    fleet::Member,
    forwarding::Forwarding,
    invocation::Invocation,
    jobs::Jobs,
    limits::{Budget, worker_count},
    loading::{self, Loading, Reader},
    lookups::{self, LookedUp, Lookups},
    run::{RunError, start_failed},
    running::Running,
    setup::warn_of_kernel,
    signals::Signals,
    store::Store,
    tasks::{Restarts, Tasks},
    upgrade::Upgrading,
};
use crate::{
    admin::Sources,
    config::{Config, Source},
    limit::Gate,
    orders::Orders,
    os_error::in_words,
    provider::{
        AddressChanges,
        switchboard::{PortRanges, SwitchboardStatus, exposer::Proposal},
    },
    relay::PipeBudget,
    resolve::Names,
    session::{SessionLine, UpgradeMarks},
    table::{ListenAddr, ListenHost, Table},
    telemetry::{
        Events, History, LogControl, LogQueue, ProcessStats, Reloads, Sampler, TaskFailures,
        Upgrades,
    },
    worker::{self, LostListener, NotBegun, WorkerContext, WorkerHandle, Workers},
};

/// Orders that may wait for control.
const ORDERS: usize = 16;

/// What there is before anything is forwarded.
pub(super) struct Base {
    pub log: LogControl,
    pub events: Events,
    pub queue: Arc<LogQueue<SessionLine>>,
    pub failures: Arc<TaskFailures>,
    pub started: (Instant, SystemTime),
    pub invocation: Invocation,
}

/// The configuration that a start begins with.
pub(super) struct First {
    pub config: Config,
    pub reader: Reader,
    pub names: Arc<Names>,
    pub lookups: Vec<LookedUp>,
}

/// The threads of the data path.
pub(super) struct DataPath {
    pub shared: Arc<WorkerContext>,
    pub lost: mpsc::UnboundedReceiver<LostListener>,
    pub handles: Vec<WorkerHandle>,
    pub workers: Workers,
    pub ended: mpsc::UnboundedReceiver<Result<(), String>>,
}

impl DataPath {
    /// Starts them; they begin when what comes with them is dropped.
    pub fn spawn(
        config: &Config,
        shared: WorkerContext,
        lost: mpsc::UnboundedReceiver<LostListener>,
    ) -> Result<(Self, NotBegun), RunError> {
        let shared = Arc::new(shared);
        let (report, ended) = mpsc::unbounded_channel();
        let spawned = worker::spawn(worker_count(config), &shared, move |result| {
            // Nobody listens any more when the process ends at once.
            let _ = report.send(result);
        });
        let (handles, not_begun) =
            spawned.map_err(|error| start_failed("cannot start the workers", &error))?;
        if let Err(errno) = worker::set_bulk_nice(&handles, config.process.bulk_nice) {
            let error = in_words(&errno.into());
            tracing::warn!(error, "process.bulk_nice has no effect");
        }
        let data = Self {
            shared,
            lost,
            workers: Workers::new(handles.clone()),
            handles,
            ended,
        };
        Ok((data, not_begun))
    }
}

/// What differs between a start and an upgrade.
pub(super) struct Plane {
    pub data: DataPath,
    pub budget: Budget,
    pub forwarding: Forwarding,
    pub tasks: Tasks,
    pub task_over: mpsc::UnboundedReceiver<()>,
    pub admin: AdminListeners,
    pub jobs: Jobs,
    pub proposed: mpsc::Receiver<Proposal>,
    pub status: Arc<SwitchboardStatus>,
    pub addresses: AddressChanges,
    pub reloads: Reloads,
    pub upgrades: Upgrades,
    pub history: History,
}

impl Running {
    /// Starts everything that `config` asks for.
    pub async fn start(
        base: Base,
        signals: Signals,
        first: First,
        routes: usize,
    ) -> Result<(Self, Signals), RunError> {
        let First {
            config,
            reader,
            names,
            lookups: found,
        } = first;
        warn_of_kernel();
        let budget = Budget::at_start(&config, routes)?;
        let (lose, lost) = mpsc::unbounded_channel();
        let shared = fresh(&config, &budget, lose, &base);
        start_example(&reader, &base).await?;
        // Before anything is opened where they listen.
        let mut store = Store::open();
        let kept = store.take(&may_listen(&config));
        if !kept.is_empty() {
            tracing::info!(listeners = kept.len(), "systemd has kept listeners open");
        }
        let (tasks, task_over) = Tasks::new();
        let admin = AdminListeners::new(tasks.clone());
        let prepared_admin = admin.prepare(&config.admin).map_err(RunError::Start)?;
        let (data, not_begun) = DataPath::spawn(&config, shared, lost)?;
        drop(not_begun);
        let addresses = AddressChanges::listen();
        let mut control = Control::new(Arc::clone(&data.shared), data.workers.clone());
        control.inherit(store, kept);
        lookups::note(&names, found);
        let mut forwarding = Forwarding::new(control, names);
        forwarding.load(&config).await.map_err(RunError::Start)?;
        let status = Arc::new(SwitchboardStatus::default());
        let failures = Arc::clone(&base.failures);
        let (jobs, proposed) = Jobs::new(tasks.clone(), Arc::clone(&status), failures);
        let exposer = match &config.switchboard {
            Some(switchboard) => Some(loading::open(switchboard, Arc::clone(&status)).await),
            None => None,
        };
        let prepared = jobs.prepare(config.switchboard.as_ref(), exposer);
        let prepared = prepared.map_err(RunError::Start)?;
        let listeners = forwarding.control.listeners();
        let plane = Plane {
            data,
            budget,
            forwarding,
            tasks,
            task_over,
            admin,
            jobs,
            proposed,
            status,
            addresses,
            reloads: Reloads::started(listeners, base.started.0.elapsed()),
            upgrades: Upgrades::default(),
            history: History::default(),
        };
        let mut running = Running::of(base, plane, &config, reader);
        let sources = Arc::clone(&running.sources);
        running
            .admin
            .set(&config.admin, prepared_admin, &sources)
            .await;
        running.share_ports(&config);
        running
            .jobs
            .set(config.switchboard.as_ref(), prepared, &sources)
            .await;
        running.follow_targets(&config).await;
        running.fleet.set(config.fleet.as_ref(), &sources).await;
        running.observe();
        running.say_that_it_listens(&config);
        Ok((running, signals))
    }

    /// Puts together what there is.
    pub fn of(base: Base, plane: Plane, config: &Config, reader: Reader) -> Self {
        let (order, orders) = Orders::channel(ORDERS);
        let Plane { data, .. } = plane;
        let names = Arc::clone(&plane.forwarding.names);
        let (lookups, looked_up) = Lookups::new(plane.tasks.clone(), names);
        let (checks, down) = Checks::new(plane.tasks.clone());
        let fleet = Member::new(plane.tasks.clone());
        let sources = Arc::new(Sources {
            shared: data.shared,
            workers: data.workers,
            config: ArcSwap::from_pointee(config.clone()),
            reloads: plane.reloads,
            upgrades: plane.upgrades,
            binary: base.invocation.binary.clone(),
            events: base.events,
            history: plane.history,
            log: base.log,
            switchboard: plane.status,
            fleet: Arc::default(),
            names: Arc::clone(&plane.forwarding.names),
            orders: order,
            failures: base.failures,
            stopping: AtomicBool::new(false),
            started: base.started,
        });
        Self {
            loading: Loading::new(reader),
            upgrading: Upgrading::new(base.invocation),
            forwarding: plane.forwarding,
            lookups,
            looked_up,
            checks,
            down,
            jobs: plane.jobs,
            fleet,
            admin: plane.admin,
            ticker: None,
            tasks: plane.tasks,
            task_over: plane.task_over,
            restarts: Restarts::default(),
            proposed: plane.proposed,
            sources,
            orders,
            ended: data.ended,
            workers: data.handles,
            lost: data.lost,
            addresses: plane.addresses,
            budget: plane.budget,
        }
    }

    fn say_that_it_listens(&self, config: &Config) {
        tracing::info!(
            listeners = self.forwarding.control.listeners(),
            listen = self.forwarding.control.listens_on(),
            workers = self.workers.len() / 2,
            descriptors = self.budget.descriptors,
            max_sessions = self.budget.sessions,
            pipes = self.budget.pipes,
            admin = config.admin.listen.map(tracing::field::display),
            admin_socket =
                (self.admin.socket()).map(|path| tracing::field::display(path.display())),
            "listening"
        );
    }
}

/// What workers share when nothing is forwarded yet.
fn fresh(
    config: &Config,
    budget: &Budget,
    lost: mpsc::UnboundedSender<LostListener>,
    base: &Base,
) -> WorkerContext {
    let pipes = PipeBudget::new(budget.pipes, budget.pipe_memory, config.process.pipe_size);
    let per_second = config.log.refusals_per_second.map(NonZeroU32::get);
    WorkerContext {
        lost,
        closed: ArcSwap::default(),
        table: ArcSwap::from_pointee(Table::default()),
        job_lease: Arc::default(),
        stats: ProcessStats::default(),
        pipes: Arc::new(pipes),
        overrides: ArcSwap::default(),
        drain_ends: ArcSwap::default(),
        departed: ArcSwap::default(),
        log: Arc::clone(&base.queue),
        refusals: Sampler::new(per_second, base.started.0),
        log_openings: config.log.session_openings.into(),
        log_sessions: config.log.sessions.into(),
        next_session: AtomicU64::new(1),
        upgrade_marks: UpgradeMarks::default(),
        gate: Gate::new(config.limits.clone(), budget.sessions),
        splice: (config.process.splice && budget.pipes > 0).into(),
    }
}

/// Starts what the example leads to.
pub(super) async fn start_example(reader: &Reader, base: &Base) -> Result<(), RunError> {
    let Source::Demo = reader.source else {
        return Ok(());
    };
    let started = echo::start(Arc::clone(&base.failures)).await;
    started.map_err(|error| start_failed("cannot start the example's echo service", &error))
}

/// Whether a mapping may listen at an address under this configuration: those of jobs are not known yet.
fn may_listen(config: &Config) -> impl Fn(&ListenAddr) -> bool {
    let pairs = config.mappings.iter().flat_map(|spec| spec.pairs.iter());
    let of_file: HashSet<ListenAddr> = pairs.map(|(listen, _)| *listen).collect();
    let ports = (config.switchboard.as_ref()).map(|switchboard| switchboard.ports.clone());
    move |addr| {
        let of_jobs =
            |ports: &PortRanges| addr.host() == ListenHost::Any && ports.contains(addr.port());
        of_file.contains(addr) || ports.as_ref().is_some_and(of_jobs)
    }
}
