//! A client that waits until one of several targets has room.
//!
//! It has been let in and counted, and is led to a target when it is first in the queue. Nothing is taken
//! from it and nothing opened for it meanwhile. Like a session it is a plain value that is told when to
//! act.

use std::{
    task::Waker,
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::EventFlags,
    net::{RecvFlags, recv},
};

use super::{
    Choice, Connection, Extras, Loading, SessionView, Stage, Waiting, WaitingClient,
    saved::SavedQueuedClient,
};
use crate::{
    end_reason::EndReason,
    handover::{LoadError, Saver},
    table::RouteSaver,
    target::Ticket,
};

#[derive(Debug)]
pub struct QueuedClient {
    pub(super) client: WaitingClient,
    pub(super) extras: Option<Box<Extras>>,
    /// When the time that it may wait began: a pause of its mapping does not count.
    pub(super) waits_from: Instant,
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
                client: WaitingClient::new(connection, now),
                extras,
                waits_from: now,
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

    /// Gives it all its time once more.
    pub fn wait_anew(&mut self, now: Instant) {
        self.waits_from = now;
    }

    /// Whether its client is gone: it has reset the connection, or closed it without a word.
    pub fn is_gone(&self, events: EventFlags) -> bool {
        if events.intersects(EventFlags::ERR | EventFlags::HUP) {
            return true;
        }
        let socket = &self.client.accepted().socket;
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
        if let Some(group) = self.client.route().target.group() {
            let queue = group.queue();
            let number = self.ticket.as_ref().map_or(0, Ticket::number);
            let ticket = self.ticket.take().filter(|ticket| ticket.is_of(queue));
            let ticket = ticket.unwrap_or_else(|| queue.join_again(number));
            ticket.wake(waker());
            if !self.ticket.insert(ticket).is_first() {
                return None;
            }
        }
        let client = self.client.accepted().client.ip();
        Choice::first_in_line(self.client.route(), client, now).ok()
    }

    /// Its parts, once it has a target; whoever comes next is woken.
    pub fn into_parts(self) -> (Connection, Option<Box<Extras>>) {
        (self.client.connection, self.extras)
    }
}

impl Waiting for QueuedClient {
    type Saved = SavedQueuedClient;

    fn client(&self) -> &WaitingClient {
        &self.client
    }

    fn client_mut(&mut self) -> &mut WaitingClient {
        &mut self.client
    }

    fn ends(&self) -> (Instant, EndReason) {
        let queue = self.client.route().mapping.policy.queue;
        // Without a queue, whoever is in it has waited for long enough.
        let timeout = queue.map_or(Duration::ZERO, |queue| queue.timeout);
        (self.client).ends((self.waits_from + timeout, EndReason::QueueTimeout))
    }

    fn view(&self, now: Instant) -> SessionView {
        self.client.view(Stage::Queued, now)
    }

    fn save<'a>(&'a self, saver: &mut Saver<'a>, routes: &mut RouteSaver<'_>) -> Self::Saved {
        SavedQueuedClient::of(self, saver, routes)
    }

    fn load(saved: Self::Saved, from: &mut Loading<'_>) -> Result<Self, LoadError> {
        saved.load(from)
    }

    fn end(self, reason: EndReason) -> Connection {
        self.client.end(Some(reason))
    }
}
