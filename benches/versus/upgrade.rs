//! What live sessions notice while the program is replaced under them: an upgrade of the proxy, the
//! reload of a peer that starts another process for it.

use std::{
    collections::{HashMap, VecDeque},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, recv};

use crate::{
    Bench,
    backend::{Backend, MESSAGE, SERVICES, Service},
    harness::process::with_descendants,
    load::{
        bulk::{self, Direction},
        idle,
    },
    meter::Meter,
    net::{self, EventFlags, PATIENCE, Poller, token},
    peers::{Job, Peer, Running},
    report::{Results, progress},
    sample::{Metric, Sample},
};

/// Live sessions and mappings.
const SIZES: [(usize, usize); 4] = [
    (10, SERVICES),
    (2000, SERVICES),
    (9000, SERVICES),
    (10, 10_000),
];

/// A keystroke in this time, over all sessions in turn.
const PACE: Duration = Duration::from_micros(200);

/// Typing goes on for so long before the program is replaced, and in all.
const HEAD_START: Duration = Duration::from_millis(500);
const TYPING: Duration = Duration::from_millis(2500);

/// How long bulk is measured, and when in that time the program is replaced.
const BULK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(300));

/// Sessions that move bulk.
const MOVING: usize = 8;

/// After this much time the memory is as it stays.
const SETTLED: Duration = Duration::from_secs(1);

/// Measures and prints.
pub fn run(bench: &mut Bench) -> Result<()> {
    let replaceable = |peer: &&Peer| peer.is_proxy();
    let peers: Vec<Peer> = bench.peers.iter().filter(replaceable).cloned().collect();
    for (sessions, mappings) in SIZES {
        if bench.args.quick && sessions > 2000 {
            continue;
        }
        let name = format!("upgrade with {sessions} sessions and {mappings} mappings");
        let mut results: Vec<Results> = peers.iter().map(|peer| Results::of(peer.name())).collect();
        for round in 1..=bench.args.rounds() {
            for (peer, result) in peers.iter().zip(&mut results) {
                progress(&format!("{name}, round {round}, {}", peer.name()));
                match measure(bench, peer, sessions, mappings) {
                    Ok(sample) => {
                        bench.report.sample(&name, peer.name(), round, &sample)?;
                        result.rounds.push(sample);
                    }
                    Err(error) => result.failures.push(format!("{error:#}")),
                }
            }
        }
        progress("");
        let title =
            format!("The program replaced under {sessions} live sessions, {mappings} mappings");
        bench.report.workload(&name, &title, &results)?;
    }
    Ok(())
}

fn measure(bench: &Bench, peer: &Peer, sessions: usize, mappings: usize) -> Result<Sample> {
    let backend = &bench.backend;
    let mut job = Job::new(backend.services(), mappings - SERVICES);
    job.supervised = true;
    let running = bench.start_checked(peer, job)?;
    let to = running.service(Service::Echo);
    let mut typists = Typists::open(to, sessions)?;
    // Twice, so that the code has been paged in and what a first time costs is paid.
    typists.type_while(HEAD_START, || Ok(()))?;
    let before = holdings(&running)?;
    let done = AtomicBool::new(false);
    let (pauses, refused, peak) = thread::scope(|scope| -> Result<_> {
        let arriving = scope.spawn(|| refused_while(to, &done));
        let watching = scope.spawn(|| peak_while(&running, &done));
        let pauses = typists.type_while(TYPING, || {
            thread::sleep(HEAD_START);
            peer.replace(&running)
        });
        done.store(true, Relaxed);
        let refused = arriving.join().expect("connecting does not panic");
        let peak = watching.join().expect("watching does not panic");
        Ok((pauses?, refused?, peak?))
    })?;
    thread::sleep(SETTLED);
    let after = holdings(&running)?;
    let lost = typists.close(backend)?;
    let kept = bulk_kept(backend, peer, &running)?;
    Ok(vec![
        (Metric::PauseP99, quantile_ms(&pauses, 0.99)),
        (Metric::PauseP50, quantile_ms(&pauses, 0.5)),
        (Metric::PauseMax, quantile_ms(&pauses, 1.0)),
        (Metric::Refused, count(refused)),
        (Metric::Lost, count(lost)),
        (Metric::MemoryAfter, after.0 / before.0),
        (Metric::MemoryPeak, peak / before.0),
        (Metric::Processes, after.1),
        (Metric::BulkKept, kept),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Bytes of user memory of a proxy and all its children, and how many processes those are.
#[expect(
    clippy::cast_precision_loss,
    reason = "memory sizes are exact in a double"
)]
fn holdings(running: &Running) -> Result<(f64, f64)> {
    let root = running.process().context("no process")?.id();
    let memory = Meter::of_process(root).holdings()?.memory;
    Ok((memory as f64, count(with_descendants(root).len())))
}

/// The most memory there was.
fn peak_while(running: &Running, done: &AtomicBool) -> Result<f64> {
    let mut most = 0.0_f64;
    while !done.load(Relaxed) {
        // A process that ends while it is looked at has its say at the next look.
        if let Ok((memory, _)) = holdings(running) {
            most = most.max(memory);
        }
        // To look at it holds a process up.
        thread::sleep(Duration::from_millis(50));
    }
    Ok(most)
}

/// Clients that come meanwhile and get no session that works.
fn refused_while(to: SocketAddr, done: &AtomicBool) -> Result<usize> {
    let mut refused = 0;
    while !done.load(Relaxed) {
        refused += usize::from(idle::round_trip(to).is_err());
        thread::sleep(Duration::from_millis(2));
    }
    Ok(refused)
}

/// The share of bulk's throughput that is left in a second in which the program is replaced.
fn bulk_kept(backend: &Backend, peer: &Peer, running: &Running) -> Result<f64> {
    let to = running.service(Service::Bulk);
    let (window, at) = BULK;
    let rate = |outcome: bulk::Outcome| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "bytes of a second are exact in a double"
        )]
        let bytes = outcome.bytes as f64;
        bytes / outcome.elapsed.as_secs_f64()
    };
    let moved = || bulk::for_a_while(backend, to, MOVING, Direction::Down, window).map(rate);
    moved()?;
    let before = moved()?;
    let meanwhile = thread::scope(|scope| -> Result<f64> {
        let replacing = scope.spawn(|| {
            thread::sleep(at);
            peer.replace(running)
        });
        let moved = moved();
        replacing.join().expect("replacing does not panic")?;
        moved
    })?;
    Ok(meanwhile / before)
}

fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is a place in it"
    )]
    let place = (count(sorted.len()) * share).ceil() as usize;
    let found = sorted.get(place.saturating_sub(1)).or(sorted.last());
    found.map_or(0.0, |pause| pause.as_secs_f64() * 1e3)
}

/// Sessions that type in turn.
struct Typists {
    poller: Poller,
    sessions: Vec<Session>,
    by_token: HashMap<u64, usize>,
    next: usize,
}

struct Session {
    stream: TcpStream,
    on_their_way: VecDeque<Instant>,
    received: usize,
    lost: bool,
}

/// A keystroke: when it was sent and when it came back.
type Echo = (Instant, Instant);

impl Typists {
    fn open(to: SocketAddr, count: usize) -> Result<Self> {
        let mut typists = Self {
            poller: Poller::new()?,
            sessions: Vec::with_capacity(count),
            by_token: HashMap::new(),
            next: 0,
        };
        for index in 0..count {
            let stream = idle::round_trip(to).with_context(|| format!("session {index}"))?;
            stream.set_nonblocking(true)?;
            typists.poller.add(&stream, EventFlags::IN)?;
            typists.by_token.insert(token(&stream), index);
            typists.sessions.push(Session {
                stream,
                on_their_way: VecDeque::new(),
                received: 0,
                lost: false,
            });
        }
        Ok(typists)
    }

    /// Types for a while, with something done beside, and tells the pauses of those sessions that
    /// waited in the longest time without any echo, counted from its beginning.
    fn type_while(
        &mut self,
        window: Duration,
        beside: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Vec<Duration>> {
        let mut echoes = Vec::new();
        thread::scope(|scope| -> Result<()> {
            let beside = scope.spawn(beside);
            self.type_for(window, &mut echoes)?;
            beside.join().expect("what is done beside does not panic")
        })?;
        Ok(pauses(&mut echoes))
    }

    fn type_for(&mut self, window: Duration, echoes: &mut Vec<Echo>) -> Result<()> {
        let mut ready = Vec::new();
        let started = Instant::now();
        let (mut typed, mut progress) = (0_u32, started);
        loop {
            let now = Instant::now();
            let typing = now - started < window;
            while typing && started + PACE * typed <= now {
                self.strike();
                typed += 1;
            }
            if !typing && self.sessions.iter().all(Session::is_quiet) {
                return Ok(());
            }
            ensure!(progress.elapsed() < PATIENCE, "keystrokes never came back");
            self.poller.wait(&mut ready, Duration::from_millis(1))?;
            for event in &ready {
                let Some(&index) = self.by_token.get(&event.data.u64()) else {
                    continue;
                };
                progress = Instant::now();
                self.sessions[index].take_echoes(progress, echoes);
                if self.sessions[index].lost {
                    self.poller
                        .modify(&self.sessions[index].stream, EventFlags::empty())?;
                }
            }
        }
    }

    fn strike(&mut self) {
        let session = &mut self.sessions[self.next];
        self.next = (self.next + 1) % self.by_token.len();
        if session.lost {
            return;
        }
        session.on_their_way.push_back(Instant::now());
        session.lost |= net::send_small(&session.stream, &[b'k'; MESSAGE]).is_err();
    }

    /// Ends all, and says how many had ended before.
    fn close(mut self, backend: &Backend) -> Result<usize> {
        let mut echoes = Vec::new();
        for _ in 0..self.sessions.len() {
            self.strike();
        }
        self.type_for(Duration::ZERO, &mut echoes)?;
        let lost = self.sessions.iter().filter(|session| session.lost).count();
        drop(self);
        backend.wait_until_quiet()?;
        Ok(lost)
    }
}

impl Session {
    fn is_quiet(&self) -> bool {
        self.lost || self.on_their_way.is_empty()
    }

    fn take_echoes(&mut self, now: Instant, echoes: &mut Vec<Echo>) {
        let mut buffer = [0; 64 * MESSAGE];
        match recv(&self.stream, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => self.lost = true,
            Ok((length, _)) => self.received += length,
            Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => self.lost = true,
        }
        while self.received >= MESSAGE {
            self.received -= MESSAGE;
            match self.on_their_way.pop_front() {
                Some(sent) => echoes.push((sent, now)),
                // Something came twice, which no session survives.
                None => self.lost = true,
            }
        }
    }
}

/// How long those had to wait who typed in the longest silence, or before it without an echo: all
/// sessions stopped when it began. In order of length.
fn pauses(echoes: &mut [Echo]) -> Vec<Duration> {
    echoes.sort_by_key(|(_, echoed)| *echoed);
    let silence = echoes.windows(2).max_by_key(|pair| pair[1].1 - pair[0].1);
    let Some(&[(_, began), (_, ended)]) = silence.and_then(|pair| pair.first_chunk::<2>()) else {
        return Vec::new();
    };
    let waited = echoes
        .iter()
        .filter(|(sent, echoed)| *sent < ended && *echoed > began);
    let mut pauses: Vec<Duration> = waited.map(|(_, echoed)| *echoed - began).collect();
    pauses.sort();
    pauses
}
