//! Everything that control knows, as it is handed over to the next image of the program.
//!
//! What is loaded are values and descriptors of which nothing is asked, so that a rehearsal can load it
//! as well: nothing is served, written or removed before [`LoadedControl`] is taken apart.

use std::{
    num::NonZeroU32,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    admin_listeners::{AdminListeners, LoadedAdmin, SavedAdmin},
    control::{Control, LoadedListeners, SavedListeners},
    forwarding::Forwarding,
    jobs::{Jobs, LoadedJobs, SavedJobs},
    limits::Budget,
};
use crate::{
    admin::Sources,
    config::{Config, SavedConfig},
    handover::{LoadError, Loader, Saver, Values},
    limit::{Gate, SavedGate},
    provider::switchboard::{SavedStatus, SwitchboardStatus},
    relay::PipeBudget,
    resolve::{Names, SavedNames},
    session::{SessionLine, UpgradeMarks},
    table::{
        DrainEnds, JobLease, KnownMappings, MappingOverrides, MappingSpec, Origin, SavedCounters,
        SavedTable,
    },
    telemetry::{
        LoadedTelemetry, LogQueue, ProcessStats, Sampler, SavedProcessStats, SavedTelemetry,
        TelemetryParts,
    },
    worker::{self, Adopted, LostListener, WorkerContext, Workers},
};

/// What only control changes, so that it can be saved before workers stand still.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedControl {
    config: SavedConfig,
    budget: Budget,
    /// Of the file and of the switchboard, in this order.
    table: SavedTable,
    /// Where each mapping of the file was asked for.
    origins: Vec<Origin>,
    listeners: SavedListeners,
    #[serde(default)]
    overrides: MappingOverrides,
    #[serde(default)]
    drain_ends: DrainEnds,
    #[serde(default)]
    upgrade_marks: UpgradeMarks,
    #[serde(default)]
    admin: SavedAdmin,
    #[serde(default)]
    jobs: Option<SavedJobs>,
    #[serde(default)]
    status: SavedStatus,
    #[serde(default)]
    names: SavedNames,
}

/// What is counted as long as workers go on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedCounted {
    gate: SavedGate,
    #[serde(default)]
    stats: SavedProcessStats,
    /// Beyond what the table has.
    #[serde(default)]
    mappings: SavedCounters,
    #[serde(default)]
    pipes_denied: u64,
    next_session: u64,
    telemetry: SavedTelemetry,
}

/// Where all of it is.
#[derive(Debug)]
pub(super) struct ControlParts<'a> {
    pub forwarding: &'a Forwarding,
    pub jobs: &'a Jobs,
    /// From [`Jobs::state_dir`].
    pub state_dir: Option<&'a (PathBuf, OwnedFd)>,
    pub admin: &'a AdminListeners,
    pub sources: &'a Sources,
    pub budget: &'a Budget,
}

impl SavedControl {
    /// What there is to save.
    pub fn new<'a>(parts: ControlParts<'a>, saver: &mut Saver<'a>) -> Self {
        let ControlParts {
            forwarding,
            jobs,
            state_dir,
            admin,
            sources,
            budget,
        } = parts;
        let shared = &*sources.shared;
        Self {
            config: SavedConfig::from(&**sources.config.load()),
            budget: *budget,
            table: SavedTable::new(&shared.table.load(), &shared.departed.load()),
            origins: forwarding.origins().cloned().collect(),
            listeners: forwarding.control.save(saver),
            overrides: MappingOverrides::clone(&shared.overrides.load()),
            drain_ends: DrainEnds::clone(&shared.drain_ends.load()),
            upgrade_marks: shared.upgrade_marks.clone(),
            admin: admin.save(saver),
            jobs: jobs.save(state_dir, &shared.job_lease, saver),
            status: sources.switchboard.save(),
            names: sources.names.save(),
        }
    }

    /// What is counted besides, at this moment. Where workers go on meanwhile, as for a rehearsal, some
    /// counters are ahead of others.
    pub fn counted(&self, sources: &Sources) -> SavedCounted {
        let WorkerContext {
            table,
            job_lease: _,
            stats,
            pipes,
            overrides: _,
            drain_ends: _,
            lost: _,
            closed: _,
            departed,
            log: queue,
            refusals,
            log_openings: _,
            log_sessions: _,
            next_session,
            upgrade_marks: _,
            gate,
            splice: _,
        } = &*sources.shared;
        let departed = departed.load();
        let telemetry = TelemetryParts {
            log: &sources.log,
            queue,
            events: &sources.events,
            history: &sources.history,
            reloads: &sources.reloads,
            failures: &sources.failures,
            refusals,
        };
        SavedCounted {
            gate: gate.save(),
            stats: stats.save(departed.iter().map(|mapping| &mapping.stats)),
            mappings: self.table.counted_since(&table.load(), &departed),
            pipes_denied: pipes.denied(),
            next_session: next_session.load(Relaxed),
            telemetry: SavedTelemetry::new(telemetry),
        }
    }

    /// Takes it up, with what was counted.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn load(
        self,
        counted: SavedCounted,
        loader: &mut Loader,
    ) -> Result<LoadedControl, LoadError> {
        let Self {
            config,
            budget,
            table,
            origins,
            listeners,
            overrides,
            drain_ends,
            upgrade_marks,
            admin,
            jobs,
            status,
            names,
        } = self;
        let SavedCounted {
            gate,
            stats,
            mappings: counters,
            pipes_denied,
            next_session,
            telemetry,
        } = counted;
        let (all, of_file) = (table.len(), origins.len());
        if of_file > all {
            let why = format!("there are places of {of_file} mappings, and {all} mappings");
            return Err(LoadError::value("mappings of the file", why));
        }
        let mappings = table.with(counters)?.load()?;
        let origins = origins.into_iter();
        let origins = origins.chain(std::iter::repeat(Origin::Switchboard));
        let mut specs = mappings.table.specs(origins);
        let of_jobs = specs.split_off(of_file);
        let config = config.load(specs)?;
        let pipes = PipeBudget::new(budget.pipes, budget.pipe_memory, config.process.pipe_size);
        Ok(LoadedControl {
            listeners: listeners.load(loader, &mappings.table)?,
            mappings,
            gate: Gate::load(gate),
            pipes: Arc::new(pipes.after(pipes_denied)),
            telemetry: telemetry.load()?,
            admin: admin.load(loader)?,
            jobs: jobs.map(|jobs| jobs.load(loader)).transpose()?,
            status: Arc::new(SwitchboardStatus::load(status)),
            names: Arc::new(Names::load(names)),
            config,
            budget,
            of_jobs,
            overrides,
            drain_ends,
            stats,
            next_session,
            upgrade_marks,
        })
    }
}

/// All of it, to go on with. First there is what workers share ([`LoadedControl::worker_context`]), then
/// sessions are loaded ([`LoadedControl::sessions`]), and when workers run they get the listeners
/// ([`LoadedControl::forwarding`]).
#[derive(Debug)]
pub(super) struct LoadedControl {
    /// As it was in force.
    pub config: Config,
    pub budget: Budget,
    pub mappings: KnownMappings,
    pub gate: Gate,
    pub pipes: Arc<PipeBudget>,
    pub telemetry: LoadedTelemetry,
    pub admin: LoadedAdmin,
    /// Nothing without a switchboard in the configuration.
    pub jobs: Option<LoadedJobs>,
    pub status: Arc<SwitchboardStatus>,
    names: Arc<Names>,
    listeners: LoadedListeners,
    of_jobs: Vec<MappingSpec>,
    overrides: MappingOverrides,
    drain_ends: DrainEnds,
    stats: SavedProcessStats,
    next_session: u64,
    upgrade_marks: UpgradeMarks,
}

impl LoadedControl {
    /// What workers share. It takes the gate.
    pub fn worker_context(
        &mut self,
        lost: mpsc::UnboundedSender<LostListener>,
        log: Arc<LogQueue<SessionLine>>,
    ) -> WorkerContext {
        let Config {
            process,
            log: settings,
            ..
        } = &self.config;
        let departed = std::mem::take(&mut self.mappings.departed);
        let of_departed = departed.iter().map(|mapping| &mapping.stats);
        let per_second = settings.refusals_per_second.map(NonZeroU32::get);
        let refusals = Sampler::new(per_second, std::time::Instant::now());
        let job_lease = JobLease::default();
        job_lease.ends_at(self.jobs.as_ref().and_then(|jobs| jobs.lease_ends));
        WorkerContext {
            lost,
            closed: ArcSwap::default(),
            table: ArcSwap::new(Arc::clone(&self.mappings.table)),
            job_lease: Arc::new(job_lease),
            stats: ProcessStats::load(&self.stats, of_departed),
            pipes: Arc::clone(&self.pipes),
            overrides: ArcSwap::from_pointee(std::mem::take(&mut self.overrides)),
            drain_ends: ArcSwap::from_pointee(std::mem::take(&mut self.drain_ends)),
            departed: ArcSwap::from_pointee(departed),
            log,
            refusals: refusals.after(self.telemetry.withheld),
            log_openings: settings.session_openings.into(),
            log_sessions: settings.sessions.into(),
            next_session: self.next_session.into(),
            upgrade_marks: std::mem::take(&mut self.upgrade_marks),
            gate: std::mem::take(&mut self.gate),
            splice: (process.splice && self.budget.pipes > 0).into(),
        }
    }

    /// What a worker has handed over. Mappings that only its sessions know are then known to all.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn sessions(
        &mut self,
        part: &str,
        (values, loader): (&mut Values, &mut Loader),
        shared: &WorkerContext,
    ) -> Result<Adopted, LoadError> {
        let adopted = worker::load(part, values, loader, &mut self.mappings, shared)?;
        let found = std::mem::take(&mut self.mappings.departed);
        if !found.is_empty() {
            for mapping in &found {
                shared.stats.retired.add(Arc::clone(&mapping.stats));
            }
            let before = shared.departed.load();
            let all = before.iter().cloned().chain(found);
            shared.departed.store(Arc::new(all.collect()));
        }
        Ok(adopted)
    }

    /// What is forwarded. Workers, who run by now, get the listeners.
    pub fn forwarding(&mut self, shared: Arc<WorkerContext>, workers: Workers) -> Forwarding {
        let listeners = std::mem::take(&mut self.listeners);
        let control = Control::adopt(shared, workers, listeners);
        let jobs = std::mem::take(&mut self.of_jobs);
        let known_jobs = self.jobs.as_ref().map(|jobs| Arc::clone(&jobs.known_jobs));
        let names = Arc::clone(&self.names);
        Forwarding::adopt(
            control,
            &self.config,
            jobs,
            known_jobs.unwrap_or_default(),
            names,
        )
    }
}
