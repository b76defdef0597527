//! The record of an ended session, as the session log shows it.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use super::{SessionView, dial};
use crate::{
    listen::Accepted,
    table::Route,
    telemetry::{EndReason, SESSION_LOG},
};

/// Numbers the sessions of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What remains of a session.
#[derive(Debug)]
pub struct SessionRecord {
    /// Its number.
    pub id: SessionId,
    /// Where it came in and went.
    pub route: Arc<Route>,
    /// Who connected.
    pub client: SocketAddr,
    /// Who brought the client here, if it did not come by itself.
    pub front: Option<SocketAddr>,
    /// The local address towards the target: the peer in the target's own log.
    pub source: Option<SocketAddr>,
    /// Bytes delivered to the target.
    pub bytes_up: u64,
    /// Bytes delivered to the client.
    pub bytes_down: u64,
    /// Bytes of both that were spliced.
    pub bytes_spliced: u64,
    /// From accept to close.
    pub duration: Duration,
    /// From accept to the target's answer, if it came.
    pub connect: Option<Duration>,
    /// Why it ended.
    pub reason: EndReason,
}

impl SessionRecord {
    /// The record of a client that got no session.
    pub fn refused(
        id: SessionId,
        accepted: &Accepted,
        route: Arc<Route>,
        reason: EndReason,
    ) -> Self {
        Self {
            id,
            route,
            client: accepted.client,
            front: accepted.front.as_ref().map(|front| front.peer),
            source: None,
            bytes_up: 0,
            bytes_down: 0,
            bytes_spliced: 0,
            duration: Duration::ZERO,
            connect: None,
            reason,
        }
    }

    /// The record of a client for whom no connection could be begun. It had been counted in.
    pub fn undialled(
        id: SessionId,
        accepted: &Accepted,
        route: Arc<Route>,
        errno: rustix::io::Errno,
    ) -> Self {
        let reason = dial::failed(errno);
        let stats = &route.mapping.stats;
        if let Some(cause) = dial::connect_failure(reason) {
            stats.count_connect_failure(cause);
        }
        stats.close(reason);
        Self::refused(id, accepted, route, reason)
    }

    /// Writes the session's line to the log.
    fn log(&self) {
        tracing::info!(
            target: SESSION_LOG,
            session = self.id.0,
            mapping = %self.route.mapping.name,
            client = %self.client,
            front = self.front.map(tracing::field::display),
            listen = %self.route.listen,
            target = %self.route.target,
            source = self.source.map(tracing::field::display),
            bytes_up = self.bytes_up,
            bytes_down = self.bytes_down,
            duration_ms = millis(self.duration),
            connect_ms = self.connect.map(millis),
            end = %self.reason.code(),
            reason = %self.reason.word(),
            "session ended"
        );
    }
}

/// A line of the session log.
#[derive(Debug)]
pub enum SessionLine {
    /// The target has answered.
    Opened(SessionView),
    /// The session has been going on for long.
    Ongoing(SessionView),
    /// The session ended, or the client was refused.
    Ended(SessionRecord),
}

impl SessionLine {
    /// Writes the line.
    pub fn write(&self) {
        match self {
            Self::Opened(view) => tracing::info!(
                target: SESSION_LOG,
                session = view.id.0,
                mapping = view.route.mapping.name.as_str(),
                client = %view.client,
                front = view.front.map(tracing::field::display),
                listen = %view.route.listen,
                target = %view.route.target,
                source = view.source.map(tracing::field::display),
                connect_ms = view.connect.map(millis),
                "session opened"
            ),
            Self::Ongoing(view) => tracing::info!(
                target: SESSION_LOG,
                session = view.id.0,
                mapping = view.route.mapping.name.as_str(),
                client = %view.client,
                front = view.front.map(tracing::field::display),
                listen = %view.route.listen,
                target = %view.route.target,
                source = view.source.map(tracing::field::display),
                bytes_up = view.bytes_up,
                bytes_down = view.bytes_down,
                duration_ms = millis(view.age),
                quiet_ms = millis(view.quiet),
                "session goes on"
            ),
            Self::Ended(record) => record.log(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
