//! Clients that wait until one of several targets has room.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    time::Instant,
};

use rustix::event::epoll::EventFlags;

use super::{
    Command, OrderNumber, SessionOrder, SessionPage, WorkerContext, WorkerHandle,
    orders::{Effect, OrderLog, Pacing, order_pending},
    poller::{Poller, Token},
    reported::Clock,
    saved::{SavedEntry, SavedSlots},
    session_table::SLOTS,
    slots::{Key, Slots},
    timers::Timers,
};
use crate::{
    end_reason::EndReason,
    handover::{Records, Saver},
    session::{Choice, Connection, Extras, QueuedClient, SessionFilter},
    table::RouteSaver,
};

pub(super) struct QueuedClients {
    context: Arc<WorkerContext>,
    poller: Poller,
    /// Where to say that it is somebody's turn.
    worker: WorkerHandle,
    entries: Slots<Entry>,
    deadlines: Timers,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) queued: QueuedClient,
    pub(super) seen: OrderNumber,
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
        Self {
            context,
            poller,
            worker,
            entries: Slots::new(),
            deadlines: Timers::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.entries.keys()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
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
        let mut queued = match QueuedClient::begin(connection, extras, now) {
            Ok(queued) => queued,
            Err((reason, connection)) => {
                self.context.refuse(&connection, reason, now);
                return None;
            }
        };
        self.context.stats.session_opened();
        for order in orders.after(seen) {
            order_pending(&mut queued, order, &self.context.table.load(), now);
        }
        let key = self.insert(queued, seen, now)?;
        self.serve(key, now)
    }

    /// Watches a client from now on, if it can be.
    pub(super) fn insert(
        &mut self,
        queued: QueuedClient,
        seen: OrderNumber,
        now: Instant,
    ) -> Option<Key> {
        let deadline = queued.deadline();
        let key = self.entries.insert(Entry { queued, seen });
        let Entry { queued, .. } = self.entries.get_mut(key)?;
        let events = EventFlags::RDHUP | EventFlags::ET;
        let socket = &queued.connection().accepted.socket;
        if let Err(errno) = self.poller.add(socket, Token::Queued(key), events) {
            tracing::error!(%errno, "cannot watch a client that waits for a target");
            self.end(key, EndReason::NoResources, now);
            return None;
        }
        self.deadlines.arm(key.index(), deadline);
        Some(key)
    }

    /// Looks after what another image of the program has handed over; `poller` reports on it already.
    /// [`Self::serve`] has yet to be asked for each.
    pub(super) fn take_up(&mut self, poller: Option<&Poller>, entries: Slots<Entry>, now: Instant) {
        let Some(poller) = poller else {
            for Entry { queued, seen } in entries.into_occupants() {
                self.insert(queued, seen, now);
            }
            return;
        };
        self.poller = poller.clone();
        for (key, entry) in entries.iter() {
            self.deadlines.arm(key.index(), entry.queued.deadline());
        }
        self.entries = entries;
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.entries.is_sparse()
    }

    /// Saves all of them, a record each.
    pub(super) fn save<'a>(
        &'a self,
        records: &mut Records,
        saver: &mut Saver<'a>,
        routes: &mut RouteSaver<'_>,
    ) -> Result<SavedSlots, String> {
        for (key, entry) in self.entries.iter() {
            records.push(&SavedEntry {
                key,
                queued: false,
                watched: true,
                is: entry.queued.save(saver, routes),
            })?;
        }
        Ok(SavedSlots::of(&self.entries))
    }

    /// Gives a client back that is led to a target now, if it is its turn and there is room.
    pub(super) fn serve(&mut self, key: Key, now: Instant) -> Option<Served> {
        let Entry { queued, .. } = self.entries.get_mut(key)?;
        let worker = &self.worker;
        let waker = || {
            let worker = worker.clone();
            Waker::from(Arc::new(Turn { worker, key }))
        };
        let choice = queued.choose(waker, now)?;
        let Entry { queued, seen } = self.entries.remove(key)?;
        // A session watches its sockets anew.
        self.poller.forget(&queued.connection().accepted.socket);
        self.context.stats.session_ended();
        Some(Served {
            queued,
            choice,
            seen,
        })
    }

    /// Takes in what epoll reported.
    pub(super) fn look(&mut self, key: Key, events: EventFlags, now: Instant) {
        let gone = |entry: &mut Entry| entry.queued.is_gone(events);
        if self.entries.get_mut(key).is_some_and(gone) {
            self.end(key, EndReason::ClientGone, now);
        }
    }

    /// Ends those that have waited for long enough.
    pub(super) fn fire_timers(&mut self, clock: Clock) {
        while let Some(slot) = self.deadlines.pop_due(clock.reported) {
            let Some(key) = self.entries.occupant_of(slot) else {
                continue;
            };
            let Some(Entry { queued, .. }) = self.entries.get_mut(key) else {
                continue;
            };
            let (at, reason) = queued.ends();
            match at > clock.reported {
                true => self.deadlines.arm(slot, at),
                false => self.end(key, reason, clock.now),
            }
        }
    }

    /// Carries out an order on every client that has not had it. After a change there may be room for
    /// some: [`Self::serve`] tells.
    pub(super) fn carry_out(
        &mut self,
        number: OrderNumber,
        order: &SessionOrder,
        pacing: &mut Pacing,
    ) {
        for key in self.entries.keys() {
            let Some(Entry { queued, seen }) = self.entries.get_mut(key) else {
                continue;
            };
            if *seen >= number {
                continue;
            }
            let effect = order_pending(queued, order, &self.context.table.load(), pacing.next);
            if effect != Effect::None {
                self.deadlines.arm(key.index(), queued.deadline());
            }
            pacing.note(effect);
        }
    }

    /// Tells of those in the next few slots.
    pub(super) fn list(
        &mut self,
        from: usize,
        filter: &SessionFilter,
        now: Instant,
    ) -> SessionPage {
        let (keys, next) = self.entries.keys_from(from, SLOTS);
        let sessions = keys.into_iter().filter_map(|key| {
            let queued = &self.entries.get_mut(key)?.queued;
            let client = queued.connection().accepted.client;
            let meant = filter.means(queued.id(), queued.route(), client);
            meant.then(|| queued.view(now))
        });
        SessionPage {
            sessions: sessions.collect(),
            next,
        }
    }

    fn end(&mut self, key: Key, reason: EndReason, now: Instant) {
        if let Some(Entry { queued, .. }) = self.entries.remove(key) {
            self.context.stats.session_ended();
            self.context.refuse(&queued.end(reason), reason, now);
        }
    }
}
