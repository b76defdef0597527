//! What control wants of sessions, wherever they are.
//!
//! An order has a number and goes to every worker, which carries them out in turn. A session or a
//! connection that moves takes along the number of the last order its sender had carried out: whoever
//! gets it makes up for those that came since, and spares it those it has had. So an order reaches
//! each session once, however busy a worker is and whatever moves meanwhile.
//!
//! For that a worker keeps an order until no session can arrive without it: all have carried it out,
//! and what they had sent before has been taken in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::SessionChanges;
use crate::{end_reason::EndReason, session::SessionFilter};

/// What all sessions are told.
#[derive(Debug, Clone)]
pub enum SessionOrder {
    /// Those of routes that changed do what comes with the change.
    Apply(Arc<SessionChanges>),
    /// Some end at an operator's word.
    Kill(Arc<Kill>),
    /// No more are accepted; a worker ends when its last one has.
    Drain,
    /// All end, spread over this time.
    Cut(EndReason, Duration),
}

/// The number of an order. They count up from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct OrderNumber(pub(super) u32);

impl OrderNumber {
    /// Stands for all there may be: what a worker that has ended has carried out.
    pub(super) const ALL: Self = Self(u32::MAX);

    /// The one after this.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An operator's word that some sessions are to end. Once the last worker has let go of it, all of
/// them have been told, and whoever asked hears how many they were.
#[derive(Debug)]
pub struct Kill {
    filter: SessionFilter,
    told: AtomicUsize,
    reply: Option<oneshot::Sender<usize>>,
}

impl Kill {
    /// The word, and where the answer comes.
    pub(super) fn new(filter: SessionFilter) -> (Self, oneshot::Receiver<usize>) {
        let (reply, answer) = oneshot::channel();
        let kill = Self {
            filter,
            told: AtomicUsize::new(0),
            reply: Some(reply),
        };
        (kill, answer)
    }

    /// Which sessions.
    pub(super) fn filter(&self) -> &SessionFilter {
        &self.filter
    }

    /// Counts a session that was told.
    pub(super) fn count(&self) {
        self.told.fetch_add(1, Relaxed);
    }
}

impl Drop for Kill {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            // Whoever asked may have gone.
            let _ = reply.send(*self.told.get_mut());
        }
    }
}
