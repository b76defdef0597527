//! Sessions of every kind between two images of the program, with real sockets.

mod scene;

use std::{
    io::{ErrorKind, Write},
    os::fd::AsFd,
    thread,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::*;
use crate::relay::RelayMode;
use scene::{Kept, Scene, pipes};

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
