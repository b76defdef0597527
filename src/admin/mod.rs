//! The admin endpoint: HTTP for Prometheus, health checks, people and the command line.
//!
//! It is served twice: on a unix socket with everything, on TCP without what changes something. It
//! reads the table and the counters, asks workers about sessions, and gives [orders](crate::orders); it
//! never waits for the data path with anything in its hands, and the data path never for it.

pub mod api;
mod coalesce;
mod health;
mod host;
mod lookup;
mod metrics;
mod page;
mod peer;
mod router;
mod server;
mod slots;
mod unix;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener};

pub(crate) use lookup::{CONNECTIONS as LOOKUP_CONNECTIONS, serve as serve_lookup};
pub use router::{Access, OPERATIONS};
pub(crate) use unix::{NewSocket, SavedSocketFile, SocketFile, UnixAddr};

use server::Bounds;

use crate::{
    config::Config,
    fleet::FleetStatus,
    orders::Orders,
    provider::switchboard::SwitchboardStatus,
    resolve::Names,
    telemetry::{Events, History, LogControl, Reloads, Task, TaskFailures, Upgrades},
    worker::{WorkerContext, Workers},
};

/// What the admin endpoint reads, and the ways to control it has.
#[derive(Debug)]
pub(crate) struct Sources {
    pub shared: Arc<WorkerContext>,
    pub workers: Workers,
    pub config: ArcSwap<Config>,
    pub reloads: Reloads,
    pub upgrades: Upgrades,
    /// The path of the executable that takes over unless another is named.
    pub binary: PathBuf,
    pub events: Events,
    /// The last minutes in steps.
    pub history: History,
    pub log: LogControl,
    pub switchboard: Arc<SwitchboardStatus>,
    /// What is known of other proxies.
    pub fleet: Arc<FleetStatus>,
    /// What is known of the names that mappings lead to.
    pub names: Arc<Names>,
    pub orders: Orders,
    /// Which tasks of the control plane have failed.
    pub failures: Arc<TaskFailures>,
    pub stopping: AtomicBool,
    pub started: (Instant, SystemTime),
}

/// Connections that each listener of the admin endpoint has at a time.
pub(crate) const CONNECTIONS: usize = 32;

/// What clients can hold on to. The endpoint is for few, who may all come through one gateway.
const BOUNDS: Bounds = Bounds {
    connections: CONNECTIONS,
    per_source: usize::MAX,
    head_bytes: 16 * 1024,
    within: Duration::from_secs(120),
    keep_alive: true,
};

#[derive(Debug)]
pub(crate) enum AdminListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Serves until nothing can come from the listener any more, and says why.
pub(crate) async fn serve(listener: AdminListener, sources: Arc<Sources>) -> io::Error {
    let failures = Arc::clone(&sources.failures);
    match listener {
        AdminListener::Tcp(listener) => {
            let router = router::router(sources, Access::Read);
            server::accept_all(listener, BOUNDS, &router, (Task::Admin, failures)).await
        }
        AdminListener::Unix(listener) => {
            let router = router::router(sources, Access::Write);
            server::accept_all(listener, BOUNDS, &router, (Task::AdminSocket, failures)).await
        }
    }
}

impl Sources {
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }
}
