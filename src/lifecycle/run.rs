//! From the first line of the configuration to the last session.

use std::{
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{self, Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    admin_listeners::AdminListeners,
    control::{Control, Pending},
    echo,
    forwarding::{Forwarding, list},
    jobs::Jobs,
    limits::{Budget, Open, job_listeners, worker_count},
    loading::{self, Loading, Read, Reader},
    setup::warn_of_kernel,
    signals::{Signals, outlive_file_size_limit},
    systemd,
    tasks::{Ended, Restarts, Tasks, why_ended},
    ticker,
    watchdog::Watchdog,
};
use crate::{
    admin::Sources,
    config::{Config, ConfigErrors, Log, LogFormat, Overrides, Process, Source},
    limit::Gate,
    orders::{Order, OrderError, Orders},
    os_error::in_words,
    provider::{
        AddressChanges,
        switchboard::{
            SwitchboardStatus,
            exposer::{Exposer, Proposal},
        },
    },
    relay::PipeBudget,
    session::{SessionLine, UpgradeMarks},
    table::{MappingName, MappingOverride, Summary, Table},
    telemetry::{
        Events, History, LogControl, LogQueue, ProcessStats, Records, Reloads, Sampler, Task,
        TaskFailures, log,
    },
    text::of_panic,
    units,
    worker::{self, LostListener, WorkerContext, WorkerHandle, Workers},
};

/// Ended sessions that may wait to be logged.
const LOG_QUEUE: usize = 16 * 1024;

/// How long the end waits for whoever reads the log.
const LOG_GRACE: Duration = Duration::from_secs(1);

/// Over how much time sessions are cut when the time to finish is over, so that their clients do not
/// all come back in the same instant.
const CUT_SPREAD: Duration = Duration::from_secs(1);

/// How much longer than a stop should take systemd is asked to wait.
const LEEWAY: Duration = Duration::from_secs(10);

/// How long sessions that are cut at the end may take to be closed.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// Orders that may wait for control.
const ORDERS: usize = 16;

/// Why the proxy did not run, or does no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is not valid.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// Something the start needs is not to be had.
    #[error("{0}")]
    Start(String),
    /// A worker failed.
    #[error("worker failed: {0}")]
    Worker(String),
    /// Control failed.
    #[error("the control plane failed: {0}")]
    Control(String),
}

/// Runs the proxy until a signal stops it.
///
/// # Errors
///
/// Why it could not start, or what failed.
pub fn run(source: &Source, overrides: &Overrides) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| start_failed("cannot start the control plane", &error))?;
    let mut queue = None;
    let result = to_the_end(&runtime, load_and_run(source, overrides, &mut queue));
    // A name that is being looked up, or anything else that does not answer, holds up nobody.
    runtime.shutdown_background();
    if let Some(queue) = queue {
        queue.close(LOG_GRACE);
    }
    result
}

/// Runs control until it ends or panics.
fn to_the_end(
    runtime: &tokio::runtime::Runtime,
    control: impl Future<Output = Result<(), RunError>>,
) -> Result<(), RunError> {
    // It is over afterwards, so nobody sees what a panic left half done.
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(control)))
        .unwrap_or_else(|panic| Err(RunError::Control(of_panic(&*panic).to_owned())))
}

/// Leaves the queue of the log, once there is one, in `log_queue`.
async fn load_and_run(
    source: &Source,
    overrides: &Overrides,
    log_queue: &mut Option<Arc<LogQueue<SessionLine>>>,
) -> Result<(), RunError> {
    let started = (time::Instant::now(), SystemTime::now());
    // From here on a signal is heard: a reload that is asked for while the file is read the first
    // time comes after that, a stop comes at once.
    let mut signals =
        Signals::register().map_err(|error| start_failed("cannot receive signals", &error))?;
    let reader = Reader {
        source: source.clone(),
        overrides: overrides.clone(),
    };
    let loaded = tokio::select! {
        loaded = reader.load(Arc::default()) => loaded,
        () = signals.stop.recv() => return Ok(()),
    };
    let (config, table) = loaded.outcome?;
    outlive_file_size_limit().map_err(|error| start_failed("cannot catch a signal", &error))?;
    let events = Events::default();
    let queue = Arc::new(LogQueue::new(LOG_QUEUE));
    let records = Records {
        queue: Arc::clone(&queue),
        say: SessionLine::write,
    };
    let failures = Arc::new(TaskFailures::default());
    let log = log::init(
        config.log.format == LogFormat::Json,
        config.log.level.into(),
        records,
        events.clone(),
        Arc::clone(&failures),
    )
    .map_err(|error| start_failed("cannot start the log", &error))?;
    *log_queue = Some(Arc::clone(&queue));
    warn_of_outdated(&config);
    Running::start(
        (config, loaded.reader),
        table.routes().len(),
        (log, events, queue),
        failures,
        signals,
        started,
    )
    .await
}

/// Says what of the configuration a later version will not read any more.
fn warn_of_outdated(config: &Config) {
    for outdated in &config.outdated {
        tracing::warn!("{outdated}");
    }
}

fn start_failed(what: &str, error: &std::io::Error) -> RunError {
    RunError::Start(format!("{what}: {}", in_words(error)))
}

/// A proxy that runs.
struct Running {
    loading: Loading,
    forwarding: Forwarding,
    jobs: Jobs,
    admin: AdminListeners,
    ticker: Option<JoinHandle<String>>,
    tasks: Tasks,
    /// Whenever a task is over.
    task_over: mpsc::UnboundedReceiver<()>,
    restarts: Restarts,
    proposed: mpsc::Receiver<Proposal>,
    sources: Arc<Sources>,
    orders: mpsc::Receiver<Order>,
    ended: mpsc::UnboundedReceiver<Result<(), String>>,
    workers: Vec<WorkerHandle>,
    lost: mpsc::UnboundedReceiver<LostListener>,
    addresses: AddressChanges,
    /// How the descriptors are divided.
    budget: Budget,
}

impl Running {
    async fn start(
        (config, reader): (Config, Reader),
        routes: usize,
        (log, events, queue): (LogControl, Events, Arc<LogQueue<SessionLine>>),
        failures: Arc<TaskFailures>,
        signals: Signals,
        started: (time::Instant, SystemTime),
    ) -> Result<(), RunError> {
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
        let mut forwarding =
            Forwarding::new(Control::new(Arc::clone(&shared), all_workers.clone()));
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
        let result = running.serve(signals).await;
        tracing::info!(sessions_left = shared.stats.sessions_open(), "stopped");
        result
    }

    async fn serve(mut self, mut signals: Signals) -> Result<(), RunError> {
        let mut watchdog = Watchdog::new();
        systemd::ready(&self.status());
        loop {
            if self.loading.is_due() {
                self.begin_reload();
            }
            tokio::select! {
                // Signals that came together are one. The outcome is in the log.
                Some(()) = signals.hangup.recv() => self.loading.ask(None),
                read = self.loading.done() => self.reload(read).await,
                Some(order) = self.orders.recv() => self.carry_out(order),
                Some(proposal) = self.proposed.recv() => self.expose(proposal).await,
                Some(lost) = self.lost.recv() => {
                    self.forwarding.control.lose(lost);
                    self.count_listeners();
                }
                () = self.addresses.next() => {
                    self.forwarding.follow_addresses();
                    self.count_listeners();
                }
                () = until(self.forwarding.control.reopens_at().map(Instant::from_std)) => {
                    self.forwarding.control.reopen_due();
                    self.count_listeners();
                }
                Some(()) = self.task_over.recv() => self.look_after_tasks().await,
                () = until(self.restarts.next().map(Instant::from_std)) => self.start_again().await,
                () = signals.stop.recv() => break,
                () = watchdog.tick() => watchdog.check(&self.forwarding.control),
                Some(result) = self.ended.recv() => {
                    let error = result.err().unwrap_or_else(|| "it ended by itself".to_owned());
                    return Err(RunError::Worker(error));
                }
            }
        }
        self.sources.stopping.store(true, Relaxed);
        self.jobs.stop().await;
        // Orders that wait or are yet to come are answered by this.
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
        let timeout = self.sources.config.load().process.shutdown_timeout;
        let open = self.sources.shared.stats.sessions_open();
        let within = timeout.map_or("off".to_owned(), units::duration);
        tracing::info!(sessions = open, timeout = within, "stopping");
        let sessions = units::count(open.into(), "session");
        let status = format!("stopping, waiting for {sessions}");
        let within = timeout.map(|timeout| timeout.saturating_add(CUT_SPREAD + CUT_GRACE + LEEWAY));
        systemd::stopping(&status, within);
        self.forwarding.control.drain();
        let mut workers = self.workers.len();
        let mut deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut cut = false;
        while workers > 0 {
            let spread = tokio::select! {
                Some(result) = self.ended.recv() => {
                    result.map_err(RunError::Worker)?;
                    workers -= 1;
                    continue;
                }
                () = watchdog.tick() => {
                    watchdog.check(&self.forwarding.control);
                    continue;
                }
                () = signals.stop.recv() => Duration::ZERO,
                () = until(deadline) => CUT_SPREAD,
            };
            if cut && spread > Duration::ZERO {
                break;
            }
            cut = true;
            self.forwarding.control.cut(spread);
            deadline = Some(Instant::now() + CUT_GRACE);
        }
        tokio::select! {
            () = self.jobs.withdrawn() => {}
            () = signals.stop.recv() => {}
        }
        Ok(())
    }

    /// Sees to it that what ended by itself is started again.
    async fn look_after_tasks(&mut self) {
        let mut ended = self.admin.take_ended().await;
        ended.extend(self.jobs.take_ended().await);
        if let Some(ticker) = self.ticker.take_if(|ticker| ticker.is_finished()) {
            ended.push(Ended {
                task: Task::Ticker,
                what: "observing".to_owned(),
                why: why_ended(ticker).await,
            });
        }
        for Ended { task, what, why } in ended {
            self.sources.failures.stopped(task, &why);
            self.restarts.after(task, &what, &why);
        }
    }

    /// Starts again what ended, by the settings in force.
    async fn start_again(&mut self) {
        for task in self.restarts.take_due(time::Instant::now()) {
            match self.start_task(task).await {
                Ok(()) => {
                    self.sources.failures.runs(task);
                    tracing::info!(task = task.word(), "what had ended runs again");
                }
                Err(why) => self.restarts.after(task, task.word(), &why),
            }
        }
    }

    /// Starts a task, unless a reload has done so or it is not wanted any more.
    async fn start_task(&mut self, task: Task) -> Result<(), String> {
        let config = self.sources.config.load_full();
        match task {
            Task::Ticker if self.ticker.is_none() => self.observe(),
            Task::Admin | Task::AdminSocket => {
                let prepared = self.admin.prepare(&config.admin)?;
                self.admin.set(&config.admin, prepared, &self.sources).await;
            }
            Task::Exposing | Task::Following | Task::Lookup => {
                let exposer = match &config.switchboard {
                    Some(switchboard) if task == Task::Exposing && self.jobs.needs_exposer() => {
                        let status = Arc::clone(&self.sources.switchboard);
                        Some(loading::open(switchboard, status).await?)
                    }
                    _ => None,
                };
                self.jobs.start_again(task, exposer, &self.sources)?;
            }
            // Those look after themselves.
            Task::Ticker | Task::Withdrawing | Task::Echo | Task::Log => {}
        }
        Ok(())
    }

    fn count_listeners(&self) {
        let listeners = self.forwarding.control.listeners();
        self.sources.reloads.set_listeners(listeners);
    }

    async fn expose(&mut self, proposal: Proposal) {
        let started = time::Instant::now();
        let most = job_listeners(&self.sources.config.load(), self.budget.descriptors);
        let forwarding = &mut self.forwarding;
        let failed = forwarding
            .expose(proposal.specs, proposal.known_jobs, most)
            .await;
        let took_us = started.elapsed().as_micros() as u64;
        tracing::debug!(took_us, "mappings of jobs applied");
        self.count_listeners();
        // Whoever asked may have been ended.
        let _ = proposal.reply.send(failed);
    }

    fn carry_out(&mut self, order: Order) {
        // Whoever asked may have gone.
        match order {
            Order::Reload { reply } => self.loading.ask(Some(reply)),
            Order::SetState {
                mapping,
                state,
                sessions_within,
                reply,
            } => {
                let table = self.forwarding.control.table();
                let mut known = table.mappings().iter();
                let outcome = match known.find(|known| known.name == mapping) {
                    None => Err(OrderError::UnknownMapping(mapping)),
                    Some(known) => self.hold(&known.name, state, sessions_within),
                };
                // A busy worker holds up whoever asked, and nobody else.
                tokio::spawn(async move {
                    reply.send(match outcome {
                        Ok(pending) => {
                            pending.done().await;
                            Ok(())
                        }
                        Err(error) => Err(error),
                    })
                });
            }
        }
    }

    fn hold(
        &mut self,
        mapping: &MappingName,
        hold: Option<MappingOverride>,
        sessions_within: Option<Duration>,
    ) -> Result<Pending, OrderError> {
        let held = self.forwarding.control.hold(mapping, hold);
        let pending = held.map_err(|errors| OrderError::Refused(list(&errors)))?;
        self.forwarding
            .control
            .drain_sessions(mapping, sessions_within);
        self.count_listeners();
        Ok(pending)
    }

    fn begin_reload(&mut self) {
        systemd::reloading();
        let status = Arc::clone(&self.sources.switchboard);
        let status = self.jobs.needs_exposer().then_some(status);
        self.loading.begin(self.forwarding.control.table(), status);
    }

    async fn reload(&mut self, read: Read) {
        let Read {
            outcome,
            exposer,
            since,
            replies,
        } = read;
        let outcome = match outcome {
            Ok((config, _)) => self.put_into_force(config, exposer).await,
            Err(errors) => Err(errors.to_string()),
        };
        let took = since.elapsed();
        match &outcome {
            Ok(_) => {
                self.sources.reloads.succeeded(took);
                self.count_listeners();
                tracing::debug!(took_us = took.as_micros() as u64, "reload took");
                systemd::ready(&self.status());
            }
            Err(error) => {
                self.sources.reloads.failed(took, error.clone());
                tracing::error!(error, "reload failed, nothing has changed");
                let first = error.lines().next().unwrap_or_default();
                systemd::ready(&format!("{}; last reload failed: {first}", self.status()));
            }
        }
        for reply in replies {
            // Whoever asked may have gone.
            let _ = reply.send(outcome.clone().map_err(OrderError::Refused));
        }
    }

    async fn put_into_force(
        &mut self,
        config: Config,
        exposer: Option<Result<Exposer, String>>,
    ) -> Result<Summary, String> {
        warn_of_outdated(&config);
        let old = self.sources.config.load_full();
        let mut config = config;
        let wanted = config.switchboard.as_ref();
        let prepared_admin = self.admin.prepare(&config.admin)?;
        let prepared = self.jobs.prepare(wanted, exposer)?;
        let budget = self.divide_again(&config)?;
        let gate = &self.sources.shared.gate;
        let before = gate.max_sessions();
        // First, so that no session takes a descriptor that a listener is about to need. Sessions
        // that are open stay.
        gate.set_max_sessions(before.min(budget.sessions));
        let summary = match self.forwarding.load(&config).await {
            Ok(summary) => summary,
            Err(why) => {
                gate.set_max_sessions(before);
                return Err(why);
            }
        };
        self.jobs.set(wanted, prepared, &self.sources).await;
        self.admin
            .set(&config.admin, prepared_admin, &self.sources)
            .await;
        let gate = &self.sources.shared.gate;
        gate.set(config.limits.clone(), budget.sessions);
        if budget.fit != self.budget.fit {
            tracing::info!(
                listeners = self.forwarding.control.listeners(),
                descriptors = budget.descriptors,
                max_sessions = budget.sessions,
                before,
                "descriptors divided anew"
            );
        }
        self.budget = budget;
        self.set_process(&old.process, &mut config);
        self.set_log(&old.log, &config.log);
        tracing::info!(
            added = summary.added,
            removed = summary.removed,
            retargeted = summary.retargeted,
            repolicied = summary.repolicied,
            unchanged = summary.unchanged,
            "reload done"
        );
        let new = Arc::new(config);
        self.sources.config.store(Arc::clone(&new));
        if ticker::differs(&old, &new) {
            if let Some(before) = &self.ticker {
                before.abort();
            }
            self.observe();
        }
        Ok(summary)
    }

    fn observe(&mut self) {
        let ticker = ticker::run(Arc::clone(&self.sources));
        self.ticker = Some(self.tasks.spawn(ticker));
    }

    /// Puts `[process]` into force as far as a running process can, and has `config` say how it is.
    fn set_process(&mut self, old: &Process, config: &mut Config) {
        let new = &mut config.process;
        if new.workers != old.workers {
            let running = self.workers.len() / 2;
            tracing::warn!(
                running,
                "a change of process.workers takes effect at the next start"
            );
            new.workers = old.workers;
        }
        if new.bulk_nice != old.bulk_nice
            && let Err(errno) = worker::set_bulk_nice(&self.workers, new.bulk_nice)
        {
            let error = in_words(&errno.into());
            tracing::warn!(
                error,
                "a change of process.bulk_nice takes effect at the next start"
            );
            new.bulk_nice = old.bulk_nice;
        }
        let budget = &self.budget;
        let pipes = &self.sources.shared.pipes;
        pipes.set(budget.pipes, budget.pipe_memory, config.process.pipe_size);
        let splice = config.process.splice && budget.pipes > 0;
        self.sources.shared.splice.store(splice, Relaxed);
    }

    /// Puts `[log]` into force. A level that an operator set stays until the file has another.
    fn set_log(&self, old: &Log, new: &Log) {
        let (log, shared) = (&self.sources.log, &self.sources.shared);
        if new.level != old.level {
            log.set_level(new.level.into());
        }
        log.set_json(new.format == LogFormat::Json);
        shared.log_sessions.store(new.sessions, Relaxed);
        shared.log_openings.store(new.session_openings, Relaxed);
        let per_second = new.refusals_per_second.map(NonZeroU32::get);
        shared.refusals.set(per_second);
    }

    /// Divides the descriptors for `config`, which is about to come into force.
    fn divide_again(&self, config: &Config) -> Result<Budget, String> {
        let control = &self.forwarding.control;
        let wanted = config.mappings.iter().flat_map(|spec| spec.pairs.iter());
        let open = Open {
            workers: self.workers.len(),
            pipes: self.budget.pipes,
            listeners: control.listeners(),
            sessions: self.sources.shared.stats.sessions_open(),
            added: wanted
                .filter(|(listen, _)| !control.is_open(listen))
                .count(),
        };
        Budget::at_reload(config, open)
    }

    fn status(&self) -> String {
        let mappings = self.forwarding.control.table().mappings().len();
        format!("forwarding {}", units::count(mappings as u64, "mapping"))
    }
}

/// Sleeps until the deadline, for ever without one.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_control_ends_the_process_with_its_message() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("there are descriptors");
        let result = to_the_end(&runtime, async { panic!("a bad day") });
        let error = result.expect_err("it panicked");
        assert_eq!(error.to_string(), "the control plane failed: a bad day");
        assert!(matches!(error, RunError::Control(_)));
    }
}
