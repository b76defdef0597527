//! A client that has no session yet: it has been counted in its mapping and waits for what its session
//! begins with, the rest of its PROXY header or a target with room.
//!
//! Like a session it is a plain value that is told when to act. What it waits for is the business of
//! [`PendingProxyHeader`](super::PendingProxyHeader) and [`QueuedClient`](super::QueuedClient).

use std::{sync::Arc, time::Instant};

use serde::{Serialize, de::DeserializeOwned};

use super::{Connection, Loading, SessionId, SessionView, Stage};
use crate::{
    end_reason::EndReason,
    handover::{LoadError, Saver},
    listen::Accepted,
    table::{Route, RouteSaver},
};

/// What all that wait are, whatever they wait for.
#[derive(Debug)]
pub struct WaitingClient {
    pub(super) connection: Connection,
    pub(super) since: Instant,
    /// When control wants it gone, and why.
    pub(super) leave: Option<(Instant, EndReason)>,
}

/// A kind of client that waits.
pub trait Waiting: Sized {
    /// What is handed over of it.
    type Saved: Serialize + DeserializeOwned;

    fn client(&self) -> &WaitingClient;

    fn client_mut(&mut self) -> &mut WaitingClient;

    /// When it ends unless what it waits for comes before, and why.
    fn ends(&self) -> (Instant, EndReason);

    /// What is told of it.
    fn view(&self, now: Instant) -> SessionView;

    /// Leaves its socket with `saver` and its route with `routes`.
    fn save<'a>(&'a self, saver: &mut Saver<'a>, routes: &mut RouteSaver<'_>) -> Self::Saved;

    /// Takes up one that was handed over, and counts it.
    ///
    /// # Errors
    ///
    /// What cannot be.
    fn load(saved: Self::Saved, from: &mut Loading<'_>) -> Result<Self, LoadError>;

    /// Counts it out of its mapping again: it ends for `reason`.
    fn end(self, reason: EndReason) -> Connection;
}

impl WaitingClient {
    pub(super) fn new(connection: Connection, now: Instant) -> Self {
        Self {
            connection,
            since: now,
            leave: None,
        }
    }

    pub fn id(&self) -> SessionId {
        self.connection.id
    }

    pub fn accepted(&self) -> &Accepted {
        &self.connection.accepted
    }

    pub fn route(&self) -> &Arc<Route> {
        &self.connection.route
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn view(&self, stage: Stage, now: Instant) -> SessionView {
        let waiting = now.saturating_duration_since(self.since);
        let accepted = self.accepted();
        SessionView {
            id: self.id(),
            route: Arc::clone(self.route()),
            client: accepted.client,
            front: accepted.front.as_ref().map(|front| front.peer),
            target: self.route().target.address(),
            attempts: 0,
            local: None,
            bytes_up: 0,
            bytes_down: 0,
            age: waiting,
            connect: None,
            quiet: waiting,
            stage,
            splices: false,
        }
    }

    /// When it ends, and why, if it has `waited` for long enough then.
    pub(super) fn ends(&self, waited: (Instant, EndReason)) -> (Instant, EndReason) {
        let drained = self.connection.drained;
        let drained = drained.map(|at| (at, EndReason::DrainDeadline));
        let ends = [self.leave, drained, Some(waited)].into_iter().flatten();
        ends.min_by_key(|(at, _)| *at).unwrap_or(waited)
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

    /// Counts it out of its mapping again: it becomes a session, or ends for `reason`.
    pub(super) fn end(self, reason: Option<EndReason>) -> Connection {
        let stats = &self.route().mapping.stats;
        stats.give_back();
        if let Some(reason) = reason {
            stats.refuse(reason);
        }
        self.connection
    }
}
