//! Going on with what another image of the program handed over.
//!
//! Everything is received and built before anything starts. What fails until then changes nothing: the
//! other image is put back into the process and finds what it had sent, since that was only looked at.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Instant, SystemTime},
};

use rustix::{stdio::dup2_stdin, thread::set_name};

use super::{
    invocation::{Executable, How, Invocation},
    loading::Reader,
    run::{RunError, base, start_failed},
    running::Running,
    saved::{AdoptError, Parts, SavedProcess},
    signals::{Signals, outlive_file_size_limit},
};
use crate::{
    config::{Overrides, Source},
    handover::{incoming, version},
    os_error::in_words,
    session::SessionLine,
    telemetry::{LogQueue, UpgradeOutcome, Upgrades},
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
    let signals =
        Signals::register().map_err(|error| start_failed("cannot receive signals", &error))?;
    let parts = incoming(io::stdin().as_fd()).map_err(AdoptError::from)?;
    let mut parts = Parts::open(parts)?;
    let (process, mut loader) = parts.process()?;
    let executable = loader.descriptor(process.executable);
    let executable = executable.map_err(|error| AdoptError::Load {
        part: "the executable".to_owned(),
        error,
    })?;
    let reason = match &invocation.how {
        How::TakeBack(reason) => {
            name_after(&invocation);
            invocation.binary.clone_from(&process.binary_before);
            Some(reason.clone())
        }
        _ => {
            let invocation = Invocation {
                binary: process.binary_before.clone(),
                ..invocation.clone()
            };
            *way_back = Some(WayBack {
                executable,
                invocation,
            });
            None
        }
    };
    if reason.is_none() {
        invocation.binary.clone_from(&process.binary);
    }
    let text = process.text.map(|text| loader.bytes(text).map(Arc::from));
    let text = text.transpose().map_err(|error| AdoptError::Load {
        part: "the configuration".to_owned(),
        error,
    })?;
    outlive_file_size_limit().map_err(|error| start_failed("cannot catch a signal", &error))?;
    let reader = Reader {
        source: source.clone(),
        overrides: overrides.clone(),
    };
    let loaded = reader.load_text(text, Arc::default()).await;
    let (config, table) = loaded.outcome?;
    let started = (process.started.at, process.started.time);
    let base = base(&config.log, signals, started, invocation, log_queue)?;
    let (mut running, signals) = Running::start(
        base,
        (config, loaded.reader, loaded.text),
        table.routes().len(),
        Upgrades::load(process.upgrades.clone()),
    )
    .await?;
    *way_back = None;
    leave_standard_input();
    running.adopted(process, reason);
    running.serve(signals).await
}

/// Puts the image back that was there before; it comes back only if that fails.
pub(super) fn go_back(way_back: WayBack, error: &RunError) -> RunError {
    let WayBack {
        executable,
        invocation,
    } = way_back;
    let why = clipped(error.to_string().replace('\0', " "), LONGEST_REASON);
    let back = How::TakeBack(format!("{}: {why}", version()));
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
    /// Says that it goes on, and after what.
    fn adopted(&mut self, process: SavedProcess, reason: Option<String>) {
        let sessions = self.sources.shared.stats.sessions_open().into();
        let pause = Instant::now().saturating_duration_since(process.frozen);
        let pause_us = pause.as_micros() as u64;
        let upgrade = process.number;
        if process.reload {
            self.loading.ask(None);
        }
        let (from, to) = match &reason {
            None => (process.header.version, version().to_owned()),
            Some(why) => {
                let to = why.split(':').next().unwrap_or_default();
                (version().to_owned(), to.to_owned())
            }
        };
        match &reason {
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
            error: reason,
        });
    }
}
