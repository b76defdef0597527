//! Clients that wait until one of several targets has room.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    time::Instant,
};

use rustix::event::epoll::EventFlags;

use super::{
    Command, OrderNumber, WorkerContext, WorkerHandle,
    orders::OrderLog,
    poller::{Poller, Token},
    reported::Clock,
    slots::Key,
    waiting_clients::WaitingClients,
};
use crate::{
    end_reason::EndReason,
    session::{Choice, Connection, Extras, QueuedClient, Waiting},
};

pub(super) struct QueuedClients {
    pub(super) clients: WaitingClients<QueuedClient>,
    context: Arc<WorkerContext>,
    /// Where to say that it is somebody's turn.
    worker: WorkerHandle,
}

/// A client that is led to a target now.
pub(super) struct Served {
    pub queued: QueuedClient,
    pub choice: Option<Choice>,
    pub seen: OrderNumber,
}

/// Whose turn it is.
struct Turn {
    worker: WorkerHandle,
    key: Key,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.worker.send(Command::TakeTurn(self.key));
    }
}

impl QueuedClients {
    pub(super) fn new(context: Arc<WorkerContext>, poller: Poller, worker: WorkerHandle) -> Self {
        let events = EventFlags::RDHUP | EventFlags::ET;
        Self {
            clients: WaitingClients::new(Arc::clone(&context), poller, events, Token::Queued),
            context,
            worker,
        }
    }

    /// Has a client wait that has been let in, and has had order `seen` and those before. There may be
    /// room for it a moment later.
    pub(super) fn begin(
        &mut self,
        (connection, extras): (Connection, Option<Box<Extras>>),
        seen: OrderNumber,
        orders: &OrderLog,
        now: Instant,
    ) -> Option<Served> {
        let queued = match QueuedClient::begin(connection, extras, now) {
            Ok(queued) => queued,
            Err((reason, connection)) => {
                self.context.refuse(&connection, reason, now);
                return None;
            }
        };
        let key = self.clients.begin(queued, seen, orders, now)?;
        self.serve(key, now)
    }

    /// Gives a client back that is led to a target now, if it is its turn and there is room.
    pub(super) fn serve(&mut self, key: Key, now: Instant) -> Option<Served> {
        let queued = self.clients.get_mut(key)?;
        if self.context.is_paused(queued.client().route()) {
            // Whoever resumes the mapping has all its clients looked at.
            return None;
        }
        let worker = &self.worker;
        let waker = || {
            let worker = worker.clone();
            Waker::from(Arc::new(Turn { worker, key }))
        };
        let choice = queued.choose(waker, now)?;
        let (queued, seen) = self.clients.remove(key)?;
        Some(Served {
            queued,
            choice,
            seen,
        })
    }

    /// Takes in what epoll reported.
    pub(super) fn look(&mut self, key: Key, events: EventFlags, now: Instant) {
        let queued = self.clients.get_mut(key);
        if queued.is_some_and(|queued| queued.is_gone(events)) {
            self.clients.end(key, EndReason::ClientGone, now);
        }
    }

    /// Ends those that have waited for long enough.
    pub(super) fn fire_timers(&mut self, clock: Clock) {
        while let Some((key, reason)) = self.clients.pop_due(clock) {
            let queued = self.clients.get_mut(key);
            let paused = queued.filter(|queued| self.context.is_paused(queued.client().route()));
            match paused {
                Some(queued) if reason == EndReason::QueueTimeout => {
                    queued.wait_anew(clock.now);
                    self.clients.arm(key);
                }
                _ => self.clients.end(key, reason, clock.now),
            }
        }
    }
}
