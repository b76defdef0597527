//! The signals that the process hears.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

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
