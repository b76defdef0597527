//! Connections of trusted fronts, from accept to the end of their PROXY header.

use super::*;
use crate::{
    session::{Greeted, Heard},
    table::Hold,
    worker::OrderNumber,
};

/// No more will come.
const ENDING: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

/// A connection whose header is awaited.
pub(super) struct Awaited {
    pub(super) greeting: Greeting,
    /// The last order it has had.
    pub(super) seen: OrderNumber,
}

impl EventLoop {
    /// Waits for the header of a connection. If its mapping is gone the header has to be there
    /// already: then it waited with those that are served a last time.
    pub(super) fn greet(
        &mut self,
        id: SessionId,
        accepted: Accepted,
        route: Arc<Route>,
        seen: OrderNumber,
    ) {
        let shared = Arc::clone(&self.shared);
        let is_last = orders::current_route(&shared.table.load(), &route).is_none();
        let room = shared.stats.sessions_open() < shared.gate.max_sessions();
        let mut greeting = match Greeting::begin(id, accepted, Arc::clone(&route), self.now, room) {
            Ok(greeting) => greeting,
            Err((reason, accepted)) => return self.refuse(id, &accepted, route, reason),
        };
        shared.stats.session_opened();
        if is_last {
            return match greeting.hear(&mut self.scratch) {
                Heard::All => self.begin_greeted(greeting, seen),
                Heard::Partly => self.end_greeted(greeting, EndReason::MappingRemoved),
                Heard::Nonsense => self.end_greeted(greeting, EndReason::ProxyHeaderInvalid),
            };
        }
        let deadline = greeting.deadline();
        let key = self.greetings.insert(Awaited { greeting, seen });
        let Some(Awaited { greeting, .. }) = self.greetings.get_mut(key) else {
            return;
        };
        let data = EventData::new_u64(Token::Greeting(key).to_bits());
        let events = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if let Err(errno) = epoll::add(&self.epoll, &greeting.accepted().socket, data, events) {
            tracing::error!(%errno, "cannot watch a connection for its header");
            return self.end_greeting(key, EndReason::NoResources);
        }
        self.greeting_timers.arm(key.index(), deadline);
        self.catch_up_greeting(key, seen);
        // It often comes with the connection.
        self.hear(key, EventFlags::empty());
    }

    /// Looks whether the header is there; if it is, the connection becomes a session of what its
    /// mapping is now.
    pub(super) fn hear(&mut self, key: Key, events: EventFlags) {
        let table = self.shared.table.load_full();
        let Some(Awaited { greeting, .. }) = self.greetings.get_mut(key) else {
            return;
        };
        if greeting.is_leaving() {
            return;
        }
        let Some(current) = orders::current_route(&table, greeting.route()) else {
            return self.end_greeting(key, EndReason::MappingRemoved);
        };
        greeting.adopt(current);
        if is_paused(&self.shared, greeting) {
            return;
        }
        let heard = match Greeting::is_due(greeting.accepted(), greeting.route()) {
            // It is not trusted any more: what it says is for the target.
            false => Heard::All,
            true => greeting.hear(&mut self.scratch),
        };
        match heard {
            // What is in the queue hides the end behind it.
            Heard::Partly if events.intersects(ENDING) => {
                self.end_greeting(key, EndReason::ProxyHeaderInvalid);
            }
            Heard::Partly => {}
            Heard::Nonsense => self.end_greeting(key, EndReason::ProxyHeaderInvalid),
            Heard::All => {
                let Some(Awaited { greeting, seen }) = self.greetings.remove(key) else {
                    return;
                };
                // A session watches its sockets anew; it was registered when it came in.
                let _ = epoll::delete(&self.epoll, &greeting.accepted().socket);
                let seen = seen.max(self.carried_out);
                self.begin_greeted(greeting, seen);
            }
        }
    }

    /// Makes a connection that has said whose it is a session.
    fn begin_greeted(&mut self, greeting: Greeting, seen: OrderNumber) {
        self.shared.stats.session_ended();
        let Greeted {
            id,
            accepted,
            route,
            drained,
        } = greeting.end(None);
        self.begin(id, accepted, route, seen, drained);
    }

    pub(super) fn end_silent_greetings(&mut self) {
        let reported = self.reported.until();
        while let Some(slot) = self.greeting_timers.pop_due(reported) {
            let Some(key) = self.greetings.occupant_of(slot) else {
                continue;
            };
            let Some(Awaited { greeting, .. }) = self.greetings.get_mut(key) else {
                continue;
            };
            let (at, reason) = greeting.ends();
            if at > reported {
                self.greeting_timers.arm(slot, at);
            } else if reason == EndReason::ProxyHeaderTimeout && is_paused(&self.shared, greeting) {
                // It may have said everything; nobody listens.
                greeting.wait_anew(self.now);
                self.greeting_timers.arm(slot, greeting.deadline());
            } else {
                self.end_greeting(key, reason);
            }
        }
    }

    fn end_greeting(&mut self, key: Key, reason: EndReason) {
        if let Some(Awaited { greeting, .. }) = self.greetings.remove(key) {
            self.end_greeted(greeting, reason);
        }
    }

    fn end_greeted(&mut self, greeting: Greeting, reason: EndReason) {
        self.shared.stats.session_ended();
        let ended = greeting.end(Some(reason));
        self.refuse(ended.id, &ended.accepted, ended.route, reason);
    }
}

/// Whether an operator lets the clients of its mapping wait.
fn is_paused(shared: &Shared, greeting: &Greeting) -> bool {
    shared.holds.load().get(&greeting.route().mapping.name) == Some(&Hold::Paused)
}
