//! The loop of one worker.
//!
//! Order of service: what epoll reports is served at once, each session for a turn. Sessions that
//! could go on wait in a queue; the front worker takes one of them between two looks at epoll, so
//! that a keystroke waits for one turn at most, its partner all of them, so that each look is worth
//! more.

mod greet;
mod lanes;
mod reported;
mod shortage;
mod survey;

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, TryRecvError},
    },
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
    Command, Lane, SessionChange, SessionChanges, Shared, WorkerHandle,
    slots::{Key, Slots},
    timers::Timers,
    token::Token,
};
use crate::{
    limit::OnRefuse,
    listen::{AcceptError, Accepted, Backoff, Reserve, accept},
    os_error::in_words,
    relay::{PipePool, Side},
    session::{
        AckProbe, Extras, Greeting, INTEREST, Session, SessionId, SessionLine, SessionRecord, Turn,
        Verdict, admit,
    },
    socket,
    table::{Departure, ListenAddr, Route},
    telemetry::EndReason,
};

/// Bytes after which a direction's turn is over. A pipe is emptied all the same.
const TURN_BYTES: usize = 256 * 1024;

/// The buffer copied bytes pass through.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Events taken from epoll at a time.
const EVENTS: usize = 256;

/// Connections accepted from one listener before others get their turn.
const ACCEPTS: usize = 16;

/// Sessions a worker may have more than the least busy one before it passes new ones on.
const IMBALANCE: usize = 8;

/// At most one log line in this time for each cause of accept trouble.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(5);

/// Sessions closed by decree are closed one by one in this rhythm, so that their clients do not all
/// come back in the same instant.
const PACE: Duration = Duration::from_millis(1);

/// How long until epoll is asked once more to report on a session, and for how long a session may go
/// without.
const WATCH_AGAIN: Duration = Duration::from_millis(50);
/// See there.
const WATCH_PATIENCE: Duration = Duration::from_secs(30);

/// Waits in a row that may fail, and the time between two of them.
const FAILED_WAITS: (u32, Duration) = (1000, Duration::from_millis(10));

/// A worker's state.
pub(super) struct EventLoop {
    number: usize,
    workers: Vec<WorkerHandle>,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    shared: Arc<Shared>,
    epoll: OwnedFd,
    listeners: Slots<Listener>,
    listening: HashMap<ListenAddr, Key>,
    sessions: Slots<Entry>,
    timers: Timers,
    /// Sessions that have had their turn and can go on.
    unfinished: VecDeque<Key>,
    /// Connections whose header is awaited, and until when.
    greetings: Slots<Greeting>,
    greeting_timers: Timers,
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
    /// Whether sessions and connections stay where they are.
    stay: bool,
    accept_logged: Option<Instant>,
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
    /// Whether control wants its clients to wait.
    held: bool,
}

struct Entry {
    session: Session,
    /// Whether it is in the queue of unfinished ones.
    queued: bool,
    /// Whether epoll reports on its sockets.
    watched: bool,
}

impl EventLoop {
    pub(super) fn new(
        number: usize,
        workers: Vec<WorkerHandle>,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        shared: Arc<Shared>,
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
            greetings: Slots::new(),
            greeting_timers: Timers::default(),
            pauses: Timers::default(),
            paused: Vec::new(),
            pipes,
            acks: AckProbe::default(),
            scratch: vec![0; SCRATCH_BYTES].into(),
            now: Instant::now(),
            reported: Reported::new(Instant::now()),
            took: false,
            draining: false,
            stay: false,
            accept_logged: None,
            reserve: Reserve::set_aside(),
            sampled_up_to: 0,
        })
    }

    /// Serves until told to stop and the last session has ended.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut failed = 0;
        while !(self.draining && self.sessions.len() + self.greetings.len() == 0) {
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
            for event in &events {
                let flags = event.flags;
                match Token::from_bits(event.data.u64()) {
                    Token::Commands => self.obey(),
                    Token::Listener(key) => self.accept_from(key),
                    Token::Session(key, side) => {
                        self.with_session(key, |session, turn| session.turn(side, flags, turn));
                    }
                    Token::Greeting(key) => self.hear(key, flags),
                }
            }
            if waited.is_ok() && !self.took {
                self.reported.note(Wait {
                    began,
                    patience,
                    events: events.len(),
                    room: EVENTS,
                    watched: self.watched(),
                });
            }
            self.on_time();
            self.go_on();
            self.workers[self.number].publish_sessions(self.sessions.len());
        }
        Ok(())
    }

    /// How long epoll may wait; `None` is for ever.
    fn patience(&self, now: Instant) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = [
            self.timers.next(),
            self.greeting_timers.next(),
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
        2 * self.sessions.len() + self.greetings.len() + self.listeners.len() + 1
    }

    // --- sessions

    /// Gives those of the unfinished sessions another turn that should have one now.
    fn go_on(&mut self) {
        let turns = match self.lane() {
            Lane::Front => 1,
            Lane::Bulk => self.unfinished.len(),
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

    fn on_time(&mut self) {
        while let Some(slot) = self.timers.pop_due(self.reported.until()) {
            if let Some(key) = self.sessions.occupant_of(slot) {
                self.with_session(key, Session::on_deadline);
            }
        }
        self.end_pauses();
        self.end_silent_greetings();
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
    fn with_session(&mut self, key: Key, act: impl FnOnce(&mut Session, &mut Turn<'_>) -> Verdict) {
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
        let verdict = act(&mut entry.session, &mut turn);
        if !was_connected && entry.session.is_connected() && self.shared.log_openings.load(Relaxed)
        {
            let view = entry.session.view(self.now);
            self.shared.record(SessionLine::Opened(view));
        }
        match verdict {
            Verdict::End(reason) => {
                self.end(key, reason);
                return;
            }
            Verdict::Again if !entry.queued => {
                entry.queued = true;
                self.unfinished.push_back(key);
            }
            Verdict::Again | Verdict::Wait => {}
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
        let stats = &self.shared.stats;
        // What was spliced may not have arrived.
        let copied = (record.bytes_up + record.bytes_down).saturating_sub(record.bytes_spliced);
        stats.spliced_bytes.fetch_add(record.bytes_spliced, Relaxed);
        stats.copied_bytes.fetch_add(copied, Relaxed);
        stats.session_ended();
        self.shared.record(SessionLine::Ended(record));
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
                    self.reserve.refill();
                    self.place(accepted, route);
                }
                Err(AcceptError::Empty) => return,
                Err(AcceptError::Retry(errno)) => {
                    self.shared.stats.accept_retries.fetch_add(1, Relaxed);
                    tracing::debug!(listen = %listener.addr, errno = in_words(&errno.into()), "connection lost before it was accepted");
                }
                Err(AcceptError::Pause(errno)) => return self.run_short(key, &route, errno),
                Err(AcceptError::Fatal(errno)) => {
                    self.shared.stats.accept_failures.fetch_add(1, Relaxed);
                    tracing::error!(listen = %listener.addr, errno = in_words(&errno.into()), "listener failed and is closed");
                    self.remove_listener(key);
                    return;
                }
            }
        }
    }

    fn watch_listener(&mut self, key: Key, events: EventFlags) {
        if let Some(listener) = self.listeners.get_mut(key) {
            let events = if listener.held {
                EventFlags::empty()
            } else {
                events
            };
            let data = EventData::new_u64(Token::Listener(key).to_bits());
            // The socket is registered and stays open as long as the entry; nothing can fail but
            // the kernel's memory, and then the next pause or reload tries again.
            let _ = epoll::modify(&self.epoll, &*listener.socket, data, events);
        }
    }

    /// Serves a connection here, or has a less busy worker do so.
    fn place(&mut self, accepted: Accepted, route: Arc<Route>) {
        let own = self.sessions.len();
        let lightest = self
            .workers
            .iter()
            .enumerate()
            .filter(|(number, worker)| *number != self.number && worker.lane() == Lane::Front)
            .min_by_key(|(_, worker)| worker.sessions());
        match lightest {
            Some((_, worker)) if !self.stay && worker.sessions() + IMBALANCE < own => {
                worker.send(Command::Adopt(accepted, route));
            }
            _ => self.open(accepted, route),
        }
    }

    fn open(&mut self, accepted: Accepted, route: Arc<Route>) {
        let id = SessionId(self.shared.next_session.fetch_add(1, Relaxed));
        match Greeting::is_due(&accepted, &route) {
            false => self.begin(id, accepted, route),
            true => self.greet(id, accepted, route),
        }
    }

    /// Gives a client its session, unless something keeps it out.
    fn begin(&mut self, id: SessionId, accepted: Accepted, route: Arc<Route>) {
        let shared = Arc::clone(&self.shared);
        let client = accepted.client;
        let counted = match admit(client, &route, &shared.gate, &shared.stats, self.now) {
            Ok(counted) => counted,
            Err(reason) => return self.refuse(id, &accepted, route, reason),
        };
        let extras = counted.map(|(seat, dialling)| Extras::counted(seat, dialling));
        let (route_of, splice) = (Arc::clone(&route), shared.splice.load(Relaxed));
        let session = match Session::dial(id, accepted, route_of, self.now, splice, extras) {
            Ok(session) => session,
            Err((errno, accepted)) => {
                socket::reset_on_close(&accepted.socket);
                let record = SessionRecord::undialled(id, &accepted, route, errno);
                shared.record(SessionLine::Ended(record));
                return;
            }
        };
        shared.stats.session_opened();
        self.serve(session);
    }

    /// Looks after a session from now on.
    fn serve(&mut self, session: Session) {
        let key = self.sessions.insert(Entry {
            session,
            queued: false,
            watched: false,
        });
        if self.watch_session(key) {
            self.arm(key);
        }
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

    fn obey(&mut self) {
        // Resets the eventfd's counter; an empty one has been reset already.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.execute(command),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Listen { addr, socket, held } => self.listen(addr, socket, held),
            Command::Hold(addr, held) => self.hold(addr, held),
            Command::Unlisten(route, _closed) => self.unlisten(&route),
            Command::Apply(changes) => self.apply(&changes),
            Command::Adopt(accepted, route) => self.open(accepted, route),
            Command::Take(session) => self.take(*session),
            Command::Stay(_held) => self.stay = true,
            Command::Move => self.stay = self.draining,
            Command::Drain => self.drain(),
            Command::Cut(reason, spread) => self.cut(reason, spread),
            // Whoever asked may have gone; the answer is then nobody's.
            Command::Survey {
                from,
                filter,
                reply,
            } => _ = reply.send(self.survey(from, &filter)),
            Command::Kill { filter, reply } => _ = reply.send(self.kill(&filter)),
            Command::SamplePaths(reply) => _ = reply.send(self.sample_paths()),
            Command::Beat => self.workers[self.number].beat(),
        }
    }

    fn listen(&mut self, addr: ListenAddr, socket: Arc<OwnedFd>, held: bool) {
        let key = self.listeners.insert(Listener {
            addr,
            socket: Arc::clone(&socket),
            backoff: Backoff::default(),
            held,
        });
        self.listening.insert(addr, key);
        let data = EventData::new_u64(Token::Listener(key).to_bits());
        let events = match held {
            true => EventFlags::empty(),
            false => EventFlags::IN,
        };
        if let Err(errno) = epoll::add(&self.epoll, &*socket, data, events) {
            self.shared.stats.accept_failures.fetch_add(1, Relaxed);
            tracing::error!(listen = %addr, errno = in_words(&errno.into()), "cannot watch a listener; it accepts nothing");
            self.remove_listener(key);
        }
    }

    fn hold(&mut self, addr: ListenAddr, held: bool) {
        let Some(&key) = self.listening.get(&addr) else {
            return;
        };
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.held = held;
        }
        self.watch_listener(key, EventFlags::IN);
    }

    /// Serves what waits in the listener's queue, then lets go of it.
    fn unlisten(&mut self, route: &Arc<Route>) {
        let Some(&key) = self.listening.get(&route.listen) else {
            return;
        };
        if let Some(listener) = self.remove_listener(key)
            && route.mapping.policy.on_remove != Departure::Kill
        {
            while let Ok(accepted) = accept(&*listener.socket) {
                self.open(accepted, Arc::clone(route));
            }
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

    fn apply(&mut self, changes: &SessionChanges) {
        let mut leaving = 0;
        for key in self.sessions.keys() {
            let Some(entry) = self.sessions.get_mut(key) else {
                continue;
            };
            let route = entry.session.route();
            let Some((mapping, change)) = changes.get(&route.listen) else {
                continue;
            };
            if *mapping != route.mapping.name {
                continue;
            }
            match change {
                SessionChange::Adopt(route) => entry.session.adopt(route),
                SessionChange::Drain(within) => {
                    let until = within.map(|within| self.now + within + PACE * leaving);
                    leaving += 1;
                    entry.session.drain_by(until);
                }
                SessionChange::Leave {
                    within,
                    reason,
                    successor,
                } => {
                    if successor
                        .as_ref()
                        .is_some_and(|new| Arc::ptr_eq(new, route))
                    {
                        // It came when the change was in force already.
                        continue;
                    }
                    let at = self.now + *within + PACE * leaving;
                    leaving += 1;
                    entry.session.leave_by(at, *reason);
                    if let Some(successor) = successor {
                        entry.session.adopt(successor);
                    }
                }
            }
            if let Some(at) = entry.session.deadline() {
                self.timers.arm(key.index(), at);
            }
            if let Some(at) = entry.session.paused_until() {
                self.pauses.arm(key.index(), at);
            }
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.stay = true;
        let table = self.shared.table.load_full();
        for key in self.listeners.keys() {
            let Some(listener) = self.remove_listener(key) else {
                continue;
            };
            let Some(route) = table.route(&listener.addr) else {
                continue;
            };
            while let Ok(accepted) = accept(&*listener.socket) {
                self.open(accepted, Arc::clone(route));
            }
        }
    }

    fn cut(&mut self, reason: EndReason, spread: Duration) {
        self.end_greetings(reason);
        let keys = self.sessions.keys();
        let pace = PACE.min(spread / u32::try_from(keys.len().max(1)).unwrap_or(u32::MAX));
        for (place, key) in (0..).zip(keys) {
            if let Some(entry) = self.sessions.get_mut(key) {
                let at = self.now + pace * place;
                entry.session.leave_by(at, reason);
                self.timers.arm(key.index(), at);
            }
        }
    }
}
