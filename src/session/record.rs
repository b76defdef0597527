//! The record of an ended session, as the session log shows it.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Connection, SessionError, SessionView, dial};
use crate::{client_mask::client_in_log, end_reason::EndReason, table::Route, telemetry::Line};

/// Numbers the sessions of one run. Upgrades do not begin another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug)]
pub struct SessionRecord {
    pub id: SessionId,
    pub route: Arc<Route>,
    pub client: SocketAddr,
    /// Who brought the client here, if it did not come by itself.
    pub front: Option<SocketAddr>,
    /// Where its bytes went, if it was led anywhere.
    pub target: Option<SocketAddr>,
    /// Attempts to connect.
    pub attempts: u32,
    /// The local address towards the target: the peer in the target's own log.
    pub local: Option<SocketAddr>,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Bytes of both that were spliced.
    pub bytes_spliced: u64,
    pub duration: Duration,
    /// From accept to the target's answer, if it came.
    pub connect: Option<Duration>,
    pub reason: EndReason,
    /// What the kernel said, where that says more than the reason.
    pub error: Option<SessionError>,
    /// The upgrades of the proxy that it went through.
    pub upgrades: usize,
}

impl SessionRecord {
    /// The record of a client that got no session.
    pub fn refused(connection: &Connection, reason: EndReason) -> Self {
        let accepted = &connection.accepted;
        Self {
            id: connection.id,
            route: Arc::clone(&connection.route),
            client: accepted.client,
            front: accepted.front.as_ref().map(|front| front.peer),
            target: connection.route.target.address(),
            attempts: 0,
            local: None,
            bytes_up: 0,
            bytes_down: 0,
            bytes_spliced: 0,
            duration: Duration::ZERO,
            connect: None,
            reason,
            error: None,
            upgrades: 0,
        }
    }

    /// The record of a client for whom no connection could be begun. It had been counted in.
    pub fn undialled(connection: &Connection, error: SessionError) -> Self {
        let reason = dial::failed(error.errno);
        let stats = &connection.route.mapping.stats;
        if let Some(cause) = dial::connect_failure(reason) {
            stats.count_connect_failure(cause, Some(error.to_string()));
        }
        stats.close(reason);
        Self {
            error: Some(error),
            ..Self::refused(connection, reason)
        }
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
    /// Says in `line` what there is to say.
    pub fn write(&self, line: &mut Line<'_>) {
        line.message(match self {
            Self::Opened(_) => "session opened",
            Self::Ongoing(_) => "session goes on",
            Self::Ended(_) => "session ended",
        });
        match self {
            Self::Opened(view) | Self::Ongoing(view) => {
                parties(line, view.id, &view.route, (view.client, view.front));
                at(line, view.target, view.attempts, view.local);
            }
            Self::Ended(end) => {
                parties(line, end.id, &end.route, (end.client, end.front));
                at(line, end.target, end.attempts, end.local);
            }
        }
        match self {
            Self::Opened(view) => {
                view.connect
                    .map(|connect| line.millis("connect_ms", connect));
            }
            Self::Ongoing(view) => {
                line.number("bytes_up", view.bytes_up)
                    .number("bytes_down", view.bytes_down)
                    .millis("duration_ms", view.age)
                    .millis("quiet_ms", view.quiet);
            }
            Self::Ended(end) => {
                line.number("bytes_up", end.bytes_up)
                    .number("bytes_down", end.bytes_down)
                    .millis("duration_ms", end.duration);
                end.connect
                    .map(|connect| line.millis("connect_ms", connect));
                if end.upgrades > 0 {
                    line.number("upgrades", end.upgrades as u64);
                }
                end.error.map(|error| line.field("error", error));
                line.field("end", end.reason.code())
                    .field("reason", end.reason.word());
            }
        }
    }
}

/// Which session it is, and who came where.
fn parties(
    line: &mut Line<'_>,
    id: SessionId,
    route: &Route,
    (client, front): (SocketAddr, Option<SocketAddr>),
) {
    line.number("session", id.0)
        .field("mapping", &route.mapping.name)
        .field("client", client_in_log(client));
    front.map(|front| line.field("front", front));
    line.field("listen", route.listen);
}

/// Where it was led to, after how many attempts, and from where.
fn at(line: &mut Line<'_>, target: Option<SocketAddr>, attempts: u32, local: Option<SocketAddr>) {
    target.map(|target| line.field("target", target));
    if attempts > 1 {
        line.number("attempts", attempts.into());
    }
    local.map(|local| line.field("local", local));
}
