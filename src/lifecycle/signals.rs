//! The signals that the process hears.

use std::{io, sync::Arc};

use nix::sys::signal::{SigSet, Signal as Blocked};
use signal_hook::{consts::SIGXFSZ, flag};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};

/// Has the signals that the process hears arrive only while the thread of control waits for something
/// to happen, and only there: threads inherit that from the one that starts them. So none arrives
/// while one image of the program takes the place of another, where nobody would hear it, or the
/// kernel would end the process: it is there for the next.
pub(super) fn only_while_waiting(builder: &mut Builder) -> io::Result<()> {
    let heard: SigSet = [
        Blocked::SIGHUP,
        Blocked::SIGTERM,
        Blocked::SIGINT,
        Blocked::SIGUSR2,
    ]
    .into_iter()
    .collect();
    heard.thread_block()?;
    // They fail for a set that is none.
    builder
        .on_thread_park(move || _ = heard.thread_unblock())
        .on_thread_unpark(move || _ = heard.thread_block());
    Ok(())
}

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
    /// Asks for an upgrade.
    pub upgrade: Signal,
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
            upgrade: signal(SignalKind::user_defined2())?,
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
