//! A live session as it looks from outside.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::SessionId;
use crate::table::Route;

/// A live session at one moment.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its number.
    pub id: SessionId,
    /// Where it came in and goes.
    pub route: Arc<Route>,
    /// Who connected.
    pub client: SocketAddr,
    /// Who brought the client here, if it did not come by itself.
    pub front: Option<SocketAddr>,
    /// The local address towards the target: the peer in the target's own log.
    pub local: Option<SocketAddr>,
    /// Bytes delivered to the target.
    pub bytes_up: u64,
    /// Bytes delivered to the client.
    pub bytes_down: u64,
    /// Since it was accepted.
    pub age: Duration,
    /// From accept to the target's answer, if it came.
    pub connect: Option<Duration>,
    /// Since a byte last moved.
    pub quiet: Duration,
    /// How far it is.
    pub stage: Stage,
    /// Whether it moves bulk through a pipe at the moment.
    pub splices: bool,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The trusted front that brought it has not said yet whose it is.
    AwaitingHeader,
    /// The target has not answered yet.
    Connecting,
    /// Bytes may flow both ways.
    Open,
    /// One side has finished sending.
    HalfClosed,
    /// It has been told to end.
    Leaving,
    /// One side broke; the other is still being given what was read before.
    Ending,
}

impl Stage {
    /// The stage in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AwaitingHeader => "awaiting_header",
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::HalfClosed => "half_closed",
            Self::Leaving => "leaving",
            Self::Ending => "ending",
        }
    }
}
