//! A relay between two model sockets, driven by random events.
//!
//! After any sequence of events every byte must have arrived, once and in order, and the relay must not
//! have tried in vain more often than it was woken.

mod world;

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    io::Write,
    sync::LazyLock,
};

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use rustix::io::Errno;

use world::{End, ModelPipe, SEND_BUFFER, Segment, Socket, World, take};

use super::{Budget, Progress, Relay, RelayMode, Side};

/// Steps of all random runs together: an event that happens, or a call the relay makes.
const STEPS: u64 = 1_000_000;

const SIDES: [Side; 2] = [Side::Client, Side::Target];
const SCRATCH: usize = 20_000;
const BUDGET: usize = 30_000;

/// Bytes that tell where they belong: they repeat after a length no size here divides.
fn noise(from: usize, len: usize) -> Vec<u8> {
    const PERIOD: usize = 65_521;
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..PERIOD).map(|_| next()).collect()
    });
    let start = from % PERIOD;
    let end = (start + len).min(PERIOD);
    let mut bytes = BYTES[start..end].to_vec();
    bytes.extend_from_slice(&BYTES[..len - bytes.len()]);
    bytes
}

#[derive(Debug, Clone)]
enum Event {
    Send {
        side: Side,
        segments: usize,
        len: usize,
        urgent: bool,
    },
    End(Side, End),
    Read(Side, usize),
    Pipes(bool),
    Quiet,
    /// The next so many calls are refused.
    Refuse(usize),
    /// What each direction may move each time; 0 is nothing for now.
    Allow(usize),
}

/// Segments of a peer without an urgent mark.
fn sent(side: Side, segments: usize, len: usize) -> Event {
    Event::Send {
        side,
        segments,
        len,
        urgent: false,
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Target)];
    let event = prop_oneof![
        6 => (side.clone(), 1..30usize, 1..1000usize, prop::bool::weighted(0.1)).prop_map(
            |(side, segments, len, urgent)| Event::Send { side, segments, len, urgent }
        ),
        6 => (side.clone(), 1..60_000usize).prop_map(|(side, n)| Event::Read(side, n)),
        1 => side.clone().prop_map(|side| Event::End(side, End::Fin)),
        1 => side.prop_map(|side| Event::End(side, End::Reset)),
        1 => any::<bool>().prop_map(Event::Pipes),
        1 => Just(Event::Quiet),
        1 => (1..5usize).prop_map(Event::Refuse),
        1 => prop_oneof![Just(0), 1..5000usize, Just(usize::MAX)].prop_map(Event::Allow),
    ];
    prop::collection::vec(event, 0..30)
}

struct Run {
    world: World,
    relay: Relay<ModelPipe>,
    scratch: Vec<u8>,
    progress: Progress,
    /// Bytes that peers sent so far.
    sent: usize,
    /// Bytes sent to the target before those of the client.
    header: usize,
    allowed: usize,
}

impl Run {
    fn new(mode: RelayMode) -> Self {
        Self {
            world: World::default(),
            relay: Relay::new(mode),
            scratch: vec![0; SCRATCH],
            progress: Progress::Waiting,
            sent: 0,
            header: 0,
            allowed: usize::MAX,
        }
    }

    /// A run in which the target gets so many bytes before those of the client.
    fn with_header(mode: RelayMode, header: usize) -> Self {
        let mut run = Self::new(mode);
        if header > 0 {
            let bytes = vec![0xa5; header];
            run.world.client.sent.extend_from_slice(&bytes);
            run.relay.prepend(Side::Target, bytes.into());
            run.header = header;
        }
        run
    }

    fn happen(&mut self, event: &Event) {
        self.world.steps += 1;
        match *event {
            Event::Send {
                side,
                segments,
                len,
                urgent,
            } => {
                for number in 0..segments {
                    let bytes = noise(self.sent, len);
                    let socket = self.world.socket(side);
                    if socket.end.is_some() {
                        return;
                    }
                    self.sent += len;
                    socket.sent.extend_from_slice(&bytes);
                    let urgent = urgent && number == segments / 2;
                    socket.queue.push_back(Segment { bytes, urgent });
                    socket.edge.input = true;
                }
            }
            Event::End(side, end) => {
                let socket = self.world.socket(side);
                // A reset may follow an end of stream, nothing else follows an end.
                if socket.end.is_none() || (socket.end == Some(End::Fin) && end == End::Reset) {
                    socket.end = Some(end);
                    socket.edge.input = true;
                }
            }
            Event::Read(side, n) => {
                let socket = self.world.socket(side);
                let n = n.min(socket.unread.len());
                socket.received.append(&mut take(&mut socket.unread, n));
                if n > 0 && std::mem::take(&mut socket.wants_room) {
                    socket.edge.room = true;
                }
            }
            Event::Pipes(some) => self.world.no_pipes = !some,
            Event::Allow(bytes) => self.allowed = bytes,
            Event::Quiet => self.relay.calm(),
            Event::Refuse(calls) => self.world.refusals = calls,
        }
        self.advance();
    }

    fn advance(&mut self) {
        for side in SIDES {
            if let Some(events) = self.world.socket(side).events() {
                self.relay.readiness(side).note(events);
            }
        }
        self.world.calls_in_vain = 0;
        for _ in 0..1_000_000 {
            if matches!(
                self.progress,
                Progress::Waiting | Progress::Again | Progress::Exhausted | Progress::Refused(_)
            ) {
                let before = SIDES.map(|to| self.relay.delivered_to(to));
                let budget = Budget {
                    turn: BUDGET,
                    up: self.allowed,
                    down: self.allowed,
                };
                let (world, scratch) = (&mut self.world, &mut self.scratch);
                self.progress = self.relay.advance(world, scratch, budget);
                for (to, before) in SIDES.into_iter().zip(before) {
                    let moved = self.relay.delivered_to(to) - before;
                    // What was read earlier, and the header, may go out besides.
                    let besides = (SCRATCH + self.header) as u64;
                    assert!(moved <= (self.allowed as u64).saturating_add(besides));
                }
            }
            let goes_on = match self.progress {
                Progress::Again => true,
                Progress::Exhausted => self.allowed > 0,
                // It is tried again after a while.
                Progress::Refused(_) => true,
                _ => false,
            };
            if !goes_on {
                // Each direction finds out once about its source and once about its sink.
                assert!(self.world.calls_in_vain <= 4, "tried in vain too often");
                // Closing both sockets lets go of what is held back; nothing else is to be hoped for.
                let held_back = self.world.client.held_back || self.world.target.held_back;
                assert!(
                    !held_back || self.progress == Progress::Closed,
                    "bytes wait for an end that does not come"
                );
                return;
            }
        }
        panic!("the relay never rests");
    }

    /// Lets both peers read all there is and finish.
    fn finish(&mut self) {
        self.happen(&Event::Allow(usize::MAX));
        for side in SIDES {
            self.happen(&Event::End(side, End::Fin));
        }
        for _ in 0..40 {
            for side in SIDES {
                self.happen(&Event::Read(side, SEND_BUFFER));
            }
        }
    }

    fn reset(&self, side: Side) -> bool {
        let socket = match side {
            Side::Client => &self.world.client,
            Side::Target => &self.world.target,
        };
        socket.end == Some(End::Reset)
    }

    fn check(mut self) {
        let resets = SIDES.map(|side| self.reset(side));
        match (resets, self.progress) {
            ([false, false], Progress::Closed) => {}
            // A reset that comes when the session is over already is nobody's business.
            ([_, true] | [true, _], Progress::Closed) => {}
            ([true, _], Progress::Settling(Side::Target)) => {}
            ([_, true], Progress::Settling(Side::Client)) => {}
            ([true, true], Progress::Broken) => {}
            (_, progress) => panic!("stuck or wrong: {progress:?} with resets {resets:?}"),
        }
        let World { client, target, .. } = &self.world;
        for (from, to) in [(client, target), (target, client)] {
            assert!(
                from.sent.starts_with(&to.received),
                "bytes changed on the way"
            );
            if to.end != Some(End::Reset) {
                assert_eq!(from.sent.len(), to.received.len(), "bytes missing");
            }
        }
        let arrived = |socket: &Socket| socket.received.len() + socket.unread.len();
        let to_target = arrived(target).saturating_sub(self.header);
        assert_eq!(self.relay.delivered_to(Side::Target), to_target as u64);
        assert_eq!(
            self.relay.delivered_to(Side::Client),
            arrived(client) as u64
        );
        if let Progress::Settling(side) = self.progress {
            let broken = side.other();
            let source_ended_first = self.relay.half_closed_by() == Some(broken);
            let told = self.world.socket(side).fin_received;
            assert!(
                !told || source_ended_first || self.reset(broken),
                "a reset became an end"
            );
        }
        self.relay.abandon(&mut self.world);
        assert_eq!(self.world.lent, 0, "pipes were kept");
    }
}

/// A mode, the length of a header and what happens.
fn stories() -> impl Strategy<Value = (RelayMode, usize, Vec<Event>)> {
    let mode = prop_oneof![
        Just(RelayMode::Auto),
        Just(RelayMode::Copy),
        Just(RelayMode::Splice),
    ];
    let header = prop_oneof![Just(0), 1..2 * SEND_BUFFER];
    (mode, header, events())
}

/// A number from the environment.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// `TML_PROXY_MODEL_STEPS` makes it longer, `TML_PROXY_MODEL_SEED` repeats a run.
#[test]
fn every_byte_arrives_whatever_happens() {
    const STORIES_AT_ONCE: u32 = 100;
    let wanted = variable("TML_PROXY_MODEL_STEPS").unwrap_or(STEPS);
    let seed = variable("TML_PROXY_MODEL_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let (steps, stories) = (Cell::new(0), stories());
    for part in 0u64.. {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&part.to_le_bytes());
        let config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(STORIES_AT_ONCE)
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let result =
            TestRunner::new_with_rng(config, rng).run(&stories, |(mode, header, events)| {
                let mut run = Run::with_header(mode, header);
                for event in &events {
                    run.happen(event);
                }
                run.finish();
                steps.set(steps.get() + run.world.steps);
                run.check();
                Ok(())
            });
        if let Err(error) = result {
            panic!("{error}\nto repeat it: TML_PROXY_MODEL_SEED={seed}");
        }
        if steps.get() >= wanted {
            break;
        }
    }
    // Written past the test's own output, so that it is seen without asking.
    let told = format!(
        "relay model: {} steps, TML_PROXY_MODEL_SEED={seed}\n",
        steps.get()
    );
    std::io::stderr()
        .write_all(told.as_bytes())
        .expect("stderr is open");
}

#[test]
fn a_reset_without_an_end_before_it_never_becomes_an_end() {
    let mut run = Run::new(RelayMode::Auto);
    run.happen(&sent(Side::Target, 100, 1460));
    run.happen(&Event::End(Side::Target, End::Reset));
    for _ in 0..10 {
        run.happen(&Event::Read(Side::Client, SEND_BUFFER));
    }
    assert_eq!(run.progress, Progress::Settling(Side::Client));
    assert_eq!(run.world.client.received, run.world.target.sent);
    assert!(!run.world.client.fin_received);
}

/// Whatever an error says of a connection that is whole, nobody waits for it for ever, and it is no
/// end.
#[test]
fn an_error_of_a_connection_that_is_whole_strands_nothing() {
    for mode in [RelayMode::Auto, RelayMode::Copy, RelayMode::Splice] {
        for errno in [Errno::HOSTUNREACH, Errno::ACCESS, Errno::PIPE, Errno::PROTO] {
            for side in SIDES {
                let mut run = Run::new(mode);
                run.happen(&sent(side, 3, 100));
                run.world.lie = Some(errno);
                run.happen(&sent(side, 3, 100));
                assert!(run.relay.fault().is_some(), "{mode} {errno}");
                assert!(
                    matches!(run.progress, Progress::Settling(_) | Progress::Broken),
                    "{mode} {errno}: {:?}",
                    run.progress
                );
            }
        }
    }
}

/// SO_ERROR takes a reset as a failed call does: who connects and is told so has to pass it on.
#[test]
fn a_reset_that_was_told_while_connecting_is_no_end() {
    for mode in [RelayMode::Auto, RelayMode::Copy, RelayMode::Splice] {
        let mut run = Run::new(mode);
        run.world.target.reset_told = true;
        run.relay.report_fault(Side::Target, Errno::CONNRESET);
        run.happen(&Event::End(Side::Target, End::Reset));
        run.finish();
        assert_eq!(run.progress, Progress::Settling(Side::Client));
        assert!(!run.world.client.fin_received);
    }
}

#[test]
fn a_reset_after_an_end_is_noticed_before_anything_is_sent_there() {
    for side in SIDES {
        let mut run = Run::new(RelayMode::Auto);
        run.happen(&Event::End(side, End::Fin));
        assert_eq!(run.relay.half_closed_by(), Some(side));
        run.happen(&Event::End(side, End::Reset));
        let fault = run.relay.fault().expect("it was told");
        assert_eq!((fault.side, fault.errno), (side, Errno::CONNRESET));
        assert_eq!(run.progress, Progress::Settling(side.other()));
    }
}

#[test]
fn small_segments_fill_a_pipe_and_nothing_is_left_behind() {
    let mut run = Run::new(RelayMode::Splice);
    run.happen(&sent(Side::Client, 500, 10));
    run.happen(&Event::Read(Side::Target, SEND_BUFFER));
    assert_eq!(run.world.target.received, run.world.client.sent);
}

#[test]
fn bytes_behind_an_urgent_mark_arrive_when_splicing() {
    let mut run = Run::new(RelayMode::Splice);
    run.happen(&Event::Send {
        side: Side::Client,
        segments: 9,
        len: 10,
        urgent: true,
    });
    run.happen(&Event::End(Side::Client, End::Fin));
    run.happen(&Event::Read(Side::Target, SEND_BUFFER));
    assert_eq!(run.world.target.received, run.world.client.sent);
    assert!(run.world.target.fin_received);
}

#[test]
fn bulk_keeps_a_pipe_only_while_bytes_are_stuck_in_it() {
    let mut run = Run::new(RelayMode::Auto);
    run.happen(&sent(Side::Client, 60, 1460));
    assert_eq!(run.world.lent, 1);
    assert!(run.relay.is_bulk());
    run.happen(&Event::Read(Side::Target, SEND_BUFFER));
    assert_eq!(run.world.lent, 0);
    assert!(run.relay.is_bulk());
}

#[test]
fn many_small_reads_are_the_end_of_bulk() {
    let mut run = Run::new(RelayMode::Auto);
    run.happen(&sent(Side::Client, 20, 1460));
    assert!(run.relay.is_bulk());
    for _ in 0..40 {
        run.happen(&sent(Side::Client, 1, 10));
        run.happen(&Event::Read(Side::Target, SEND_BUFFER));
    }
    assert!(!run.relay.is_bulk());
    assert_eq!(run.world.target.received, run.world.client.sent);
}
