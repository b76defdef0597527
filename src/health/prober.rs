//! Trying many targets, a few at a time.
//!
//! What is due and what has happened is looked at in turns of a few hundredths of a second ([`TICKS`]), so
//! that a thousand targets wake nobody up a thousand times. A connection that is all that is wanted is reset
//! before its target's acknowledgement has been acknowledged: the program behind it never sees it, and
//! nothing of it stays but the socket, which the next one has.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::{BuildHasher, RandomState},
    io::IoSliceMut,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, readv},
    net::{SendFlags, send, sockopt},
};
use slab::Slab;

use super::{Check, Failure, Outcome, exchange::Exchange};
use crate::{proxy_protocol::Version, socket};

/// How often it is looked at what is due and what has happened, at most and at least. The kernel waits four
/// times as long before it acknowledges the acknowledgement by itself.
const TICKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));

/// As often as this in the shortest time that a target is checked in.
const TURNS: u32 = 20;

/// Tries at a time, at most; each has a descriptor.
pub(crate) const MOST_AT_ONCE: usize = 512;

/// The first try of a target is no later than this.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// A target, and how it is tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Probe {
    pub target: SocketAddr,
    /// The address of this machine that sessions come from.
    pub from: Option<IpAddr>,
    /// Whether that may be one that this machine does not have.
    pub freebind: bool,
    /// The PROXY header before whatever is said, which speaks for nobody.
    pub header: Option<Version>,
    pub check: Check,
}

impl Probe {
    /// Where it connects to.
    fn address(&self) -> SocketAddr {
        let port = self.check.port.unwrap_or(self.target.port());
        SocketAddr::new(self.target.ip(), port)
    }

    /// Whether a connection is all that is wanted, from whichever address.
    fn is_plain(&self) -> bool {
        !self.check.wants_answer() && self.from.is_none()
    }
}

/// Tries targets. It does nothing but in [`Prober::turn`].
#[derive(Debug)]
pub(crate) struct Prober {
    known: HashMap<Arc<Probe>, usize>,
    places: Slab<Place>,
    /// When which place is due; one that has another serial number by now is somebody else's.
    due: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    next_serial: u64,
    flights: Vec<Flight>,
    spares: Spares,
    at_once: usize,
    tick: Duration,
    last_turn: Instant,
    random: RandomState,
}

#[derive(Debug)]
struct Place {
    probe: Arc<Probe>,
    serial: u64,
}

/// A try that is under way.
#[derive(Debug)]
struct Flight {
    place: usize,
    serial: u64,
    socket: OwnedFd,
    until: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// What is to be said once there is a connection.
    Connecting(Option<Exchange>),
    /// There is one.
    Talking(Exchange),
}

impl Prober {
    pub fn new(now: Instant) -> Self {
        Self {
            known: HashMap::new(),
            places: Slab::new(),
            due: BinaryHeap::new(),
            next_serial: 0,
            flights: Vec::new(),
            spares: Spares::default(),
            at_once: MOST_AT_ONCE,
            tick: TICKS.0,
            last_turn: now,
            random: RandomState::new(),
        }
    }

    /// Tries these from now on and no others, so many at a time. Those that it has tried before are tried
    /// when they would have been.
    pub fn set(
        &mut self,
        wanted: impl IntoIterator<Item = Arc<Probe>>,
        at_once: usize,
        now: Instant,
    ) {
        self.at_once = at_once.max(1);
        let mut shortest = Duration::MAX;
        let mut before = std::mem::take(&mut self.known);
        for probe in wanted {
            shortest = shortest.min(probe.check.every).min(probe.check.timeout);
            if self.known.contains_key(&probe) {
                continue;
            }
            let place = before.remove(&probe).unwrap_or_else(|| {
                let within = probe.check.every.min(FIRST_WITHIN);
                self.add(Arc::clone(&probe), now + within.mul_f64(self.share()))
            });
            self.known.insert(probe, place);
        }
        for (_, place) in before {
            self.places.remove(place);
        }
        self.tick = (shortest / TURNS).clamp(TICKS.0, TICKS.1);
        self.spares.shrink(self.at_once);
    }

    fn add(&mut self, probe: Arc<Probe>, at: Instant) -> usize {
        let serial = self.serial();
        let place = self.places.insert(Place { probe, serial });
        self.due.push(Reverse((at, place, serial)));
        place
    }

    fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Of a time, a random share.
    fn share(&self) -> f64 {
        let random = self.random.hash_one(self.next_serial) as u32;
        f64::from(random) / (f64::from(u32::MAX) + 1.0)
    }

    /// When the next turn is.
    pub fn next(&self) -> Option<Instant> {
        let due = self.due.peek().map(|Reverse((due, ..))| *due);
        let soon = self.last_turn + self.tick;
        match self.flights.is_empty() {
            true => due.map(|due| due.max(soon)),
            false => Some(soon),
        }
    }

    /// Goes on with what is under way, and begins what is due. Gives out what came of tries.
    pub fn turn(&mut self, now: Instant) -> Vec<(Arc<Probe>, Outcome)> {
        self.last_turn = now;
        let mut done = Vec::new();
        self.go_on(now, &mut done);
        while self.flights.len() < self.at_once
            && let Some(Reverse((due, place, serial))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            let there = self.places.get(place);
            let Some(there) = there.filter(|there| there.serial == serial) else {
                continue;
            };
            let probe = Arc::clone(&there.probe);
            self.again(place, serial, due, &probe.check, now);
            match self.begin(&probe, place, serial, now) {
                Ok(flight) => self.flights.push(flight),
                Err(failure) => done.push((probe, Err(failure))),
            }
        }
        done
    }

    /// Notes when a place is due next: a twentieth sooner or later, so that those that are due at a time
    /// do not stay together.
    fn again(&mut self, place: usize, serial: u64, due: Instant, check: &Check, now: Instant) {
        self.next_serial += 1;
        let wait = check.every.mul_f64(0.95 + self.share() / 10.0);
        // Not all at once what could not be tried for a while.
        let next = Some(due + wait).filter(|next| *next > now);
        let next = next.unwrap_or(now + wait);
        self.due.push(Reverse((next, place, serial)));
    }

    fn go_on(&mut self, now: Instant, done: &mut Vec<(Arc<Probe>, Outcome)>) {
        if self.flights.is_empty() {
            return;
        }
        let mut happened: Vec<_> = self.flights.iter().map(Flight::awaited).collect();
        // Nothing has happened to any of them if that cannot be asked.
        let asked = poll(&mut happened, Some(&Timespec::default()));
        let happened: Vec<PollFlags> = happened.iter().map(|one| one.revents()).collect();
        for (mut flight, happened) in std::mem::take(&mut self.flights).into_iter().zip(happened) {
            let there = self.places.get(flight.place);
            let Some(there) = there.filter(|there| there.serial == flight.serial) else {
                socket::reset_on_close(&flight.socket);
                continue;
            };
            let outcome = match asked.is_err() || happened.is_empty() {
                true => None,
                false => flight.go_on(happened),
            };
            let timeout = there.probe.check.timeout;
            let late = || (flight.until <= now).then(|| flight.late(timeout));
            let Some(outcome) = outcome.or_else(late) else {
                self.flights.push(flight);
                continue;
            };
            if there.probe.is_plain() && outcome.is_ok() {
                self.spares.keep(&there.probe.address(), flight.socket);
            }
            done.push((Arc::clone(&there.probe), outcome));
        }
    }

    /// Begins a try.
    fn begin(
        &mut self,
        probe: &Probe,
        place: usize,
        serial: u64,
        now: Instant,
    ) -> Result<Flight, Failure> {
        let address = probe.address();
        let flight = |socket| Flight {
            place,
            serial,
            socket,
            until: now + probe.check.timeout,
            stage: Stage::Connecting(Exchange::of(probe, address)),
        };
        if probe.is_plain()
            && let Some(spare) = self.spares.take(&address).map(flight)
            && spare.connect(&address).is_ok()
        {
            return Ok(spare);
        }
        self.spares.shrink(self.at_once - self.flights.len() - 1);
        let flight = flight(socket::open(&address).map_err(Failure::NotTried)?);
        if matches!(flight.stage, Stage::Connecting(None)) {
            socket::reset_on_close(&flight.socket);
        }
        socket::use_any_local_port(&flight.socket);
        if let Some(source) = probe.from {
            let bound = || {
                if probe.freebind {
                    socket::set_freebind(&flight.socket, &SocketAddr::new(source, 0))?;
                }
                socket::bind_address(&flight.socket, source)
            };
            bound().map_err(Failure::NotTried)?;
        }
        flight.connect(&address).map(|()| flight).map_err(refused)
    }
}

/// Sockets whose connections are over, of either family: opening and closing one takes a quarter of what a
/// try does.
#[derive(Debug, Default)]
struct Spares([Vec<OwnedFd>; 2]);

impl Spares {
    fn of(&mut self, address: &SocketAddr) -> &mut Vec<OwnedFd> {
        &mut self.0[usize::from(address.is_ipv6())]
    }

    /// Resets a connection and keeps its socket.
    fn keep(&mut self, address: &SocketAddr, socket: OwnedFd) {
        if socket::disconnect(&socket).is_ok() {
            self.of(address).push(socket);
        }
    }

    fn take(&mut self, address: &SocketAddr) -> Option<OwnedFd> {
        self.of(address).pop()
    }

    /// Keeps `most` at most: each has a descriptor that somebody else may want.
    fn shrink(&mut self, most: usize) {
        let [ipv4, ipv6] = &mut self.0;
        ipv4.truncate(most);
        ipv6.truncate(most - ipv4.len());
    }
}

/// Whose fault it is that there is no connection.
fn refused(errno: Errno) -> Failure {
    match errno {
        Errno::ADDRNOTAVAIL
        | Errno::ADDRINUSE
        | Errno::AGAIN
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOBUFS
        | Errno::NOMEM => Failure::NotTried(errno),
        _ => Failure::Refused(errno),
    }
}

impl Flight {
    fn awaited(&self) -> PollFd<'_> {
        let flags = match &self.stage {
            Stage::Talking(exchange) if exchange.send.is_empty() => PollFlags::IN,
            Stage::Connecting(_) | Stage::Talking(_) => PollFlags::OUT,
        };
        PollFd::new(&self.socket, flags)
    }

    fn connect(&self, address: &SocketAddr) -> Result<(), Errno> {
        if matches!(self.stage, Stage::Connecting(None)) {
            // Without an acknowledgement of its own the connection is none to the target yet.
            let _ = sockopt::set_tcp_quickack(&self.socket, false);
        }
        match socket::connect(&self.socket, address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Something has happened to the socket; what follows for the try, if it is over.
    fn go_on(&mut self, happened: PollFlags) -> Option<Outcome> {
        if let Stage::Connecting(next) = &mut self.stage {
            if happened != PollFlags::OUT {
                match sockopt::socket_error(&self.socket) {
                    Ok(Ok(())) => {}
                    Ok(Err(errno)) | Err(errno) => return Some(Err(refused(errno))),
                }
            }
            match next.take() {
                None => return Some(Ok(())),
                Some(exchange) => self.stage = Stage::Talking(exchange),
            }
        }
        if let Stage::Talking(exchange) = &mut self.stage
            && !exchange.send.is_empty()
        {
            match send_all(&self.socket, &mut exchange.send) {
                Err(errno) => return Some(Err(Failure::Refused(errno))),
                Ok(()) if !exchange.send.is_empty() => return None,
                Ok(()) => {}
            }
        }
        self.listen()
    }

    /// Takes what there is of the answer, a bounded part of it.
    fn listen(&mut self) -> Option<Outcome> {
        let Stage::Talking(exchange) = &mut self.stage else {
            return None;
        };
        let mut outcome = None;
        let mut buffer = [0; 4096];
        for _ in 0..4 {
            match readv(&self.socket, &mut [IoSliceMut::new(&mut buffer)]) {
                // It has closed first, which leaves nothing here.
                Ok(0) => return Some(outcome.unwrap_or_else(|| exchange.ended())),
                Ok(count) => {
                    // What comes after the answer is taken, so that its sender is not cut short.
                    outcome = outcome.or_else(|| exchange.heard(&buffer[..count]));
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(errno) => {
                    return Some(outcome.unwrap_or(Err(Failure::Refused(errno))));
                }
            }
        }
        if outcome.is_some() {
            socket::reset_on_close(&self.socket);
        }
        outcome
    }

    /// What follows from its time being over.
    fn late(&self, timeout: Duration) -> Outcome {
        socket::reset_on_close(&self.socket);
        Err(match self.stage {
            Stage::Connecting(_) => Failure::NotAccepted(timeout),
            Stage::Talking(_) => Failure::NotAnswered(timeout),
        })
    }
}

/// Sends as much as there is room for, and leaves the rest.
fn send_all(socket: &OwnedFd, bytes: &mut Vec<u8>) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => drop(bytes.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
