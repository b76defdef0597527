//! The threads of the data path.
//!
//! Each worker is one thread around one edge-triggered epoll instance: it accepts from the
//! listeners it was given, drives their sessions and does what control tells it through a queue.
//! A worker never waits for anything but epoll, and control never touches a session but through
//! [`Command`]s. What a session does is in [`crate::session`]; here is only when it is its turn.

mod event_loop;
mod handle;
mod slots;
mod timers;
mod token;

use std::{
    collections::HashMap,
    convert::Infallible,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64, mpsc},
    time::Duration,
};

use arc_swap::ArcSwap;

pub use handle::{WorkerHandle, spawn};

use crate::{
    listen::Accepted,
    relay::PipeBudget,
    session::SessionRecord,
    table::{Diff, ListenAddr, Mapping, Route, Table},
    telemetry::{EndReason, LogQueue, ProcessStats},
};

/// What the workers of a process share.
#[derive(Debug)]
pub struct Shared {
    /// The table in force.
    pub table: ArcSwap<Table>,
    /// Mappings that are gone from the table and had sessions then.
    pub departed: Mutex<Vec<Arc<Mapping>>>,
    /// Counters of the process.
    pub stats: ProcessStats,
    /// The pipes of the process.
    pub pipes: Arc<PipeBudget>,
    /// Where ended sessions go.
    pub log: LogQueue<SessionRecord>,
    /// Whether anybody reads that.
    pub log_sessions: bool,
    /// The number of the next session.
    pub next_session: AtomicU64,
    /// Sessions the process may have open.
    pub max_sessions: u32,
    /// Whether splicing is allowed at all.
    pub splice: bool,
}

impl Shared {
    /// Every mapping in force, and those gone that still have sessions.
    pub fn mappings(&self) -> Vec<Arc<Mapping>> {
        let table = self.table.load();
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        departed.retain(|mapping| mapping.stats.open() > 0);
        let mappings = table.mappings().iter();
        mappings.chain(departed.iter()).cloned().collect()
    }

    /// Keeps in sight the mappings that `diff` removes as long as they have sessions.
    pub fn depart(&self, diff: &Diff) {
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        for route in &diff.removed {
            let mapping = &route.mapping;
            let known = departed.iter().any(|known| Arc::ptr_eq(known, mapping));
            if mapping.stats.open() > 0 && !known {
                departed.push(Arc::clone(mapping));
            }
        }
        // Those that lost only some of their ports are still there, and so is a name that came
        // back.
        let table = self.table.load();
        departed.retain(|gone| table.mappings().iter().all(|there| there.name != gone.name));
    }

    fn record(&self, record: SessionRecord) {
        if self.log_sessions {
            self.log.push(record);
        }
    }
}

/// What control asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept from this socket.
    Listen(ListenAddr, Arc<OwnedFd>),
    /// Stop accepting for this route; what waits in its queue is still served, unless its sessions
    /// would be closed at once. The sender is dropped when the socket is.
    Unlisten(Arc<Route>, mpsc::Sender<Infallible>),
    /// Act on the live sessions of routes that changed.
    Apply(Arc<SessionChanges>),
    /// Take over a connection another worker accepted.
    Adopt(Accepted, Arc<Route>),
    /// Stop accepting; end when the last session has.
    Drain,
    /// End every session, spread over this time.
    Cut(EndReason, Duration),
    /// Show that the loop goes round.
    Beat,
}

/// What happens to the live sessions of each changed route.
pub type SessionChanges = HashMap<ListenAddr, SessionChange>;

/// What happens to the live sessions of one changed route.
#[derive(Debug, Clone)]
pub enum SessionChange {
    /// They go on under this route's mapping.
    Adopt(Arc<Route>),
    /// They end within this time, for this reason.
    Leave {
        /// How long they may take to finish by themselves.
        within: Duration,
        /// Why.
        reason: EndReason,
        /// The route under whose mapping those that are left go on until then.
        successor: Option<Arc<Route>>,
    },
}
