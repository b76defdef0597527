//! A connection of a trusted front before it has said whose it is.
//!
//! The header is looked at in the kernel's queue and taken out only when it is there as a whole, so
//! nothing is kept here meanwhile and not a byte behind it is touched. Like a session it is a plain
//! value that is told when to act.

use std::time::Instant;

use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, recv},
};

use super::{
    Connection, Loading, SessionView, Stage, Waiting, WaitingClient, saved::SavedWaitingClient,
};
use crate::{
    end_reason::EndReason,
    handover::{LoadError, Saver},
    listen::Accepted,
    proxy_protocol::{Header, LONGEST, Parsed, parse},
    table::{Route, RouteSaver},
};

/// A connection whose header is awaited. It is counted in its mapping.
#[derive(Debug)]
pub struct PendingProxyHeader(pub(super) WaitingClient);

/// How far the header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderRead {
    /// More has to arrive.
    Partly,
    /// The header has been taken out; what it says is known.
    Whole,
    /// It was none.
    Invalid,
}

impl PendingProxyHeader {
    /// Whether this connection is one whose header counts.
    pub fn is_due(accepted: &Accepted, route: &Route) -> bool {
        let trusted = &route.mapping.policy.accept_proxy;
        accepted.front.is_none()
            && trusted
                .iter()
                .any(|net| net.contains(&accepted.client.ip()))
    }

    /// Begins to wait, unless the mapping is full or the process has no `room`.
    ///
    /// # Errors
    ///
    /// The reason for which the connection is refused, which has been counted, and the connection.
    pub fn begin(
        connection: Connection,
        now: Instant,
        room: bool,
    ) -> Result<Self, (EndReason, Connection)> {
        let mapping = &connection.route.mapping;
        let refusal = match room {
            false => Some(EndReason::NoResources),
            true if mapping.stats.try_reserve(mapping.policy.max_sessions) => None,
            true => Some(EndReason::MappingFull),
        };
        if let Some(reason) = refusal {
            mapping.stats.refuse(reason);
            return Err((reason, connection));
        }
        Ok(Self(WaitingClient::new(connection, now)))
    }

    /// Gives it all the time for its header once more.
    pub fn wait_anew(&mut self, now: Instant) {
        self.0.since = now;
    }

    /// Takes the header if it is there. `scratch` is working space of at least
    /// [`LONGEST`] bytes.
    pub fn read_header(&mut self, scratch: &mut [u8]) -> HeaderRead {
        let room = scratch.len().min(LONGEST);
        let seen = match self.receive(&mut scratch[..room], RecvFlags::PEEK) {
            Err(Errno::AGAIN) => return HeaderRead::Partly,
            Ok(0) | Err(_) => return HeaderRead::Invalid,
            Ok(seen) => seen,
        };
        let (header, len) = match parse(&scratch[..seen]) {
            Ok(Parsed::Partly) => return HeaderRead::Partly,
            Ok(Parsed::Whole { header, len }) => (header, len),
            Err(error) => {
                tracing::debug!(session = %self.0.id(), %error, "no PROXY header");
                return HeaderRead::Invalid;
            }
        };
        let mut left = len;
        while left > 0 {
            match self.receive(&mut scratch[..left], RecvFlags::empty()) {
                Ok(taken) if taken > 0 => left -= taken,
                // It was there a moment ago.
                _ => return HeaderRead::Invalid,
            }
        }
        if let Header::Proxied(ends) = header {
            self.0.connection.accepted.speak_for(ends);
        }
        HeaderRead::Whole
    }

    fn receive(&self, into: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        retry_on_intr(|| recv(&self.0.accepted().socket, &mut *into, flags)).map(|(taken, _)| taken)
    }

    /// Counts it out of its mapping again: it becomes a session.
    pub fn complete(self) -> Connection {
        self.0.end(None)
    }
}

impl Waiting for PendingProxyHeader {
    type Saved = SavedWaitingClient;

    fn client(&self) -> &WaitingClient {
        &self.0
    }

    fn client_mut(&mut self) -> &mut WaitingClient {
        &mut self.0
    }

    fn ends(&self) -> (Instant, EndReason) {
        let timeout = self.0.route().mapping.policy.proxy_header_timeout;
        (self.0).ends((self.0.since + timeout, EndReason::ProxyHeaderTimeout))
    }

    fn view(&self, now: Instant) -> SessionView {
        self.0.view(Stage::AwaitingHeader, now)
    }

    fn save<'a>(&'a self, saver: &mut Saver<'a>, routes: &mut RouteSaver<'_>) -> Self::Saved {
        self.0.save(saver, routes)
    }

    fn load(saved: Self::Saved, from: &mut Loading<'_>) -> Result<Self, LoadError> {
        WaitingClient::load(saved, from).map(Self)
    }

    fn end(self, reason: EndReason) -> Connection {
        self.0.end(Some(reason))
    }
}
