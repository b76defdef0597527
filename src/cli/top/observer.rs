//! Looking at the proxy without waiting for it.

use std::{
    io,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use super::state::Look;
use crate::cli::client::ClientError;

/// An answer that takes longer than this is worth a word.
const USUAL: Duration = Duration::from_secs(3);

/// A thread that looks when it is told to, so that keys are read while the proxy hangs.
#[derive(Debug)]
pub(super) struct Observer {
    orders: Sender<()>,
    looks: Receiver<Result<Look, ClientError>>,
    /// Since when a look is owed.
    asked: Option<Instant>,
}

impl Observer {
    /// Starts it.
    pub fn start(
        look: impl Fn() -> Result<Look, ClientError> + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, ordered) = mpsc::channel();
        let (sender, looks) = mpsc::channel();
        // Nobody waits for its end: it may be in the middle of a look that takes a minute.
        thread::Builder::new()
            .name("observer".to_owned())
            .spawn(
                move || {
                    while ordered.recv().is_ok() && sender.send(look()).is_ok() {}
                },
            )?;
        Ok(Self {
            orders,
            looks,
            asked: None,
        })
    }

    /// Has it look, unless it is still at it.
    pub fn look(&mut self) {
        if self.asked.is_none() && self.orders.send(()).is_ok() {
            self.asked = Some(Instant::now());
        }
    }

    /// What it saw, if it is done.
    pub fn seen(&mut self) -> Option<Result<Look, ClientError>> {
        let seen = self.looks.try_recv().ok()?;
        self.asked = None;
        Some(seen)
    }

    /// How many whole seconds the proxy has owed an answer, once that is unusual.
    pub fn overdue(&self) -> Option<u64> {
        let waiting = self.asked?.elapsed();
        (waiting > USUAL).then_some(waiting.as_secs())
    }
}
