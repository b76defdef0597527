//! Building everything that a proxy is made of from its configuration.

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
    control::Control,
    echo,
    forwarding::Forwarding,
    invocation::Invocation,
    jobs::Jobs,
    limits::{Budget, worker_count},
    loading::{self, Loading, Reader, Text},
    run::{RunError, start_failed},
    running::Running,
    setup::warn_of_kernel,
    signals::Signals,
    store::Store,
    tasks::{Restarts, Tasks},
    ticker,
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
        switchboard::{PortRanges, SwitchboardStatus},
    },
    relay::PipeBudget,
    session::{SessionLine, UpgradeMarks},
    table::{ListenAddr, ListenHost, Table},
    telemetry::{
        Events, History, LogControl, LogQueue, ProcessStats, Reloads, Sampler, TaskFailures,
        Upgrades,
    },
    worker::{self, WorkerContext, Workers},
};

/// Orders that may wait for control.
const ORDERS: usize = 16;

/// What there is before anything is forwarded.
pub(super) struct Base {
    pub log: LogControl,
    pub events: Events,
    pub queue: Arc<LogQueue<SessionLine>>,
    pub failures: Arc<TaskFailures>,
    pub signals: Signals,
    pub started: (Instant, SystemTime),
    pub invocation: Invocation,
}

impl Running {
    /// Starts everything that `config` asks for.
    pub async fn start(
        base: Base,
        (config, reader, text): (Config, Reader, Text),
        routes: usize,
        upgrades: Upgrades,
    ) -> Result<(Self, Signals), RunError> {
        let Base {
            log,
            events,
            queue,
            failures,
            signals,
            started,
            invocation,
        } = base;
        warn_of_kernel();
        let budget = Budget::at_start(&config, routes)?;
        let (lose, lost) = mpsc::unbounded_channel();
        let shared = Arc::new(WorkerContext {
            lost: lose,
            closed: ArcSwap::default(),
            table: ArcSwap::from_pointee(Table::default()),
            stats: ProcessStats::default(),
            pipes: Arc::new(PipeBudget::new(
                budget.pipes,
                budget.pipe_memory,
                config.process.pipe_size,
            )),
            overrides: ArcSwap::default(),
            departed: ArcSwap::default(),
            log: queue,
            refusals: Sampler::new(
                config.log.refusals_per_second.map(NonZeroU32::get),
                started.0,
            ),
            log_openings: config.log.session_openings.into(),
            log_sessions: config.log.sessions.into(),
            next_session: AtomicU64::new(1),
            upgrade_marks: UpgradeMarks::default(),
            gate: Gate::new(config.limits.clone(), budget.sessions),
            splice: (config.process.splice && budget.pipes > 0).into(),
        });
        if let Source::Demo = reader.source {
            echo::start(Arc::clone(&failures))
                .await
                .map_err(|error| start_failed("cannot start the example's echo service", &error))?;
        }
        // Before anything is opened where they listen.
        let mut store = Store::open();
        let kept = store.take(&may_listen(&config));
        if !kept.is_empty() {
            tracing::info!(listeners = kept.len(), "systemd has kept listeners open");
        }
        let (tasks, task_over) = Tasks::new();
        let mut admin = AdminListeners::new(tasks.clone());
        let prepared_admin = admin.prepare(&config.admin).map_err(RunError::Start)?;
        let workers = worker_count(&config);
        let (report, ended) = mpsc::unbounded_channel();
        let handles = worker::spawn(workers, &shared, move |result| {
            // Nobody listens any more when the process ends at once.
            let _ = report.send(result);
        })
        .map_err(|error| start_failed("cannot start the workers", &error))?;
        if let Err(errno) = worker::set_bulk_nice(&handles, config.process.bulk_nice) {
            let error = in_words(&errno.into());
            tracing::warn!(error, "process.bulk_nice has no effect");
        }
        let all_workers = Workers::new(handles.clone());
        let addresses = AddressChanges::listen();
        let mut control = Control::new(Arc::clone(&shared), all_workers.clone());
        control.inherit(store, kept);
        let mut forwarding = Forwarding::new(control);
        let summary = forwarding.load(&config).await;
        let summary = summary.map_err(RunError::Start)?;
        let status = Arc::new(SwitchboardStatus::default());
        let (mut jobs, proposed) =
            Jobs::new(tasks.clone(), Arc::clone(&status), Arc::clone(&failures));
        let exposer = match &config.switchboard {
            Some(switchboard) => Some(loading::open(switchboard, Arc::clone(&status)).await),
            None => None,
        };
        let prepared = jobs.prepare(config.switchboard.as_ref(), exposer);
        let prepared = prepared.map_err(RunError::Start)?;
        let (order, orders) = Orders::channel(ORDERS);
        let sources = Arc::new(Sources {
            shared: Arc::clone(&shared),
            workers: all_workers,
            config: ArcSwap::from_pointee(config.clone()),
            reloads: Reloads::started(forwarding.control.listeners(), started.0.elapsed()),
            upgrades,
            events,
            history: History::default(),
            log,
            switchboard: status,
            orders: order,
            failures,
            stopping: AtomicBool::new(false),
            started,
        });
        admin.set(&config.admin, prepared_admin, &sources).await;
        let ticker = Some(tasks.spawn(ticker::run(Arc::clone(&sources))));
        jobs.set(config.switchboard.as_ref(), prepared, &sources)
            .await;
        tracing::info!(
            listeners = summary.added,
            workers,
            descriptors = budget.descriptors,
            max_sessions = budget.sessions,
            pipes = budget.pipes,
            admin = config.admin.listen.map(tracing::field::display),
            admin_socket = admin
                .socket()
                .map(|path| tracing::field::display(path.display())),
            "listening"
        );
        let running = Running {
            loading: Loading::new(reader),
            text,
            upgrading: Upgrading::new(invocation),
            forwarding,
            jobs,
            admin,
            ticker,
            tasks,
            task_over,
            restarts: Restarts::default(),
            proposed,
            sources,
            orders,
            ended,
            workers: handles,
            lost,
            addresses,
            budget,
        };
        Ok((running, signals))
    }
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
