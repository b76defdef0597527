//! The threads of the data path.
//!
//! Each worker is one thread around one edge-triggered epoll instance: it drives sessions and does
//! what control tells it through a queue. A worker never waits for anything but epoll, and control
//! never touches a session but through [`Command`]s. What a session does is in [`crate::session`];
//! here is only when it is its turn, and whose.
//!
//! Workers come in pairs. The interactive one has listeners, and every session begins there; its
//! partner takes over those that move bulk for more than a moment, and gives them back when they are
//! quiet. So the interactive worker is asleep nearly always, and the scheduler runs it at once when a
//! keystroke comes; a thread that bulk keeps busy would have to wait for its turn on the processor,
//! for milliseconds. What control wants of sessions reaches those that move as well, by the numbers
//! that `orders` gives it.

mod acceptor;
mod event_loop;
mod freeze;
mod handle;
mod orders;
mod pending_headers;
mod poller;
mod queued_clients;
mod reported;
mod saved;
mod session_table;
mod slots;
mod timers;
mod waiting_clients;
mod workers;

use std::{
    convert::Infallible,
    fmt,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

pub use freeze::Frozen;
pub use handle::{NotBegun, WorkerHandle, WorkerRole, set_bulk_nice, spawn};
pub use orders::{Kill, OrderNumber, SessionChange, SessionChanges, SessionOrder};
pub use saved::{Adopted, PART, load};
pub use workers::Workers;

use freeze::Freeze;
use slots::Key;

use crate::{
    end_reason::EndReason,
    handover::Sink,
    limit::{Gate, OnRefuse},
    listen::Accepted,
    relay::PipeBudget,
    session::{
        Connection, PendingProxyHeader, QueuedClient, Session, SessionFilter, SessionId,
        SessionLine, SessionRecord, SessionView, UpgradeMarks, Waiting,
    },
    socket,
    table::{
        DrainEnds, JobLease, ListenAddr, Mapping, MappingOverride, MappingOverrides, Route, Table,
    },
    telemetry::{LogQueue, PathInfo, ProcessStats, Sampler, Tally},
};

/// A listening socket a worker had to give up.
#[derive(Debug)]
pub struct LostListener {
    pub addr: ListenAddr,
    pub socket: Arc<OwnedFd>,
    /// What was wrong with it.
    pub why: String,
}

/// A public address that should be listened on and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedListener {
    pub addr: ListenAddr,
    /// What was wrong with its socket, or why no other can be opened.
    pub why: String,
}

/// What the workers of a process share.
#[derive(Debug)]
pub struct WorkerContext {
    pub table: ArcSwap<Table>,
    /// Until when routes of jobs may be used.
    pub job_lease: Arc<JobLease>,
    pub stats: ProcessStats,
    pub pipes: Arc<PipeBudget>,
    /// The mappings an operator paused or drained. Control acts on it; workers only let wait.
    pub overrides: ArcSwap<MappingOverrides>,
    /// When the sessions of drained mappings end, to be told.
    pub drain_ends: ArcSwap<DrainEnds>,
    /// Where control hears of listeners that were lost.
    pub lost: mpsc::UnboundedSender<LostListener>,
    /// Listeners that were lost and are to be opened again, in the order of their addresses.
    pub closed: ArcSwap<Vec<ClosedListener>>,
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
    /// The upgrades that the process went through.
    pub upgrade_marks: UpgradeMarks,
    /// The limits of the process, and what they count.
    pub gate: Gate,
    /// Whether sessions that begin may splice at all.
    pub splice: AtomicBool,
}

impl WorkerContext {
    /// What all mappings have counted since the start, those that are gone included.
    pub fn tally(&self) -> Tally {
        let mut tally = self.stats.retired.tally();
        for mapping in self.table.load().mappings() {
            tally.add(&mapping.stats);
        }
        tally
    }

    /// Whether an operator lets the clients of a route wait.
    fn is_paused(&self, route: &Route) -> bool {
        self.overrides.load().get(&route.mapping.name) == Some(&MappingOverride::Paused)
    }

    fn next_id(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Relaxed))
    }

    /// Turns a client away, which has been counted; dropping its socket closes it.
    fn refuse(&self, connection: &Connection, reason: EndReason, now: Instant) {
        self.turn_away(connection, reason, Duration::ZERO, now);
    }

    /// Turns a client away that has waited for its session.
    fn refuse_waiting(&self, client: impl Waiting, reason: EndReason, now: Instant) {
        let waited = now.saturating_duration_since(client.client().since());
        self.turn_away(&client.end(reason), reason, waited, now);
    }

    fn turn_away(
        &self,
        connection: &Connection,
        reason: EndReason,
        duration: Duration,
        now: Instant,
    ) {
        let socket = &connection.accepted.socket;
        match connection.route.mapping.policy.on_refuse {
            OnRefuse::Reset => socket::reset_on_close(socket),
            OnRefuse::Close => {}
            OnRefuse::Drop => socket::say_nothing_on_close(socket),
        }
        if self.refusals.grant(now) {
            let refused = SessionRecord::refused(connection, reason);
            self.record_end(SessionRecord {
                duration,
                ..refused
            });
        }
    }

    /// Puts the end of a session, or of a client's attempt to have one, into the session log.
    fn record_end(&self, record: SessionRecord) {
        let upgrades = self.upgrade_marks.since(record.id);
        self.record(SessionLine::Ended(SessionRecord { upgrades, ..record }));
    }

    /// Puts a line into the session log, if anybody reads that.
    pub fn record(&self, line: SessionLine) {
        if self.log_sessions.load(Relaxed) {
            self.log.push(line);
        }
    }
}

#[derive(Debug)]
pub enum Command {
    /// Take charge of a listening socket.
    Listen {
        addr: ListenAddr,
        socket: Arc<OwnedFd>,
        /// Whether its clients are to wait for now.
        paused: bool,
    },
    /// Let the clients of a listener wait, or no longer. The sender is dropped when that is done.
    Pause(ListenAddr, bool, mpsc::Sender<Infallible>),
    /// Stop accepting for this route; what waits in its queue is still served, unless its sessions
    /// would be closed at once. The sender is dropped when the socket is.
    Unlisten(Arc<Route>, mpsc::Sender<Infallible>),
    Order(OrderNumber, SessionOrder),
    /// Take over a connection another worker accepted, which had carried out that order and those
    /// before.
    Adopt(Accepted, Arc<Route>, OrderNumber),
    /// Take over a session of the partner, which has had that order and those before.
    Take(Box<Session>, OrderNumber),
    /// Go on with what the worker of the same name had in the image of the program before, before
    /// anything else comes.
    TakeUp(Box<Adopted>),
    /// Take over a connection whose header is awaited, before there was any order.
    AwaitHeader(Box<PendingProxyHeader>),
    /// Take over a client that waits for a target, before there was any order.
    AwaitTarget(Box<QueuedClient>),
    /// It is the turn of a client that waits for a target.
    TakeTurn(Key),
    /// Let go of the sender once the queues of all closed listeners are served.
    ServeQueues(mpsc::Sender<Infallible>),
    /// Stand still, and hand over everything.
    Freeze(Arc<Freeze>),
    /// Say what would be handed over now, and how many sessions that are, without standing still.
    Describe(Describe),
    /// Nothing will be handed over yet: keep nothing of what was said.
    ForgetDescribed,
    ListSessions {
        /// Where to begin: 0, or where the last page left off.
        from: usize,
        filter: SessionFilter,
        reply: oneshot::Sender<SessionPage>,
    },
    /// Look at the way to the target of a few sessions, others each time.
    SamplePaths(oneshot::Sender<Vec<PathSample>>),
    /// Show that the loop goes round.
    Beat,
}

/// Where to say what would be handed over.
pub struct Describe {
    sink: Arc<dyn Sink>,
    reply: std::sync::mpsc::Sender<Result<usize, String>>,
}

impl fmt::Debug for Describe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Describe").finish_non_exhaustive()
    }
}

/// Some of a worker's live sessions.
#[derive(Debug)]
pub struct SessionPage {
    pub sessions: Vec<SessionView>,
    /// Where the next page begins, if there is one.
    pub next: Option<usize>,
}

/// The way to the target of one live session.
#[derive(Debug)]
pub struct PathSample {
    pub mapping: Arc<Mapping>,
    pub path: PathInfo,
}
