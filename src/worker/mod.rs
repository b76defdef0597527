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
    os::fd::OwnedFd,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;

pub use handle::{WorkerHandle, spawn};

use crate::{
    listen::Accepted,
    relay::PipeBudget,
    session::SessionRecord,
    table::{ListenAddr, Route, Table},
    telemetry::{EndReason, LogQueue, ProcessStats},
};

/// What the workers of a process share.
#[derive(Debug)]
pub struct Shared {
    /// The table in force.
    pub table: ArcSwap<Table>,
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
    /// would be closed at once.
    Unlisten(Arc<Route>),
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
