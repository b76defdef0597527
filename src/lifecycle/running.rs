//! A proxy that runs: what happens to it, and what it does then.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{self, Duration},
};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    admin_listeners::AdminListeners,
    checking::{Checks, Down},
    control::Pending,
    fleet::Member,
    forwarding::{Forwarding, list},
    jobs::Jobs,
    limits::{Budget, Open, job_listeners},
    loading::{self, Loading, Read},
    lookups::{self, LookedUp, Lookups},
    run::{RunError, syslog_settings, warn_of_outdated},
    signals::Signals,
    systemd,
    tasks::{Ended, Restarts, Tasks, why_ended},
    ticker,
    upgrade::{Afterwards, Upgrading},
    watchdog::Watchdog,
};
use crate::{
    admin::Sources,
    client_mask::show_clients,
    config::{Config, Log, LogFormat, Process},
    orders::{Order, OrderError},
    os_error::in_words,
    provider::{
        AddressChanges,
        switchboard::exposer::{Exposer, Proposal},
    },
    table::{MappingName, MappingOverride, Summary},
    telemetry::Task,
    units,
    worker::{self, LostListener, WorkerHandle},
};

/// A proxy that runs.
pub(super) struct Running {
    pub(super) loading: Loading,
    pub(super) upgrading: Upgrading,
    pub(super) forwarding: Forwarding,
    pub(super) lookups: Lookups,
    pub(super) looked_up: mpsc::Receiver<LookedUp>,
    pub(super) checks: Checks,
    /// Targets found down whose sessions are to end.
    pub(super) down: mpsc::UnboundedReceiver<Down>,
    pub(super) jobs: Jobs,
    pub(super) fleet: Member,
    pub(super) admin: AdminListeners,
    pub(super) ticker: Option<JoinHandle<String>>,
    pub(super) tasks: Tasks,
    /// Whenever a task is over.
    pub(super) task_over: mpsc::UnboundedReceiver<()>,
    pub(super) restarts: Restarts,
    pub(super) proposed: mpsc::Receiver<Proposal>,
    pub(super) sources: Arc<Sources>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) ended: mpsc::UnboundedReceiver<Result<(), String>>,
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) lost: mpsc::UnboundedReceiver<LostListener>,
    pub(super) addresses: AddressChanges,
    /// How the descriptors are divided.
    pub(super) budget: Budget,
}

impl Running {
    /// Serves until a signal stops it, then ends everything.
    pub async fn serve(mut self, mut signals: Signals) -> Result<(), RunError> {
        let mut watchdog = Watchdog::new();
        systemd::ready(&self.status());
        loop {
            // One at a time: what takes over has to know the configuration in force.
            if self.upgrading.is_due() && !self.loading.is_under_way() {
                self.begin_upgrade();
            }
            if self.loading.is_due() && !self.upgrading.is_under_way() {
                self.begin_reload();
            }
            tokio::select! {
                // Signals that came together are one. The outcome is in the log.
                Some(()) = signals.hangup.recv() => self.loading.ask(None),
                Some(()) = signals.upgrade.recv() => self.upgrading.ask_by_signal(),
                read = self.loading.done() => self.reload(read).await,
                rehearsed = self.upgrading.rehearsed() => {
                    if self.take_over(rehearsed, &mut signals).await == Afterwards::Stop {
                        break;
                    }
                }
                Some(order) = self.orders.recv() => self.carry_out(order),
                Some(proposal) = self.proposed.recv() => self.expose(proposal).await,
                () = self.jobs.role_changed() => self.jobs.take_role(),
                Some(found) = self.looked_up.recv() => self.lead(found).await,
                Some(down) = self.down.recv() => self.forwarding.leave_down(down),
                Some(lost) = self.lost.recv() => {
                    self.forwarding.control.lose(lost);
                    self.count_listeners();
                }
                () = self.addresses.next() => {
                    self.forwarding.follow_addresses();
                    self.count_listeners();
                    self.check_targets().await;
                }
                () = until(self.forwarding.control.reopens_at().map(Instant::from_std)) => {
                    self.forwarding.control.reopen_due();
                    self.count_listeners();
                }
                () = until(self.forwarding.control.unclaimed_until().map(Instant::from_std)) => {
                    self.forwarding.control.close_unclaimed();
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
        let shared = Arc::clone(&self.sources.shared);
        let result = self.stop(signals, watchdog).await;
        tracing::info!(sessions_left = shared.stats.sessions_open(), "stopped");
        result
    }

    /// Sees to it that what ended by itself is started again.
    async fn look_after_tasks(&mut self) {
        let mut ended = self.admin.take_ended().await;
        ended.extend(self.jobs.take_ended().await);
        ended.extend(self.lookups.take_ended().await);
        ended.extend(self.checks.take_ended().await);
        ended.extend(self.fleet.take_ended().await);
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
            Task::Resolving => self.lookups.start(),
            Task::Checking => self.checks.start(),
            Task::Fleet => {
                self.share_ports(&config);
                self.fleet.start(&self.sources);
            }
            // Those look after themselves.
            Task::Ticker | Task::Withdrawing | Task::Echo | Task::Log => {}
        }
        Ok(())
    }

    /// Puts into force where names lead that were looked up.
    async fn lead(&mut self, found: LookedUp) {
        let more = std::iter::from_fn(|| self.looked_up.try_recv().ok());
        if lookups::note(&self.forwarding.names, std::iter::once(found).chain(more)) {
            self.forwarding.lead();
            self.check_targets().await;
        }
    }

    /// Has the names of a configuration followed and its targets checked.
    pub(super) async fn follow_targets(&mut self, config: &Config) {
        self.lookups.set(config).await;
        let table = self.forwarding.control.table();
        self.checks.set(&table, config).await;
    }

    /// Has the ports of jobs be those of a region, if the configuration has one that shares them.
    pub(super) fn share_ports(&mut self, config: &Config) {
        let fleet = config.fleet.as_ref();
        let fleet = fleet.filter(|_| config.switchboard.is_some());
        let lease = &self.sources.shared.job_lease;
        self.jobs.share(self.fleet.share(fleet, lease));
    }

    async fn check_targets(&mut self) {
        let table = self.forwarding.control.table();
        let config = self.sources.config.load_full();
        self.checks.set(&table, &config).await;
    }

    fn count_listeners(&self) {
        let listeners = self.forwarding.control.listeners();
        self.sources.reloads.set_listeners(listeners);
    }

    async fn expose(&mut self, proposal: Proposal) {
        let started = time::Instant::now();
        let most = job_listeners(&self.sources.config.load(), self.budget.descriptors);
        let forwarding = &mut self.forwarding;
        let outcome = forwarding
            .expose(proposal.specs, proposal.known_jobs, most)
            .await;
        let took_us = started.elapsed().as_micros() as u64;
        tracing::debug!(took_us, "mappings of jobs applied");
        self.count_listeners();
        // Whoever asked may have been ended.
        let _ = proposal.reply.send(outcome);
    }

    fn carry_out(&mut self, order: Order) {
        // Whoever asked may have gone.
        match order {
            Order::Reload { reply } => self.loading.ask(Some(reply)),
            Order::Upgrade { binary, reply } => self.upgrading.ask(binary, reply),
            Order::SetState {
                mapping,
                state,
                sessions_within,
                reply,
            } => {
                let table = self.forwarding.control.table();
                let mut known = table.mappings();
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
        let names = Arc::clone(&self.forwarding.names);
        self.loading
            .begin(self.forwarding.control.table(), names, status);
    }

    async fn reload(&mut self, read: Read) {
        let Read {
            outcome,
            lookups,
            exposer,
            since,
            replies,
        } = read;
        lookups::note(&self.forwarding.names, lookups);
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
        self.follow_targets(&config).await;
        self.share_ports(&config);
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
            mappings_added = summary.mappings_added.some().map(tracing::field::display),
            mappings_removed = summary.mappings_removed.some().map(tracing::field::display),
            mappings_changed = summary.mappings_changed.some().map(tracing::field::display),
            "reload done"
        );
        let new = Arc::new(config);
        self.sources.config.store(Arc::clone(&new));
        self.fleet.set(new.fleet.as_ref(), &self.sources).await;
        if ticker::differs(&old, &new) {
            if let Some(before) = &self.ticker {
                before.abort();
            }
            self.observe();
        }
        Ok(summary)
    }

    pub(super) fn observe(&mut self) {
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
        if let Err(error) = log.syslog().set(syslog_settings(new).as_ref()) {
            let error = in_words(&error);
            tracing::error!(error, "the log does not go to syslog");
        }
        show_clients(new.mask_clients);
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

    pub(super) fn status(&self) -> String {
        let mappings = self.forwarding.control.table().mappings().len();
        format!("forwarding {}", units::count(mappings as u64, "mapping"))
    }
}

/// Sleeps until the deadline, for ever without one.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
