//! The loop of one worker.
//!
//! Order of service: what epoll reports is served at once, each session for a turn. Sessions that
//! could go on wait in a queue; the front worker takes one of them between two looks at epoll, so
//! that a keystroke waits for one turn at most, its partner all of them, so that each look is worth
//! more.

mod closing;
mod hand_over;
mod list_sessions;
mod orders;
mod proxy_header;
mod reported;
mod shortage;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    io::Errno,
};

use reported::{Reported, Wait};

use super::{
    Command, LostListener, OrderNumber, SessionChange, SessionChanges, SessionOrder, WorkerContext,
    WorkerHandle, WorkerRole,
    slots::{Key, Slots},
    timers::Timers,
    token::Token,
};
use crate::{
    end_reason::EndReason,
    limit::OnRefuse,
    listen::{AcceptError, Accepted, Backoff, Reserve, accept},
    os_error::in_words,
    relay::{PipePool, Side},
    session::{
        AckProbe, Extras, INTEREST, PendingProxyHeader, Session, SessionId, SessionLine,
        SessionRecord, SessionStep, Turn, admit,
    },
    socket,
    table::{ListenAddr, RemovalPolicy, Route, Table},
};
use closing::Closing;
use proxy_header::Awaited;

/// Bytes after which a direction's turn is over. A pipe is emptied all the same.
const TURN_BYTES: usize = 256 * 1024;

/// The buffer copied bytes pass through.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Events taken from epoll at a time.
const EVENTS: usize = 256;

/// Connections accepted from one listener before others get their turn.
const ACCEPTS: usize = 16;

/// Connections in a row that cannot be accepted before a listener is left alone for a moment.
const KEEPS_FAILING: usize = ACCEPTS;

/// Such failures before a listener is given up: a dozen pauses, some seconds.
const LOST_AFTER: usize = KEEPS_FAILING + 12;

/// At most one event in this time for sessions that this machine could open no connection for.
const UNDIALLED_EVERY: Duration = Duration::from_secs(5);

/// Sessions a worker may have more than the least busy one before it passes new ones on.
const IMBALANCE: usize = 8;

/// At most one log line in this time for each cause of accept trouble.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(5);

/// Sessions closed by decree are closed one by one in this rhythm, so that their clients do not all
/// come back in the same instant.
const PACE: Duration = Duration::from_millis(1);

/// How long until epoll is asked once more to report on a session's sockets, which it has refused.
const WATCH_AGAIN: Duration = Duration::from_millis(50);

/// How long a session may be quiet while epoll refuses to report on it.
const WATCH_PATIENCE: Duration = Duration::from_secs(30);

/// Waits in a row that may fail, and the time between two of them.
const FAILED_WAITS: (u32, Duration) = (1000, Duration::from_millis(10));

/// A worker's state.
pub(super) struct EventLoop {
    number: usize,
    workers: Vec<WorkerHandle>,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    shared: Arc<WorkerContext>,
    epoll: OwnedFd,
    listeners: Slots<Listener>,
    listening: HashMap<ListenAddr, Key>,
    sessions: Slots<Entry>,
    timers: Timers,
    /// Sessions that have had their turn and can go on.
    unfinished: VecDeque<Key>,
    /// Connections whose header is awaited, and until when.
    pending_headers: Slots<Awaited>,
    header_timers: Timers,
    /// Sessions that wait for a limit of bandwidth. They come and go often, and would leave an entry
    /// among the deadlines each time.
    pauses: Timers,
    /// Listeners left alone until a time.
    paused: Vec<(Instant, Key)>,
    pipes: PipePool,
    acks: AckProbe,
    scratch: Box<[u8]>,
    now: Instant,
    reported: Reported,
    /// Whether a session came from the partner of whose sockets no wait could tell yet.
    took: bool,
    draining: bool,
    /// Queues of listeners that are being closed.
    closing: VecDeque<Closing>,
    /// The last order that was carried out.
    carried_out: OrderNumber,
    /// Orders that something may arrive without.
    orders: VecDeque<(OrderNumber, SessionOrder)>,
    accept_logged: Option<Instant>,
    undialled_said: Option<Instant>,
    reserve: Reserve,
    /// The slot at which the next sample of the ways to the targets begins.
    sampled_up_to: usize,
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

struct Listener {
    addr: ListenAddr,
    socket: Arc<OwnedFd>,
    backoff: Backoff,
    /// Connections that could not be accepted since the last that could.
    failures: usize,
    /// Whether control wants its clients to wait.
    paused: bool,
}

struct Entry {
    session: Session,
    /// Whether it is in the queue of unfinished ones.
    queued: bool,
    /// Whether epoll reports on its sockets.
    watched: bool,
    /// The last order it had had when it came.
    seen: OrderNumber,
}

impl EventLoop {
    pub(super) fn new(
        number: usize,
        workers: Vec<WorkerHandle>,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        shared: Arc<WorkerContext>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &*wake,
            EventData::new_u64(Token::Commands.to_bits()),
            EventFlags::IN,
        )?;
        let pipes = PipePool::new(Arc::clone(&shared.pipes));
        Ok(Self {
            number,
            workers,
            commands,
            wake,
            shared,
            epoll,
            listeners: Slots::new(),
            listening: HashMap::new(),
            sessions: Slots::new(),
            timers: Timers::default(),
            unfinished: VecDeque::new(),
            pending_headers: Slots::new(),
            header_timers: Timers::default(),
            pauses: Timers::default(),
            paused: Vec::new(),
            pipes,
            acks: AckProbe::default(),
            scratch: vec![0; SCRATCH_BYTES].into(),
            now: Instant::now(),
            reported: Reported::new(Instant::now()),
            took: false,
            draining: false,
            closing: VecDeque::new(),
            carried_out: OrderNumber::default(),
            orders: VecDeque::new(),
            accept_logged: None,
            undialled_said: None,
            reserve: Reserve::set_aside(),
            sampled_up_to: 0,
        })
    }

    /// Serves until told to stop and the last session has ended.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut failed = 0;
        while !self.is_done() {
            events.clear();
            let began = Instant::now();
            let patience = self.patience(began);
            let timeout = patience.map(timespec);
            let waited = epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            );
            match waited {
                Ok(_) | Err(Errno::INTR) => failed = 0,
                Err(errno @ (Errno::BADF | Errno::INVAL | Errno::FAULT)) => {
                    return Err(errno.into());
                }
                Err(errno) if failed == FAILED_WAITS.0 => return Err(errno.into()),
                // Sessions are worth some patience with a machine that is short of something.
                Err(_) => {
                    failed += 1;
                    thread::sleep(FAILED_WAITS.1);
                }
            }
            self.now = Instant::now();
            self.took = false;
            let watched = self.watched();
            for event in &events {
                let flags = event.flags;
                match Token::from_bits(event.data.u64()) {
                    Token::Commands => self.run_commands(),
                    Token::Listener(key) => self.accept_from(key),
                    Token::Session(key, side) => {
                        self.with_session(key, |session, turn| session.turn(side, flags, turn));
                    }
                    Token::ProxyHeader(key) => self.read_header(key, flags),
                }
            }
            if waited.is_ok() && !self.took {
                self.reported.note(Wait {
                    began,
                    patience,
                    events: events.len(),
                    room: EVENTS,
                    watched,
                });
            }
            self.fire_timers();
            self.run_ready();
            self.serve_closing();
            self.workers[self.number].publish_sessions(self.sessions.len());
        }
        Ok(())
    }

    /// Whether its last session has ended and none can arrive.
    fn is_done(&self) -> bool {
        let served = self.sessions.len() + self.pending_headers.len() + self.closing.len();
        self.draining && served == 0 && self.orders.is_empty()
    }

    /// How long epoll may wait; `None` is for ever.
    fn patience(&self, now: Instant) -> Option<Duration> {
        if !self.unfinished.is_empty() || !self.closing.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = [
            self.timers.next(),
            self.header_timers.next(),
            self.pauses.next(),
            self.paused.iter().map(|(until, _)| *until).min(),
        ]
        .into_iter()
        .flatten()
        .min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Sockets that epoll may report on.
    fn watched(&self) -> usize {
        2 * self.sessions.len() + self.pending_headers.len() + self.listeners.len() + 1
    }

    // --- sessions

    /// Gives those of the unfinished sessions another turn that should have one now.
    fn run_ready(&mut self) {
        let turns = match self.role() {
            WorkerRole::Interactive => 1,
            WorkerRole::Bulk => self.unfinished.len(),
        };
        for _ in 0..turns {
            let Some(key) = self.unfinished.pop_front() else {
                return;
            };
            if let Some(entry) = self.sessions.get_mut(key) {
                entry.queued = false;
                self.with_session(key, Session::resume);
            }
        }
    }

    fn fire_timers(&mut self) {
        while let Some(slot) = self.timers.pop_due(self.reported.until()) {
            if let Some(key) = self.sessions.occupant_of(slot) {
                self.with_session(key, Session::on_deadline);
            }
        }
        self.end_pauses();
        self.end_silent_pending();
        let now = self.now;
        let mut due = Vec::new();
        self.paused.retain(|&(until, key)| {
            let is_due = until <= now;
            if is_due {
                due.push(key);
            }
            !is_due
        });
        for key in due {
            self.watch_listener(key, EventFlags::IN);
        }
    }

    /// Lends a session what it needs, and does what it then says.
    fn with_session(
        &mut self,
        key: Key,
        act: impl FnOnce(&mut Session, &mut Turn<'_>) -> SessionStep,
    ) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let mut turn = Turn {
            now: self.now,
            reported: self.reported.until(),
            pipes: &mut self.pipes,
            scratch: &mut self.scratch,
            budget: TURN_BYTES,
            acks: &mut self.acks,
        };
        let was_connected = entry.session.is_connected();
        let step = act(&mut entry.session, &mut turn);
        if !was_connected && entry.session.is_connected() && self.shared.log_openings.load(Relaxed)
        {
            let view = entry.session.view(self.now);
            self.shared.record(SessionLine::Opened(view));
        }
        match step {
            SessionStep::End(reason) => {
                self.end(key, reason);
                return;
            }
            SessionStep::Again if !entry.queued => {
                entry.queued = true;
                self.unfinished.push_back(key);
            }
            SessionStep::Again | SessionStep::Wait => {}
        }
        let pace = entry.session.pace();
        match self.belongs_to_partner(pace) {
            true => self.hand_over(key),
            false => self.arm(key),
        }
    }

    /// Sees to it that a session is called when it wants to be.
    fn arm(&mut self, key: Key) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(at) = entry.session.deadline() {
            self.timers.arm(key.index(), at);
        }
        if let Some(at) = entry.session.paused_until() {
            self.pauses.arm(key.index(), at);
        }
    }

    /// Lets sessions go on that have waited for their limit of bandwidth.
    fn end_pauses(&mut self) {
        while let Some(slot) = self.pauses.pop_due(self.now) {
            let Some(key) = self.sessions.occupant_of(slot) else {
                continue;
            };
            let Some(entry) = self.sessions.get_mut(key) else {
                continue;
            };
            if !entry.watched && !self.watch_session(key) {
                continue;
            }
            let Some(entry) = self.sessions.get_mut(key) else {
                continue;
            };
            match entry.session.paused_until() {
                None => {}
                Some(at) if at > self.now => self.pauses.arm(slot, at),
                Some(_) => self.with_session(key, Session::resume),
            }
        }
    }

    fn end(&mut self, key: Key, reason: EndReason) {
        let Some(entry) = self.sessions.remove(key) else {
            return;
        };
        let session = entry.session;
        let record = session.end(reason, &mut self.pipes, &mut self.acks, self.now);
        self.report_undialled(&record);
        let stats = &self.shared.stats;
        // What was spliced may not have arrived.
        let copied = (record.bytes_up + record.bytes_down).saturating_sub(record.bytes_spliced);
        stats.spliced_bytes.fetch_add(record.bytes_spliced, Relaxed);
        stats.copied_bytes.fetch_add(copied, Relaxed);
        stats.session_ended();
        self.shared.record(SessionLine::Ended(record));
    }

    /// Makes an event of it if this machine could not open a connection.
    fn report_undialled(&mut self, record: &SessionRecord) {
        let lately = |last: Instant| self.now.duration_since(last) < UNDIALLED_EVERY;
        if record.reason != EndReason::ConnectFailed || self.undialled_said.is_some_and(lately) {
            return;
        }
        self.undialled_said = Some(self.now);
        tracing::warn!(
            mapping = %record.route.mapping.name,
            target = %record.route.target,
            error = record.error.map(tracing::field::display),
            "this machine could not open a connection to a target"
        );
    }

    // --- connections

    fn accept_from(&mut self, key: Key) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get_mut(key) else {
                return;
            };
            // The route was removed a moment ago; the command to serve the queue a last time and
            // to close it is on its way.
            let Some(route) = self.shared.table.load().route(&listener.addr).cloned() else {
                return;
            };
            match accept(&*listener.socket) {
                Ok(accepted) => {
                    listener.backoff.reset();
                    listener.failures = 0;
                    self.reserve.refill();
                    self.place(accepted, route);
                }
                Err(AcceptError::Empty) => return,
                Err(AcceptError::Retry(errno)) => {
                    listener.failures += 1;
                    let failures = listener.failures;
                    self.shared.stats.accept_retries.fetch_add(1, Relaxed);
                    tracing::debug!(listen = %listener.addr, errno = in_words(&errno.into()), "connection lost before it was accepted");
                    match failures {
                        ..KEEPS_FAILING => {}
                        KEEPS_FAILING..LOST_AFTER => {
                            return self.back_off_after_failures(key, errno);
                        }
                        _ => return self.lose_listener(key, in_words(&errno.into())),
                    }
                }
                Err(AcceptError::Pause(errno)) => {
                    return self.back_off_after_shortage(key, &route, errno);
                }
                Err(AcceptError::Fatal(errno)) => {
                    return self.lose_listener(key, in_words(&errno.into()));
                }
            }
        }
    }

    fn watch_listener(&mut self, key: Key, events: EventFlags) {
        if let Some(listener) = self.listeners.get_mut(key) {
            let events = if listener.paused {
                EventFlags::empty()
            } else {
                events
            };
            let data = EventData::new_u64(Token::Listener(key).to_bits());
            if let Err(errno) = epoll::modify(&self.epoll, &*listener.socket, data, events) {
                self.lose_listener(key, in_words(&errno.into()));
            }
        }
    }

    /// Serves a connection here, or has a less busy worker do so.
    fn place(&mut self, accepted: Accepted, route: Arc<Route>) {
        let own = self.sessions.len();
        let lightest = self
            .workers
            .iter()
            .enumerate()
            .filter(|(number, worker)| {
                *number != self.number && worker.role() == WorkerRole::Interactive
            })
            .min_by_key(|(_, worker)| worker.sessions());
        match lightest {
            Some((_, worker)) if !self.draining && worker.sessions() + IMBALANCE < own => {
                worker.send(Command::Adopt(accepted, route, self.carried_out));
            }
            _ => self.open(accepted, route, self.carried_out),
        }
    }

    /// Serves a connection that has been on its way from a listener for a while: under what its
    /// mapping is now, or if that is gone like its last sessions.
    fn open_late(&mut self, accepted: Accepted, route: Arc<Route>, seen: OrderNumber) {
        let table = self.shared.table.load_full();
        match orders::current_route(&table, &route) {
            Some(current) => self.open(accepted, Arc::clone(current), seen),
            None if route.mapping.policy.on_remove == RemovalPolicy::Kill => {
                let id = SessionId(self.shared.next_session.fetch_add(1, Relaxed));
                let reason = EndReason::MappingRemoved;
                route.mapping.stats.refuse(reason);
                self.refuse(id, &accepted, route, reason);
            }
            None => self.open(accepted, route, seen),
        }
    }

    /// Serves a connection that has had that order and those before.
    fn open(&mut self, accepted: Accepted, route: Arc<Route>, seen: OrderNumber) {
        let id = SessionId(self.shared.next_session.fetch_add(1, Relaxed));
        match PendingProxyHeader::is_due(&accepted, &route) {
            false => self.begin(id, accepted, route, seen, None),
            true => self.await_header(id, accepted, route, seen),
        }
    }

    /// Gives a client its session, unless something keeps it out.
    fn begin(
        &mut self,
        id: SessionId,
        accepted: Accepted,
        route: Arc<Route>,
        seen: OrderNumber,
        drained: Option<Instant>,
    ) {
        let shared = Arc::clone(&self.shared);
        let client = accepted.client;
        let counted = match admit(client, &route, &shared.gate, &shared.stats, self.now) {
            Ok(counted) => counted,
            Err(reason) => return self.refuse(id, &accepted, route, reason),
        };
        let extras = counted.map(|(admission, dialling)| Extras::counted(admission, dialling));
        let (route_of, splice) = (Arc::clone(&route), shared.splice.load(Relaxed));
        let mut session = match Session::dial(id, accepted, route_of, self.now, splice, extras) {
            Ok(session) => session,
            Err((error, accepted)) => {
                socket::reset_on_close(&accepted.socket);
                let record = SessionRecord::undialled(id, &accepted, route, error);
                self.report_undialled(&record);
                shared.record(SessionLine::Ended(record));
                return;
            }
        };
        shared.stats.session_opened();
        session.drain_by(drained);
        self.serve(session, seen);
    }

    /// Looks after a session from now on, which has had that order and those before.
    fn serve(&mut self, session: Session, seen: OrderNumber) {
        let key = self.sessions.insert(Entry {
            session,
            queued: false,
            watched: false,
            seen,
        });
        if self.watch_session(key) {
            self.arm(key);
        }
        self.catch_up_session(key, seen);
    }

    /// Turns a client away; dropping its socket closes it.
    fn refuse(&self, id: SessionId, client: &Accepted, route: Arc<Route>, reason: EndReason) {
        if route.mapping.policy.on_refuse == OnRefuse::Reset {
            socket::reset_on_close(&client.socket);
        }
        if self.shared.refusals.grant(self.now) {
            let record = SessionRecord::refused(id, client, route, reason);
            self.shared.record(SessionLine::Ended(record));
        }
    }

    /// Has epoll report on both sockets, now or later; whether there still is a session.
    fn watch_session(&mut self, key: Key) -> bool {
        let Some(errno) = self.register(key).err() else {
            return true;
        };
        let now = self.now;
        let Some(entry) = self.sessions.get_mut(key) else {
            return false;
        };
        // Who came a moment ago may come again; what others began is not given up for a shortage.
        let reason = match entry.session.is_connected() {
            false => EndReason::NoResources,
            true if entry.session.quiet(now) >= WATCH_PATIENCE => EndReason::SystemError,
            true => {
                self.pauses.arm(key.index(), now + WATCH_AGAIN);
                return true;
            }
        };
        tracing::error!(
            errno = in_words(&errno.into()),
            "cannot watch a session's sockets"
        );
        self.end(key, reason);
        false
    }

    /// Registers both sockets. Closing them undoes it.
    fn register(&mut self, key: Key) -> Result<(), Errno> {
        let Some(entry) = self.sessions.get_mut(key) else {
            return Ok(());
        };
        for side in [Side::Client, Side::Target] {
            let data = EventData::new_u64(Token::Session(key, side).to_bits());
            match epoll::add(&self.epoll, entry.session.socket(side), data, INTEREST) {
                // The last attempt got as far as that.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        entry.watched = true;
        Ok(())
    }

    // --- control

    fn run_commands(&mut self) {
        // Resets the eventfd's counter; an empty one has been reset already.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        let confirmed = self.confirmed_by_all();
        while let Ok(command) = self.commands.try_recv() {
            self.execute(command);
        }
        self.forget_orders(confirmed);
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Listen {
                addr,
                socket,
                paused,
            } => self.listen(addr, socket, paused),
            Command::Pause(addr, paused) => self.pause(addr, paused),
            Command::Unlisten(route, closed) => self.unlisten(route, closed),
            Command::Order(number, order) => self.carry_out(number, order),
            Command::Adopt(accepted, route, seen) => self.open_late(accepted, route, seen),
            Command::Take(session, seen) => self.take(*session, seen),
            // Whoever asked may have gone; the answer is then nobody's.
            Command::ListSessions {
                from,
                filter,
                reply,
            } => _ = reply.send(self.list_sessions(from, &filter)),
            Command::SamplePaths(reply) => _ = reply.send(self.sample_paths()),
            Command::Beat => self.workers[self.number].beat(),
        }
    }

    fn listen(&mut self, addr: ListenAddr, socket: Arc<OwnedFd>, paused: bool) {
        let key = self.listeners.insert(Listener {
            addr,
            socket: Arc::clone(&socket),
            backoff: Backoff::default(),
            failures: 0,
            paused,
        });
        self.listening.insert(addr, key);
        let data = EventData::new_u64(Token::Listener(key).to_bits());
        let events = match paused {
            true => EventFlags::empty(),
            false => EventFlags::IN,
        };
        if let Err(errno) = epoll::add(&self.epoll, &*socket, data, events) {
            self.lose_listener(key, in_words(&errno.into()));
        }
    }

    fn pause(&mut self, addr: ListenAddr, paused: bool) {
        let Some(&key) = self.listening.get(&addr) else {
            return;
        };
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.paused = paused;
        }
        self.watch_listener(key, EventFlags::IN);
    }

    /// Serves what waits in the listener's queue, then lets go of it.
    fn unlisten(&mut self, route: Arc<Route>, closed: tokio::sync::mpsc::Sender<Infallible>) {
        let Some(&key) = self.listening.get(&route.listen) else {
            return;
        };
        match route.mapping.policy.on_remove {
            RemovalPolicy::Kill => _ = self.remove_listener(key),
            RemovalPolicy::Keep | RemovalPolicy::Drain(_) => {
                self.close_listener(key, route, Some(closed))
            }
        }
    }

    /// Gives up a listener that cannot be served; control opens another in its place.
    fn lose_listener(&mut self, key: Key, why: String) {
        if let Some(listener) = self.remove_listener(key) {
            self.shared.stats.accept_failures.fetch_add(1, Relaxed);
            // Without control the process is about to end.
            let _ = self.shared.lost.send(LostListener {
                addr: listener.addr,
                socket: listener.socket,
                why,
            });
        }
    }

    /// Takes a listener out. Its socket may live on in control's hands, so epoll has to be told.
    fn remove_listener(&mut self, key: Key) -> Option<Listener> {
        let listener = self.listeners.remove(key)?;
        self.listening.remove(&listener.addr);
        // It was registered when it came in.
        let _ = epoll::delete(&self.epoll, &*listener.socket);
        Some(listener)
    }

    fn drain(&mut self) {
        self.draining = true;
        let table = self.shared.table.load_full();
        for key in self.listeners.keys() {
            let addr = self.listeners.get_mut(key).map(|listener| listener.addr);
            match addr.and_then(|addr| table.route(&addr)) {
                Some(route) => self.close_listener(key, Arc::clone(route), None),
                None => _ = self.remove_listener(key),
            }
        }
    }
}
