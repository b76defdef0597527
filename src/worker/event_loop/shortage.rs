//! What becomes of clients when accepting them fails for want of descriptors or memory.

use super::*;
use crate::{listen::is_descriptor_shortage, units::millis};

/// Clients turned away in one go; a queue that is longer has to wait for the next.
const TURNED_AWAY: usize = 1024;

impl EventLoop {
    /// Turns away who waits, as far as the reserve allows, and leaves the listener alone for a
    /// while: trying at once would fail the same way.
    pub(super) fn back_off_after_shortage(&mut self, key: Key, route: &Arc<Route>, errno: Errno) {
        let socket = self
            .listeners
            .get_mut(key)
            .map(|one| Arc::clone(&one.socket));
        let turned_away = match socket {
            Some(socket) if is_descriptor_shortage(errno) => self.turn_away(&socket, route),
            _ => 0,
        };
        let Some((listen, pause)) = self.pause_listener(key) else {
            return;
        };
        if self.may_log_pause() {
            tracing::warn!(
                %listen,
                errno = in_words(&errno.into()),
                turned_away,
                pause_ms = millis(pause),
                "out of resources: not accepting for a moment"
            );
        }
    }

    /// Leaves a listener alone for a while from which nothing can be accepted: trying at once would
    /// keep the processor busy.
    pub(super) fn back_off_after_failures(&mut self, key: Key, errno: Errno) {
        let Some((listen, pause)) = self.pause_listener(key) else {
            return;
        };
        if self.may_log_pause() {
            tracing::warn!(
                %listen,
                errno = in_words(&errno.into()),
                pause_ms = millis(pause),
                "accepting keeps failing: not accepting for a moment"
            );
        }
    }

    fn pause_listener(&mut self, key: Key) -> Option<(ListenAddr, Duration)> {
        let listener = self.listeners.get_mut(key)?;
        let (listen, pause) = (listener.addr, listener.backoff.pause());
        self.shared.stats.accept_pauses.fetch_add(1, Relaxed);
        self.paused.push((self.now + pause, key));
        self.watch_listener(key, EventFlags::empty());
        Some((listen, pause))
    }

    fn may_log_pause(&mut self) -> bool {
        let lately = |last: Instant| self.now.duration_since(last) < ACCEPT_LOG_EVERY;
        let may = !self.accept_logged.is_some_and(lately);
        if may {
            self.accept_logged = Some(self.now);
        }
        may
    }

    /// Resets the clients in a listener's queue one by one, each in the place of the reserve.
    pub(super) fn turn_away(&mut self, socket: &OwnedFd, route: &Arc<Route>) -> usize {
        for count in 0..TURNED_AWAY {
            let accepted = self.reserve.accept(socket);
            if let Some(accepted) = &accepted {
                let id = SessionId(self.shared.next_session.fetch_add(1, Relaxed));
                let reason = EndReason::NoResources;
                route.mapping.stats.refuse(reason);
                self.refuse(id, accepted, Arc::clone(route), reason);
            }
            let found_one = accepted.is_some();
            drop(accepted);
            self.reserve.refill();
            if !found_one {
                return count;
            }
        }
        TURNED_AWAY
    }
}
