//! The loop of one worker: it waits for epoll, and has its parts do what is due.

use std::{
    convert::Infallible,
    io, mem,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::{Event, EventFlags},
    io::Errno,
};
use tokio::sync::mpsc;

use super::{
    Adopted, Command, Describe, Freeze, OrderNumber, PART, SessionOrder, SessionPage,
    WorkerContext, WorkerHandle, WorkerRole,
    acceptor::Acceptor,
    orders::{OrderLog, Pacing, confirmed_by_all, current_route},
    pending_headers::PendingHeaders,
    poller::{Poller, Token},
    queued_clients::{QueuedClients, Served},
    reported::{Clock, Reported, Wait},
    saved::{SavedWorker, WrittenSessions},
    session_table::SessionTable,
    slots::Key,
};
use crate::{
    end_reason::EndReason,
    handover::{Records, Saver, Sink},
    listen::Accepted,
    os_error::in_words,
    session::{Connection, PendingProxyHeader, SessionFilter, Waiting},
    table::{RemovalPolicy, Route, RouteSaver},
    text::of_panic,
};

/// Events taken from epoll at a time.
const EVENTS: usize = 256;

/// Connections accepted from one listener before others get their turn.
const ACCEPTS: usize = 16;

/// Connections taken from the queues of closed listeners before others get their turn.
const CLOSING_ACCEPTS: usize = 64;

/// Sessions a worker may have more than the least busy one before it passes new ones on.
const IMBALANCE: usize = 8;

/// Waits in a row that may fail, and the time between two of them.
const FAILED_WAITS: (u32, Duration) = (1000, Duration::from_millis(10));

/// Where in a list of sessions the connections come whose header is awaited. Sessions number fewer.
const PENDING_HEADERS: usize = 1 << 32;

/// Where the clients come that wait for a target.
const QUEUED: usize = 1 << 33;

/// A worker's state.
pub(super) struct EventLoop {
    number: usize,
    workers: Vec<WorkerHandle>,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    context: Arc<WorkerContext>,
    poller: Poller,
    acceptor: Acceptor,
    headers: PendingHeaders,
    queued: QueuedClients,
    sessions: SessionTable,
    orders: OrderLog,
    now: Instant,
    reported: Reported,
    /// Whether a session came from the partner of whose sockets no wait could tell yet.
    took: bool,
    draining: bool,
    /// As they were last described.
    written: WrittenSessions,
    /// What to stand still for at the end of the turn.
    freeze: Option<Arc<Freeze>>,
    /// Who waits for the queues of closed listeners.
    awaiting_queues: Vec<mpsc::Sender<Infallible>>,
}

impl EventLoop {
    pub(super) fn new(
        number: usize,
        workers: Vec<WorkerHandle>,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        context: Arc<WorkerContext>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&*wake, Token::Commands, EventFlags::IN)?;
        let partner = workers[(number + workers.len() / 2) % workers.len()].clone();
        let role = workers[number].role();
        let now = Instant::now();
        Ok(Self {
            acceptor: Acceptor::new(Arc::clone(&context), poller.clone()),
            headers: PendingHeaders::new(Arc::clone(&context), poller.clone()),
            queued: QueuedClients::new(
                Arc::clone(&context),
                poller.clone(),
                workers[number].clone(),
            ),
            sessions: SessionTable::new(Arc::clone(&context), poller.clone(), role, partner),
            number,
            workers,
            commands,
            wake,
            context,
            poller,
            orders: OrderLog::default(),
            now,
            reported: Reported::new(now),
            took: false,
            draining: false,
            written: WrittenSessions::default(),
            freeze: None,
            awaiting_queues: Vec::new(),
        })
    }

    /// Serves until told to stop and the last session has ended.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut failed = 0;
        while !self.is_done() {
            let patience = self.patience(Instant::now());
            self.turn(&mut events, patience, &mut failed)?;
            self.stand_still();
        }
        Ok(())
    }

    /// Waits for epoll and does what is due then.
    fn turn(
        &mut self,
        events: &mut Vec<Event>,
        patience: Option<Duration>,
        failed: &mut u32,
    ) -> io::Result<()> {
        let began = Instant::now();
        let waited = self.poller.wait(events, patience);
        bear_with(waited, failed)?;
        self.now = Instant::now();
        self.took = false;
        let watched = self.watched();
        self.serve(events);
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
        self.sessions.run_ready(self.clock());
        self.serve_closing();
        self.workers[self.number].publish_sessions(self.sessions.len());
        Ok(())
    }

    /// Stands still if it was told to, until it may go on.
    fn stand_still(&mut self) {
        let Some(freeze) = self.freeze.take() else {
            return;
        };
        let mut written = mem::take(&mut self.written);
        freeze.stand_still(|sink| {
            // Nobody sends anything any more: what comes out of the queue now is all.
            self.run_commands();
            match self.acceptor.is_closing() {
                true => Err("the queue of a removed listener is still being served".to_owned()),
                false => self.save(sink, &mut written),
            }
        });
    }

    /// Hands over everything this worker has; returns how many sessions that are. It may go on with
    /// all of it.
    fn save(&self, sink: &dyn Sink, written: &mut WrittenSessions) -> Result<usize, String> {
        // Nothing was changed, so that a panic leaves nothing half done.
        let saved = catch_unwind(AssertUnwindSafe(|| {
            let table = self.context.table.load_full();
            let (mut saver, mut routes) = (Saver::default(), RouteSaver::new(&table));
            let (mut all, mut records) = (Records::default(), mem::take(&mut written.gathered));
            records.clear();
            let sessions = self
                .sessions
                .save(&mut records, written, &mut saver, &mut routes)?;
            let headers = self
                .headers
                .clients
                .save(&mut records, &mut saver, &mut routes)?;
            let queued = self
                .queued
                .clients
                .save(&mut records, &mut saver, &mut routes)?;
            let is_sparse = self.sessions.is_sparse() || self.headers.clients.is_sparse();
            let keeps_keys = !is_sparse && !self.queued.clients.is_sparse();
            all.push(&SavedWorker {
                routes: routes.finish(),
                poller: keeps_keys.then(|| saver.descriptor(self.poller.epoll())),
                sessions,
                headers,
                queued,
            })?;
            let part = format!("{PART}{}", self.workers[self.number].label());
            records.begin_with(&all);
            sink.put(&part, &records, saver)?;
            written.gathered = records;
            Ok(sessions.count + headers.count + queued.count)
        }));
        saved.unwrap_or_else(|panic| Err(of_panic(&*panic).to_owned()))
    }

    /// Says what it would hand over, and keeps it.
    fn describe(&mut self, sink: &dyn Sink) -> Result<usize, String> {
        let mut written = WrittenSessions::default();
        let saved = self.save(sink, &mut written);
        written.is_complete = true;
        self.written = written;
        saved
    }

    /// Whether its last session has ended and none can arrive.
    fn is_done(&self) -> bool {
        let served = self.sessions.len() + self.headers.clients.len() + self.queued.clients.len();
        self.draining && served == 0 && !self.acceptor.is_closing() && self.orders.len() == 0
    }

    /// How long epoll may wait; `None` is for ever.
    fn patience(&self, now: Instant) -> Option<Duration> {
        if self.sessions.can_go_on() || self.acceptor.is_closing() {
            return Some(Duration::ZERO);
        }
        let next = [
            self.sessions.next_deadline(),
            self.headers.clients.next_deadline(),
            self.queued.clients.next_deadline(),
            self.acceptor.next_deadline(),
        ];
        let next = next.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Sockets that epoll may report on.
    fn watched(&self) -> usize {
        let waiting = self.headers.clients.len() + self.queued.clients.len();
        2 * self.sessions.len() + waiting + self.acceptor.len() + 1
    }

    fn clock(&self) -> Clock {
        Clock {
            now: self.now,
            reported: self.reported.until(),
        }
    }

    /// Serves what epoll reported at once, each session for a turn.
    fn serve(&mut self, events: &[Event]) {
        let clock = self.clock();
        for event in events {
            let flags = event.flags;
            match Token::of(event) {
                Token::Commands => self.run_commands(),
                Token::Listener(key) => self.accept_from(key),
                Token::Session(key, side) => {
                    self.sessions
                        .run(key, clock, |session, turn| session.turn(side, flags, turn));
                }
                Token::PendingHeader(key) => self.read_header(key, flags),
                Token::Queued(key) => self.queued.look(key, flags, self.now),
            }
        }
    }

    fn fire_timers(&mut self) {
        let clock = self.clock();
        self.sessions.fire_timers(clock);
        self.headers.fire_timers(clock);
        self.queued.fire_timers(clock);
        self.acceptor.fire_timers(clock.now);
    }

    fn accept_from(&mut self, key: Key) {
        for _ in 0..ACCEPTS {
            let Some((accepted, route)) = self.acceptor.accept(key, self.now) else {
                return;
            };
            self.place(accepted, route);
        }
    }

    /// Serves the queues of closed listeners for a turn, so that a long one holds nobody up.
    fn serve_closing(&mut self) {
        if !self.acceptor.is_closing() {
            return;
        }
        for _ in 0..CLOSING_ACCEPTS {
            let Some((accepted, route, seen)) = self.acceptor.accept_closing(self.now) else {
                break;
            };
            self.open_late(accepted, route, seen);
        }
        if !self.acceptor.is_closing() {
            self.awaiting_queues.clear();
            // Nothing can come from them any more, which orders may have waited for.
            self.run_commands();
        }
    }

    /// Serves a connection here, or has a less busy worker do so.
    fn place(&mut self, accepted: Accepted, route: Arc<Route>) {
        let own = self.sessions.len();
        let seen = self.sessions.carried_out();
        let others = self.workers.iter().enumerate().filter(|(number, worker)| {
            *number != self.number && worker.role() == WorkerRole::Interactive
        });
        match others.min_by_key(|(_, worker)| worker.sessions()) {
            Some((_, worker)) if !self.draining && worker.sessions() + IMBALANCE < own => {
                worker.send(Command::Adopt(accepted, route, seen));
            }
            _ => self.open(accepted, route, seen),
        }
    }

    /// Serves a connection that has been on its way from a listener for a while: under what its
    /// mapping is now, or if that is gone like its last sessions.
    fn open_late(&mut self, accepted: Accepted, route: Arc<Route>, seen: OrderNumber) {
        let table = self.context.table.load_full();
        match current_route(&table, &route) {
            Some(current) => self.open(accepted, Arc::clone(current), seen),
            None if route.mapping.policy.on_remove == RemovalPolicy::Kill => {
                let reason = EndReason::MappingRemoved;
                route.mapping.stats.refuse(reason);
                let connection = Connection::new(self.context.next_id(), accepted, route);
                self.context.refuse(&connection, reason, self.now);
            }
            None => self.open(accepted, route, seen),
        }
    }

    /// Serves a connection that has had that order and those before.
    fn open(&mut self, accepted: Accepted, route: Arc<Route>, seen: OrderNumber) {
        let connection = Connection::new(self.context.next_id(), accepted, route);
        if !PendingProxyHeader::is_due(&connection.accepted, &connection.route) {
            return self.begin(connection, seen);
        }
        let ready = self.headers.begin(connection, seen, &self.orders, self.now);
        if let Some((connection, seen)) = ready {
            self.begin(connection, seen);
        }
    }

    fn read_header(&mut self, key: Key, events: EventFlags) {
        if let Some((connection, seen)) = self.headers.read(key, events, self.now) {
            let seen = seen.max(self.sessions.carried_out());
            self.begin(connection, seen);
        }
    }

    fn begin(&mut self, connection: Connection, seen: OrderNumber) {
        let full = (self.sessions).begin(connection, seen, &self.orders, self.now);
        if let Some(client) = full {
            let served = self.queued.begin(client, seen, &self.orders, self.now);
            self.dial(served);
        }
    }

    fn dial(&mut self, served: Option<Served>) {
        let Some(Served {
            queued,
            choice,
            seen,
        }) = served
        else {
            return;
        };
        let seen = seen.max(self.sessions.carried_out());
        let times = (queued.client().since(), self.now);
        (self.sessions).dial(queued.into_parts(), choice, times, seen, &self.orders);
    }

    /// Leads a client to a target if it is its turn.
    fn take_turn(&mut self, key: Key) {
        let served = self.queued.serve(key, self.now);
        self.dial(served);
    }

    fn run_commands(&mut self) {
        // Resets the eventfd's counter; an empty one has been reset already.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        let confirmed = confirmed_by_all(&self.workers);
        while let Ok(command) = self.commands.try_recv() {
            self.execute(command);
        }
        // What all had sent before they confirmed is taken in now.
        let closing = self.acceptor.closing_since();
        self.orders
            .forget(closing.map_or(confirmed, |seen| seen.min(confirmed)));
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Listen {
                addr,
                socket,
                paused,
            } => self.acceptor.listen(addr, socket, paused),
            Command::Pause(addr, paused, told) => {
                self.acceptor.pause(addr, paused);
                drop(told);
            }
            Command::Unlisten(route, closed) => {
                let seen = self.sessions.carried_out();
                self.acceptor.unlisten(route, seen, closed);
            }
            Command::Order(number, order) => self.carry_out(number, order),
            Command::Adopt(accepted, route, seen) => self.open_late(accepted, route, seen),
            Command::Take(session, seen) => {
                self.took = true;
                self.sessions.insert(*session, seen, &self.orders, self.now);
            }
            Command::TakeUp(adopted) => self.take_up(*adopted),
            Command::AwaitHeader(pending) => {
                self.took = true;
                let seen = self.sessions.carried_out();
                self.headers.clients.insert(*pending, seen, self.now);
            }
            Command::AwaitTarget(queued) => {
                self.took = true;
                let seen = self.sessions.carried_out();
                if let Some(key) = self.queued.clients.insert(*queued, seen, self.now) {
                    self.take_turn(key);
                }
            }
            Command::TakeTurn(key) => self.take_turn(key),
            Command::ServeQueues(done) => {
                if self.acceptor.is_closing() {
                    self.awaiting_queues.push(done);
                }
            }
            Command::Freeze(freeze) => self.freeze = Some(freeze),
            // Whoever asked may have gone; the answer is then nobody's.
            Command::Describe(Describe { sink, reply }) => _ = reply.send(self.describe(&*sink)),
            Command::ForgetDescribed => self.written = WrittenSessions::default(),
            Command::ListSessions {
                from,
                filter,
                reply,
            } => _ = reply.send(self.list_sessions(from, &filter)),
            Command::SamplePaths(reply) => _ = reply.send(self.sessions.sample_paths()),
            Command::Beat => self.workers[self.number].beat(),
        }
    }

    /// Goes on with what the worker of the same name had in the image before. There is nothing else yet.
    fn take_up(&mut self, adopted: Adopted) {
        self.took = true;
        let Adopted {
            label: _,
            poller,
            sessions,
            headers,
            queued,
        } = adopted;
        let poller = poller.filter(|poller| {
            let added = poller.add(&*self.wake, Token::Commands, EventFlags::IN);
            if let Err(errno) = added {
                let error = in_words(&errno.into());
                tracing::warn!(error, "all sessions of a worker are watched anew");
            }
            added.is_ok()
        });
        if let Some(poller) = &poller {
            self.poller = poller.clone();
            self.acceptor.watch_with(poller);
        }
        self.sessions.take_up(poller.as_ref(), sessions, self.now);
        self.headers
            .clients
            .take_up(poller.as_ref(), headers, self.now);
        self.queued
            .clients
            .take_up(poller.as_ref(), queued, self.now);
        for key in self.queued.clients.keys() {
            self.take_turn(key);
        }
    }

    /// Carries out an order on everything that has not had it, and lets the others know; the last to
    /// do so wakes them, since none has to wait any more.
    fn carry_out(&mut self, number: OrderNumber, order: SessionOrder) {
        let count = self.sessions.len() + self.headers.clients.len() + self.queued.clients.len();
        let mut pacing = Pacing::of(&order, count, self.now);
        self.sessions.carry_out(number, &order, &mut pacing);
        self.headers.clients.carry_out(number, &order, &mut pacing);
        self.queued.clients.carry_out(number, &order, &mut pacing);
        match &order {
            SessionOrder::Apply(_) => {
                for key in self.headers.clients.keys() {
                    self.read_header(key, EventFlags::empty());
                }
                for key in self.queued.clients.keys() {
                    self.take_turn(key);
                }
            }
            SessionOrder::Drain => self.drain(),
            SessionOrder::Kill(_) | SessionOrder::Cut(..) => {}
        }
        self.orders.push(number, order);
        self.workers[self.number].confirm(number);
        if confirmed_by_all(&self.workers) >= number {
            // None has to keep the order any more, this one included.
            self.workers.iter().for_each(WorkerHandle::wake);
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.sessions.keep_here();
        let table = self.context.table.load_full();
        self.acceptor.drain(&table, self.sessions.carried_out());
    }

    /// Tells of live sessions in pieces: first those that have begun, then those whose header is
    /// awaited, then those that wait for a target.
    fn list_sessions(&mut self, from: usize, filter: &SessionFilter) -> SessionPage {
        let headers = (self.headers.clients.len() > 0).then_some(PENDING_HEADERS);
        let queued = (self.queued.clients.len() > 0).then_some(QUEUED);
        let (page, behind) = match from {
            QUEUED.. => {
                let page = self.queued.clients.list(from - QUEUED, filter, self.now);
                (beyond(QUEUED, page), None)
            }
            PENDING_HEADERS.. => {
                let page = self
                    .headers
                    .clients
                    .list(from - PENDING_HEADERS, filter, self.now);
                (beyond(PENDING_HEADERS, page), queued)
            }
            _ => {
                let page = self.sessions.list(from, filter, self.now);
                (page, headers.or(queued))
            }
        };
        SessionPage {
            next: page.next.or(behind),
            ..page
        }
    }
}

/// A page whose places count from `first`.
fn beyond(first: usize, page: SessionPage) -> SessionPage {
    SessionPage {
        next: page.next.map(|next| first + next),
        ..page
    }
}

/// Sessions are worth some patience with a machine that is short of something.
fn bear_with(waited: Result<(), Errno>, failed: &mut u32) -> io::Result<()> {
    match waited {
        Ok(()) | Err(Errno::INTR) => *failed = 0,
        Err(errno @ (Errno::BADF | Errno::INVAL | Errno::FAULT)) => return Err(errno.into()),
        Err(errno) if *failed == FAILED_WAITS.0 => return Err(errno.into()),
        Err(_) => {
            *failed += 1;
            thread::sleep(FAILED_WAITS.1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
