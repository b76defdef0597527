//! Sessions, and clients that have none yet, as they are handed over to the next image of the program.
//!
//! Nothing is asked of a socket when they are loaded: in a rehearsal there is none. What a session
//! takes up among others is counted again: among the open sessions of its mapping, in the limits and in
//! the budget of pipes.

use std::{net::SocketAddr, os::fd::AsFd, time::Instant};

use serde::{Deserialize, Serialize};

use super::{
    Connection, Extras, Phase, QueuedClient, Session, SessionId, WaitingClient,
    choice::SavedChoice, near::Bound, retry::Retry, user_timeout::UserTimeout,
};
use crate::{
    end_reason::EndReason,
    handover::{Descriptor, LoadError, Loader, Saver, is_default, monotonic},
    limit::{Gate, SavedAdmission, Throttle},
    listen::{Accepted, Front},
    relay::{PipeBudget, Relay, SavedRelay},
    table::{Route, RouteNumber, RouteSaver, Routes},
    target::Ticket,
};

/// A [`Session`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedSession {
    id: SessionId,
    route: RouteNumber,
    client: Descriptor,
    target: Descriptor,
    peer: SocketAddr,
    #[serde(default, skip_serializing_if = "is_default")]
    local: Option<SocketAddr>,
    #[serde(with = "monotonic")]
    opened: Instant,
    #[serde(
        default,
        with = "monotonic::option",
        skip_serializing_if = "is_default"
    )]
    connected: Option<Instant>,
    #[serde(with = "monotonic")]
    active: Instant,
    #[serde(default, skip_serializing_if = "is_default")]
    leave: Option<SavedLeave>,
    #[serde(default, skip_serializing_if = "is_default")]
    guarded: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    bound: Bound,
    #[serde(default, skip_serializing_if = "is_default")]
    header_len: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    bulk: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    phase: Phase,
    #[serde(default, skip_serializing_if = "is_default")]
    relay: SavedRelay,
    #[serde(default, skip_serializing_if = "is_default")]
    extras: Option<Box<SavedExtras>>,
}

/// What only some sessions have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct SavedExtras {
    /// What is counted of it, whether it waits for its target included.
    #[serde(skip_serializing_if = "is_default")]
    admission: SavedAdmission,
    #[serde(skip_serializing_if = "is_default")]
    up: Throttle,
    #[serde(skip_serializing_if = "is_default")]
    down: Throttle,
    #[serde(with = "monotonic::option", skip_serializing_if = "is_default")]
    wake: Option<Instant>,
    #[serde(with = "monotonic::option", skip_serializing_if = "is_default")]
    drained: Option<Instant>,
    /// Which of several targets it was led to.
    #[serde(skip_serializing_if = "is_default")]
    choice: Option<Box<SavedChoice>>,
    #[serde(skip_serializing_if = "is_default")]
    front: Option<Front>,
    #[serde(skip_serializing_if = "is_default")]
    user_timeout: Option<UserTimeout>,
    #[serde(skip_serializing_if = "is_default")]
    retry: Option<Retry>,
}

/// When somebody has to be gone, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct SavedLeave {
    #[serde(with = "monotonic")]
    at: Instant,
    reason: EndReason,
}

impl SavedLeave {
    fn of((at, reason): (Instant, EndReason)) -> Self {
        Self { at, reason }
    }

    fn load(self) -> (Instant, EndReason) {
        (self.at, self.reason)
    }
}

/// A [`WaitingClient`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedWaitingClient {
    id: SessionId,
    route: RouteNumber,
    socket: Descriptor,
    client: SocketAddr,
    #[serde(default, skip_serializing_if = "is_default")]
    front: Option<Front>,
    #[serde(
        default,
        with = "monotonic::option",
        skip_serializing_if = "is_default"
    )]
    drained: Option<Instant>,
    #[serde(with = "monotonic")]
    since: Instant,
    #[serde(default, skip_serializing_if = "is_default")]
    leave: Option<SavedLeave>,
}

/// A [`QueuedClient`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedQueuedClient {
    #[serde(flatten)]
    client: SavedWaitingClient,
    #[serde(default, skip_serializing_if = "is_default")]
    extras: Option<Box<SavedExtras>>,
    /// If that is not when it came.
    #[serde(
        default,
        with = "monotonic::option",
        skip_serializing_if = "is_default"
    )]
    waits_from: Option<Instant>,
    /// The number of its ticket.
    number: u64,
}

/// What a session is loaded from, and where it is counted.
#[derive(Debug)]
pub struct Loading<'a> {
    pub loader: &'a mut Loader,
    pub routes: &'a Routes,
    pub gate: &'a Gate,
    pub pipes: &'a PipeBudget,
}

impl Session {
    /// Leaves sockets, pipes and bytes in flight with `saver` and its route with `routes`.
    pub fn save<'a>(&'a self, saver: &mut Saver<'a>, routes: &mut RouteSaver<'_>) -> SavedSession {
        let Self {
            id,
            route,
            client,
            target,
            peer,
            local,
            opened,
            connected,
            active,
            leave,
            guarded,
            bound,
            header_len,
            bulk,
            phase,
            relay,
            extras,
        } = self;
        SavedSession {
            id: *id,
            route: routes.route(route),
            client: saver.descriptor(client.as_fd()),
            target: saver.descriptor(target.as_fd()),
            peer: *peer,
            local: *local,
            opened: *opened,
            connected: *connected,
            active: *active,
            leave: leave.map(SavedLeave::of),
            guarded: *guarded,
            bound: *bound,
            header_len: *header_len,
            bulk: *bulk,
            phase: *phase,
            relay: relay.save(saver),
            extras: extras.as_ref().map(|extras| Box::new(extras.save())),
        }
    }

    /// Takes up a session that was handed over, and counts it.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn load(saved: SavedSession, from: &mut Loading<'_>) -> Result<Self, LoadError> {
        let SavedSession {
            id,
            route,
            client,
            target,
            peer,
            local,
            opened,
            connected,
            active,
            leave,
            guarded,
            bound,
            header_len,
            bulk,
            phase,
            relay,
            extras,
        } = saved;
        let route = from.routes.get(route)?;
        let session = Self {
            id,
            client: from.loader.descriptor(client)?,
            target: from.loader.descriptor(target)?,
            peer,
            local,
            opened,
            connected,
            active,
            leave: leave.map(SavedLeave::load),
            guarded,
            bound,
            header_len,
            bulk,
            phase,
            relay: Relay::load(&relay, from.loader, from.pipes)?,
            extras: extras.map(|extras| Box::new(extras.load(&route, from.gate))),
            route,
        };
        count_open(&session.route);
        Ok(session)
    }
}

/// Counts a session among those of its mapping again, which it was let in to.
fn count_open(route: &Route) {
    route.mapping.stats.try_reserve(None);
}

impl Extras {
    fn save(&self) -> SavedExtras {
        let Self {
            admission,
            dialling,
            up,
            down,
            wake,
            drained,
            choice,
            front,
            user_timeout,
            retry,
        } = self;
        SavedExtras {
            admission: SavedAdmission::of(admission, dialling),
            up: up.clone(),
            down: down.clone(),
            wake: *wake,
            drained: *drained,
            choice: choice
                .as_deref()
                .map(|choice| Box::new(SavedChoice::of(choice))),
            front: front.as_deref().copied(),
            user_timeout: user_timeout.as_deref().cloned(),
            retry: retry.as_deref().cloned(),
        }
    }
}

impl SavedExtras {
    fn load(self, route: &Route, gate: &Gate) -> Extras {
        let Self {
            admission,
            up,
            down,
            wake,
            drained,
            choice,
            front,
            user_timeout,
            retry,
        } = self;
        let (admission, dialling) = gate.count_again(&admission, route.mapping.gate.as_deref());
        Extras {
            admission,
            dialling,
            up,
            down,
            wake,
            drained,
            choice: choice.map(|choice| Box::new(choice.load(route))),
            front: front.map(Box::new),
            user_timeout: user_timeout.map(Box::new),
            retry: retry.map(Box::new),
        }
    }
}

impl WaitingClient {
    pub(super) fn save<'a>(
        &'a self,
        saver: &mut Saver<'a>,
        routes: &mut RouteSaver<'_>,
    ) -> SavedWaitingClient {
        let Self {
            connection,
            since,
            leave,
        } = self;
        let Connection {
            id,
            accepted,
            route,
            drained,
        } = connection;
        let Accepted {
            socket,
            client,
            front,
        } = accepted;
        SavedWaitingClient {
            id: *id,
            route: routes.route(route),
            socket: saver.descriptor(socket.as_fd()),
            client: *client,
            front: front.as_deref().copied(),
            drained: *drained,
            since: *since,
            leave: leave.map(SavedLeave::of),
        }
    }

    pub(super) fn load(
        saved: SavedWaitingClient,
        from: &mut Loading<'_>,
    ) -> Result<Self, LoadError> {
        let SavedWaitingClient {
            id,
            route,
            socket,
            client,
            front,
            drained,
            since,
            leave,
        } = saved;
        let route = from.routes.get(route)?;
        let accepted = Accepted {
            socket: from.loader.descriptor(socket)?,
            client,
            front: front.map(Box::new),
        };
        count_open(&route);
        Ok(Self {
            connection: Connection {
                id,
                accepted,
                route,
                drained,
            },
            since,
            leave: leave.map(SavedLeave::load),
        })
    }
}

impl SavedQueuedClient {
    pub(super) fn of<'a>(
        queued: &'a QueuedClient,
        saver: &mut Saver<'a>,
        routes: &mut RouteSaver<'_>,
    ) -> Self {
        let QueuedClient {
            client,
            extras,
            waits_from,
            ticket,
        } = queued;
        let began = client.since();
        Self {
            client: client.save(saver, routes),
            extras: extras.as_ref().map(|extras| Box::new(extras.save())),
            waits_from: (*waits_from != began).then_some(*waits_from),
            number: ticket.as_ref().map_or(u64::MAX >> 1, Ticket::number),
        }
    }

    /// The client, with the place in the queue that it had.
    pub(super) fn load(self, from: &mut Loading<'_>) -> Result<QueuedClient, LoadError> {
        let Self {
            client,
            extras,
            waits_from,
            number,
        } = self;
        let client = WaitingClient::load(client, from)?;
        let route = client.route();
        let group = route.target.group();
        Ok(QueuedClient {
            ticket: group.map(|group| group.queue().join_again(number)),
            extras: extras.map(|extras| Box::new(extras.load(route, from.gate))),
            waits_from: waits_from.unwrap_or(client.since()),
            client,
        })
    }
}

#[cfg(test)]
mod tests;
