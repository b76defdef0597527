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

use super::{Connection, SessionId, SessionView, Stage};
use crate::{
    end_reason::EndReason,
    listen::Accepted,
    proxy_protocol::{Header, LONGEST, Parsed, parse},
    table::Route,
};

/// A connection whose header is awaited. It is counted in its mapping.
#[derive(Debug)]
pub struct PendingProxyHeader {
    pub(super) connection: Connection,
    pub(super) since: Instant,
    /// When control wants it gone, and why.
    pub(super) leave: Option<(Instant, EndReason)>,
}

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
        Ok(Self {
            connection,
            since: now,
            leave: None,
        })
    }

    pub fn accepted(&self) -> &Accepted {
        &self.connection.accepted
    }

    pub fn id(&self) -> SessionId {
        self.connection.id
    }

    pub fn route(&self) -> &Arc<Route> {
        &self.connection.route
    }

    pub fn view(&self, now: Instant) -> SessionView {
        let waiting = now.duration_since(self.since);
        SessionView {
            id: self.id(),
            route: Arc::clone(self.route()),
            client: self.accepted().client,
            front: None,
            target: self.route().target.address(),
            attempts: 0,
            local: None,
            bytes_up: 0,
            bytes_down: 0,
            age: waiting,
            connect: None,
            quiet: waiting,
            stage: Stage::AwaitingHeader,
            splices: false,
        }
    }

    pub fn deadline(&self) -> Instant {
        self.ends().0
    }

    /// When it ends unless its header comes before, and why.
    pub fn ends(&self) -> (Instant, EndReason) {
        let timeout = self.since + self.route().mapping.policy.proxy_header_timeout;
        let drained = self
            .connection
            .drained
            .map(|at| (at, EndReason::DrainDeadline));
        let waited = (timeout, EndReason::ProxyHeaderTimeout);
        let ends = [self.leave, drained, Some(waited)].into_iter().flatten();
        ends.min_by_key(|(at, _)| *at).unwrap_or(waited)
    }

    /// Gives it all the time for its header once more.
    pub fn wait_anew(&mut self, now: Instant) {
        self.since = now;
    }

    /// Whether it has to go whatever comes.
    pub fn is_leaving(&self) -> bool {
        self.leave.is_some()
    }

    /// Has it end at `at`, unless it is to go already; whether that is news.
    pub fn leave_by(&mut self, at: Instant, reason: EndReason) -> bool {
        let news = self.leave.is_none();
        self.leave.get_or_insert((at, reason));
        news
    }

    /// Has it and its session end at `until`, or go on, as an operator's latest word on its mapping
    /// wants.
    pub fn drain_by(&mut self, until: Option<Instant>) {
        self.connection.drained = until;
    }

    /// Puts it under what its mapping is now.
    pub fn adopt(&mut self, current: &Arc<Route>) {
        let (old, new) = (&self.route().mapping.stats, &current.mapping.stats);
        if !Arc::ptr_eq(old, new) {
            // There is room for it: it was let in already.
            new.try_reserve(None);
            old.give_back();
        }
        self.connection.route = Arc::clone(current);
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
                tracing::debug!(session = %self.id(), %error, "no PROXY header");
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
            self.connection.accepted.speak_for(ends);
        }
        HeaderRead::Whole
    }

    fn receive(&self, into: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        retry_on_intr(|| recv(&self.accepted().socket, &mut *into, flags)).map(|(taken, _)| taken)
    }

    /// Counts it out of its mapping again: it becomes a session, or ends for `reason`.
    pub fn end(self, reason: Option<EndReason>) -> Connection {
        let stats = &self.route().mapping.stats;
        stats.give_back();
        if let Some(reason) = reason {
            stats.refuse(reason);
        }
        self.connection
    }
}
