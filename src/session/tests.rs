//! Sessions between real sockets, in a time of their own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{ending::SETTLE_AT_MOST, *};
use crate::{
    listen::accept,
    relay::{PipeBudget, SMALL_PIPE},
    table::{ListenAddr, ListenHost, Mapping, MappingName, Policy},
};

/// A session with all that a worker lends to it, and the peers of both its sockets.
struct Stage {
    session: Session,
    client: TcpStream,
    target: TcpStream,
    pipes: PipePool,
    acks: AckProbe,
    scratch: Vec<u8>,
    now: Instant,
}

impl Stage {
    /// One whose client's host has little room for what is not read.
    fn new(policy: Policy) -> Self {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let [public, behind] = [(); 2].map(|()| TcpListener::bind(local).expect("a listener"));
        let addr = |listener: &TcpListener| listener.local_addr().expect("bound");
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_recv_buffer_size(4096).expect("any size");
        client.connect(&addr(&public).into()).expect("connects");
        let accepted = accept(&public).expect("it is there");
        let mapping = Mapping::new(MappingName::new("m"), Arc::new(policy));
        let route = Route {
            listen: ListenAddr::new(ListenHost::Any, addr(&public).port()),
            target: addr(&behind).into(),
            mapping: Arc::new(mapping),
        };
        assert!(route.mapping.stats.try_open(None));
        let now = Instant::now();
        let connection = Connection::new(SessionId(1), accepted, Arc::new(route));
        let session = Session::dial(connection, now, true, None, None);
        let budget = Arc::new(PipeBudget::new(4, 1 << 20, SMALL_PIPE));
        let (target, _) = behind.accept().expect("it was called");
        let mut stage = Self {
            session: session.map_err(|(errno, _)| errno).expect("it is dialled"),
            client: client.into(),
            target,
            pipes: PipePool::new(budget),
            acks: AckProbe::default(),
            scratch: vec![0; 65536],
            now,
        };
        let step = stage.act(|session, turn| session.turn(Side::Target, EventFlags::OUT, turn));
        assert_eq!(step, SessionStep::Wait);
        assert!(stage.session.is_connected());
        stage
    }

    fn act(&mut self, act: impl FnOnce(&mut Session, &mut Turn<'_>) -> SessionStep) -> SessionStep {
        let mut turn = Turn {
            now: self.now,
            reported: self.now,
            pipes: &mut self.pipes,
            scratch: &mut self.scratch,
            budget: 1 << 20,
            acks: &mut self.acks,
        };
        act(&mut self.session, &mut turn)
    }

    fn passes(&mut self, time: Duration) -> SessionStep {
        self.now += time;
        self.act(Session::on_deadline)
    }

    fn unacknowledged(&mut self) -> u32 {
        let asked = self.acks.unacknowledged(self.session.socket(Side::Client));
        asked.expect("this kernel tells")
    }

    /// Has the target send so much and then reset, and the session read all of it.
    fn receive_and_break(&mut self, length: usize) {
        self.target
            .write_all(&vec![7; length])
            .expect("there is room");
        self.wait("every byte to be passed on", |stage| {
            stage.act(|session, turn| session.turn(Side::Target, EventFlags::IN, turn));
            stage.session.delivered().1 == length as u64
        });
        // Closing it then resets the connection.
        SockRef::from(&self.target)
            .set_linger(Some(Duration::ZERO))
            .expect("an open socket");
        self.target = self.client.try_clone().expect("a descriptor");
        self.wait("the reset to arrive", |stage| {
            let events = EventFlags::IN | EventFlags::ERR | EventFlags::HUP;
            stage.act(|session, turn| session.turn(Side::Target, events, turn));
            matches!(stage.session.phase, Phase::Settling { .. })
        });
    }

    /// Lets time pass, and more happen each time, until the session ends.
    fn settles(&mut self, mut meanwhile: impl FnMut(&mut Self)) {
        let step = loop {
            meanwhile(self);
            match self.passes(Duration::from_secs(20)) {
                SessionStep::Wait => {}
                step => break step,
            }
        };
        assert_eq!(step, SessionStep::End(EndReason::TargetReset));
    }

    fn end(mut self) -> (SessionRecord, TcpStream) {
        let (pipes, acks) = (&mut self.pipes, &mut self.acks);
        let record = self
            .session
            .end(EndReason::TargetReset, pipes, acks, self.now);
        (record, self.client)
    }

    fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..5000 {
            if holds(self) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("gave up waiting for {what}");
    }
}

/// More than the client's host takes in without a reader.
const LENGTH: usize = 60_000;

#[test]
fn a_slow_reader_gets_all_that_came_before_a_reset_however_long_it_takes() {
    let mut stage = Stage::new(Policy::default());
    stage.receive_and_break(LENGTH);
    let (begin, mut read) = (stage.now, 0);
    stage.settles(|stage| {
        let left = stage.unacknowledged();
        let mut bytes = [0; 2048];
        if left > 0 {
            stage.wait("the reader's host to take more", |stage| {
                stage.client.set_nonblocking(true).expect("an open socket");
                read += stage.client.read(&mut bytes).unwrap_or(0);
                stage.unacknowledged() < left
            });
        }
    });
    assert!(stage.now - begin > 2 * SETTLE_AT_MOST, "too fast to tell");
    let (record, client) = stage.end();
    assert_eq!(record.bytes_down, LENGTH as u64);
    client.set_nonblocking(false).expect("an open socket");
    let mut rest = Vec::new();
    let error = (&client).read_to_end(&mut rest).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(read + rest.len(), LENGTH);
}

#[test]
fn a_reader_that_takes_nothing_more_is_not_waited_for_and_what_it_did_not_get_is_not_counted() {
    let mut stage = Stage::new(Policy::default());
    stage.receive_and_break(LENGTH);
    // An acknowledgement may take a moment.
    stage.wait("the window to close", |stage| {
        let peer = stage.acks.peer_state(stage.session.socket(Side::Client));
        peer.is_ok_and(|peer| peer.in_flight == 0)
    });
    let begin = stage.now;
    stage.settles(|_| {});
    assert!(stage.now - begin >= SETTLE_AT_MOST);
    let lost = u64::from(stage.unacknowledged());
    assert!(lost > 0, "its host has taken everything");
    let stats = Arc::clone(&stage.session.route.mapping.stats);
    let (record, client) = stage.end();
    let mut got = Vec::new();
    (&client).read_to_end(&mut got).expect_err("a reset");
    assert_eq!(got.len() as u64, LENGTH as u64 - lost);
    assert_eq!(record.bytes_down, got.len() as u64);
    assert_eq!(stats.bytes_down(), got.len() as u64);
    assert_eq!(
        (stats.passed_on().1, stats.undelivered()),
        (LENGTH as u64, (0, lost))
    );
}

/// Where sock_diag is missing, `user_timeout` is the kernel's option, and goes with the setting.
#[test]
fn a_kernel_that_tells_nothing_judges_user_timeout_by_itself() {
    use rustix::net::sockopt::tcp_user_timeout;
    let strict = Policy {
        user_timeout: Some(Duration::from_secs(8)),
        ..Policy::default()
    };
    let mut stage = Stage::new(strict);
    stage.acks = AckProbe::deaf();
    let of_both = |stage: &Stage| {
        [Side::Client, Side::Target]
            .map(|side| tcp_user_timeout(stage.session.socket(side)).expect("an open socket"))
    };
    assert_eq!(of_both(&stage), [0, 0]);
    for peer in [&mut stage.client, &mut stage.target] {
        peer.write_all(b"hello").expect("there is room");
    }
    stage.wait("both to have been sent something", |stage| {
        for side in [Side::Client, Side::Target] {
            stage.act(|session, turn| session.turn(side, EventFlags::IN, turn));
        }
        stage.session.delivered() == (5, 5)
    });
    assert_eq!(stage.passes(Duration::from_secs(1)), SessionStep::Wait);
    assert_eq!(of_both(&stage), [8000, 8000]);

    let route = &stage.session.route;
    let lenient = route.mapping.with_policy(Arc::new(Policy::default()));
    let successor = Arc::new(Route {
        listen: route.listen,
        target: route.target.clone(),
        mapping: Arc::new(lenient),
    });
    stage.session.adopt(&successor);
    assert_eq!(of_both(&stage), [0, 0]);
}
