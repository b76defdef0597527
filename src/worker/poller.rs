//! The epoll instance of a worker, and what it hands back for a descriptor: whose it is.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, Event, EventData, EventFlags},
    },
    io::Result,
};

use super::slots::Key;
use crate::relay::Side;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Commands,
    Listener(Key),
    Session(Key, Side),
    /// A connection whose PROXY header is awaited.
    PendingHeader(Key),
    /// A client that waits for a target.
    Queued(Key),
}

const KIND_SHIFT: u32 = 61;

impl Token {
    /// The token as the 64 bits epoll carries: three of kind, 29 of generation, 32 of index.
    fn to_bits(self) -> u64 {
        let (kind, key) = match self {
            Self::Commands => (0, Key::default()),
            Self::Listener(key) => (1, key),
            Self::Session(key, Side::Client) => (2, key),
            Self::Session(key, Side::Target) => (3, key),
            Self::PendingHeader(key) => (4, key),
            Self::Queued(key) => (5, key),
        };
        kind << KIND_SHIFT | key.to_bits()
    }

    pub(super) fn of(event: &Event) -> Self {
        Self::from_bits(event.data.u64())
    }

    fn from_bits(bits: u64) -> Self {
        let key = Key::from_bits(bits & ((1 << KIND_SHIFT) - 1));
        match bits >> KIND_SHIFT {
            0 => Self::Commands,
            1 => Self::Listener(key),
            2 => Self::Session(key, Side::Client),
            3 => Self::Session(key, Side::Target),
            4 => Self::PendingHeader(key),
            _ => Self::Queued(key),
        }
    }
}

/// A handle on the epoll instance, which each part of a worker has.
#[derive(Debug, Clone)]
pub(super) struct Poller(Arc<OwnedFd>);

impl Poller {
    pub(super) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self(Arc::new(epoll)))
    }

    /// One that was handed over, with what it reports on.
    pub(super) fn of(epoll: OwnedFd) -> Self {
        Self(Arc::new(epoll))
    }

    /// For whoever hands it over.
    pub(super) fn epoll(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn add(&self, socket: impl AsFd, token: Token, events: EventFlags) -> Result<()> {
        epoll::add(
            &*self.0,
            socket,
            EventData::new_u64(token.to_bits()),
            events,
        )
    }

    pub(super) fn modify(&self, socket: impl AsFd, token: Token, events: EventFlags) -> Result<()> {
        epoll::modify(
            &*self.0,
            socket,
            EventData::new_u64(token.to_bits()),
            events,
        )
    }

    /// Forgets a socket that was added and stays open in other hands.
    pub(super) fn forget(&self, socket: impl AsFd) {
        // It was added when it came, and nothing else can fail.
        let _ = epoll::delete(&*self.0, socket);
    }

    /// Waits for events, as many as there is room for; `None` is for ever.
    pub(super) fn wait(&self, events: &mut Vec<Event>, patience: Option<Duration>) -> Result<()> {
        events.clear();
        let timeout = patience.map(|patience| Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        });
        epoll::wait(&*self.0, spare_capacity(events), timeout.as_ref()).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_way_through_epoll() {
        let key = Key::from_bits(0x1fff_ffff_ffff_fffe);
        for token in [
            Token::Commands,
            Token::Listener(key),
            Token::Session(key, Side::Client),
            Token::Session(key, Side::Target),
            Token::PendingHeader(key),
            Token::Queued(key),
        ] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }
}
