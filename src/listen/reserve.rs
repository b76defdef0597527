//! A descriptor kept for the moment when there is no other.
//!
//! accept(2) without a free descriptor leaves the client in the queue: it believes itself connected
//! and hears nothing. Giving the reserve up makes room to take it out and reset it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::{Accepted, accept};

/// Room for one more descriptor.
#[derive(Debug)]
pub struct Reserve(Option<OwnedFd>);

impl Reserve {
    /// Sets a descriptor aside.
    pub fn set_aside() -> Self {
        let mut reserve = Self(None);
        reserve.refill();
        reserve
    }

    /// Sets one aside again, if it was spent and there is one to be had.
    pub fn refill(&mut self) {
        if self.0.is_none() {
            // An eventfd costs nothing else and needs no path.
            self.0 = eventfd(0, EventfdFlags::CLOEXEC).ok();
        }
    }

    /// Accepts a connection in the place of the reserve, to be closed before [`Self::refill`].
    pub fn accept(&mut self, listener: impl AsFd) -> Option<Accepted> {
        drop(self.0.take()?);
        accept(listener).ok()
    }
}
