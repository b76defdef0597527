//! Passing sessions between the two workers of a pair.

use rustix::event::epoll;

use super::{Command, EventLoop, Key, Side, WorkerRole};
use crate::{
    session::{Pace, Session},
    worker::OrderNumber,
};

impl EventLoop {
    pub(super) fn role(&self) -> WorkerRole {
        self.workers[self.number].role()
    }

    /// Whether a session at this pace is for the other worker of the pair to serve.
    pub(super) fn belongs_to_partner(&self, pace: Pace) -> bool {
        let wrong = match self.role() {
            WorkerRole::Interactive => Pace::Bulk,
            WorkerRole::Bulk => Pace::Interactive,
        };
        pace == wrong && !self.draining
    }

    /// Gives a session to the other worker of the pair.
    pub(super) fn hand_over(&mut self, key: Key) {
        let Some(entry) = self.sessions.remove(key) else {
            return;
        };
        for side in [Side::Client, Side::Target] {
            // It was registered when it came, and nothing else can fail.
            let _ = epoll::delete(&self.epoll, entry.session.socket(side));
        }
        let pairs = self.workers.len() / 2;
        let partner = (self.number + pairs) % self.workers.len();
        let seen = entry.seen.max(self.carried_out);
        self.workers[partner].send(Command::Take(Box::new(entry.session), seen));
    }

    /// Serves a session the partner gave. Epoll reports at once what its sockets are ready for.
    pub(super) fn take(&mut self, session: Session, seen: OrderNumber) {
        self.took = true;
        self.serve(session, seen);
    }
}
