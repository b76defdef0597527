//! A connection of a trusted front before it has said whose it is.
//!
//! The header is looked at in the kernel's queue and taken out only when it is there as a whole, so
//! nothing is kept here meanwhile and not a byte behind it is touched. Like a session it is a plain
//! value that is told when to act.

use std::{sync::Arc, time::Instant};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, recv},
};

use super::SessionId;
use crate::{
    listen::Accepted,
    proxy_protocol::{Header, LONGEST, Parsed, parse},
    table::Route,
    telemetry::EndReason,
};

/// A connection whose header is awaited. It is counted in its mapping.
#[derive(Debug)]
pub struct Greeting {
    id: SessionId,
    route: Arc<Route>,
    accepted: Accepted,
    since: Instant,
}

/// How far a greeting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// More has to arrive.
    Partly,
    /// The header has been taken out; what it says is known.
    All,
    /// It was none.
    Nonsense,
}

impl Greeting {
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
        id: SessionId,
        accepted: Accepted,
        route: Arc<Route>,
        now: Instant,
        room: bool,
    ) -> Result<Self, (EndReason, Accepted)> {
        let mapping = &route.mapping;
        let refusal = match room {
            false => Some(EndReason::NoResources),
            true if mapping.stats.try_reserve(mapping.policy.max_sessions) => None,
            true => Some(EndReason::MappingFull),
        };
        if let Some(reason) = refusal {
            mapping.stats.refuse(reason);
            return Err((reason, accepted));
        }
        Ok(Self {
            id,
            route,
            accepted,
            since: now,
        })
    }

    /// The connection.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// When it has waited for long enough.
    pub fn deadline(&self) -> Instant {
        self.since + self.route.mapping.policy.proxy_header_timeout
    }

    /// Takes the header if it is there. `scratch` is working space of at least
    /// [`LONGEST`] bytes.
    pub fn hear(&mut self, scratch: &mut [u8]) -> Heard {
        let room = scratch.len().min(LONGEST);
        let seen = match self.receive(&mut scratch[..room], RecvFlags::PEEK) {
            Err(Errno::AGAIN) => return Heard::Partly,
            Ok(0) | Err(_) => return Heard::Nonsense,
            Ok(seen) => seen,
        };
        let (header, len) = match parse(&scratch[..seen]) {
            Ok(Parsed::Partly) => return Heard::Partly,
            Ok(Parsed::Whole { header, len }) => (header, len),
            Err(error) => {
                tracing::debug!(session = %self.id, %error, "no PROXY header");
                return Heard::Nonsense;
            }
        };
        let mut left = len;
        while left > 0 {
            match self.receive(&mut scratch[..left], RecvFlags::empty()) {
                Ok(taken) if taken > 0 => left -= taken,
                // It was there a moment ago.
                _ => return Heard::Nonsense,
            }
        }
        if let Header::Proxied(ends) = header {
            self.accepted.speak_for(ends);
        }
        Heard::All
    }

    fn receive(&self, into: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        retry_on_intr(|| recv(&self.accepted.socket, &mut *into, flags)).map(|(taken, _)| taken)
    }

    /// Counts it out of its mapping again: it becomes a session, or is refused for `reason`.
    pub fn end(self, reason: Option<EndReason>) -> (SessionId, Accepted, Arc<Route>) {
        let stats = &self.route.mapping.stats;
        stats.give_back();
        if let Some(reason) = reason {
            stats.refuse(reason);
        }
        (self.id, self.accepted, self.route)
    }
}
