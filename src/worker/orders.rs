//! What control wants of sessions, wherever they are.
//!
//! An order has a number and goes to every worker, which carries them out in turn. A session or a
//! connection that moves takes along the number of the last order its sender had carried out: whoever
//! gets it makes up for those that came since, and spares it those it has had. So an order reaches
//! each session once, however busy a worker is and whatever moves meanwhile.
//!
//! For that a worker keeps an order until no session can arrive without it: all have carried it out,
//! and what they had sent before has been taken in.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::WorkerHandle;
use crate::{
    end_reason::EndReason,
    session::{Session, SessionFilter, WaitingClient},
    table::{ListenAddr, MappingName, RemovalPolicy, Route, Table},
};

/// Sessions closed by decree are closed one by one in this rhythm, so that their clients do not all
/// come back in the same instant.
const PACE: Duration = Duration::from_millis(1);

/// What all sessions are told.
#[derive(Debug, Clone)]
pub enum SessionOrder {
    /// Those of routes that changed do what comes with the change.
    Apply(Arc<SessionChanges>),
    /// Some end at an operator's word.
    Kill(Arc<Kill>),
    /// No more are accepted; a worker ends when its last one has.
    Drain,
    /// All end, spread over this time.
    Cut(EndReason, Duration),
}

/// What happens to the live sessions of each changed route.
///
/// The name is that of the mapping the route belonged to: a session of an earlier mapping on the same
/// address, kept since, is none of its business.
pub type SessionChanges = HashMap<ListenAddr, (MappingName, SessionChange)>;

/// What happens to the live sessions of one changed route.
#[derive(Debug, Clone)]
pub enum SessionChange {
    /// They go on under this route's mapping.
    Adopt(Arc<Route>),
    /// An operator gives them this time to finish, or all there is.
    Drain(Option<Duration>),
    /// Those that were led to one of these of several targets end within this time, for this reason.
    LeaveTargets {
        targets: Arc<[SocketAddr]>,
        within: Duration,
        reason: EndReason,
    },
    /// They end within this time, for this reason.
    Leave {
        within: Duration,
        reason: EndReason,
        /// The route under whose mapping those that are left go on until then.
        successor: Option<Arc<Route>>,
    },
}

impl SessionChange {
    /// What becomes of sessions whose route goes, or leads elsewhere: nothing, or an end in time. An
    /// end at once is for `reason`.
    pub fn by_policy(
        policy: RemovalPolicy,
        reason: EndReason,
        successor: Option<Arc<Route>>,
    ) -> Option<Self> {
        let (within, reason) = match policy {
            RemovalPolicy::Keep => return None,
            RemovalPolicy::Drain(within) => (within, EndReason::DrainDeadline),
            RemovalPolicy::Kill => (Duration::ZERO, reason),
        };
        Some(Self::Leave {
            within,
            reason,
            successor,
        })
    }

    /// What becomes of sessions that were led to targets which their route does not have any more.
    pub fn by_policy_at(
        policy: RemovalPolicy,
        reason: EndReason,
        targets: Arc<[SocketAddr]>,
    ) -> Option<Self> {
        match Self::by_policy(policy, reason, None)? {
            Self::Leave { within, reason, .. } => Some(Self::LeaveTargets {
                targets,
                within,
                reason,
            }),
            other => Some(other),
        }
    }
}

/// The number of an order. They count up from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct OrderNumber(pub(super) u32);

impl OrderNumber {
    /// Stands for all there may be: what a worker that has ended has carried out.
    pub(super) const ALL: Self = Self(u32::MAX);

    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An operator's word that some sessions are to end. Once the last worker has let go of it, all of
/// them have been told, and whoever asked hears how many they were.
#[derive(Debug)]
pub struct Kill {
    filter: SessionFilter,
    told: AtomicUsize,
    reply: Option<oneshot::Sender<usize>>,
}

impl Kill {
    pub(super) fn new(filter: SessionFilter) -> (Self, oneshot::Receiver<usize>) {
        let (reply, answer) = oneshot::channel();
        let kill = Self {
            filter,
            told: AtomicUsize::new(0),
            reply: Some(reply),
        };
        (kill, answer)
    }

    /// Counts a session that was told, if that is news to it.
    fn told(&self, is_news: bool) -> Effect {
        if !is_news {
            return Effect::None;
        }
        self.told.fetch_add(1, Relaxed);
        Effect::Leaves
    }
}

impl Drop for Kill {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            // Whoever asked may have gone.
            let _ = reply.send(*self.told.get_mut());
        }
    }
}

/// The orders a worker has carried out, as far as something may arrive without them.
#[derive(Debug, Default)]
pub(super) struct OrderLog(VecDeque<(OrderNumber, SessionOrder)>);

impl OrderLog {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, number: OrderNumber, order: SessionOrder) {
        self.0.push_back((number, order));
    }

    /// The orders after number `seen`, for whatever arrives without them.
    pub(super) fn after(&self, seen: OrderNumber) -> impl Iterator<Item = &SessionOrder> {
        let missed = self.0.iter().filter(move |(number, _)| *number > seen);
        missed.map(|(_, order)| order)
    }

    /// Forgets the orders that nothing can arrive without.
    pub(super) fn forget(&mut self, up_to: OrderNumber) {
        while self.0.front().is_some_and(|(number, _)| *number <= up_to) {
            self.0.pop_front();
        }
    }
}

/// The last order that every worker has carried out.
pub(super) fn confirmed_by_all(workers: &[WorkerHandle]) -> OrderNumber {
    let confirmed = workers.iter().map(WorkerHandle::confirmed).min();
    confirmed.unwrap_or(OrderNumber::ALL)
}

/// When those are to be gone that an order ends: one after the other.
#[derive(Debug)]
pub(super) struct Pacing {
    pub(super) next: Instant,
    pace: Duration,
}

impl Pacing {
    /// For an order to `count` sessions.
    pub(super) fn of(order: &SessionOrder, count: usize, now: Instant) -> Self {
        let pace = match order {
            SessionOrder::Cut(_, spread) => {
                PACE.min(*spread / u32::try_from(count.max(1)).unwrap_or(u32::MAX))
            }
            _ => PACE,
        };
        Self { next: now, pace }
    }

    /// Notes what the order meant for the last one.
    pub(super) fn note(&mut self, effect: Effect) {
        if effect == Effect::Leaves {
            self.next += self.pace;
        }
    }
}

/// What an order means for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Its deadline may be another.
    Changed,
    /// It ends soon; the next one some time later.
    Leaves,
}

/// Carries out an order on one session, which leaves at `at` if it has to.
pub(super) fn order_session(
    session: &mut Session,
    order: &SessionOrder,
    table: &Table,
    at: Instant,
) -> Effect {
    match order {
        SessionOrder::Apply(changes) => change(session, changes, table, at),
        SessionOrder::Kill(kill) => {
            let (id, client) = (session.id(), session.client());
            let meant = kill.filter.means(id, session.route(), client);
            kill.told(meant && session.kill(at))
        }
        SessionOrder::Drain => Effect::None,
        SessionOrder::Cut(reason, _) => {
            session.leave_by(at, *reason);
            Effect::Leaves
        }
    }
}

/// Carries out an order on one client that has no session yet.
pub(super) fn order_waiting(
    waiting: &mut WaitingClient,
    order: &SessionOrder,
    table: &Table,
    at: Instant,
) -> Effect {
    match order {
        SessionOrder::Apply(changes) => change_waiting(waiting, changes, table, at),
        SessionOrder::Kill(kill) => {
            let (id, client) = (waiting.id(), waiting.accepted().client);
            let meant = kill.filter.means(id, waiting.route(), client);
            kill.told(meant && waiting.leave_by(at, EndReason::Killed))
        }
        SessionOrder::Drain => Effect::None,
        SessionOrder::Cut(reason, _) => {
            waiting.leave_by(at, *reason);
            Effect::Leaves
        }
    }
}

/// Has a session do what comes with a change of its route.
fn change(session: &mut Session, changes: &SessionChanges, table: &Table, at: Instant) -> Effect {
    let route = session.route();
    let Some((mapping, change)) = changes.get(&route.listen) else {
        return Effect::None;
    };
    if *mapping != route.mapping.name {
        return Effect::None;
    }
    // What is in force now was so when it came, whatever changed before.
    let is_current = (table.route(&route.listen)).is_some_and(|now| Arc::ptr_eq(now, route));
    match change {
        SessionChange::Drain(within) => {
            session.drain_by(within.map(|within| at + within));
            Effect::Leaves
        }
        SessionChange::LeaveTargets {
            targets,
            within,
            reason,
        } => {
            if !(session.target()).is_some_and(|target| targets.contains(&target)) {
                return Effect::None;
            }
            session.leave_by(at + *within, *reason);
            Effect::Leaves
        }
        _ if is_current => Effect::None,
        SessionChange::Adopt(route) => {
            session.adopt(route);
            Effect::Changed
        }
        SessionChange::Leave {
            within,
            reason,
            successor,
        } => {
            // One of several targets may still be there.
            let stays = |successor: &&Arc<Route>| {
                let mut target = session.target().into_iter();
                target.any(|target| successor.target.leads_to(target))
            };
            if let Some(successor) = successor.as_ref().filter(stays) {
                session.adopt(successor);
                return Effect::Changed;
            }
            session.leave_by(at + *within, *reason);
            if let Some(successor) = successor {
                session.adopt(successor);
            }
            Effect::Leaves
        }
    }
}

/// Has a client follow the mapping it came to, which need not be there any more. It has no
/// session that could finish, so it ends at once where that would have had time.
fn change_waiting(
    waiting: &mut WaitingClient,
    changes: &SessionChanges,
    table: &Table,
    at: Instant,
) -> Effect {
    let route = waiting.route();
    let Some(current) = current_route(table, route) else {
        waiting.leave_by(at, EndReason::MappingRemoved);
        return Effect::Leaves;
    };
    let change = changes.get(&route.listen);
    let change = change.filter(|(mapping, _)| *mapping == route.mapping.name);
    let leaves = match change {
        Some((_, SessionChange::Drain(within))) => {
            waiting.drain_by(within.map(|within| at + within));
            true
        }
        Some((_, SessionChange::Leave { within, reason, .. }))
            if within.is_zero() && !Arc::ptr_eq(current, route) && is_elsewhere(current, route) =>
        {
            waiting.leave_by(at, *reason)
        }
        _ => false,
    };
    waiting.adopt(current);
    match leaves {
        true => Effect::Leaves,
        false => Effect::Changed,
    }
}

/// Whether none of the targets of a route is one of those it had.
fn is_elsewhere(current: &Route, before: &Route) -> bool {
    let mut had = before.target.addresses().into_iter();
    !had.any(|target| current.target.leads_to(target))
}

/// The route of an address as it is now, if it belongs to the mapping it belonged to: one that leads
/// where it led has another name at most.
pub(super) fn current_route<'t>(table: &'t Table, route: &Route) -> Option<&'t Arc<Route>> {
    let current = table.route(&route.listen)?;
    let is_same = current.mapping.name == route.mapping.name || current.target == route.target;
    is_same.then_some(current)
}
