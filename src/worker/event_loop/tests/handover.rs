//! Sessions of every kind between two images of the program, with real sockets.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
    thread,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::*;
use crate::{
    handover::{Loader, Values},
    listen::accept,
    relay::{RelayMode, SMALL_PIPE},
    table::{KnownMappings, MappingSpec, Origin, SavedTable, Surroundings},
    worker::{Adopted, NotBegun, load},
};

/// What was handed over, with descriptors of its own.
#[derive(Default)]
struct Kept(Mutex<Vec<(String, Values, Loader)>>);

impl Sink for Kept {
    fn put(&self, part: &str, values: &Records, saver: Saver<'_>) -> Result<(), String> {
        assert!(part.starts_with(PART), "{part}");
        let (descriptors, bytes) = saver.into_parts();
        let clones = descriptors.iter().map(|fd| fd.try_clone_to_owned());
        let clones: Result<Vec<_>, _> = clones.collect();
        let loader = Loader::new(clones.map_err(|error| error.to_string())?, bytes);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values = Values::of_text(values.as_bytes().to_vec());
        kept.push((part.to_owned(), values, loader));
        Ok(())
    }
}

/// Only the values of what was handed over.
#[derive(Default)]
struct Text(Mutex<Vec<u8>>);

impl Sink for Text {
    fn put(&self, _: &str, values: &Records, _: Saver<'_>) -> Result<(), String> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(values.as_bytes());
        Ok(())
    }
}

/// Pairs of workers that turn when told.
struct Image {
    context: Arc<WorkerContext>,
    workers: Workers,
    loops: Vec<EventLoop>,
}

impl Image {
    fn new(known: &KnownMappings, pairs: usize) -> Self {
        let context = context(Arc::clone(&known.table), pipes());
        let (handles, queues) = handle::prepare(pairs).expect("descriptors");
        let loops = queues.into_iter().enumerate().map(|(number, queue)| {
            let wake = handles[number].eventfd();
            EventLoop::new(number, handles.clone(), queue, wake, Arc::clone(&context))
        });
        let loops: io::Result<Vec<_>> = loops.collect();
        Self {
            loops: loops.expect("descriptors"),
            workers: Workers::new(handles),
            context,
        }
    }

    fn turn(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        for worker in &mut self.loops {
            let turned = worker.turn(&mut events, Some(Duration::ZERO), &mut 0);
            turned.expect("epoll works");
        }
    }

    #[track_caller]
    fn turn_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..10_000 {
            self.turn();
            if holds(self) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("gave up waiting for {what}");
    }

    /// Has workers say what they would hand over, as they do before an upgrade.
    fn describe(&mut self) {
        for worker in &mut self.loops {
            let described = worker.describe(&Text::default());
            described.expect("it takes all");
        }
    }

    /// Everything goes to another image with so many pairs of workers, as it does through an upgrade.
    fn upgrade(mut self, pairs: usize) -> Self {
        let departed = self.context.departed.load_full();
        let table = self.context.table.load_full();
        for worker in &mut self.loops {
            worker.run_commands();
            let described = mem::take(&mut worker.written);
            let [as_now, anew] = [described, WrittenSessions::default()].map(|mut written| {
                let text = Text::default();
                worker.save(&text, &mut written).expect("it takes all");
                text.0.into_inner().expect("nobody panicked")
            });
            assert!(as_now == anew, "something is as it was described before");
        }
        let kept = Kept::default();
        let saved = self
            .loops
            .iter()
            .map(|worker| worker.save(&kept, &mut WrittenSessions::default()));
        let sessions: usize = saved.map(|saved| saved.expect("there is room")).sum();
        let open = self.context.stats.sessions_open();
        assert_eq!(sessions, open as usize);
        let counted = |table: &Table| {
            let counted = |mapping: &Arc<Mapping>| (mapping.name.clone(), mapping.stats.open());
            table.mappings().map(counted).collect::<Vec<_>>()
        };
        let counts = counted(&table);
        let next = self
            .context
            .next_session
            .load(std::sync::atomic::Ordering::Relaxed);
        let mappings = serde_json::to_vec(&SavedTable::new(&table, &departed));
        let mappings = mappings.expect("plain values");
        // All sockets but those that were handed over are closed.
        drop(self);
        let mappings: SavedTable = serde_json::from_slice(&mappings).expect("as it was written");
        let mut known = mappings.load().expect("it was in force");
        let mut next_image = Self::new(&known, pairs);
        next_image
            .context
            .next_session
            .store(next, std::sync::atomic::Ordering::Relaxed);
        let parts = kept.0.into_inner().expect("nobody panicked");
        let adopted = parts.into_iter().map(|(part, mut values, mut loader)| {
            let context = &next_image.context;
            load(&part, &mut values, &mut loader, &mut known, context).expect("as it was saved")
        });
        let adopted: Vec<_> = adopted.collect();
        assert_eq!(
            adopted.iter().map(Adopted::sessions).sum::<usize>(),
            sessions
        );
        assert_eq!(next_image.context.stats.sessions_open(), open);
        assert_eq!(counted(&known.table), counts);
        next_image.workers.adopt(NotBegun::default(), adopted);
        next_image.turn();
        next_image
    }
}

/// Pipes for all that move bulk here.
fn pipes() -> PipeBudget {
    PipeBudget::new(64, 64 * SMALL_PIPE, SMALL_PIPE)
}

/// Everything that a mapping leads to.
struct Scene {
    image: Image,
    target: TcpListener,
    public: TcpListener,
}

impl Scene {
    /// One mapping `m` with this policy.
    fn new(policy: Policy) -> Self {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let [target, public] = [(); 2].map(|()| TcpListener::bind(local).expect("a free port"));
        let addr = |listener: &TcpListener| listener.local_addr().expect("it listens");
        // What nobody reads is soon too much; connections inherit it.
        for listener in [&target, &public] {
            let listener = SockRef::from(listener);
            listener.set_send_buffer_size(65536).expect("any size");
        }
        let spec = MappingSpec {
            name: MappingName::new("m"),
            pairs: [(addr(&public).into(), addr(&target).into())].into(),
            policy: Arc::new(policy),
            origin: Origin::BuiltIn,
        };
        let around = Surroundings {
            reserved: &[],
            departed: &[],
            is_local: &|_| true,
            looping: &Default::default(),
        };
        let table = Table::build(&[spec], &Table::default(), &around).expect("no conflict");
        let known = SavedTable::new(&table, &[]).load().expect("no conflict");
        Self {
            image: Image::new(&known, 1),
            target,
            public,
        }
    }

    fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(
            self.image
                .context
                .table
                .load()
                .mappings()
                .next()
                .expect("there is one"),
        )
    }

    /// A client that has been accepted.
    fn connect(&mut self) -> TcpStream {
        self.connect_by(Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket"))
    }

    fn connect_by(&mut self, client: Socket) -> TcpStream {
        let addr = self.public.local_addr().expect("it listens");
        client.connect(&addr.into()).expect("it listens");
        let accepted = accept(&self.public).expect("it waits");
        let table = self.image.context.table.load_full();
        let route = table.route(&addr.into()).expect("it is there");
        let worker = &mut self.image.loops[0];
        worker.open(accepted, Arc::clone(route), OrderNumber::default());
        let client = TcpStream::from(client);
        client.set_nonblocking(true).expect("an open socket");
        client
    }

    /// A client with a session, and the target's end of it.
    fn session(&mut self) -> (TcpStream, TcpStream) {
        let client = self.connect();
        self.image.turn();
        let target = self.answer();
        self.image.describe();
        (client, target)
    }

    fn answer(&mut self) -> TcpStream {
        let (target, _) = self.target.accept().expect("it is called");
        target.set_nonblocking(true).expect("an open socket");
        self.image.turn();
        target
    }

    fn upgrade(self, pairs: usize) -> Self {
        Self {
            image: self.image.upgrade(pairs),
            ..self
        }
    }

    /// Has one end receive exactly these bytes.
    #[track_caller]
    fn receives(&mut self, mut end: &TcpStream, expected: &[u8]) {
        let mut received = Vec::new();
        self.image.turn_until("every byte to arrive", |_| {
            let mut bytes = [0; 16 * 1024];
            while received.len() < expected.len() {
                let room = bytes.len().min(expected.len() - received.len());
                match end.read(&mut bytes[..room]) {
                    Ok(0) => panic!("the stream ended after {} bytes", received.len()),
                    Ok(n) => received.extend_from_slice(&bytes[..n]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error} after {} bytes", received.len()),
                }
            }
            received.len() >= expected.len()
        });
        assert!(received == expected, "{} other bytes", received.len());
    }

    /// Has one end receive nothing more but this.
    #[track_caller]
    fn ends(&mut self, mut end: &TcpStream, expected: Result<(), ErrorKind>) {
        let mut found = None;
        self.image.turn_until("the end", |_| {
            match end.read(&mut [0]) {
                Ok(0) => found = Some(Ok(())),
                Ok(_) => panic!("a byte too many"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => found = Some(Err(error.kind())),
            }
            found.is_some()
        });
        assert_eq!(found, Some(expected));
    }

    /// Has the target send until nobody takes any more; what it sent.
    fn fill(&mut self, mut target: &TcpStream) -> Vec<u8> {
        let bytes: Vec<u8> = (0..=250).cycle().take(8 << 20).collect();
        let (mut sent, mut quiet) = (0, 0);
        self.image.turn_until("everything to be full", |_| {
            match target.write(&bytes[sent..]) {
                Ok(n) => (sent, quiet) = (sent + n, 0),
                Err(_) => quiet += 1,
            }
            quiet > 50
        });
        bytes[..sent].to_vec()
    }

    /// Bytes that the only session has read and not passed on to its client.
    fn in_flight(&mut self) -> bool {
        let pipes = self.image.context.pipes.in_use();
        let kept = Kept::default();
        for worker in &self.image.loops {
            let saved = worker.save(&kept, &mut WrittenSessions::default());
            saved.expect("there is room");
        }
        let kept = kept.0.into_inner().expect("nobody panicked");
        let mut all = kept.into_iter();
        pipes > 0
            || all.any(|(_, mut values, _)| {
                let lines = std::iter::from_fn(|| Some(values.line().expect("a text").to_vec()));
                let mut lines = lines.take_while(|line| !line.is_empty());
                lines.any(|line| String::from_utf8_lossy(&line).contains("\"kept\""))
            })
    }

    /// Has the image be without sessions.
    #[track_caller]
    fn finish(mut self) {
        self.image.turn_until("the last session to end", |image| {
            image.context.stats.sessions_open() == 0
        });
        assert_eq!(self.mapping().stats.open(), 0);
        assert_eq!(self.image.context.pipes.in_use(), 0);
    }
}

#[test]
fn keystrokes_go_on_through_many_upgrades_and_other_numbers_of_workers() {
    let mut scene = Scene::new(Policy::default());
    let mut sessions: Vec<_> = (0..10).map(|_| scene.session()).collect();
    for (round, pairs) in [1, 3, 2, 1].into_iter().enumerate() {
        for (client, target) in &mut sessions {
            client.write_all(b"before").expect("there is room");
            target.write_all(b"answer").expect("there is room");
        }
        scene = scene.upgrade(pairs);
        sessions.push(scene.session());
        for (client, target) in &sessions[..10 + round] {
            scene.receives(target, b"before");
            scene.receives(client, b"answer");
        }
    }
    assert_eq!(scene.mapping().stats.opened(), 14);
    assert_eq!(scene.mapping().stats.open(), 14);
    drop(sessions);
    scene.finish();
}

#[test]
fn what_happens_while_an_upgrade_is_rehearsed_is_not_forgotten_by_it() {
    let mut scene = Scene::new(Policy::default());
    let mut sessions: Vec<_> = (0..4).map(|_| scene.session()).collect();
    for rehearsed in 0..3 {
        scene.image.describe();
        let (client, target) = &mut sessions[rehearsed];
        client.write_all(b"a key").expect("there is room");
        scene.receives(target, b"a key");
        // The last one leaves the others in their places.
        drop(sessions.remove([3, 0, 1][rehearsed]));
        let left = sessions.len() as u32;
        scene.image.turn_until("one to end", |image| {
            image.context.stats.sessions_open() == left
        });
        let client = scene.connect();
        scene.image.turn();
        sessions.push((client, scene.answer()));
        scene = scene.upgrade(1);
        for (client, target) in &mut sessions {
            target.write_all(b"echo").expect("there is room");
            scene.receives(client, b"echo");
        }
    }
    drop(sessions);
    scene.finish();
}

#[test]
fn bytes_in_a_pipe_and_bytes_that_were_copied_arrive_after_an_upgrade() {
    for relay in [RelayMode::Auto, RelayMode::Copy, RelayMode::Splice] {
        let mut scene = Scene::new(Policy {
            relay,
            ..Policy::default()
        });
        let (client, target) = scene.session();
        let sent = scene.fill(&target);
        assert!(scene.in_flight(), "{relay}: nothing waits");
        scene = scene.upgrade(2).upgrade(1);
        assert!(scene.in_flight(), "{relay}: nothing waits any more");
        scene.receives(&client, &sent);
        (&target).write_all(b"more").expect("there is room");
        scene.receives(&client, b"more");
        assert_eq!(scene.mapping().stats.bytes_down(), sent.len() as u64 + 4);
        drop((client, target));
        scene.finish();
    }
}

#[test]
fn a_half_closed_session_gets_its_answer_after_an_upgrade() {
    let mut scene = Scene::new(Policy::default());
    let (client, target) = scene.session();
    (&client).write_all(b"question").expect("there is room");
    client
        .shutdown(std::net::Shutdown::Write)
        .expect("an open socket");
    scene.receives(&target, b"question");
    scene.ends(&target, Ok(()));
    scene = scene.upgrade(1);
    (&target).write_all(b"answer").expect("there is room");
    scene.receives(&client, b"answer");
    drop(target);
    scene.ends(&client, Ok(()));
    assert_eq!(scene.mapping().stats.ended(EndReason::Closed), 1);
    scene.finish();
}

#[test]
fn an_end_and_a_reset_that_come_during_an_upgrade_are_passed_on_as_what_they_are() {
    let mut scene = Scene::new(Policy::default());
    let (ends, breaks) = (scene.session(), scene.session());
    for (_, target) in [&ends, &breaks] {
        (&*target).write_all(b"last words").expect("there is room");
    }
    let linger = SockRef::from(&breaks.1).set_linger(Some(Duration::ZERO));
    linger.expect("an open socket");
    drop((ends.1, breaks.1));
    scene = scene.upgrade(2);
    scene.receives(&ends.0, b"last words");
    scene.ends(&ends.0, Ok(()));
    // What came before the reset counts.
    scene.receives(&breaks.0, b"last words");
    scene.ends(&breaks.0, Err(ErrorKind::ConnectionReset));
    drop((ends.0, breaks.0));
    scene.finish();
}

#[test]
fn a_session_that_settles_gives_its_client_everything_and_then_the_reset() {
    let mut scene = Scene::new(Policy::default());
    // It has little room for what it does not read.
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    client.set_recv_buffer_size(4096).expect("any size");
    let client = scene.connect_by(client);
    let target = scene.answer();
    let sent = vec![7; 60_000];
    (&target).write_all(&sent).expect("there is room");
    scene.image.turn_until("all to be passed on", |image| {
        image
            .context
            .table
            .load()
            .mappings()
            .next()
            .expect("there is one")
            .stats
            .bytes_down()
            == 60_000
    });
    let linger = SockRef::from(&target).set_linger(Some(Duration::ZERO));
    linger.expect("an open socket");
    drop(target);
    for _ in 0..20 {
        scene.image.turn();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(scene.mapping().stats.open(), 1, "it has settled");
    scene = scene.upgrade(1);
    scene.receives(&client, &sent);
    scene.ends(&client, Err(ErrorKind::ConnectionReset));
    assert_eq!(scene.mapping().stats.ended(EndReason::TargetReset), 1);
    scene.finish();
}

#[test]
fn a_session_that_dials_reaches_its_target_after_an_upgrade() {
    let mut scene = Scene::new(Policy::default());
    // Nobody is let in to a full queue.
    rustix::net::listen(scene.target.as_fd(), 0).expect("it listens");
    let addr = scene.target.local_addr().expect("it listens");
    let _first = TcpStream::connect(addr).expect("there is room for one");
    let client = scene.connect();
    (&client).write_all(b"early").expect("there is room");
    for _ in 0..20 {
        scene.image.turn();
        thread::sleep(Duration::from_millis(1));
    }
    scene = scene.upgrade(2);
    drop(scene.target.accept().expect("the first"));
    let target = scene.answer();
    scene.receives(&target, b"early");
    drop((client, target));
    scene.finish();
}

#[test]
fn a_header_of_which_half_has_come_is_completed_after_an_upgrade() {
    let trusted = "127.0.0.0/8".parse().expect("a prefix");
    let mut scene = Scene::new(Policy {
        accept_proxy: vec![trusted],
        send_proxy: Some(crate::proxy_protocol::Version::V1),
        ..Policy::default()
    });
    let client = scene.connect();
    (&client)
        .write_all(b"PROXY TCP4 192.0.2.7 ")
        .expect("there is room");
    scene.image.turn();
    assert_eq!(scene.mapping().stats.open(), 1);
    scene = scene.upgrade(3);
    (&client)
        .write_all(b"192.0.2.8 1000 22\r\nhello")
        .expect("there is room");
    scene.image.turn();
    let target = scene.answer();
    // Who the client is goes through another upgrade with the session.
    scene = scene.upgrade(1);
    scene.receives(&target, b"PROXY TCP4 192.0.2.7 192.0.2.8 1000 22\r\nhello");
    assert_eq!(scene.mapping().stats.opened(), 1);
    drop((client, target));
    scene.finish();
}

#[test]
fn a_limit_of_bandwidth_holds_through_an_upgrade_and_bytes_that_wait_for_it_arrive() {
    let number = |number| std::num::NonZeroU64::new(number).expect("not 0");
    let rate = crate::limit::Rate {
        burst: number(4096),
        ..crate::limit::Rate::even(number(400_000))
    };
    let mut scene = Scene::new(Policy {
        bandwidth: Some(rate),
        ..Policy::default()
    });
    let (client, target) = scene.session();
    let sent: Vec<u8> = (0..=250).cycle().take(100_000).collect();
    (&target).write_all(&sent).expect("there is room");
    let begun = Instant::now();
    let mut received = Vec::new();
    for _ in 0..4 {
        for _ in 0..10 {
            scene.image.turn();
            let mut bytes = [0; 65536];
            if let Ok(n) = (&client).read(&mut bytes) {
                received.extend_from_slice(&bytes[..n]);
            }
            thread::sleep(Duration::from_millis(1));
        }
        scene = scene.upgrade(1);
    }
    let rest = sent[received.len()..].to_vec();
    scene.receives(&client, &rest);
    assert_eq!(received, sent[..received.len()]);
    assert!(
        begun.elapsed() >= Duration::from_millis(200),
        "a quarter of a second is due"
    );
    drop((client, target));
    scene.finish();
}

#[test]
fn a_session_of_a_mapping_that_is_gone_stays_with_it() {
    let mut scene = Scene::new(Policy {
        idle_timeout: Some(Duration::from_secs(1000)),
        ..Policy::default()
    });
    let (client, target) = scene.session();
    let gone = scene.mapping();
    scene.image.context.table.store(Arc::default());
    scene
        .image
        .context
        .departed
        .store(Arc::new(vec![Arc::clone(&gone)]));
    scene = scene.upgrade(2);
    (&client).write_all(b"still there").expect("there is room");
    scene.receives(&target, b"still there");
    let worker = scene
        .image
        .loops
        .iter_mut()
        .find(|worker| worker.sessions.len() == 1);
    let (_, session) = worker.expect("one has it").sessions.only();
    let mapping = &session.route().mapping;
    assert_eq!((&mapping.name, &mapping.policy), (&gone.name, &gone.policy));
    assert_eq!((mapping.stats.open(), mapping.stats.opened()), (1, 1));
}

/// Bytes go both ways all the time while workers stand still again and again.
#[test]
fn workers_that_were_frozen_go_on_as_if_nothing_had_happened() {
    const LENGTH: usize = 2 << 20;
    let scene = Scene::new(Policy::default());
    let (workers, context) = {
        let table = scene.image.context.table.load_full();
        let context = context(table, pipes());
        let ended = |result: Result<(), String>| assert_eq!(result, Ok(()));
        let (handles, not_begun) = handle::spawn(2, &context, ended).expect("threads");
        drop(not_begun);
        (Workers::new(handles), context)
    };
    let addr = scene.public.local_addr().expect("it listens");
    let listener = scene.public.try_clone().expect("a descriptor");
    listener.set_nonblocking(true).expect("an open socket");
    workers.handles()[0].send(Command::Listen {
        addr: addr.into(),
        socket: Arc::new(listener.into()),
        paused: false,
    });
    thread::scope(|scope| {
        let peers: Vec<_> = (0..8)
            .map(|_| {
                let client = TcpStream::connect(addr).expect("it listens");
                let (target, _) = scene.target.accept().expect("it is called");
                scope.spawn(move || {
                    let mut echo = target.try_clone().expect("a descriptor");
                    let echoing = thread::spawn(move || std::io::copy(&mut &target, &mut echo));
                    let sent: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();
                    let mut received = Vec::with_capacity(LENGTH);
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            (&client).write_all(&sent).expect("it takes all");
                            client
                                .shutdown(std::net::Shutdown::Write)
                                .expect("it is open");
                        });
                        (&client).read_to_end(&mut received).expect("to the end");
                    });
                    echoing.join().expect("no panic").expect("to the end");
                    assert!(received == sent, "{} other bytes", received.len());
                })
            })
            .collect();
        let mut rounds = 0;
        while !peers.iter().all(|peer| peer.is_finished()) {
            let kept: Arc<dyn Sink> = Arc::new(Kept::default());
            let frozen = workers.freeze(Arc::clone(&kept), Duration::from_secs(20));
            let frozen = frozen.expect("they come");
            assert_eq!(frozen.sessions() as u32, context.stats.sessions_open());
            thread::sleep(Duration::from_millis(2));
            drop(frozen);
            workers
                .describe(&kept, Duration::from_secs(20))
                .expect("they answer");
            rounds += 1;
            thread::sleep(Duration::from_millis(2));
        }
        assert!(rounds > 3, "{rounds}");
    });
    workers.order(&SessionOrder::Drain);
}

/// One that began while another was still to get its own gave it a session, which was lost then.
#[test]
fn no_worker_gives_a_session_away_before_all_have_got_what_was_handed_over() {
    let context = context(Arc::default(), pipes());
    let spawn = || {
        let ended = |result: Result<(), String>| assert_eq!(result, Ok(()));
        let (handles, not_begun) = handle::spawn(2, &context, ended).expect("threads");
        handles.iter().for_each(|worker| worker.send(Command::Beat));
        (Workers::new(handles), not_begun)
    };
    let beats = |workers: &Workers| workers.handles().iter().map(WorkerHandle::beats).min();
    let wait = |workers: &Workers| {
        while beats(workers) < Some(1) {
            thread::yield_now();
        }
    };
    let (waiting, not_begun) = spawn();
    let (others, begun) = spawn();
    drop(begun);
    wait(&others);
    let first = waiting.handles().iter().map(WorkerHandle::beats).max();
    assert_eq!(first, Some(0));
    waiting.adopt(not_begun, []);
    wait(&waiting);
    for workers in [waiting, others] {
        workers.order(&SessionOrder::Drain);
    }
}

#[test]
fn a_worker_that_does_not_come_in_time_leaves_all_others_as_they_were() {
    let mut scene = Scene::new(Policy::default());
    let kept: Arc<dyn Sink> = Arc::new(Kept::default());
    // Nobody turns them.
    let error = scene.image.workers.freeze(kept, Duration::from_millis(10));
    let error = error
        .map(|frozen| frozen.sessions())
        .expect_err("nobody came");
    assert!(error.contains("busy"), "{error}");
    // Told too late, they go on.
    let (client, target) = scene.session();
    for worker in &mut scene.image.loops {
        worker.stand_still();
    }
    (&client).write_all(b"go on").expect("there is room");
    scene.receives(&target, b"go on");
}
