//! Clients of a worker that have no session yet: watched, called at their deadlines, told of orders,
//! listed and handed over. What they wait for, and what comes then, is decided by who has them.

use std::{sync::Arc, time::Instant};

use rustix::event::epoll::EventFlags;

use super::{
    OrderNumber, SessionOrder, SessionPage, WorkerContext,
    orders::{Effect, OrderLog, Pacing, order_waiting},
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
    session::{SessionFilter, Waiting},
    table::RouteSaver,
};

pub(super) struct WaitingClients<W> {
    context: Arc<WorkerContext>,
    poller: Poller,
    /// What epoll reports of each, and as what.
    events: EventFlags,
    token: fn(Key) -> Token,
    entries: Slots<WaitingEntry<W>>,
    deadlines: Timers,
}

#[derive(Debug)]
pub(super) struct WaitingEntry<W> {
    pub(super) client: W,
    /// The last order it had had when it came.
    pub(super) seen: OrderNumber,
}

impl<W: Waiting> WaitingClients<W> {
    pub(super) fn new(
        context: Arc<WorkerContext>,
        poller: Poller,
        events: EventFlags,
        token: fn(Key) -> Token,
    ) -> Self {
        Self {
            context,
            poller,
            events,
            token,
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

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut W> {
        self.entries.get_mut(key).map(|entry| &mut entry.client)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Has a client wait that has had order `seen` and those before.
    pub(super) fn begin(
        &mut self,
        mut client: W,
        seen: OrderNumber,
        orders: &OrderLog,
        now: Instant,
    ) -> Option<Key> {
        self.context.stats.session_opened();
        for order in orders.after(seen) {
            order_waiting(client.client_mut(), order, &self.context.table.load(), now);
        }
        self.insert(client, seen, now)
    }

    /// Watches a client from now on, if it can be. Epoll reports at once what is there.
    pub(super) fn insert(&mut self, client: W, seen: OrderNumber, now: Instant) -> Option<Key> {
        let key = self.entries.insert(WaitingEntry { client, seen });
        let WaitingEntry { client, .. } = self.entries.get_mut(key)?;
        let socket = &client.client().accepted().socket;
        if let Err(errno) = self.poller.add(socket, (self.token)(key), self.events) {
            tracing::error!(%errno, "cannot watch a client that waits for its session");
            self.end(key, EndReason::NoResources, now);
            return None;
        }
        self.arm(key);
        Some(key)
    }

    /// Sees to it that a client is called when its time is over.
    pub(super) fn arm(&mut self, key: Key) {
        if let Some(WaitingEntry { client, .. }) = self.entries.get_mut(key) {
            self.deadlines.arm(key.index(), client.ends().0);
        }
    }

    /// Looks after what another image of the program has handed over; `poller` reports on it already.
    pub(super) fn take_up(
        &mut self,
        poller: Option<&Poller>,
        entries: Slots<WaitingEntry<W>>,
        now: Instant,
    ) {
        let Some(poller) = poller else {
            for WaitingEntry { client, seen } in entries.into_occupants() {
                self.insert(client, seen, now);
            }
            return;
        };
        self.poller = poller.clone();
        for (key, entry) in entries.iter() {
            self.deadlines.arm(key.index(), entry.client.ends().0);
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
                is: entry.client.save(saver, routes),
            })?;
        }
        Ok(SavedSlots::of(&self.entries))
    }

    /// The next of those that have waited for long enough, and the reason for which it ends.
    pub(super) fn pop_due(&mut self, clock: Clock) -> Option<(Key, EndReason)> {
        while let Some(slot) = self.deadlines.pop_due(clock.reported) {
            let Some(key) = self.entries.occupant_of(slot) else {
                continue;
            };
            let Some(WaitingEntry { client, .. }) = self.entries.get_mut(key) else {
                continue;
            };
            let (at, reason) = client.ends();
            if at <= clock.reported {
                return Some((key, reason));
            }
            self.deadlines.arm(slot, at);
        }
        None
    }

    /// Carries out an order on every client that has not had it. What it waits for may be there after a
    /// change.
    pub(super) fn carry_out(
        &mut self,
        number: OrderNumber,
        order: &SessionOrder,
        pacing: &mut Pacing,
    ) {
        for key in self.entries.keys() {
            let Some(WaitingEntry { client, seen }) = self.entries.get_mut(key) else {
                continue;
            };
            if *seen >= number {
                continue;
            }
            let table = self.context.table.load();
            let effect = order_waiting(client.client_mut(), order, &table, pacing.next);
            if effect != Effect::None {
                self.arm(key);
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
            let waiting = self.get_mut(key)?;
            let client = waiting.client();
            let meant = filter.means(client.id(), client.route(), client.accepted().client);
            meant.then(|| waiting.view(now))
        });
        SessionPage {
            sessions: sessions.collect(),
            next,
        }
    }

    /// Gives a client back whose session begins, with the last order it had had when it came.
    pub(super) fn remove(&mut self, key: Key) -> Option<(W, OrderNumber)> {
        let WaitingEntry { client, seen } = self.entries.remove(key)?;
        // A session watches its sockets anew.
        self.poller.forget(&client.client().accepted().socket);
        self.context.stats.session_ended();
        Some((client, seen))
    }

    pub(super) fn end(&mut self, key: Key, reason: EndReason, now: Instant) {
        if let Some(WaitingEntry { client, .. }) = self.entries.remove(key) {
            self.context.stats.session_ended();
            self.context.refuse_waiting(client, reason, now);
        }
    }
}
