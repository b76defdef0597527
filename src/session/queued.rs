//! A client that waits until one of several targets has room.
//!
//! It has been let in and counted, and is led to a target when it is first in the queue. Nothing is taken
//! from it and nothing opened for it meanwhile. Like a session it is a plain value that is told when to
//! act.

use std::{
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::EventFlags,
    net::{RecvFlags, recv},
};

use super::{Choice, Connection, Extras, SessionId, SessionView, Stage};
use crate::{
    end_reason::EndReason,
    table::Route,
    target::{Queue, Ticket},
};

#[derive(Debug)]
pub struct QueuedClient {
    pub(super) connection: Connection,
    pub(super) extras: Option<Box<Extras>>,
    pub(super) since: Instant,
    /// When control wants it gone, and why.
    pub(super) leave: Option<(Instant, EndReason)>,
    /// Its place in the queue of its route's targets.
    pub(super) ticket: Option<Ticket>,
}

impl QueuedClient {
    /// Puts a client that has been let in at the end of the queue, if there is one and it has room.
    ///
    /// # Errors
    ///
    /// The reason for which it is refused, which has been counted, and the client.
    pub fn begin(
        connection: Connection,
        extras: Option<Box<Extras>>,
        now: Instant,
    ) -> Result<Self, (EndReason, Connection)> {
        let Connection { route, .. } = &connection;
        let queue = (route.mapping.policy.queue).zip(route.target.group());
        let joined = match queue {
            None => Err(EndReason::TargetFull),
            Some((settings, group)) => {
                let ticket = group.queue().join(settings.max);
                ticket.ok_or(EndReason::QueueFull)
            }
        };
        match joined {
            Ok(ticket) => Ok(Self {
                connection,
                extras,
                since: now,
                leave: None,
                ticket: Some(ticket),
            }),
            Err(reason) => {
                let stats = &connection.route.mapping.stats;
                stats.give_back();
                stats.refuse(reason);
                Err((reason, connection))
            }
        }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub fn id(&self) -> SessionId {
        self.connection.id
    }

    pub fn route(&self) -> &Arc<Route> {
        &self.connection.route
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    pub fn view(&self, now: Instant) -> SessionView {
        let waiting = now.saturating_duration_since(self.since);
        let accepted = &self.connection.accepted;
        SessionView {
            id: self.id(),
            route: Arc::clone(self.route()),
            client: accepted.client,
            front: accepted.front.as_ref().map(|front| front.peer),
            target: None,
            attempts: 0,
            local: None,
            bytes_up: 0,
            bytes_down: 0,
            age: waiting,
            connect: None,
            quiet: waiting,
            stage: Stage::Queued,
            splices: false,
        }
    }

    pub fn deadline(&self) -> Instant {
        self.ends().0
    }

    /// When it ends unless there is room before, and why.
    pub fn ends(&self) -> (Instant, EndReason) {
        let queue = self.route().mapping.policy.queue;
        // Without a queue, whoever is in it has waited for long enough.
        let timeout = queue.map_or(Duration::ZERO, |queue| queue.timeout);
        let drained = self.connection.drained;
        let drained = drained.map(|at| (at, EndReason::DrainDeadline));
        let waited = (self.since + timeout, EndReason::QueueTimeout);
        let ends = [self.leave, drained, Some(waited)].into_iter().flatten();
        ends.min_by_key(|(at, _)| *at).unwrap_or(waited)
    }

    /// Has it end at `at`, unless it is to go already; whether that is news.
    pub fn leave_by(&mut self, at: Instant, reason: EndReason) -> bool {
        let news = self.leave.is_none();
        self.leave.get_or_insert((at, reason));
        news
    }

    /// Has it and its session end at `until`, or go on, as an operator's latest word on its mapping
    /// wants.
    pub fn drain_by(&mut self, until: Option<Instant>) {
        self.connection.drained = until;
    }

    /// Puts it under what its mapping is now. In another queue it goes to the place it had here.
    pub fn adopt(&mut self, current: &Arc<Route>) {
        let (old, new) = (&self.route().mapping.stats, &current.mapping.stats);
        if !Arc::ptr_eq(old, new) {
            // There is room for it: it was let in already.
            new.try_reserve(None);
            old.give_back();
        }
        self.connection.route = Arc::clone(current);
    }

    /// Whether its client is gone: it has reset the connection, or closed it without a word.
    pub fn is_gone(&self, events: EventFlags) -> bool {
        if events.intersects(EventFlags::ERR | EventFlags::HUP) {
            return true;
        }
        let socket = &self.connection.accepted.socket;
        events.contains(EventFlags::RDHUP)
            && matches!(recv(socket, &mut [0; 1], RecvFlags::PEEK), Ok((0, _)))
    }

    /// Chooses a target if it is its turn and one has room. Otherwise `waker` is woken when that may be
    /// so.
    pub fn choose(
        &mut self,
        waker: impl FnOnce() -> Waker,
        now: Instant,
    ) -> Option<Option<Choice>> {
        let queue: Option<&Arc<Queue>> = self
            .connection
            .route
            .target
            .group()
            .map(|group| group.queue());
        if let Some(queue) = queue {
            let number = self.ticket.as_ref().map_or(0, Ticket::number);
            let ticket = self.ticket.take().filter(|ticket| ticket.is_of(queue));
            let ticket = ticket.unwrap_or_else(|| queue.join_again(number));
            ticket.wake(waker());
            if !self.ticket.insert(ticket).is_first() {
                return None;
            }
        }
        let client = self.connection.accepted.client.ip();
        Choice::first_in_line(self.route(), client, now).ok()
    }

    /// Its parts, once it has a target; whoever comes next is woken.
    pub fn into_parts(self) -> (Connection, Option<Box<Extras>>) {
        (self.connection, self.extras)
    }

    /// Counts it out of its mapping again: it ends for `reason`.
    pub fn end(self, reason: EndReason) -> Connection {
        let stats = &self.connection.route.mapping.stats;
        stats.give_back();
        stats.refuse(reason);
        self.connection
    }
}
