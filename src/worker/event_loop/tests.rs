//! Orders that reach sessions wherever they are, with workers that turn when told.

mod handover;

use std::{
    io::{ErrorKind, Read},
    net::{TcpListener, TcpStream},
    sync::{
        atomic::{AtomicBool, AtomicU64},
        mpsc,
    },
};

use arc_swap::ArcSwap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::{
    limit::{Gate, Limits},
    relay::PipeBudget,
    session::UpgradeMarks,
    table::{
        JobRule, ListenAddr, ListenHost, Mapping, MappingName, MappingSpec, Origin, Policy,
        Surroundings, Table,
    },
    telemetry::{LogQueue, ProcessStats, Sampler},
    worker::{Kill, SessionChange, SessionChanges, Workers, handle},
};

/// What workers share; sessions splice if there are pipes.
fn context(table: Arc<Table>, pipes: PipeBudget) -> Arc<WorkerContext> {
    let (lost, _) = tokio::sync::mpsc::unbounded_channel();
    Arc::new(WorkerContext {
        table: ArcSwap::from(table),
        job_lease: Arc::default(),
        stats: ProcessStats::default(),
        splice: AtomicBool::new(pipes.limit() > 0),
        pipes: Arc::new(pipes),
        overrides: ArcSwap::default(),
        drain_ends: ArcSwap::default(),
        lost,
        closed: ArcSwap::default(),
        departed: ArcSwap::default(),
        log: Arc::new(LogQueue::new(1)),
        refusals: Sampler::new(None, Instant::now()),
        log_openings: AtomicBool::new(false),
        log_sessions: AtomicBool::new(false),
        next_session: AtomicU64::new(1),
        upgrade_marks: UpgradeMarks::default(),
        gate: Gate::new(Limits::default(), u32::MAX),
    })
}

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
        let context = context(Arc::default(), PipeBudget::new(0, 0, 0));
        let mut loops =
            queues
                .into_iter()
                .enumerate()
                .map(|(number, queue): (_, mpsc::Receiver<_>)| {
                    let wake = handles[number].eventfd();
                    EventLoop::new(number, handles.clone(), queue, wake, Arc::clone(&context))
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
            target: self.target.local_addr().expect("it listens").into(),
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
        self.front.sessions.only().0
    }

    fn kill(&self) -> tokio::sync::oneshot::Receiver<usize> {
        let (kill, told) = Kill::new(SessionFilter::default());
        self.workers.order(&SessionOrder::Kill(Arc::new(kill)));
        told
    }

    /// Lets the front worker look at what there is to do.
    fn turn(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let turned = (self.front).turn(&mut events, Some(Duration::ZERO), &mut 0);
        turned.expect("epoll works");
    }

    /// Has each worker go on while something wakes it.
    fn run_while_woken(&mut self) {
        let is_woken = |worker: &EventLoop| {
            let mut fds = [PollFd::new(&worker.wake, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).expect("poll of an eventfd") > 0
        };
        loop {
            let mut workers = [&mut self.front, &mut self.bulk].into_iter();
            match workers.find(|worker| is_woken(worker)) {
                Some(worker) => worker.run_commands(),
                None => return,
            }
        }
    }
}

/// Whether the only session of a worker has to go.
fn leaves(worker: &mut EventLoop) -> bool {
    let (_, session) = worker.sessions.only();
    session.deadline().is_some_and(|at| at <= worker.now)
}

#[test]
fn a_kill_is_answered_although_nothing_else_happens() {
    let mut stage = Stage::new();
    stage.open();
    let mut told = stage.kill();
    stage.run_while_woken();
    assert_eq!(told.try_recv(), Ok(1));
}

#[test]
fn a_kill_reaches_a_session_that_goes_from_a_busy_worker_to_one_that_had_carried_it_out() {
    let mut stage = Stage::new();
    let session = stage.open();
    let mut told = stage.kill();
    stage.bulk.run_commands();
    stage.front.sessions.hand_over(session);
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
    stage.front.sessions.hand_over(session);
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
    stage.front.sessions.hand_over(session);
    stage.front.run_commands();
    assert!(stage.front.orders.len() == 1 && !stage.front.is_done());
    stage.front.run_commands();
    assert!(stage.front.is_done());
    stage.bulk.run_commands();
    assert!(stage.bulk.orders.len() == 0 && !stage.bulk.is_done());
    let (session, _) = stage.bulk.sessions.only();
    let now = stage.bulk.now;
    stage.bulk.sessions.end(session, EndReason::Closed, now);
    assert!(stage.bulk.is_done());
}

#[test]
fn a_process_that_slept_past_the_lease_of_its_ports_gives_no_client_to_the_job_before() {
    let mut stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("an open socket");
    let addr = listener.local_addr().expect("it listens");
    let target = stage.target.local_addr().expect("it listens");
    let (job, rule) = ("00000001".into(), "ssh".into());
    let spec = MappingSpec {
        name: MappingName::of_job(JobRule { job, rule }),
        pairs: [(addr.into(), target.into())].into(),
        policy: Arc::default(),
        origin: Origin::Switchboard,
    };
    let around = Surroundings {
        reserved: &[],
        departed: &[],
        is_local: &|_| true,
        looping: &Default::default(),
    };
    let table = Table::build(&[spec], &Table::default(), &around).expect("no conflict");
    let context = Arc::clone(&stage.front.context);
    context.table.store(Arc::new(table));
    let socket = Arc::new(listener.into());
    stage.front.acceptor.listen(addr.into(), socket, false);
    let _client = TcpStream::connect(addr).expect("it listens");

    context.job_lease.ends_at(Some(Duration::ZERO));
    stage.turn();
    assert_eq!(stage.front.sessions.len(), 0);
    // It was renewed before anybody else could have the port.
    context.job_lease.ends_at(None);
    while stage.front.sessions.len() == 0 {
        stage.turn();
        std::thread::sleep(Duration::from_millis(1));
    }

    // Nor is anybody served who waits when it is closed.
    let mut waits = TcpStream::connect(addr).expect("it listens");
    context.job_lease.ends_at(Some(Duration::ZERO));
    let route = context.table.load().route(&addr.into()).cloned();
    let (closed, _) = tokio::sync::mpsc::channel(1);
    let route = route.expect("it is there");
    let acceptor = &mut stage.front.acceptor;
    acceptor.unlisten(route, OrderNumber::default(), closed);
    stage.turn();
    assert_eq!(stage.front.sessions.len(), 1);
    drop(stage);
    let error = waits.read(&mut [0]).expect_err("nobody serves it");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
