//! A live session as it looks from outside.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::SessionId;
use crate::table::Route;

/// A live session at one moment.
#[derive(Debug, Clone)]
pub struct SessionView {
    pub id: SessionId,
    pub route: Arc<Route>,
    pub client: SocketAddr,
    /// Who brought the client here, if it did not come by itself.
    pub front: Option<SocketAddr>,
    /// Where its bytes go, if it was led anywhere yet.
    pub target: Option<SocketAddr>,
    /// Attempts to connect so far.
    pub attempts: u32,
    /// The local address towards the target: the peer in the target's own log.
    pub local: Option<SocketAddr>,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub age: Duration,
    /// From accept to the target's answer, if it came.
    pub connect: Option<Duration>,
    /// Since a byte last moved.
    pub quiet: Duration,
    pub stage: Stage,
    /// Whether it moves bulk through a pipe at the moment.
    pub splices: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The trusted front that brought it has not said yet whose it is.
    AwaitingHeader,
    /// It waits until a target has room.
    Queued,
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
    pub const fn word(self) -> &'static str {
        match self {
            Self::AwaitingHeader => "awaiting_header",
            Self::Queued => "queued",
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::HalfClosed => "half_closed",
            Self::Leaving => "leaving",
            Self::Ending => "ending",
        }
    }
}
