use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc::Receiver,
    thread,
    time::Instant,
};

use super::*;
use crate::{
    session::SessionRecord,
    table::{ListenHost, Policy},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two workers and what becomes of them and of their sessions.
struct Stage {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    ended: Receiver<Result<(), String>>,
    records: Receiver<SessionRecord>,
    target: TcpListener,
}

impl Stage {
    fn new() -> Self {
        let shared = Arc::new(Shared {
            table: ArcSwap::default(),
            stats: ProcessStats::default(),
            pipes: Arc::new(PipeBudget::new(0, 4096)),
            holds: ArcSwap::default(),
            departed: ArcSwap::default(),
            log: LogQueue::new(100),
            refusals: Sampler::new(None, Instant::now()),
            log_openings: false,
            log_sessions: true,
            next_session: AtomicU64::new(1),
            max_sessions: 100,
            splice: false,
        });
        let (report, ended) = mpsc::channel();
        // Whoever does not want to know has ended the test.
        let workers = spawn(2, &shared, move |result| _ = report.send(result));
        let (record, records) = mpsc::channel();
        let log = Arc::clone(&shared);
        thread::spawn(move || {
            log.log.write_all(|line| {
                if let SessionLine::Ended(ended) = line {
                    _ = record.send(ended);
                }
            });
        });
        Self {
            shared,
            workers: workers.expect("two threads"),
            ended,
            records,
            target: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"),
        }
    }

    fn route(&self, on_remove: Departure) -> Arc<Route> {
        let policy = Policy {
            on_remove,
            ..Policy::default()
        };
        Arc::new(Route {
            listen: ListenAddr::new(ListenHost::Any, 1000),
            target: self.target.local_addr().expect("bound"),
            mapping: Arc::new(Mapping::new(MappingName::new("m"), Arc::new(policy))),
        })
    }

    /// A client, and its connection as a worker accepts it.
    fn client(&self) -> (TcpStream, Accepted) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("bound");
        let client = TcpStream::connect(addr).expect("listening");
        client
            .set_read_timeout(Some(PATIENCE))
            .expect("an open socket");
        let (socket, addr) = listener.accept().expect("connected");
        socket.set_nonblocking(true).expect("an open socket");
        let accepted = Accepted {
            socket: socket.into(),
            client: addr,
        };
        (client, accepted)
    }

    fn next_end(&self) -> EndReason {
        let record = self.records.recv_timeout(PATIENCE);
        record.expect("a session ends").reason
    }

    fn stops(&self) {
        for worker in &self.workers {
            worker.send(Command::Drain);
            worker.send(Command::Cut(EndReason::Shutdown, Duration::ZERO));
        }
        for _ in &self.workers {
            assert_eq!(self.ended.recv_timeout(PATIENCE), Ok(Ok(())));
        }
        self.shared.log.close();
    }
}

fn is_reset(client: &mut TcpStream) -> bool {
    let end = client.read(&mut [0]);
    end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn a_client_handed_to_a_worker_that_is_stopping_is_served() {
    let stage = Stage::new();
    let [accepting, stopping] = &stage.workers[..] else {
        panic!("two workers");
    };
    stopping.send(Command::Drain);
    let early = stage.ended.recv_timeout(Duration::from_millis(100));
    assert!(early.is_err(), "it ended before the other could tell it");
    let (client, accepted) = stage.client();
    stopping.send(Command::Adopt(accepted, stage.route(Departure::Keep)));
    accepting.send(Command::Drain);
    let (server, _) = stage.target.accept().expect("a connection");
    drop((client, server));
    assert_eq!(stage.next_end(), EndReason::Closed);
    stage.stops();
}

#[test]
fn a_client_handed_over_after_the_cut_is_reset_and_logged() {
    let stage = Stage::new();
    stage.workers[1].send(Command::Drain);
    stage.workers[1].send(Command::Cut(EndReason::Shutdown, Duration::ZERO));
    let (mut client, accepted) = stage.client();
    stage.workers[1].send(Command::Adopt(accepted, stage.route(Departure::Keep)));
    assert!(is_reset(&mut client));
    assert_eq!(stage.next_end(), EndReason::Shutdown);
    stage.stops();
}

#[test]
fn a_client_on_its_way_when_its_mapping_goes_has_to_finish_in_time_too() {
    let stage = Stage::new();
    let soon = Departure::Drain(Duration::from_millis(50));
    for (on_remove, reason) in [
        (soon, EndReason::DrainDeadline),
        (Departure::Kill, EndReason::MappingRemoved),
    ] {
        let (mut client, accepted) = stage.client();
        // The table in force is empty.
        stage.workers[0].send(Command::Adopt(accepted, stage.route(on_remove)));
        assert!(is_reset(&mut client));
        assert_eq!(stage.next_end(), reason);
    }
    stage.stops();
}
