//! Asking the proxy without waiting for it.

use std::{
    io,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use super::state::Snapshot;
use crate::cli::client::ClientError;

/// An answer that takes longer than this is worth a word.
const USUAL: Duration = Duration::from_secs(3);

/// A thread that asks when it is told to, so that keys are read while the proxy hangs.
pub(super) struct Poller {
    orders: Sender<()>,
    answers: Receiver<Result<Snapshot, ClientError>>,
    /// Since when an answer is owed.
    asked: Option<Instant>,
}

impl Poller {
    pub fn start(
        fetch: impl Fn() -> Result<Snapshot, ClientError> + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, ordered) = mpsc::channel();
        let (sender, answers) = mpsc::channel();
        // Nobody waits for its end: it may be waiting for an answer that takes a minute.
        thread::Builder::new()
            .name("poller".to_owned())
            .spawn(
                move || {
                    while ordered.recv().is_ok() && sender.send(fetch()).is_ok() {}
                },
            )?;
        Ok(Self {
            orders,
            answers,
            asked: None,
        })
    }

    /// Has it ask, unless it is still at it.
    pub fn ask(&mut self) {
        if self.asked.is_none() && self.orders.send(()).is_ok() {
            self.asked = Some(Instant::now());
        }
    }

    /// What came of it, if it is done.
    pub fn answer(&mut self) -> Option<Result<Snapshot, ClientError>> {
        let answer = self.answers.try_recv().ok()?;
        self.asked = None;
        Some(answer)
    }

    /// How many whole seconds the proxy has owed an answer, once that is unusual.
    pub fn overdue(&self) -> Option<u64> {
        let waiting = self.asked?.elapsed();
        (waiting > USUAL).then_some(waiting.as_secs())
    }
}
