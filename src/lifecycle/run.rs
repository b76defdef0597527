//! From the first line of the configuration to the last session.

use std::{
    io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{self, Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    control::Control,
    echo,
    limits::{self, Budget, Wanted},
    systemd, ticker,
};
use crate::{
    admin::{self, AdminListener, Order, OrderError, Sources, UnixSocket},
    config::{AutoOr, Config, ConfigErrors, LogFormat, Memory},
    limit::Gate,
    listen::ListenError,
    os_error::in_words,
    provider::{Overrides, Source},
    relay::PipeBudget,
    session::SessionLine,
    table::{Hold, MappingName, Summary, Table},
    telemetry::{Events, History, LogControl, LogQueue, ProcessStats, Reloads, Sampler, log},
    units,
    worker::{self, Roster, Shared},
};

/// Ended sessions that may wait to be logged.
const LOG_QUEUE: usize = 16 * 1024;

/// Over how much time sessions are cut when the time to finish is over, so that their clients do not
/// all come back in the same instant.
const CUT_SPREAD: Duration = Duration::from_secs(1);

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
}

/// Runs the proxy until a signal stops it.
///
/// # Errors
///
/// Why it could not start, or what failed.
pub fn run(source: &Source, overrides: &Overrides) -> Result<(), RunError> {
    let mut memory = Memory::default();
    let (config, table) = source.load_again(overrides, &Table::default(), &mut memory)?;
    let events = Events::default();
    let log = log::init(
        config.log.format == LogFormat::Json,
        config.log.level.into(),
        events.clone(),
    );
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            RunError::Start(format!(
                "cannot start the control plane: {}",
                in_words(&error)
            ))
        })?
        .block_on(Running::start(
            source,
            overrides,
            (config, memory),
            table,
            (log, events),
        ))
}

/// A proxy that runs.
struct Running<'a> {
    source: &'a Source,
    overrides: &'a Overrides,
    memory: Memory,
    control: Control,
    sources: Arc<Sources>,
    orders: mpsc::Receiver<Order>,
    ended: mpsc::UnboundedReceiver<Result<(), String>>,
    workers: usize,
    /// Sessions the descriptors are enough for.
    sessions_fit: u32,
}

impl<'a> Running<'a> {
    async fn start(
        source: &'a Source,
        overrides: &'a Overrides,
        (config, memory): (Config, Memory),
        table: Table,
        (log, events): (LogControl, Events),
    ) -> Result<(), RunError> {
        let started = (time::Instant::now(), SystemTime::now());
        // From here on a signal is heard, whoever waits for the first line of the log to send one.
        let signals = Signals::register().map_err(|error| {
            RunError::Start(format!("cannot receive signals: {}", in_words(&error)))
        })?;
        let budget = take_budget(&config, table.routes().len());
        let shared = Arc::new(Shared {
            table: ArcSwap::from_pointee(Table::default()),
            stats: ProcessStats::default(),
            pipes: Arc::new(PipeBudget::new(
                budget.pipes,
                budget.pipe_memory,
                config.process.pipe_size,
            )),
            holds: ArcSwap::default(),
            departed: ArcSwap::default(),
            log: LogQueue::new(LOG_QUEUE),
            refusals: Sampler::new(
                config.log.refusals_per_second.map(NonZeroU32::get),
                started.0,
            ),
            log_openings: config.log.session_openings,
            log_sessions: config.log.sessions,
            next_session: AtomicU64::new(1),
            gate: Gate::new(config.limits.clone(), budget.sessions),
            splice: config.process.splice && budget.pipes > 0,
        });
        let start_failed =
            |what: &str, error: &io::Error| RunError::Start(format!("{what}: {}", in_words(error)));
        if let Source::Demo = source {
            echo::start()
                .await
                .map_err(|error| start_failed("cannot start the example's echo service", &error))?;
        }
        let admin = open_admin(&config).await?;
        let workers = worker_count(&config);
        let (report, ended) = mpsc::unbounded_channel();
        let handles = worker::spawn(workers, config.process.bulk_nice, &shared, move |result| {
            // Nobody listens any more when the process ends at once.
            let _ = report.send(result);
        })
        .map_err(|error| start_failed("cannot start the workers", &error))?;
        let log_writer = spawn_log_writer(Arc::clone(&shared))
            .map_err(|error| start_failed("cannot start the log writer", &error))?;
        let threads = handles.len();
        let mut control = Control::new(Arc::clone(&shared), handles.clone());
        let summary = control
            .apply(table)
            .map_err(|errors| RunError::Start(list(&errors)))?;
        let (order, orders) = mpsc::channel(ORDERS);
        let sources = Arc::new(Sources {
            shared: Arc::clone(&shared),
            workers: Roster::new(handles),
            config: ArcSwap::from_pointee(config.clone()),
            reloads: Reloads::started(control.listeners(), started.0.elapsed()),
            events,
            history: History::default(),
            log,
            orders: order,
            stopping: AtomicBool::new(false),
            started,
        });
        for listener in admin {
            tokio::spawn(admin::serve(listener, Arc::clone(&sources)));
        }
        tokio::spawn(ticker::run(Arc::clone(&sources)));
        tracing::info!(
            listeners = summary.added,
            workers,
            descriptors = budget.descriptors,
            max_sessions = budget.sessions,
            pipes = budget.pipes,
            admin = config.admin.listen.map(tracing::field::display),
            admin_socket = config
                .admin
                .socket
                .as_ref()
                .map(|path| tracing::field::display(path.display())),
            "listening"
        );
        let running = Running {
            source,
            overrides,
            memory,
            control,
            sources,
            orders,
            ended,
            workers: threads,
            sessions_fit: budget.fit,
        };
        let result = running.serve(signals).await;
        shared.log.close();
        if log_writer.join().is_err() {
            tracing::error!("the session log's writer has failed");
        }
        tracing::info!(sessions_left = shared.stats.sessions_open(), "stopped");
        result
    }

    async fn serve(mut self, mut signals: Signals) -> Result<(), RunError> {
        let mut watchdog = Watchdog::new();
        systemd::ready(&self.status());
        loop {
            tokio::select! {
                // Signals that came together are one.
                Some(()) = signals.hangup.recv() => {
                    // The outcome is in the log.
                    let _ = self.reload();
                }
                Some(order) = self.orders.recv() => self.carry_out(order),
                () = signals.stop.recv() => break,
                () = watchdog.tick() => watchdog.check(&self.control),
                Some(result) = self.ended.recv() => {
                    let error = result.err().unwrap_or_else(|| "it ended by itself".to_owned());
                    return Err(RunError::Worker(error));
                }
            }
        }
        self.sources.stopping.store(true, Relaxed);
        // Orders that wait or are yet to come are answered by this.
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
        let timeout = self.sources.config.load().process.shutdown_timeout;
        let open = self.sources.shared.stats.sessions_open();
        let within = timeout.map_or("off".to_owned(), |timeout| {
            humantime::format_duration(timeout).to_string()
        });
        tracing::info!(sessions = open, timeout = within, "stopping");
        let sessions = units::count(open.into(), "session");
        systemd::stopping(&format!("stopping, waiting for {sessions}"));
        self.control.drain();
        let mut deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut cut = false;
        while self.workers > 0 {
            let spread = tokio::select! {
                Some(result) = self.ended.recv() => {
                    result.map_err(RunError::Worker)?;
                    self.workers -= 1;
                    continue;
                }
                () = watchdog.tick() => {
                    watchdog.check(&self.control);
                    continue;
                }
                () = signals.stop.recv() => Duration::ZERO,
                () = until(deadline) => CUT_SPREAD,
            };
            if cut && spread > Duration::ZERO {
                break;
            }
            cut = true;
            self.control.cut(spread);
            deadline = Some(Instant::now() + CUT_GRACE);
        }
        Ok(())
    }

    fn carry_out(&mut self, order: Order) {
        // Whoever asked may have gone.
        match order {
            Order::Reload { reply } => {
                let outcome = self.reload().map_err(OrderError::Refused);
                _ = reply.send(outcome);
            }
            Order::Hold {
                mapping,
                hold,
                sessions_within,
                reply,
            } => {
                let table = self.control.table();
                let outcome = match table.mappings().iter().any(|known| known.name == mapping) {
                    false => Err(OrderError::UnknownMapping(mapping)),
                    true => self.hold(&mapping, hold, sessions_within),
                };
                _ = reply.send(outcome);
            }
        }
    }

    fn hold(
        &mut self,
        mapping: &MappingName,
        hold: Option<Hold>,
        sessions_within: Option<Duration>,
    ) -> Result<(), OrderError> {
        let held = self.control.hold(mapping, hold);
        held.map_err(|errors| OrderError::Refused(list(&errors)))?;
        if let Some(within) = sessions_within {
            self.control.drain_sessions(mapping, within);
        }
        self.sources.reloads.set_listeners(self.control.listeners());
        Ok(())
    }

    fn reload(&mut self) -> Result<Summary, String> {
        systemd::reloading();
        let started = time::Instant::now();
        let outcome = self.try_reload();
        let took = started.elapsed();
        match &outcome {
            Ok(_) => {
                self.sources.reloads.succeeded(took);
                self.sources.reloads.set_listeners(self.control.listeners());
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
        outcome
    }

    fn try_reload(&mut self) -> Result<Summary, String> {
        let (config, table) = self
            .source
            .load_again(self.overrides, &self.control.table(), &mut self.memory)
            .map_err(|errors| errors.to_string())?;
        let summary = self.control.apply(table).map_err(|errors| list(&errors))?;
        let fit = self.sessions_fit;
        let max_sessions = sessions_wanted(&config).map_or(fit, |wanted| wanted.min(fit));
        let gate = &self.sources.shared.gate;
        gate.set(config.limits.clone(), max_sessions);
        tracing::info!(
            added = summary.added,
            removed = summary.removed,
            retargeted = summary.retargeted,
            repolicied = summary.repolicied,
            unchanged = summary.unchanged,
            "reload done"
        );
        let old = self.sources.config.load();
        if config.process != old.process || config.admin != old.admin || config.log != old.log {
            tracing::warn!("changes in [process], [admin] and [log] take effect at the next start");
        }
        // What is in force is what the start found in these sections.
        self.sources.config.store(Arc::new(Config {
            process: old.process.clone(),
            admin: old.admin.clone(),
            log: old.log.clone(),
            ..config
        }));
        Ok(summary)
    }

    fn status(&self) -> String {
        let mappings = self.control.table().mappings().len();
        format!("forwarding {}", units::count(mappings as u64, "mapping"))
    }
}

/// The signals the process hears.
struct Signals {
    hangup: Signal,
    stop: StopSignals,
}

/// Those that ask it to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn register() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            stop: StopSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
        })
    }
}

impl StopSignals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Sleeps until the deadline, for ever without one.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Tells systemd that the process is alive as long as every worker shows that it is.
struct Watchdog {
    ticks: Option<tokio::time::Interval>,
    asked: u64,
}

impl Watchdog {
    fn new() -> Self {
        let ticks = systemd::watchdog_interval().map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks, asked: 0 }
    }

    async fn tick(&mut self) {
        match &mut self.ticks {
            Some(ticks) => _ = ticks.tick().await,
            None => std::future::pending().await,
        }
    }

    fn check(&mut self, control: &Control) {
        if control.beats() >= self.asked {
            systemd::alive();
            control.beat();
            self.asked += 1;
        }
    }
}

/// Opens the sockets of the admin endpoint.
async fn open_admin(config: &Config) -> Result<Vec<AdminListener>, RunError> {
    let mut listeners = Vec::new();
    if let Some(addr) = config.admin.listen {
        let listener = TcpListener::bind(addr).await.map_err(|error| {
            let why = in_words(&error);
            RunError::Start(format!("cannot open the admin endpoint {addr}: {why}"))
        })?;
        listeners.push(AdminListener::Tcp(listener));
    }
    let socket = UnixSocket::open(&config.admin)
        .map_err(|error| RunError::Start(format!("cannot open the admin socket {error}")))?;
    listeners.extend(socket.map(AdminListener::Unix));
    Ok(listeners)
}

fn take_budget(config: &Config, listeners: usize) -> Budget {
    let value = |wish| match wish {
        AutoOr::Auto => None,
        AutoOr::Value(value) => Some(value),
    };
    let wanted = Wanted {
        sessions: sessions_wanted(config),
        pipes: value(config.process.pipes),
        pipe_size: config.process.pipe_size,
    };
    let descriptors = limits::raise_descriptor_limit();
    let budget = limits::budget(descriptors, listeners, wanted, limits::pipe_memory());
    if let Some(sessions) = wanted.sessions
        && budget.sessions < sessions
    {
        tracing::warn!(
            wanted = sessions,
            possible = budget.sessions,
            descriptors,
            "limits.max_sessions is more than the limit on open files allows"
        );
    }
    budget
}

fn sessions_wanted(config: &Config) -> Option<u32> {
    match config.max_sessions {
        AutoOr::Auto => None,
        AutoOr::Value(sessions) => Some(sessions.get()),
    }
}

/// Half the processors, at least one: the kernel's share of forwarding runs beside the workers, and
/// one moves several GB/s.
fn worker_count(config: &Config) -> usize {
    match config.process.workers {
        AutoOr::Auto => thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2)),
        AutoOr::Value(workers) => workers.get() as usize,
    }
}

fn spawn_log_writer(shared: Arc<Shared>) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name("session-log".to_owned())
        .spawn(move || shared.log.write_all(|line: SessionLine| line.write()))
}

fn list(errors: &[ListenError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
