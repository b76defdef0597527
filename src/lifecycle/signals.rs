//! The signals that the process hears.

use std::{io, sync::Arc};

use signal_hook::{consts::SIGXFSZ, flag};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Has a write beyond the limit on the size of files fail like any other, where the kernel would end
/// the process: log and state may be in files.
pub(super) fn outlive_file_size_limit() -> io::Result<()> {
    // What is raised interests nobody; that the signal is caught is enough.
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// The signals the process hears.
pub(super) struct Signals {
    /// Asks for a reload.
    pub hangup: Signal,
    /// Ask it to stop.
    pub stop: StopSignals,
}

/// Those that ask it to stop.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn register() -> io::Result<Self> {
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
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
