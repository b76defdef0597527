//! Going on with what another image of the program handed over.
//!
//! Everything is received and built before anything starts. What fails until then changes nothing: the
//! other image is put back into the process and finds what it had sent, since that was only looked at.

use std::{
    fs::File,
    io, mem,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use rustix::{stdio::dup2_stdin, thread::set_name};

use super::{
    admin_listeners::AdminListeners,
    forwarding::Forwarding,
    invocation::{Executable, How, Invocation},
    jobs::{Jobs, LoadedJobs},
    loading::{self, Reader},
    run::{Beginning, RunError, base, start_failed},
    running::Running,
    saved::{AdoptError, Loaded, Parts, SavedProcess},
    saved_control::LoadedControl,
    signals::{Signals, outlive_file_size_limit},
    start::{Base, DataPath, Plane, start_example},
    tasks::Tasks,
};
use crate::{
    config::{Overrides, Source},
    handover::{Descriptors, incoming, version},
    os_error::in_words,
    provider::{AddressChanges, switchboard::Switchboard},
    session::SessionLine,
    telemetry::{LogQueue, Task, UpgradeOutcome, Upgrades},
    text::clipped,
};

/// Of the reason for going back, so many bytes are told: it stands on a command line.
const LONGEST_REASON: usize = 2 << 10;

/// The image that was there before, until this one has taken everything.
pub(super) struct WayBack {
    executable: OwnedFd,
    invocation: Invocation,
}

impl From<AdoptError> for RunError {
    fn from(error: AdoptError) -> Self {
        Self::Adopt(error.to_string())
    }
}

/// Takes what is on standard input and runs until a signal stops it. As long as there is a `way_back`
/// nothing has changed.
pub(super) async fn run(
    source: &Source,
    overrides: &Overrides,
    mut invocation: Invocation,
    log_queue: &mut Option<Arc<LogQueue<SessionLine>>>,
    way_back: &mut Option<WayBack>,
) -> Result<(), RunError> {
    let began = Instant::now();
    let signals =
        Signals::register().map_err(|error| start_failed("cannot receive signals", &error))?;
    let descriptors = match invocation.how {
        How::TakeBack { .. } => Descriptors::Received,
        How::Start | How::Adopt => Descriptors::InPlace,
    };
    let parts = incoming(io::stdin().as_fd(), descriptors).map_err(AdoptError::from)?;
    let mut parts = Parts::open(parts)?;
    let (back, executable) = parts.way_back()?;
    if let How::TakeBack { .. } = invocation.how {
        invocation.binary = back.binary_before;
        name_after(&invocation);
    } else {
        invocation.binary = back.binary;
        *way_back = Some(WayBack {
            executable,
            invocation: invocation.clone(),
        });
    }
    let process = parts.process()?;
    let received = Instant::now();
    let loaded = Loaded::new(&mut parts, &process)?;
    let built = Instant::now();
    let Loaded {
        mut control,
        mut shared,
        queue,
        lost,
        workers,
    } = loaded;
    if invocation.how == How::Adopt {
        let next = shared.next_session.load(Relaxed);
        shared.upgrade_marks.add(next);
    }
    outlive_file_size_limit().map_err(|error| start_failed("cannot catch a signal", &error))?;
    let telemetry = &mut control.telemetry;
    let how = invocation.how.clone();
    let beginning = Beginning {
        settings: &control.config.log,
        level: telemetry.level,
        queue: Arc::clone(&queue),
        events: mem::take(&mut telemetry.events),
        failures: mem::take(&mut telemetry.failures),
        syslog_lost: telemetry.syslog_lost,
    };
    let started = (process.started.at, process.started.time);
    let base = base(beginning, started, invocation)?;
    let (data, not_begun) = DataPath::spawn(&control.config, shared, lost)?;
    // The point of no return: nothing that could fail is left.
    *log_queue = Some(queue);
    *way_back = None;
    data.workers.adopt(not_begun, workers);
    // Each has taken its sessions when this is over. Nothing else keeps the processor from them.
    data.workers.queues_served().await;
    let goes_on = Instant::now();
    leave_standard_input();
    let forwarding = control.forwarding(Arc::clone(&data.shared), data.workers.clone());
    control.telemetry.go_on();
    let pause = goes_on.saturating_duration_since(process.frozen);
    let took_us =
        |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
    tracing::debug!(
        saved_us = took_us(process.frozen, process.saved),
        executed_us = took_us(process.saved, began),
        received_us = took_us(began, received),
        built_us = took_us(received, built),
        begun_us = took_us(built, goes_on),
        "what the pause was made of"
    );
    let reader = Reader {
        source: source.clone(),
        overrides: overrides.clone(),
    };
    let mut running = Running::adopt(base, data, forwarding, control, reader, &process).await;
    running.adopted(process, &how, pause);
    running.serve(signals).await
}

/// Puts the image back that was there before; it comes back only if that fails.
pub(super) fn go_back(way_back: WayBack, error: &RunError) -> RunError {
    let WayBack {
        executable,
        invocation,
    } = way_back;
    let why = format!("{}: {error}", invocation.binary.display());
    let why = clipped(why.replace('\0', " "), LONGEST_REASON);
    let back = How::TakeBack {
        version: version().to_owned(),
        why: why.clone(),
    };
    let failed = invocation.exec(&Executable::Open(executable.as_fd()), &back);
    let failed = in_words(&failed);
    RunError::Adopt(format!(
        "{why}; and the image before it cannot be executed: {failed}"
    ))
}

/// An image that is executed by its descriptor has a number for a name.
fn name_after(invocation: &Invocation) {
    let name = invocation.binary.file_name();
    let name = name.and_then(|name| std::ffi::CString::new(name.as_encoded_bytes()).ok());
    if let Some(name) = name {
        // It is for people only.
        let _ = set_name(&name);
    }
}

/// Lets go of what was handed over: from here on it is ours alone.
fn leave_standard_input() {
    let left = File::open("/dev/null").and_then(|null| Ok(dup2_stdin(null)?));
    if let Err(error) = left {
        let error = in_words(&error);
        tracing::warn!(error, "what was handed over cannot be let go of");
    }
}

impl Running {
    /// Puts control together again. What of it cannot go on is said, and had anew by the next reload.
    async fn adopt(
        base: Base,
        data: DataPath,
        forwarding: Forwarding,
        control: LoadedControl,
        reader: Reader,
        process: &SavedProcess,
    ) -> Self {
        if let Err(error) = start_example(&reader, &base).await {
            tracing::error!(%error, "the example has nothing to lead to");
        }
        let LoadedControl {
            config,
            budget,
            telemetry,
            admin,
            jobs: mut loaded,
            status,
            ..
        } = control;
        let (tasks, task_over) = Tasks::new();
        let failures = Arc::clone(&base.failures);
        let (jobs, proposed) = Jobs::new(tasks.clone(), Arc::clone(&status), failures);
        let plane = Plane {
            data,
            budget,
            forwarding,
            admin: AdminListeners::new(tasks.clone()),
            tasks,
            task_over,
            jobs,
            proposed,
            status,
            addresses: AddressChanges::listen(),
            reloads: telemetry.reloads,
            upgrades: Upgrades::load(process.upgrades.clone()),
            history: telemetry.history,
        };
        let mut running = Self::of(base, plane, &config, reader);
        let sources = Arc::clone(&running.sources);
        match admin.prepare(&config.admin) {
            Ok(prepared) => running.admin.set(&config.admin, prepared, &sources).await,
            Err(error) => tracing::error!(error, "an admin listener is not served any more"),
        }
        running.follow_targets(&config).await;
        running.observe();
        if let Some(loaded) = &mut loaded {
            let (heard, reserve) = loaded.take_region();
            running.fleet.heard(heard, reserve);
        }
        running.share_ports(&config);
        if let (Some(switchboard), Some(loaded)) = (&config.switchboard, loaded) {
            running.adopt_jobs(switchboard, loaded).await;
        }
        running.fleet.set(config.fleet.as_ref(), &sources).await;
        running
    }

    async fn adopt_jobs(&mut self, switchboard: &Switchboard, mut loaded: LoadedJobs) {
        let status = Arc::clone(&self.sources.switchboard);
        let opened = match loaded.take_state_dir() {
            Some(state) => loading::open_again(state, switchboard, status).await,
            None => Err("nobody exposed jobs when it was handed over".to_owned()),
        };
        if let Err(why) = &opened {
            self.sources.failures.stopped(Task::Exposing, why);
            self.restarts.after(Task::Exposing, "exposing jobs", why);
        }
        let adopted = self
            .jobs
            .adopt(switchboard, loaded, opened.ok(), &self.sources);
        if let Err(why) = adopted {
            self.sources.failures.stopped(Task::Lookup, &why);
            self.restarts
                .after(Task::Lookup, "switchboard.lookup", &why);
        }
    }

    /// Says that it goes on, and after what.
    fn adopted(&mut self, process: SavedProcess, how: &How, pause: Duration) {
        let sessions = process.sessions.unwrap_or_default() as u64;
        let pause_us = pause.as_micros() as u64;
        let upgrade = process.number;
        if process.reload {
            self.loading.ask(None);
        }
        let from = process.header.version;
        let (to, error) = match how {
            How::TakeBack { version, why } => (version.clone(), Some(why.clone())),
            How::Start | How::Adopt => (version().to_owned(), None),
        };
        match &error {
            None => tracing::info!(upgrade, from, to, sessions, pause_us, "upgraded"),
            Some(error) => tracing::error!(
                upgrade,
                to,
                error,
                sessions,
                pause_us,
                "upgrade failed, nothing has changed"
            ),
        }
        self.sources.upgrades.ended(UpgradeOutcome {
            number: process.number,
            at: SystemTime::now(),
            from,
            to: Some(to),
            sessions,
            pause,
            error,
        });
    }
}
