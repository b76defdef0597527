//! What becomes of clients when accepting them fails for want of descriptors or memory.

use super::*;
use crate::listen::is_descriptor_shortage;

/// Clients turned away in one go; a queue that is longer has to wait for the next.
const TURNED_AWAY: usize = 1024;

impl EventLoop {
    /// Turns away who waits, as far as the reserve allows, and leaves the listener alone for a
    /// while: trying at once would fail the same way.
    pub(super) fn run_short(&mut self, key: Key, route: &Arc<Route>, errno: Errno) {
        let turned_away = match is_descriptor_shortage(errno) {
            true => self.turn_away(key, route),
            false => 0,
        };
        let Some(listener) = self.listeners.get_mut(key) else {
            return;
        };
        let pause = listener.backoff.pause();
        self.shared.stats.accept_pauses.fetch_add(1, Relaxed);
        if self
            .accept_logged
            .is_none_or(|last| self.now.duration_since(last) >= ACCEPT_LOG_EVERY)
        {
            self.accept_logged = Some(self.now);
            tracing::warn!(
                listen = %listener.addr,
                errno = in_words(&errno.into()),
                turned_away,
                pause_ms = pause.as_millis() as u64,
                "out of resources: not accepting for a moment"
            );
        }
        self.paused.push((self.now + pause, key));
        self.watch_listener(key, EventFlags::empty());
    }

    /// Resets the clients in a listener's queue one by one, each in the place of the reserve.
    fn turn_away(&mut self, key: Key, route: &Arc<Route>) -> usize {
        for count in 0..TURNED_AWAY {
            let Some(listener) = self.listeners.get_mut(key) else {
                return count;
            };
            let accepted = self.reserve.accept(&*listener.socket);
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
