//! Connections of trusted fronts, from accept to the end of their PROXY header.

use super::*;
use crate::session::Heard;

/// No more will come.
const ENDING: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

impl EventLoop {
    /// Waits for the header of a connection.
    pub(super) fn greet(&mut self, id: SessionId, accepted: Accepted, route: Arc<Route>) {
        let shared = Arc::clone(&self.shared);
        let room = shared.stats.sessions_open() < shared.gate.max_sessions();
        let greeting = match Greeting::begin(id, accepted, Arc::clone(&route), self.now, room) {
            Ok(greeting) => greeting,
            Err((reason, accepted)) => return self.refuse(id, &accepted, route, reason),
        };
        shared.stats.session_opened();
        let deadline = greeting.deadline();
        let key = self.greetings.insert(greeting);
        let Some(greeting) = self.greetings.get_mut(key) else {
            return;
        };
        let data = EventData::new_u64(Token::Greeting(key).to_bits());
        let events = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if let Err(errno) = epoll::add(&self.epoll, &greeting.accepted().socket, data, events) {
            tracing::error!(%errno, "cannot watch a connection for its header");
            return self.end_greeting(key, EndReason::NoResources);
        }
        self.greeting_timers.arm(key.index(), deadline);
        // It often comes with the connection.
        self.hear(key, EventFlags::empty());
    }

    /// Looks whether the header is there; if it is, the connection becomes a session.
    pub(super) fn hear(&mut self, key: Key, events: EventFlags) {
        let Some(greeting) = self.greetings.get_mut(key) else {
            return;
        };
        match greeting.hear(&mut self.scratch) {
            // What is in the queue hides the end behind it.
            Heard::Partly if events.intersects(ENDING) => {
                self.end_greeting(key, EndReason::ProxyHeaderInvalid);
            }
            Heard::Partly => {}
            Heard::Nonsense => self.end_greeting(key, EndReason::ProxyHeaderInvalid),
            Heard::All => {
                let Some(greeting) = self.greetings.remove(key) else {
                    return;
                };
                // A session watches its sockets anew; it was registered when it came in.
                let _ = epoll::delete(&self.epoll, &greeting.accepted().socket);
                self.shared.stats.session_ended();
                let (id, accepted, route) = greeting.end(None);
                // A reload may have come in between.
                let table = self.shared.table.load_full();
                let route = table.route(&route.listen).unwrap_or(&route);
                self.begin(id, accepted, Arc::clone(route));
            }
        }
    }

    pub(super) fn end_silent_greetings(&mut self) {
        let reported = self.reported.until();
        while let Some(slot) = self.greeting_timers.pop_due(reported) {
            let Some(key) = self.greetings.occupant_of(slot) else {
                continue;
            };
            let deadline = self.greetings.get_mut(key).map(|one| one.deadline());
            match deadline {
                Some(at) if at > reported => self.greeting_timers.arm(slot, at),
                _ => self.end_greeting(key, EndReason::ProxyHeaderTimeout),
            }
        }
    }

    /// Ends all of them.
    pub(super) fn end_greetings(&mut self, reason: EndReason) {
        for key in self.greetings.keys() {
            self.end_greeting(key, reason);
        }
    }

    fn end_greeting(&mut self, key: Key, reason: EndReason) {
        if let Some(greeting) = self.greetings.remove(key) {
            self.shared.stats.session_ended();
            let (id, accepted, route) = greeting.end(Some(reason));
            self.refuse(id, &accepted, route, reason);
        }
    }
}
