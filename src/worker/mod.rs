//! The threads of the data path.
//!
//! Each worker is one thread around one edge-triggered epoll instance: it drives sessions and does
//! what control tells it through a queue. A worker never waits for anything but epoll, and control
//! never touches a session but through [`Command`]s. What a session does is in [`crate::session`];
//! here is only when it is its turn, and whose.
//!
//! Workers come in pairs. The front one has listeners, and every session begins there; its partner
//! takes over those that move bulk for more than a moment, and gives them back when they are quiet.
//! So the front worker is asleep nearly always, and the scheduler runs it at once when a keystroke
//! comes; a thread that bulk keeps busy would have to wait for its turn on the processor, for
//! milliseconds. While control changes sessions, none moves ([`Command::Stay`]).

mod event_loop;
mod handle;
mod roster;
mod slots;
mod timers;
mod token;

use std::{
    collections::HashMap,
    convert::Infallible,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

pub use handle::{Lane, WorkerHandle, set_bulk_nice, spawn};
pub use roster::Roster;

use crate::{
    limit::Gate,
    listen::Accepted,
    relay::PipeBudget,
    session::{Session, SessionFilter, SessionLine, SessionView},
    table::{Departure, Holds, ListenAddr, Mapping, MappingName, Route, Table},
    telemetry::{EndReason, LogQueue, PathInfo, ProcessStats, Sampler, Tally},
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
    /// The mappings an operator holds. Only control acts on it.
    pub holds: ArcSwap<Holds>,
    /// Mappings that are no longer in the table. Those without sessions leave with the next change.
    pub departed: ArcSwap<Vec<Arc<Mapping>>>,
    /// Where the lines of the session log go.
    pub log: Arc<LogQueue<SessionLine>>,
    /// Which refusals get a line.
    pub refusals: Sampler,
    /// Whether a session gets a line when its target has answered.
    pub log_openings: AtomicBool,
    /// Whether anybody reads those lines.
    pub log_sessions: AtomicBool,
    /// The number of the next session.
    pub next_session: AtomicU64,
    /// The limits of the process, and what they count.
    pub gate: Gate,
    /// Whether sessions that begin may splice at all.
    pub splice: AtomicBool,
}

impl Shared {
    /// What all mappings have counted since the start, those that are gone included.
    pub fn tally(&self) -> Tally {
        let mut tally = self.stats.retired.tally();
        for mapping in self.table.load().mappings() {
            tally.add(&mapping.stats);
        }
        tally
    }

    /// Puts a line into the session log, if anybody reads that.
    pub fn record(&self, line: SessionLine) {
        if self.log_sessions.load(Relaxed) {
            self.log.push(line);
        }
    }
}

/// What control asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Take charge of a listening socket.
    Listen {
        /// Its address.
        addr: ListenAddr,
        /// The socket.
        socket: Arc<OwnedFd>,
        /// Whether its clients are to wait for now.
        held: bool,
    },
    /// Let the clients of a listener wait, or no longer.
    Hold(ListenAddr, bool),
    /// Stop accepting for this route; what waits in its queue is still served, unless its sessions
    /// would be closed at once. The sender is dropped when the socket is.
    Unlisten(Arc<Route>, mpsc::Sender<Infallible>),
    /// Act on the live sessions of routes that changed.
    Apply(Arc<SessionChanges>),
    /// Take over a connection another worker accepted.
    Adopt(Accepted, Arc<Route>),
    /// Take over a session of the partner.
    Take(Box<Session>),
    /// Keep every session and connection from now on. The sender is dropped when that is so: what
    /// was on its way then is in the queue of whom it goes to.
    Stay(mpsc::Sender<Infallible>),
    /// Sessions and connections may move again.
    Move,
    /// Stop accepting; end when the last session has.
    Drain,
    /// End every session, spread over this time.
    Cut(EndReason, Duration),
    /// Tell of live sessions.
    Survey {
        /// Where to begin: 0, or where the last page left off.
        from: usize,
        /// Which ones.
        filter: SessionFilter,
        /// Who asks.
        reply: oneshot::Sender<SurveyPage>,
    },
    /// End sessions at an operator's word, and say how many.
    Kill {
        /// Which ones.
        filter: SessionFilter,
        /// Who asks.
        reply: oneshot::Sender<usize>,
    },
    /// Look at the way to the target of a few sessions, others each time.
    SamplePaths(oneshot::Sender<Vec<PathSample>>),
    /// Show that the loop goes round.
    Beat,
}

/// Some of a worker's live sessions.
#[derive(Debug)]
pub struct SurveyPage {
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// Where the next page begins, if there is one.
    pub next: Option<usize>,
}

/// The way to the target of one live session.
#[derive(Debug)]
pub struct PathSample {
    /// The mapping it belongs to.
    pub mapping: Arc<Mapping>,
    /// How it does.
    pub path: PathInfo,
}

/// What happens to the live sessions of each changed route.
///
/// The name is that of the mapping the route belonged to: a session of an earlier mapping on the same
/// address, kept since, is none of its business.
pub type SessionChanges = HashMap<ListenAddr, (MappingName, SessionChange)>;

/// What happens to the live sessions of one changed route.
#[derive(Debug, Clone)]
pub enum SessionChange {
    /// They go on under this route's mapping.
    Adopt(Arc<Route>),
    /// An operator gives them this time to finish, or all there is.
    Drain(Option<Duration>),
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

impl SessionChange {
    /// What becomes of sessions whose route goes, or leads elsewhere: nothing, or an end in time. An
    /// end at once is for `reason`.
    pub fn departure(
        policy: Departure,
        reason: EndReason,
        successor: Option<Arc<Route>>,
    ) -> Option<Self> {
        let (within, reason) = match policy {
            Departure::Keep => return None,
            Departure::Drain(within) => (within, EndReason::DrainDeadline),
            Departure::Kill => (Duration::ZERO, reason),
        };
        Some(Self::Leave {
            within,
            reason,
            successor,
        })
    }
}
