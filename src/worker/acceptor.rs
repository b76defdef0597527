//! The listeners of a worker, and the connections it accepts from them.
//!
//! A listener from which nothing can be accepted for want of descriptors or memory is left alone for a
//! while: trying at once would fail the same way, and keep the processor busy. One that is closed is
//! served a last time: who waits in its queue has connected before and gets a session. There are never
//! more of those than the queue had room for: who comes later comes too late.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::{event::epoll::EventFlags, io::Errno};
use tokio::sync::mpsc;

use super::{
    LostListener, OrderNumber, WorkerContext,
    poller::{Poller, Token},
    slots::{Key, Slots},
};
use crate::{
    end_reason::EndReason,
    listen::{AcceptError, Accepted, Backoff, Reserve, accept, is_descriptor_shortage},
    os_error::in_words,
    session::Connection,
    socket,
    table::{ListenAddr, RemovalPolicy, Route, Table},
};

/// Connections in a row that cannot be accepted before a listener is left alone for a moment.
const KEEPS_FAILING: usize = 16;

/// Such failures before a listener is given up: a dozen pauses, some seconds.
const LOST_AFTER: usize = KEEPS_FAILING + 12;

/// At most one log line in this time for each cause of accept trouble.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// How long a listener is left alone whose route may not be used: control closes it, or the route may be used
/// again.
const LEASE_OVER_PAUSE: Duration = Duration::from_millis(100);

/// Clients turned away in one go; a queue that is longer has to wait for the next.
const TURNED_AWAY: usize = 1024;

pub(super) struct Acceptor {
    context: Arc<WorkerContext>,
    poller: Poller,
    listeners: Slots<Listener>,
    by_addr: HashMap<ListenAddr, Key>,
    /// Listeners left alone until a time.
    backing_off: Vec<(Instant, Key)>,
    /// Queues of listeners that are being closed.
    closing: VecDeque<ClosingQueue>,
    /// Whether the process stops.
    draining: bool,
    reserve: Reserve,
    logged: Option<Instant>,
}

struct Listener {
    addr: ListenAddr,
    socket: Arc<OwnedFd>,
    backoff: Backoff,
    /// Connections that could not be accepted since the last that could.
    failures: usize,
    /// Whether an operator has its clients wait.
    paused: bool,
}

/// A queue that is served a last time.
struct ClosingQueue {
    socket: Arc<OwnedFd>,
    route: Arc<Route>,
    /// How many may have been in it.
    left: u32,
    /// Failures since the last success.
    failures: usize,
    /// The last order that was carried out when it was closed.
    seen: OrderNumber,
    /// Dropped when the socket is.
    _closed: Option<mpsc::Sender<Infallible>>,
}

impl Acceptor {
    pub(super) fn new(context: Arc<WorkerContext>, poller: Poller) -> Self {
        Self {
            context,
            poller,
            listeners: Slots::new(),
            by_addr: HashMap::new(),
            backing_off: Vec::new(),
            closing: VecDeque::new(),
            draining: false,
            reserve: Reserve::set_aside(),
            logged: None,
        }
    }

    /// Listeners that epoll reports on.
    pub(super) fn len(&self) -> usize {
        self.listeners.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.backing_off.iter().map(|(until, _)| *until).min()
    }

    pub(super) fn listen(&mut self, addr: ListenAddr, socket: Arc<OwnedFd>, paused: bool) {
        let key = self.listeners.insert(Listener {
            addr,
            socket: Arc::clone(&socket),
            backoff: Backoff::default(),
            failures: 0,
            paused,
        });
        self.by_addr.insert(addr, key);
        let added = self
            .poller
            .add(&*socket, Token::Listener(key), wanted(paused));
        match added {
            Ok(()) => {}
            // The image before has watched it, under another key.
            Err(Errno::EXIST) => self.watch(key),
            Err(errno) => self.lose(key, errno),
        }
    }

    /// Goes on with another epoll instance, before there is any listener.
    pub(super) fn watch_with(&mut self, poller: &Poller) {
        self.poller = poller.clone();
    }

    /// Lets the clients of a listener wait, or no longer.
    pub(super) fn pause(&mut self, addr: ListenAddr, paused: bool) {
        let Some(&key) = self.by_addr.get(&addr) else {
            return;
        };
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.paused = paused;
        }
        self.watch(key);
    }

    /// Serves what waits in the queue of a route's listener, unless its sessions would be closed at
    /// once, then lets go of it.
    pub(super) fn unlisten(
        &mut self,
        route: Arc<Route>,
        seen: OrderNumber,
        closed: mpsc::Sender<Infallible>,
    ) {
        let Some(&key) = self.by_addr.get(&route.listen) else {
            return;
        };
        match route.mapping.policy.on_remove {
            RemovalPolicy::Kill => {
                if let Some(listener) = self.remove(key) {
                    self.close_for_all(&listener.socket);
                }
            }
            RemovalPolicy::Keep | RemovalPolicy::Drain(_) => {
                self.close(key, route, seen, Some(closed));
            }
        }
    }

    /// Serves what waits in all queues, then lets go of all listeners. Clients of those that systemd
    /// keeps wait for the next process.
    pub(super) fn drain(&mut self, table: &Table, seen: OrderNumber) {
        self.draining = true;
        for key in self.listeners.keys() {
            let addr = self.listeners.get_mut(key).map(|listener| listener.addr);
            match addr.and_then(|addr| table.route(&addr)) {
                Some(route) => self.close(key, Arc::clone(route), seen, None),
                None => _ = self.remove(key),
            }
        }
    }

    /// The next connection of a listener, and the route it came by.
    pub(super) fn accept(&mut self, key: Key, now: Instant) -> Option<(Accepted, Arc<Route>)> {
        loop {
            let listener = self.listeners.get_mut(key)?;
            // Without one, the route was removed a moment ago; the command to serve the queue a last
            // time and to close it is on its way.
            let route = self.context.table.load().route(&listener.addr).cloned()?;
            if self.context.job_lease.forbids(&route) {
                self.leave_alone(key, now, LEASE_OVER_PAUSE);
                return None;
            }
            match accept(&*listener.socket) {
                Ok(accepted) => {
                    listener.backoff.reset();
                    listener.failures = 0;
                    self.reserve.refill();
                    return Some((accepted, route));
                }
                Err(AcceptError::Empty) => {}
                Err(AcceptError::Retry(errno)) => {
                    listener.failures += 1;
                    let failures = listener.failures;
                    self.context.stats.accept_retries.fetch_add(1, Relaxed);
                    tracing::debug!(listen = %listener.addr, errno = in_words(&errno.into()), "connection lost before it was accepted");
                    match failures {
                        ..KEEPS_FAILING => continue,
                        KEEPS_FAILING..LOST_AFTER => self.back_off_after_failures(key, errno, now),
                        _ => self.lose(key, errno),
                    }
                }
                Err(AcceptError::Pause(errno)) => {
                    self.back_off_after_shortage(key, &route, errno, now);
                }
                Err(AcceptError::Fatal(errno)) => self.lose(key, errno),
            }
            return None;
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// The order that connections which wait in queues of closed listeners may still be without.
    pub(super) fn closing_since(&self) -> Option<OrderNumber> {
        self.closing.iter().map(|queue| queue.seen).min()
    }

    /// The next connection that waits in the queue of a closed listener, and the last order it has
    /// had. Each of several queues has its turn.
    pub(super) fn accept_closing(
        &mut self,
        now: Instant,
    ) -> Option<(Accepted, Arc<Route>, OrderNumber)> {
        while let Some(mut queue) = self.closing.pop_front() {
            if self.context.job_lease.forbids(&queue.route) {
                tracing::warn!(
                    listen = %queue.route.listen,
                    "clients of a removed listener were turned away: its port may be another's by now"
                );
                self.close_for_all(&queue.socket);
                continue;
            }
            match accept(&*queue.socket) {
                Ok(accepted) => {
                    queue.failures = 0;
                    queue.left -= 1;
                    let found = (accepted, Arc::clone(&queue.route), queue.seen);
                    match queue.left {
                        0 => self.close_for_all(&queue.socket),
                        _ => self.closing.push_back(queue),
                    }
                    return Some(found);
                }
                Err(AcceptError::Empty | AcceptError::Fatal(_)) => {}
                Err(AcceptError::Pause(errno)) if is_descriptor_shortage(errno) => {
                    let count = self.turn_away(&queue.socket, &queue.route, now);
                    tracing::warn!(
                        listen = %queue.route.listen,
                        error = in_words(&errno.into()),
                        count,
                        "clients of a removed listener were turned away"
                    );
                }
                Err(AcceptError::Pause(errno) | AcceptError::Retry(errno)) => {
                    queue.failures += 1;
                    if queue.failures < KEEPS_FAILING {
                        self.closing.push_back(queue);
                        continue;
                    }
                    tracing::warn!(
                        listen = %queue.route.listen,
                        error = in_words(&errno.into()),
                        "clients of a removed listener cannot be accepted"
                    );
                }
            }
            self.close_for_all(&queue.socket);
        }
        None
    }

    /// Closes a socket that was removed, for systemd as well, which may not have heard of it yet: the
    /// next change may want its port. When the process stops, systemd's stays open.
    fn close_for_all(&self, socket: &OwnedFd) {
        if !self.draining
            && let Err(errno) = socket::close_listener(socket)
        {
            // One that was lost does not listen any more.
            tracing::debug!(
                errno = in_words(&errno.into()),
                "a listener is closed already"
            );
        }
    }

    /// Looks at those again that have been left alone for long enough.
    pub(super) fn fire_timers(&mut self, now: Instant) {
        let due: Vec<_> = self
            .backing_off
            .extract_if(.., |(until, _)| *until <= now)
            .collect();
        for (_, key) in due {
            self.watch(key);
        }
    }

    fn back_off_after_shortage(
        &mut self,
        key: Key,
        route: &Arc<Route>,
        errno: Errno,
        now: Instant,
    ) {
        let listener = self.listeners.get_mut(key);
        let turned_away = match listener.map(|listener| Arc::clone(&listener.socket)) {
            // As many as the reserve allows.
            Some(socket) if is_descriptor_shortage(errno) => self.turn_away(&socket, route, now),
            _ => 0,
        };
        if let Some((listen, pause)) = self.back_off(key, now)
            && self.may_log(now)
        {
            tracing::warn!(
                %listen,
                errno = in_words(&errno.into()),
                turned_away,
                pause_ms = pause.as_millis() as u64,
                "out of resources: not accepting for a moment"
            );
        }
    }

    fn back_off_after_failures(&mut self, key: Key, errno: Errno, now: Instant) {
        if let Some((listen, pause)) = self.back_off(key, now)
            && self.may_log(now)
        {
            tracing::warn!(
                %listen,
                errno = in_words(&errno.into()),
                pause_ms = pause.as_millis() as u64,
                "accepting keeps failing: not accepting for a moment"
            );
        }
    }

    fn back_off(&mut self, key: Key, now: Instant) -> Option<(ListenAddr, Duration)> {
        let listener = self.listeners.get_mut(key)?;
        let (listen, pause) = (listener.addr, listener.backoff.pause());
        self.context.stats.accept_pauses.fetch_add(1, Relaxed);
        self.leave_alone(key, now, pause);
        Some((listen, pause))
    }

    /// Does not look at a listener for a while.
    fn leave_alone(&mut self, key: Key, now: Instant, pause: Duration) {
        let Some(listener) = self.listeners.get_mut(key) else {
            return;
        };
        self.backing_off.push((now + pause, key));
        let silent =
            self.poller
                .modify(&*listener.socket, Token::Listener(key), EventFlags::empty());
        if let Err(errno) = silent {
            self.lose(key, errno);
        }
    }

    fn may_log(&mut self, now: Instant) -> bool {
        let lately = |last: Instant| now.duration_since(last) < LOG_EVERY;
        let may = !self.logged.is_some_and(lately);
        if may {
            self.logged = Some(now);
        }
        may
    }

    /// Resets the clients in a listener's queue one by one, each in the place of the reserve.
    fn turn_away(&mut self, socket: &OwnedFd, route: &Arc<Route>, now: Instant) -> usize {
        for count in 0..TURNED_AWAY {
            let accepted = self.reserve.accept(socket);
            let found_one = accepted.is_some();
            if let Some(accepted) = accepted {
                let connection =
                    Connection::new(self.context.next_id(), accepted, Arc::clone(route));
                let reason = EndReason::NoResources;
                route.mapping.stats.refuse(reason);
                self.context.refuse(&connection, reason, now);
            }
            self.reserve.refill();
            if !found_one {
                return count;
            }
        }
        TURNED_AWAY
    }

    fn watch(&mut self, key: Key) {
        if let Some(Listener { socket, paused, .. }) = self.listeners.get_mut(key)
            && let Err(errno) = self
                .poller
                .modify(&**socket, Token::Listener(key), wanted(*paused))
        {
            self.lose(key, errno);
        }
    }

    /// Gives up a listener that cannot be served; control opens another in its place.
    fn lose(&mut self, key: Key, errno: Errno) {
        if let Some(listener) = self.remove(key) {
            self.context.stats.accept_failures.fetch_add(1, Relaxed);
            // Without control the process is about to end.
            let _ = self.context.lost.send(LostListener {
                addr: listener.addr,
                socket: listener.socket,
                why: in_words(&errno.into()),
            });
        }
    }

    /// Accepts from a listener no longer, but for what waits in its queue.
    fn close(
        &mut self,
        key: Key,
        route: Arc<Route>,
        seen: OrderNumber,
        closed: Option<mpsc::Sender<Infallible>>,
    ) {
        if let Some(listener) = self.remove(key) {
            self.closing.push_back(ClosingQueue {
                socket: listener.socket,
                left: route.mapping.policy.backlog.saturating_add(1),
                route,
                failures: 0,
                seen,
                _closed: closed,
            });
        }
    }

    /// Takes a listener out. Its socket may live on in control's hands, so epoll has to be told.
    fn remove(&mut self, key: Key) -> Option<Listener> {
        let listener = self.listeners.remove(key)?;
        self.by_addr.remove(&listener.addr);
        self.poller.forget(&*listener.socket);
        Some(listener)
    }
}

/// What epoll is asked to report of a listener.
fn wanted(paused: bool) -> EventFlags {
    match paused {
        true => EventFlags::empty(),
        false => EventFlags::IN,
    }
}
