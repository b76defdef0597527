//! The admin endpoint: HTTP for Prometheus, health checks, people and the command line.
//!
//! It is served twice: on a unix socket with everything, on TCP without what changes something. It
//! reads the table and the counters, asks workers about sessions, and hands [orders](crate::orders) to control;
//! it never waits for the data path with anything in its hands, and the data path never for it.

mod answers;
pub mod api;
mod health;
mod host;
mod lookup;
mod metrics;
mod page;
mod places;
mod server;
mod unix;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
pub use lookup::{CONNECTIONS as LOOKUP_CONNECTIONS, serve as serve_lookup};
pub use server::{AdminListener, CONNECTIONS, serve};
pub use unix::{NewSocket, SocketError, SocketFile, UnixAddr};

use crate::{
    config::Config,
    orders::Orders,
    provider::switchboard::SwitchboardStatus,
    telemetry::{Events, History, LogControl, Reloads, TaskFailures},
    worker::{WorkerContext, Workers},
};

/// What the admin endpoint reads, and the ways to control it has.
#[derive(Debug)]
pub struct Sources {
    /// The data path's table and counters.
    pub shared: Arc<WorkerContext>,
    /// The workers, to be asked about sessions.
    pub workers: Workers,
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// How reloads went.
    pub reloads: Reloads,
    /// What happened lately.
    pub events: Events,
    /// The last minutes in steps.
    pub history: History,
    /// The log's level.
    pub log: LogControl,
    /// What the switchboard's jobs come to.
    pub switchboard: Arc<SwitchboardStatus>,
    /// Where orders go.
    pub orders: Orders,
    /// Which tasks of the control plane have failed.
    pub failures: Arc<TaskFailures>,
    /// Whether the process is on its way out.
    pub stopping: AtomicBool,
    /// When it started.
    pub started: (Instant, SystemTime),
}

/// Locks what is left whole at every moment: a panic elsewhere cannot have spoilt it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sources {
    /// Whether the process is on its way out.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }
}
