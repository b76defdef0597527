//! Connections of trusted fronts, from accept to the end of their PROXY header.

use super::*;
use crate::{
    session::{HeaderOutcome, HeaderRead},
    table::MappingOverride,
    worker::OrderNumber,
};

/// No more will come.
const ENDING: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

/// A connection whose header is awaited.
pub(super) struct Awaited {
    pub(super) pending: PendingProxyHeader,
    /// The last order it has had.
    pub(super) seen: OrderNumber,
}

impl EventLoop {
    /// Waits for the header of a connection. If its mapping is gone the header has to be there
    /// already: then it waited with those that are served a last time.
    pub(super) fn await_header(
        &mut self,
        id: SessionId,
        accepted: Accepted,
        route: Arc<Route>,
        seen: OrderNumber,
    ) {
        let shared = Arc::clone(&self.shared);
        let is_last = orders::current_route(&shared.table.load(), &route).is_none();
        let room = shared.stats.sessions_open() < shared.gate.max_sessions();
        let mut pending =
            match PendingProxyHeader::begin(id, accepted, Arc::clone(&route), self.now, room) {
                Ok(pending) => pending,
                Err((reason, accepted)) => return self.refuse(id, &accepted, route, reason),
            };
        shared.stats.session_opened();
        if is_last {
            return match pending.read_header(&mut self.scratch) {
                HeaderRead::Whole => self.begin_after_header(pending, seen),
                HeaderRead::Partly => self.refuse_pending(pending, EndReason::MappingRemoved),
                HeaderRead::Invalid => self.refuse_pending(pending, EndReason::ProxyHeaderInvalid),
            };
        }
        let deadline = pending.deadline();
        let key = self.pending_headers.insert(Awaited { pending, seen });
        let Some(Awaited { pending, .. }) = self.pending_headers.get_mut(key) else {
            return;
        };
        let data = EventData::new_u64(Token::ProxyHeader(key).to_bits());
        let events = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if let Err(errno) = epoll::add(&self.epoll, &pending.accepted().socket, data, events) {
            tracing::error!(%errno, "cannot watch a connection for its header");
            return self.end_pending(key, EndReason::NoResources);
        }
        self.header_timers.arm(key.index(), deadline);
        self.catch_up_pending(key, seen);
        // It often comes with the connection.
        self.read_header(key, EventFlags::empty());
    }

    /// Looks whether the header is there; if it is, the connection becomes a session of what its
    /// mapping is now.
    pub(super) fn read_header(&mut self, key: Key, events: EventFlags) {
        let table = self.shared.table.load_full();
        let Some(Awaited { pending, .. }) = self.pending_headers.get_mut(key) else {
            return;
        };
        if pending.is_leaving() {
            return;
        }
        let Some(current) = orders::current_route(&table, pending.route()) else {
            return self.end_pending(key, EndReason::MappingRemoved);
        };
        pending.adopt(current);
        if is_paused(&self.shared, pending) {
            return;
        }
        let read = match PendingProxyHeader::is_due(pending.accepted(), pending.route()) {
            // It is not trusted any more: what it says is for the target.
            false => HeaderRead::Whole,
            true => pending.read_header(&mut self.scratch),
        };
        match read {
            // What is in the queue hides the end behind it.
            HeaderRead::Partly if events.intersects(ENDING) => {
                self.end_pending(key, EndReason::ProxyHeaderInvalid);
            }
            HeaderRead::Partly => {}
            HeaderRead::Invalid => self.end_pending(key, EndReason::ProxyHeaderInvalid),
            HeaderRead::Whole => {
                let Some(Awaited { pending, seen }) = self.pending_headers.remove(key) else {
                    return;
                };
                // A session watches its sockets anew; it was registered when it came in.
                let _ = epoll::delete(&self.epoll, &pending.accepted().socket);
                let seen = seen.max(self.carried_out);
                self.begin_after_header(pending, seen);
            }
        }
    }

    /// Makes a connection that has said whose it is a session.
    fn begin_after_header(&mut self, pending: PendingProxyHeader, seen: OrderNumber) {
        self.shared.stats.session_ended();
        let HeaderOutcome {
            id,
            accepted,
            route,
            drained,
        } = pending.end(None);
        self.begin(id, accepted, route, seen, drained);
    }

    pub(super) fn end_silent_pending(&mut self) {
        let reported = self.reported.until();
        while let Some(slot) = self.header_timers.pop_due(reported) {
            let Some(key) = self.pending_headers.occupant_of(slot) else {
                continue;
            };
            let Some(Awaited { pending, .. }) = self.pending_headers.get_mut(key) else {
                continue;
            };
            let (at, reason) = pending.ends();
            if at > reported {
                self.header_timers.arm(slot, at);
            } else if reason == EndReason::ProxyHeaderTimeout && is_paused(&self.shared, pending) {
                // It may have said everything; nobody listens.
                pending.wait_anew(self.now);
                self.header_timers.arm(slot, pending.deadline());
            } else {
                self.end_pending(key, reason);
            }
        }
    }

    fn end_pending(&mut self, key: Key, reason: EndReason) {
        if let Some(Awaited { pending, .. }) = self.pending_headers.remove(key) {
            self.refuse_pending(pending, reason);
        }
    }

    fn refuse_pending(&mut self, pending: PendingProxyHeader, reason: EndReason) {
        self.shared.stats.session_ended();
        let ended = pending.end(Some(reason));
        self.refuse(ended.id, &ended.accepted, ended.route, reason);
    }
}

/// Whether an operator lets the clients of its mapping wait.
fn is_paused(shared: &WorkerContext, pending: &PendingProxyHeader) -> bool {
    shared.overrides.load().get(&pending.route().mapping.name) == Some(&MappingOverride::Paused)
}
