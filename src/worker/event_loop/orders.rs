//! Carrying out orders that concern sessions, those that were on their way included.

use super::*;
use crate::worker::{Kill, OrderNumber, SessionOrder};

/// What an order means for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    /// Its deadline may be another.
    Changed,
    /// It ends soon; the next one some time later.
    Leaves,
}

impl EventLoop {
    /// Carries out an order on every session that has not had it.
    pub(super) fn carry_out(&mut self, number: OrderNumber, order: SessionOrder) {
        self.carried_out = number;
        let count = self.sessions.len() + self.pending_headers.len();
        let pace = match &order {
            SessionOrder::Cut(_, spread) => {
                PACE.min(*spread / u32::try_from(count.max(1)).unwrap_or(u32::MAX))
            }
            _ => PACE,
        };
        let mut at = self.now;
        for key in self.sessions.keys() {
            let has_had_it = |entry: &mut Entry| entry.seen >= number;
            if self.sessions.get_mut(key).is_none_or(has_had_it) {
                continue;
            }
            if self.order_session(key, &order, at) == Effect::Leaves {
                at += pace;
            }
        }
        for key in self.pending_headers.keys() {
            let has_had_it = |awaited: &mut Awaited| awaited.seen >= number;
            if self.pending_headers.get_mut(key).is_none_or(has_had_it) {
                continue;
            }
            if self.order_pending(key, &order, at) == Effect::Leaves {
                at += pace;
            }
        }
        if let SessionOrder::Drain = order {
            self.drain();
        }
        self.orders.push_back((number, order));
        self.confirm(number);
    }

    /// Lets the others know; the last to do so wakes them, since none has to wait any more.
    fn confirm(&self, number: OrderNumber) {
        self.workers[self.number].confirm(number);
        if self.confirmed_by_all() >= number {
            let others = self.workers.iter().enumerate();
            for (_, worker) in others.filter(|(other, _)| *other != self.number) {
                worker.wake();
            }
        }
    }

    /// The last order that every worker has carried out.
    pub(super) fn confirmed_by_all(&self) -> OrderNumber {
        let confirmed = self.workers.iter().map(WorkerHandle::confirmed).min();
        confirmed.unwrap_or(OrderNumber::ALL)
    }

    /// Forgets the orders that nothing can arrive without, given those that all had confirmed before
    /// what they sent was taken in.
    pub(super) fn forget_orders(&mut self, confirmed: OrderNumber) {
        let queues = self.closing.iter().map(|queue| queue.seen).min();
        let missed_by_none = queues.map_or(confirmed, |seen| seen.min(confirmed));
        while let Some((number, _)) = self.orders.front()
            && *number <= missed_by_none
        {
            self.orders.pop_front();
        }
    }

    /// The orders after number `seen`, for whatever arrives without them.
    fn missed(&self, seen: OrderNumber) -> Vec<SessionOrder> {
        let missed = self.orders.iter().filter(|(number, _)| *number > seen);
        missed.map(|(_, order)| order.clone()).collect()
    }

    /// Makes up for the orders a session has missed on its way.
    pub(super) fn catch_up_session(&mut self, key: Key, seen: OrderNumber) {
        for order in self.missed(seen) {
            self.order_session(key, &order, self.now);
        }
    }

    /// Makes up for the orders a connection has missed on its way.
    pub(super) fn catch_up_pending(&mut self, key: Key, seen: OrderNumber) {
        for order in self.missed(seen) {
            self.order_pending(key, &order, self.now);
        }
    }

    /// Carries out an order on one session, which leaves at `at` if it has to.
    fn order_session(&mut self, key: Key, order: &SessionOrder, at: Instant) -> Effect {
        let Some(entry) = self.sessions.get_mut(key) else {
            return Effect::None;
        };
        let session = &mut entry.session;
        let effect = match order {
            SessionOrder::Apply(changes) => change(session, changes, &self.shared.table.load(), at),
            SessionOrder::Kill(kill) => {
                let (id, client) = (session.id(), session.client());
                let meant = kill.filter().means(id, session.route(), client);
                killed(kill, meant && session.kill(at))
            }
            SessionOrder::Drain => Effect::None,
            SessionOrder::Cut(reason, _) => {
                session.leave_by(at, *reason);
                Effect::Leaves
            }
        };
        if effect != Effect::None {
            self.arm(key);
        }
        effect
    }

    /// Carries out an order on one connection whose header is awaited.
    fn order_pending(&mut self, key: Key, order: &SessionOrder, at: Instant) -> Effect {
        let table = self.shared.table.load_full();
        let Some(Awaited { pending, .. }) = self.pending_headers.get_mut(key) else {
            return Effect::None;
        };
        let effect = match order {
            SessionOrder::Apply(changes) => change_pending(pending, changes, &table, at),
            SessionOrder::Kill(kill) => {
                let (id, client) = (pending.id(), pending.accepted().client);
                let meant = kill.filter().means(id, pending.route(), client);
                killed(kill, meant && pending.leave_by(at, EndReason::Killed))
            }
            SessionOrder::Drain => Effect::None,
            SessionOrder::Cut(reason, _) => {
                pending.leave_by(at, *reason);
                Effect::Leaves
            }
        };
        if effect != Effect::None {
            let deadline = pending.deadline();
            self.header_timers.arm(key.index(), deadline);
        }
        if let SessionOrder::Apply(_) = order {
            // It may have become an ordinary connection, or need not wait any longer.
            self.read_header(key, EventFlags::empty());
        }
        effect
    }
}

/// Counts what an operator's word has end, if that is news to it.
fn killed(kill: &Kill, is_news: bool) -> Effect {
    match is_news {
        true => {
            kill.count();
            Effect::Leaves
        }
        false => Effect::None,
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
            session.leave_by(at + *within, *reason);
            if let Some(successor) = successor {
                session.adopt(successor);
            }
            Effect::Leaves
        }
    }
}

/// Has a connection follow the mapping it came to, which need not be there any more. It has no
/// session that could finish, so it ends at once where that would have had time.
fn change_pending(
    pending: &mut PendingProxyHeader,
    changes: &SessionChanges,
    table: &Table,
    at: Instant,
) -> Effect {
    let route = pending.route();
    let Some(current) = current_route(table, route) else {
        pending.leave_by(at, EndReason::MappingRemoved);
        return Effect::Leaves;
    };
    let change = changes.get(&route.listen);
    let change = change.filter(|(mapping, _)| *mapping == route.mapping.name);
    let leaves = match change {
        Some((_, SessionChange::Drain(within))) => {
            pending.drain_by(within.map(|within| at + within));
            true
        }
        Some((_, SessionChange::Leave { within, reason, .. }))
            if within.is_zero() && !Arc::ptr_eq(current, route) =>
        {
            pending.leave_by(at, *reason)
        }
        _ => false,
    };
    pending.adopt(current);
    match leaves {
        true => Effect::Leaves,
        false => Effect::Changed,
    }
}

/// The route of an address as it is now, if it belongs to the mapping it belonged to: one that leads
/// where it led has another name at most.
pub(super) fn current_route<'t>(table: &'t Table, route: &Route) -> Option<&'t Arc<Route>> {
    let current = table.route(&route.listen)?;
    let is_same = current.mapping.name == route.mapping.name || current.target == route.target;
    is_same.then_some(current)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        sync::{
            atomic::{AtomicBool, AtomicU64},
            mpsc,
        },
    };

    use arc_swap::ArcSwap;

    use super::*;
    use crate::{
        limit::{Gate, Limits},
        relay::PipeBudget,
        session::SessionFilter,
        table::{ListenHost, Mapping, MappingName, Policy},
        telemetry::{LogQueue, ProcessStats, Sampler},
        worker::{Workers, handle},
    };

    /// A pair of workers that turn when told, and a target.
    struct Stage {
        workers: Workers,
        front: EventLoop,
        bulk: EventLoop,
        target: TcpListener,
    }

    impl Stage {
        fn new() -> Self {
            let (handles, queues) = handle::prepare(1).expect("descriptors");
            let (lost, _) = tokio::sync::mpsc::unbounded_channel();
            let shared = Arc::new(WorkerContext {
                table: ArcSwap::default(),
                stats: ProcessStats::default(),
                pipes: Arc::new(PipeBudget::new(0, 0, 0)),
                overrides: ArcSwap::default(),
                lost,
                closed: ArcSwap::default(),
                departed: ArcSwap::default(),
                log: Arc::new(LogQueue::new(1)),
                refusals: Sampler::new(None, Instant::now()),
                log_openings: AtomicBool::new(false),
                log_sessions: AtomicBool::new(false),
                next_session: AtomicU64::new(1),
                gate: Gate::new(Limits::default(), u32::MAX),
                splice: AtomicBool::new(false),
            });
            let mut loops =
                queues
                    .into_iter()
                    .enumerate()
                    .map(|(number, queue): (_, mpsc::Receiver<_>)| {
                        let wake = handles[number].eventfd();
                        EventLoop::new(number, handles.clone(), queue, wake, Arc::clone(&shared))
                            .expect("descriptors")
                    });
            let (front, bulk) = (loops.next().expect("two"), loops.next().expect("two"));
            drop(loops);
            Self {
                workers: Workers::new(handles),
                front,
                bulk,
                target: TcpListener::bind("127.0.0.1:0").expect("a free port"),
            }
        }

        fn route(&self, on_remove: RemovalPolicy) -> Arc<Route> {
            let policy = Policy {
                on_remove,
                ..Policy::default()
            };
            Arc::new(Route {
                listen: ListenAddr::new(ListenHost::Any, 1000),
                target: self.target.local_addr().expect("it listens"),
                mapping: Arc::new(Mapping::new(MappingName::new("m"), Arc::new(policy))),
            })
        }

        fn accepted() -> Accepted {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let addr = listener.local_addr().expect("it listens");
            let _client = TcpStream::connect(addr).expect("it listens");
            let (socket, client) = listener.accept().expect("it waits");
            Accepted {
                socket: socket.into(),
                client,
                front: None,
            }
        }

        /// Gives the front worker a session.
        fn open(&mut self) -> Key {
            let route = self.route(RemovalPolicy::Keep);
            self.front
                .open(Self::accepted(), route, OrderNumber::default());
            self.front.sessions.keys()[0]
        }

        fn kill(&self) -> tokio::sync::oneshot::Receiver<usize> {
            let (kill, told) = Kill::new(SessionFilter::default());
            self.workers.order(&SessionOrder::Kill(Arc::new(kill)));
            told
        }
    }

    /// Whether the only session of a worker has to go.
    fn leaves(worker: &mut EventLoop) -> bool {
        let key = worker.sessions.keys()[0];
        let entry = worker.sessions.get_mut(key).expect("it is there");
        entry.session.deadline().is_some_and(|at| at <= worker.now)
    }

    #[test]
    fn a_kill_reaches_a_session_that_goes_from_a_busy_worker_to_one_that_had_carried_it_out() {
        let mut stage = Stage::new();
        let session = stage.open();
        let mut told = stage.kill();
        stage.bulk.run_commands();
        stage.front.hand_over(session);
        stage.front.run_commands();
        assert!(told.try_recv().is_err(), "not all have been told");
        stage.bulk.run_commands();
        assert!(leaves(&mut stage.bulk));
        stage.front.run_commands();
        stage.bulk.run_commands();
        assert_eq!(told.try_recv(), Ok(1));
    }

    #[test]
    fn a_kill_counts_a_session_once_that_goes_to_a_busy_worker() {
        let mut stage = Stage::new();
        let session = stage.open();
        let (kill, mut told) = Kill::new(SessionFilter::default());
        let order = SessionOrder::Kill(Arc::new(kill));
        let number = OrderNumber::default().next();
        let tell = |worker: usize| {
            let order = order.clone();
            stage.workers.handles()[worker].send(Command::Order(number, order));
        };
        tell(0);
        stage.front.run_commands();
        stage.front.hand_over(session);
        tell(1);
        drop(order);
        stage.bulk.run_commands();
        assert!(leaves(&mut stage.bulk));
        stage.front.run_commands();
        stage.bulk.run_commands();
        assert_eq!(told.try_recv(), Ok(1));
    }

    #[test]
    fn a_connection_on_its_way_when_its_mapping_goes_is_treated_like_those_that_have_arrived() {
        for on_remove in [RemovalPolicy::Kill, RemovalPolicy::Drain(Duration::ZERO)] {
            let mut stage = Stage::new();
            let route = stage.route(on_remove);
            let within = Duration::ZERO;
            let change = SessionChange::by_policy(on_remove, EndReason::MappingRemoved, None);
            let change = change.expect("they do not stay");
            let changes = [(route.listen, (route.mapping.name.clone(), change))];
            let changes: SessionChanges = changes.into_iter().collect();
            stage.workers.order(&SessionOrder::Apply(Arc::new(changes)));
            stage.front.run_commands();
            let sent = Command::Adopt(
                Stage::accepted(),
                Arc::clone(&route),
                OrderNumber::default(),
            );
            stage.workers.handles()[0].send(sent);
            stage.front.run_commands();
            if on_remove == RemovalPolicy::Drain(within) {
                assert!(leaves(&mut stage.front));
            } else {
                assert_eq!(route.mapping.stats.ended(EndReason::MappingRemoved), 1);
                assert_eq!(stage.front.sessions.len(), 0);
            }
        }
    }

    #[test]
    fn a_worker_without_sessions_stays_until_none_can_come_from_a_busy_one() {
        let mut stage = Stage::new();
        let session = stage.open();
        stage.workers.order(&SessionOrder::Drain);
        stage.bulk.run_commands();
        assert!(!stage.bulk.is_done());
        stage.front.hand_over(session);
        stage.front.run_commands();
        assert!(stage.front.orders.len() == 1 && !stage.front.is_done());
        stage.front.run_commands();
        assert!(stage.front.is_done());
        stage.bulk.run_commands();
        assert!(stage.bulk.orders.is_empty() && !stage.bulk.is_done());
        stage
            .bulk
            .end(stage.bulk.sessions.keys()[0], EndReason::Closed);
        assert!(stage.bulk.is_done());
    }
}
