//! Connections of trusted fronts, from accept to the end of their PROXY header.

use std::{sync::Arc, time::Instant};

use rustix::event::epoll::EventFlags;

use super::{
    OrderNumber, SessionOrder, SessionPage, WorkerContext,
    orders::{Effect, OrderLog, Pacing, current_route, order_pending},
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
    proxy_protocol::LONGEST,
    session::{Connection, HeaderRead, PendingProxyHeader, SessionFilter},
    table::{MappingOverride, RouteSaver},
};

/// No more will come.
const ENDING: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

pub(super) struct PendingHeaders {
    context: Arc<WorkerContext>,
    poller: Poller,
    entries: Slots<Entry>,
    deadlines: Timers,
    scratch: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pending: PendingProxyHeader,
    pub(super) seen: OrderNumber,
}

impl PendingHeaders {
    pub(super) fn new(context: Arc<WorkerContext>, poller: Poller) -> Self {
        Self {
            context,
            poller,
            entries: Slots::new(),
            deadlines: Timers::default(),
            scratch: vec![0; LONGEST].into(),
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

    /// Waits for the header of a connection that has had order `seen` and those before. It often comes
    /// with the connection, which is then given back. If its mapping is gone the header has to be
    /// there already: then it waited with those that are served a last time.
    pub(super) fn begin(
        &mut self,
        connection: Connection,
        seen: OrderNumber,
        orders: &OrderLog,
        now: Instant,
    ) -> Option<(Connection, OrderNumber)> {
        let context = Arc::clone(&self.context);
        let is_last = current_route(&context.table.load(), &connection.route).is_none();
        let room = context.stats.sessions_open() < context.gate.max_sessions();
        let mut pending = match PendingProxyHeader::begin(connection, now, room) {
            Ok(pending) => pending,
            Err((reason, connection)) => {
                context.refuse(&connection, reason, now);
                return None;
            }
        };
        context.stats.session_opened();
        if is_last {
            let reason = match pending.read_header(&mut self.scratch) {
                HeaderRead::Whole => return Some((self.complete(pending), seen)),
                HeaderRead::Partly => EndReason::MappingRemoved,
                HeaderRead::Invalid => EndReason::ProxyHeaderInvalid,
            };
            self.refuse(pending, reason, now);
            return None;
        }
        for order in orders.after(seen) {
            order_pending(&mut pending, order, &context.table.load(), now);
        }
        let key = self.insert(pending, seen, now)?;
        self.read(key, EventFlags::empty(), now)
    }

    /// Watches a connection from now on, if it can be. Epoll reports at once what is there.
    pub(super) fn insert(
        &mut self,
        pending: PendingProxyHeader,
        seen: OrderNumber,
        now: Instant,
    ) -> Option<Key> {
        let deadline = pending.deadline();
        let key = self.entries.insert(Entry { pending, seen });
        let Entry { pending, .. } = self.entries.get_mut(key)?;
        let events = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let socket = &pending.accepted().socket;
        if let Err(errno) = self.poller.add(socket, Token::PendingHeader(key), events) {
            tracing::error!(%errno, "cannot watch a connection for its header");
            self.end(key, EndReason::NoResources, now);
            return None;
        }
        self.deadlines.arm(key.index(), deadline);
        Some(key)
    }

    /// Looks after what another image of the program has handed over; `poller` reports on it already.
    pub(super) fn take_up(&mut self, poller: Option<&Poller>, entries: Slots<Entry>, now: Instant) {
        let Some(poller) = poller else {
            for Entry { pending, seen } in entries.into_occupants() {
                self.insert(pending, seen, now);
            }
            return;
        };
        self.poller = poller.clone();
        for (key, entry) in entries.iter() {
            self.deadlines.arm(key.index(), entry.pending.deadline());
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
                is: entry.pending.save(saver, routes),
            })?;
        }
        Ok(SavedSlots::of(&self.entries))
    }

    /// Looks whether the header is there; if it is, gives back the connection, which is to become a
    /// session of what its mapping is now.
    pub(super) fn read(
        &mut self,
        key: Key,
        events: EventFlags,
        now: Instant,
    ) -> Option<(Connection, OrderNumber)> {
        let Entry { pending, .. } = self.entries.get_mut(key)?;
        if pending.is_leaving() {
            return None;
        }
        let table = self.context.table.load();
        let Some(current) = current_route(&table, pending.route()) else {
            self.end(key, EndReason::MappingRemoved, now);
            return None;
        };
        pending.adopt(current);
        if is_paused(&self.context, pending) {
            return None;
        }
        let read = match PendingProxyHeader::is_due(pending.accepted(), pending.route()) {
            // It is not trusted any more: what it says is for the target.
            false => HeaderRead::Whole,
            true => pending.read_header(&mut self.scratch),
        };
        match read {
            HeaderRead::Whole => {
                let Entry { pending, seen } = self.entries.remove(key)?;
                // A session watches its sockets anew.
                self.poller.forget(&pending.accepted().socket);
                return Some((self.complete(pending), seen));
            }
            // What is in the queue hides the end behind it.
            HeaderRead::Partly if !events.intersects(ENDING) => {}
            HeaderRead::Partly | HeaderRead::Invalid => {
                self.end(key, EndReason::ProxyHeaderInvalid, now);
            }
        }
        None
    }

    /// Ends those that have waited for long enough.
    pub(super) fn fire_timers(&mut self, clock: Clock) {
        while let Some(slot) = self.deadlines.pop_due(clock.reported) {
            let Some(key) = self.entries.occupant_of(slot) else {
                continue;
            };
            let Some(Entry { pending, .. }) = self.entries.get_mut(key) else {
                continue;
            };
            let (at, reason) = pending.ends();
            if at > clock.reported {
                self.deadlines.arm(slot, at);
            } else if reason == EndReason::ProxyHeaderTimeout && is_paused(&self.context, pending) {
                // It may have said everything; nobody listens.
                pending.wait_anew(clock.now);
                self.deadlines.arm(slot, pending.deadline());
            } else {
                self.end(key, reason, clock.now);
            }
        }
    }

    /// Carries out an order on every connection that has not had it. After a change one may have
    /// become an ordinary connection, or need not wait any longer: [`Self::read`] tells.
    pub(super) fn carry_out(
        &mut self,
        number: OrderNumber,
        order: &SessionOrder,
        pacing: &mut Pacing,
    ) {
        for key in self.entries.keys() {
            let Some(Entry { pending, seen }) = self.entries.get_mut(key) else {
                continue;
            };
            if *seen >= number {
                continue;
            }
            let effect = order_pending(pending, order, &self.context.table.load(), pacing.next);
            if effect != Effect::None {
                self.deadlines.arm(key.index(), pending.deadline());
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
            let pending = &self.entries.get_mut(key)?.pending;
            let client = pending.accepted().client;
            let meant = filter.means(pending.id(), pending.route(), client);
            meant.then(|| pending.view(now))
        });
        SessionPage {
            sessions: sessions.collect(),
            next,
        }
    }

    fn complete(&self, pending: PendingProxyHeader) -> Connection {
        self.context.stats.session_ended();
        pending.end(None)
    }

    fn end(&mut self, key: Key, reason: EndReason, now: Instant) {
        if let Some(Entry { pending, .. }) = self.entries.remove(key) {
            self.refuse(pending, reason, now);
        }
    }

    fn refuse(&self, pending: PendingProxyHeader, reason: EndReason, now: Instant) {
        self.context.stats.session_ended();
        self.context.refuse(&pending.end(Some(reason)), reason, now);
    }
}

/// Whether an operator lets the clients of its mapping wait.
fn is_paused(context: &WorkerContext, pending: &PendingProxyHeader) -> bool {
    let name = &pending.route().mapping.name;
    context.overrides.load().get(name) == Some(&MappingOverride::Paused)
}
