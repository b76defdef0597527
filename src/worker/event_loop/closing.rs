//! Serving the queue of a listener that is to be closed.
//!
//! Who waits in it has connected before and gets a session, a few in each turn, so that a long queue
//! holds nobody up. There are never more than the queue had room for: who comes later comes too late.

use super::*;
use crate::listen::is_descriptor_shortage;

/// Connections taken from such queues before others get their turn.
const A_TURN: usize = 64;

/// A queue that is served a last time.
pub(super) struct Closing {
    socket: Arc<OwnedFd>,
    route: Arc<Route>,
    /// How many may have been in it.
    left: u32,
    /// Failures since the last success.
    failures: usize,
    /// The last order that was carried out when it was closed.
    pub(super) seen: OrderNumber,
    /// Dropped when the socket is.
    _closed: Option<tokio::sync::mpsc::Sender<Infallible>>,
}

impl EventLoop {
    /// Accepts from a listener no longer, but for what waits in its queue.
    pub(super) fn close_listener(
        &mut self,
        key: Key,
        route: Arc<Route>,
        closed: Option<tokio::sync::mpsc::Sender<Infallible>>,
    ) {
        if let Some(listener) = self.remove_listener(key) {
            self.closing.push_back(Closing {
                socket: listener.socket,
                left: route.mapping.policy.backlog.saturating_add(1),
                route,
                failures: 0,
                seen: self.carried_out,
                _closed: closed,
            });
        }
    }

    /// Serves such queues for a turn.
    pub(super) fn serve_closing(&mut self) {
        if self.closing.is_empty() {
            return;
        }
        for _ in 0..A_TURN {
            let Some(mut queue) = self.closing.pop_front() else {
                break;
            };
            if self.serve_one_of(&mut queue) {
                // Each listener in its turn.
                self.closing.push_back(queue);
            }
        }
        if self.closing.is_empty() {
            // Nothing can come from them any more, which orders may have waited for.
            self.run_commands();
        }
    }

    /// Serves one connection; whether there may be more.
    fn serve_one_of(&mut self, queue: &mut Closing) -> bool {
        match accept(&*queue.socket) {
            Ok(accepted) => {
                queue.failures = 0;
                queue.left -= 1;
                self.open_late(accepted, Arc::clone(&queue.route), queue.seen);
                queue.left > 0
            }
            Err(AcceptError::Empty | AcceptError::Fatal(_)) => false,
            Err(AcceptError::Pause(errno)) if is_descriptor_shortage(errno) => {
                let count = self.turn_away(&queue.socket, &queue.route);
                tracing::warn!(
                    listen = %queue.route.listen,
                    error = in_words(&errno.into()),
                    count,
                    "clients of a removed listener were turned away"
                );
                false
            }
            Err(AcceptError::Pause(errno) | AcceptError::Retry(errno)) => {
                queue.failures += 1;
                let gives_up = queue.failures >= ACCEPTS;
                if gives_up {
                    tracing::warn!(
                        listen = %queue.route.listen,
                        error = in_words(&errno.into()),
                        "clients of a removed listener cannot be accepted"
                    );
                }
                !gives_up
            }
        }
    }
}
