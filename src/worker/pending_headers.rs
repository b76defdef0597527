//! Connections of trusted fronts, from accept to the end of their PROXY header.

use std::{sync::Arc, time::Instant};

use rustix::event::epoll::EventFlags;

use super::{
    OrderNumber, WorkerContext,
    orders::{OrderLog, current_route},
    poller::{Poller, Token},
    reported::Clock,
    slots::Key,
    waiting_clients::WaitingClients,
};
use crate::{
    end_reason::EndReason,
    proxy_protocol::LONGEST,
    session::{Connection, HeaderRead, PendingProxyHeader, Waiting},
};

/// No more will come.
const ENDING: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

pub(super) struct PendingHeaders {
    pub(super) clients: WaitingClients<PendingProxyHeader>,
    context: Arc<WorkerContext>,
    scratch: Box<[u8]>,
}

impl PendingHeaders {
    pub(super) fn new(context: Arc<WorkerContext>, poller: Poller) -> Self {
        let events = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        Self {
            clients: WaitingClients::new(
                Arc::clone(&context),
                poller,
                events,
                Token::PendingHeader,
            ),
            context,
            scratch: vec![0; LONGEST].into(),
        }
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
        let context = &self.context;
        let is_last = current_route(&context.table.load(), &connection.route).is_none();
        let room = context.stats.sessions_open() < context.gate.max_sessions();
        let mut pending = match PendingProxyHeader::begin(connection, now, room) {
            Ok(pending) => pending,
            Err((reason, connection)) => {
                context.refuse(&connection, reason, now);
                return None;
            }
        };
        if is_last {
            let reason = match pending.read_header(&mut self.scratch) {
                HeaderRead::Whole => return Some((pending.complete(), seen)),
                HeaderRead::Partly => EndReason::MappingRemoved,
                HeaderRead::Invalid => EndReason::ProxyHeaderInvalid,
            };
            context.refuse_waiting(pending, reason, now);
            return None;
        }
        let key = self.clients.begin(pending, seen, orders, now)?;
        self.read(key, EventFlags::empty(), now)
    }

    /// Looks whether the header is there; if it is, gives back the connection, which is to become a
    /// session of what its mapping is now.
    pub(super) fn read(
        &mut self,
        key: Key,
        events: EventFlags,
        now: Instant,
    ) -> Option<(Connection, OrderNumber)> {
        let pending = self.clients.get_mut(key)?;
        let client = pending.client_mut();
        if client.is_leaving() {
            return None;
        }
        let table = self.context.table.load();
        let Some(current) = current_route(&table, client.route()) else {
            self.clients.end(key, EndReason::MappingRemoved, now);
            return None;
        };
        client.adopt(current);
        if self.context.is_paused(client.route()) {
            return None;
        }
        let client = pending.client();
        let read = match PendingProxyHeader::is_due(client.accepted(), client.route()) {
            // It is not trusted any more: what it says is for the target.
            false => HeaderRead::Whole,
            true => pending.read_header(&mut self.scratch),
        };
        match read {
            HeaderRead::Whole => {
                let (pending, seen) = self.clients.remove(key)?;
                return Some((pending.complete(), seen));
            }
            // What is in the queue hides the end behind it.
            HeaderRead::Partly if !events.intersects(ENDING) => {}
            HeaderRead::Partly | HeaderRead::Invalid => {
                self.clients.end(key, EndReason::ProxyHeaderInvalid, now);
            }
        }
        None
    }

    /// Ends those that have waited for long enough.
    pub(super) fn fire_timers(&mut self, clock: Clock) {
        while let Some((key, reason)) = self.clients.pop_due(clock) {
            let pending = self.clients.get_mut(key);
            let paused = pending.filter(|pending| self.context.is_paused(pending.client().route()));
            match paused {
                // It may have said everything; nobody listens.
                Some(pending) if reason == EndReason::ProxyHeaderTimeout => {
                    pending.wait_anew(clock.now);
                    self.clients.arm(key);
                }
                _ => self.clients.end(key, reason, clock.now),
            }
        }
    }
}
