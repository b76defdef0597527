//! One client connection: dialled, relayed, settled, and recorded how it ended.
//!
//! A [`Session`] is a plain value. It owns its two sockets and everything known about them; the
//! worker that drives it tells it what epoll reported and what time it is, and does what the
//! [`SessionStep`] says. It never waits, never sleeps and keeps nothing outside itself, so it can be
//! moved to another worker between two calls.

mod acks;
mod admit;
mod bandwidth;
mod choice;
mod deadlines;
mod dial;
mod ending;
mod error;
mod extras;
mod filter;
mod near;
mod path;
mod proxy_header;
mod queued;
mod record;
mod retry;
mod saved;
mod upgrade_marks;
mod user_timeout;
mod view;
mod waiting;

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{event::epoll::EventFlags, io::Errno, net::getsockname, net::sockopt::socket_error};
use serde::{Deserialize, Serialize};

pub use acks::{AckProbe, PeerState, acknowledged};
pub use admit::admit;
pub use choice::Choice;
use choice::{Failure, Next};
pub use error::SessionError;
use error::Step;
pub use extras::Extras;
pub use filter::SessionFilter;
use near::Bound;
pub use proxy_header::{HeaderRead, PendingProxyHeader};
pub use queued::QueuedClient;
pub use record::{SessionId, SessionLine, SessionRecord};
use retry::Retry;
pub use saved::{Loading, SavedSession};
pub use upgrade_marks::UpgradeMarks;
pub use view::{SessionView, Stage};
pub use waiting::{Waiting, WaitingClient};

use crate::{
    end_reason::EndReason,
    handover::monotonic,
    limit::Dialling,
    listen::{Accepted, Front},
    os_error::in_words,
    proxy_protocol::{self, Endpoints, Value},
    relay::{Budget, Kernel, Pipe, PipePool, Progress, Readiness, Relay, RelayMode, Side},
    socket,
    table::Route,
    target::Target,
};

/// Bytes a session has to move in bulk before it is worth a change of worker.
const LONG_BULK: u32 = 512 * 1024;

/// Bytes a direction may move in a turn before there is bulk. The kernel makes a receive buffer sixteen times
/// larger when the first read of a pipe finds that much more than the one before; it has to be bounded first.
const UNDECIDED_TURN: usize = 64 * 1024;

/// A client connection and the connection to its target.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    route: Arc<Route>,
    client: OwnedFd,
    target: OwnedFd,
    peer: SocketAddr,
    local: Option<SocketAddr>,
    opened: Instant,
    connected: Option<Instant>,
    /// When a byte last moved, or an end of stream.
    active: Instant,
    /// When control wants the session gone, and why.
    leave: Option<(Instant, EndReason)>,
    /// Whether the socket to the target notices a dead peer.
    guarded: bool,
    /// What may wait to be read.
    bound: Bound,
    /// Bytes of the PROXY header in front of what the target is sent.
    header_len: u16,
    /// Bytes moved since bulk began; 0 without.
    bulk: u32,
    phase: Phase,
    relay: Relay<Pipe>,
    extras: Option<Box<Extras>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// connect(2) is under way.
    Dialing,
    #[default]
    Relaying,
    /// One side broke; this one is reset once it has acknowledged what it was sent.
    Settling {
        side: Side,
        /// When it last acknowledged something, and what was left then.
        #[serde(with = "monotonic")]
        since: Instant,
        left: u32,
        pause: Duration,
    },
}

/// What the worker has to do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStep {
    /// Wait for a socket or the deadline.
    Wait,
    /// Give it another turn soon.
    Again,
    /// Watch its socket to the target, which is another one now.
    Watch,
    End(EndReason),
}

/// What a session is doing, as far as it matters to who serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Keystrokes, or nothing.
    Interactive,
    /// A lot, but not for long yet; or it is about to end.
    Undecided,
    /// A lot, and for a while.
    Bulk,
}

/// A client that was accepted and has no session yet.
#[derive(Debug)]
pub struct Connection {
    pub id: SessionId,
    /// Its socket, and who it is as far as that is known.
    pub accepted: Accepted,
    pub route: Arc<Route>,
    /// Until when its session may go on while an operator drains its mapping.
    pub drained: Option<Instant>,
}

impl Connection {
    pub fn new(id: SessionId, accepted: Accepted, route: Arc<Route>) -> Self {
        Self {
            id,
            accepted,
            route,
            drained: None,
        }
    }
}

/// What a worker lends to a session for one turn.
#[derive(Debug)]
pub struct Turn<'a> {
    pub now: Instant,
    /// Everything that had arrived by then has been looked at; not later than `now`.
    pub reported: Instant,
    pub pipes: &'a mut PipePool,
    /// Working space; nothing in it is kept.
    pub scratch: &'a mut [u8],
    /// Bytes a direction may move before it yields.
    pub budget: usize,
    /// How to learn what a peer has acknowledged.
    pub acks: &'a mut AckProbe,
}

impl Session {
    /// Starts connecting an accepted client to the target of its route, the one chosen if there are
    /// several.
    ///
    /// # Errors
    ///
    /// Why no attempt could be made, and the client to be refused.
    pub fn dial(
        connection: Connection,
        now: Instant,
        splice: bool,
        mut choice: Option<Choice>,
        mut extras: Option<Box<Extras>>,
    ) -> Result<Self, (SessionError, Connection)> {
        let target = match dial::begin(&connection, &mut choice, now) {
            Ok(target) => target,
            Err(error) => return Err((error, connection)),
        };
        if let Some(choice) = choice {
            extras.get_or_insert_default().choice = Some(Box::new(choice));
        }
        let Connection {
            id,
            accepted,
            route,
            drained,
        } = connection;
        let mode = match splice {
            true => route.mapping.policy.relay,
            false => RelayMode::Copy,
        };
        if accepted.front.is_some() {
            extras.get_or_insert_default().front = accepted.front;
        }
        let relay = Relay::new(mode);
        bandwidth::take_on(&mut extras, &route.mapping, &relay);
        if route.mapping.policy.user_timeout.is_some() {
            extras.get_or_insert_default().user_timeout = Some(Box::default());
        }
        let mut session = Self {
            id,
            route,
            client: accepted.socket,
            target,
            peer: accepted.client,
            local: None,
            opened: now,
            connected: None,
            active: now,
            leave: None,
            guarded: false,
            bound: Bound::default(),
            header_len: 0,
            bulk: 0,
            phase: Phase::Dialing,
            relay,
            extras,
        };
        session.drain_by(drained);
        Ok(session)
    }

    /// Counts the time it waited for its turn since then as its own.
    pub fn waited_since(&mut self, since: Instant) {
        // Without a choice, how long connecting may take follows from when it began.
        if self.choice().is_some() {
            self.opened = since;
        }
    }

    /// The socket of one side, to be watched for [`Readiness::INTEREST`].
    pub fn socket(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::Client => self.client.as_fd(),
            Side::Target => self.target.as_fd(),
        }
    }

    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    pub fn client(&self) -> SocketAddr {
        self.peer
    }

    fn choice(&self) -> Option<&Choice> {
        self.extras.as_ref()?.choice.as_deref()
    }

    /// Where it was led to.
    pub fn target(&self) -> Option<SocketAddr> {
        choice::address(&self.route, self.choice())
    }

    /// Attempts to connect so far.
    fn attempts(&self) -> u32 {
        self.choice().map_or(1, Choice::attempts)
    }

    /// Who brought the client here, if it did not come by itself.
    fn front(&self) -> Option<&Front> {
        self.extras.as_ref()?.front.as_deref()
    }

    pub fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    pub fn view(&self, now: Instant) -> SessionView {
        let (bytes_up, bytes_down) = self.delivered();
        SessionView {
            id: self.id,
            route: Arc::clone(&self.route),
            client: self.peer,
            front: self.front().map(|front| front.peer),
            target: self.target(),
            attempts: self.attempts(),
            local: self.local,
            bytes_up,
            bytes_down,
            age: now.duration_since(self.opened),
            connect: self.connected.map(|at| at.duration_since(self.opened)),
            quiet: now.duration_since(self.active),
            stage: match (self.phase, self.leave(), self.relay.half_closed_by()) {
                (Phase::Dialing, ..) => Stage::Connecting,
                (Phase::Settling { .. }, ..) => Stage::Ending,
                (Phase::Relaying, Some(_), _) => Stage::Leaving,
                (Phase::Relaying, None, Some(_)) => Stage::HalfClosed,
                (Phase::Relaying, None, None) => Stage::Open,
            },
            splices: self.relay.is_bulk(),
        }
    }

    /// What the session is doing, as far as it matters to who serves it.
    pub fn pace(&self) -> Pace {
        match self.bulk {
            0 => Pace::Interactive,
            LONG_BULK.. if self.leave().is_none() => Pace::Bulk,
            _ => Pace::Undecided,
        }
    }

    /// Takes in what epoll reported of one side's socket.
    pub fn note(&mut self, side: Side, events: EventFlags) {
        self.relay.readiness(side).note(events);
    }

    /// Goes on as far as possible.
    pub fn turn(&mut self, side: Side, events: EventFlags, turn: &mut Turn<'_>) -> SessionStep {
        self.note(side, events);
        match self.phase {
            Phase::Dialing => self.check_dial(side, events, turn),
            Phase::Relaying => self.relay(turn),
            Phase::Settling { side: waiting, .. } => {
                // Bytes from a side about to be reset have nowhere to go; its own break ends the
                // wait.
                if side == waiting && events.intersects(EventFlags::ERR | EventFlags::HUP) {
                    return SessionStep::End(self.fault_reason());
                }
                SessionStep::Wait
            }
        }
    }

    /// Another turn for a session that had said [`SessionStep::Again`].
    pub fn resume(&mut self, turn: &mut Turn<'_>) -> SessionStep {
        match self.phase {
            Phase::Relaying => self.relay(turn),
            Phase::Dialing | Phase::Settling { .. } => SessionStep::Wait,
        }
    }

    fn check_dial(&mut self, side: Side, events: EventFlags, turn: &mut Turn<'_>) -> SessionStep {
        let broke = events.intersects(EventFlags::ERR | EventFlags::HUP);
        if side == Side::Client {
            // A client that has merely closed its sending half still wants its answer.
            if broke && pending_error(&self.client).is_some() {
                return SessionStep::End(EndReason::ClientGone);
            }
            return SessionStep::Wait;
        }
        if self.choice().is_some_and(Choice::is_pausing) {
            return SessionStep::Wait;
        }
        let error = match broke {
            true => pending_error(&self.target),
            false => None,
        };
        match error {
            // Only an established connection can be reset: it was accepted first, and what it
            // sent before the reset still counts.
            Some(errno @ (Errno::CONNRESET | Errno::PIPE)) => {
                self.relay.report_fault(Side::Target, errno);
            }
            Some(errno) => {
                let error = SessionError::during(Step::Connect)(errno);
                return self.dial_failed(Failure::of(error), turn.now);
            }
            None if !events.intersects(EventFlags::OUT) => return SessionStep::Wait,
            None => {}
        }
        self.local = getsockname(&self.target)
            .ok()
            .and_then(|addr| addr.try_into().ok());
        // Where nobody listens on a port of this machine, the kernel may pick that very port to call
        // from; the socket is then connected to itself and would send the client its own bytes.
        if self.local.is_some() && self.local == self.target() {
            let refused = Failure::without_error(EndReason::ConnectRefused);
            return self.dial_failed(refused, turn.now);
        }
        self.connected = Some(turn.now);
        self.active = turn.now;
        if let Some(extras) = &mut self.extras {
            extras.dialling = Dialling::default();
            if let Some(choice) = &extras.choice {
                choice.succeeded();
            }
        }
        self.route
            .mapping
            .stats
            .connect_latency
            .observe(turn.now.duration_since(self.opened));
        let own = self.choice().and_then(Choice::send_proxy);
        if let Some(version) = own.unwrap_or(self.route.mapping.policy.send_proxy) {
            let header = self.header(version);
            self.header_len = u16::try_from(header.len()).unwrap_or(u16::MAX);
            self.relay.prepend(Side::Target, header.into());
            self.note_sent([false, true], turn.now);
        }
        self.phase = Phase::Relaying;
        self.relay(turn)
    }

    /// Tries what there is to try after an attempt that failed.
    fn dial_failed(&mut self, failure: Failure, now: Instant) -> SessionStep {
        let client = self.peer.ip();
        let Self { extras, route, .. } = self;
        let choice = extras.as_mut().and_then(|extras| extras.choice.as_mut());
        let next = choice.map_or(Next::GiveUp, |choice| {
            choice.after(failure, route, client, now)
        });
        match next {
            Next::GiveUp => {
                if let Some(error) = failure.error {
                    self.relay.report_fault(Side::Target, error.errno);
                }
                SessionStep::End(failure.reason)
            }
            Next::Pause => {
                failure.count(&self.route);
                // One that may still be answered is not waited for.
                socket::give_up_connecting(&self.target);
                SessionStep::Wait
            }
            Next::Dial(address) => {
                failure.count(&self.route);
                self.dial_at(address, now)
            }
        }
    }

    fn dial_at(&mut self, address: SocketAddr, now: Instant) -> SessionStep {
        match dial::start(address, &self.route.mapping.policy, self.peer) {
            Ok(socket) => {
                self.target = socket;
                *self.relay.readiness(Side::Target) = Readiness::CONNECTED;
                SessionStep::Watch
            }
            // There are never more than `retries` in a row.
            Err(error) => self.dial_failed(Failure::of(error), now),
        }
    }

    /// Goes on with connecting when an attempt has taken its time, or a pause is over.
    fn dial_overdue(&mut self, turn: &Turn<'_>) -> SessionStep {
        let client = self.peer.ip();
        let Self { extras, route, .. } = self;
        let Some(choice) = extras.as_mut().and_then(|extras| extras.choice.as_mut()) else {
            return SessionStep::Wait;
        };
        if choice.is_overdue(turn.reported) {
            let late = Failure::without_error(EndReason::ConnectTimeout);
            return self.dial_failed(late, turn.now);
        }
        if !choice.is_pausing() || turn.now < choice.deadline() {
            return SessionStep::Wait;
        }
        let failure = choice.failure();
        match choice.resume(route, client, turn.now) {
            Next::Dial(address) => self.dial_at(address, turn.now),
            Next::Pause => SessionStep::Wait,
            Next::GiveUp => SessionStep::End(failure),
        }
    }

    /// What tells the target whose connection this is.
    fn header(&self, version: proxy_protocol::Version) -> Vec<u8> {
        let front = self.front().map(|front| front.destination);
        let destination = front.unwrap_or_else(|| {
            let own = getsockname(&self.client).ok();
            let own = own.and_then(|addr| SocketAddr::try_from(addr).ok());
            own.unwrap_or_else(|| self.route.listen.socket_addr())
        });
        let ends = Endpoints {
            source: self.peer,
            destination,
        };
        let id = self.id.to_string();
        let values = [
            Value {
                kind: Value::UNIQUE_ID,
                content: id.as_bytes(),
            },
            Value {
                kind: Value::MAPPING,
                content: self.route.mapping.name.as_str().as_bytes(),
            },
        ];
        proxy_protocol::write(version, ends, &values)
    }

    fn relay(&mut self, turn: &mut Turn<'_>) -> SessionStep {
        self.bound.look([self.client.as_fd(), self.target.as_fd()]);
        let before = (self.delivered(), self.relay.half_closed_by());
        let mut budget = match &self.extras {
            None => Budget::turn(turn.budget),
            Some(extras) => bandwidth::budget(extras, &self.route.mapping, turn),
        };
        if self.bulk == 0 {
            budget.turn = budget.turn.min(UNDECIDED_TURN);
        }
        let mut kernel = Kernel {
            client: self.client.as_fd(),
            target: self.target.as_fd(),
            pipes: turn.pipes,
        };
        let progress = self.relay.advance(&mut kernel, turn.scratch, budget);
        self.count(before.0);
        let after = self.delivered();
        let moved = self.moved_since(before.0);
        if let Some(extras) = &mut self.extras {
            bandwidth::charge(extras, &self.route.mapping, moved, turn.now);
        }
        if before != (after, self.relay.half_closed_by()) {
            self.active = turn.now;
            let ended = self.relay.half_closed_by().filter(|_| before.1.is_none());
            let sent = [
                moved.1 > 0 || ended == Some(Side::Target),
                moved.0 > 0 || ended == Some(Side::Client),
            ];
            self.note_sent(sent, turn.now);
        }
        if !matches!(progress, Progress::Refused(_))
            && let Some(extras) = &mut self.extras
        {
            extras.retry = None;
        }
        if self.bulk == 0 && self.relay.is_bulk() {
            self.bound.begin([self.client.as_fd(), self.target.as_fd()]);
        }
        self.bulk = match self.relay.is_bulk() {
            true => {
                let moved = u32::try_from(moved.0 + moved.1).unwrap_or(u32::MAX);
                self.bulk.saturating_add(moved).max(1)
            }
            false => 0,
        };
        match progress {
            Progress::Waiting => SessionStep::Wait,
            Progress::Again => SessionStep::Again,
            Progress::Exhausted => self.pause(turn.now),
            Progress::Refused(errno) => self.retry(errno, turn.now),
            Progress::Closed => SessionStep::End(EndReason::Closed),
            Progress::Broken => SessionStep::End(self.fault_reason()),
            Progress::Settling(side) => self.begin_settling(side, turn),
        }
    }

    fn delivered(&self) -> (u64, u64) {
        (
            self.relay.delivered_to(Side::Target),
            self.relay.delivered_to(Side::Client),
        )
    }

    fn moved_since(&self, before: (u64, u64)) -> (u64, u64) {
        let (up, down) = self.delivered();
        (up - before.0, down - before.1)
    }

    fn count(&self, before: (u64, u64)) {
        let (up, down) = self.moved_since(before);
        let stats = &self.route.mapping.stats;
        if up > 0 {
            stats.add_up(up);
        }
        if down > 0 {
            stats.add_down(down);
        }
    }

    /// Waits until a direction may move bytes again.
    fn pause(&mut self, now: Instant) -> SessionStep {
        let wake = self.extras.as_ref().and_then(|extras| {
            let throttles = [&extras.up, &extras.down];
            let ready = throttles.map(|throttle| throttle.ready().instant());
            ready.into_iter().filter(|at| *at > now).min()
        });
        let (Some(extras), Some(_)) = (&mut self.extras, wake) else {
            return SessionStep::Again;
        };
        extras.wake = wake;
        self.route.mapping.stats.count_pause();
        SessionStep::Wait
    }

    /// Tries again after a while what this machine refused.
    fn retry(&mut self, errno: Errno, now: Instant) -> SessionStep {
        let retry = &mut self.extras.get_or_insert_default().retry;
        let hope = match retry {
            Some(retry) => retry.go_on(now),
            None => {
                *retry = Some(Box::new(Retry::begin(now)));
                true
            }
        };
        if hope {
            return SessionStep::Wait;
        }
        tracing::warn!(
            session = %self.id,
            errno = in_words(&errno.into()),
            "this machine refuses to move the bytes of a session"
        );
        SessionStep::End(match self.relay.fault() {
            Some(_) => self.fault_reason(),
            None => EndReason::SystemError,
        })
    }

    /// Puts the session under the route's new mapping; it keeps its target.
    pub fn adopt(&mut self, successor: &Arc<Route>) {
        let target = self.target();
        let old = &self.route.mapping.stats;
        let new = &successor.mapping.stats;
        if !Arc::ptr_eq(old, new) {
            old.hand_over(new);
        }
        let place = match (target, &successor.target) {
            (Some(target), Target::Group(group)) => group.place_at(target),
            _ => None,
        };
        let is_there = target.is_some_and(|target| successor.target.leads_to(target));
        self.route = match target.filter(|_| !is_there) {
            None => Arc::clone(successor),
            Some(target) => Arc::new(Route {
                listen: self.route.listen,
                target: Target::Address(target),
                mapping: Arc::clone(&successor.mapping),
            }),
        };
        match (place, &mut self.extras) {
            (Some(place), extras) => {
                let choice = &mut extras.get_or_insert_default().choice;
                match choice {
                    Some(choice) => choice.place = Some(place),
                    None => *choice = Some(Box::new(Choice::made(place, self.opened))),
                }
            }
            (None, Some(extras)) => {
                if let Some(choice) = &mut extras.choice {
                    choice.place = None;
                }
            }
            (None, None) => {}
        }
        bandwidth::take_on(&mut self.extras, &self.route.mapping, &self.relay);
        self.take_on_user_timeout();
        self.guard();
        let keepalive = self.route.mapping.policy.keepalive.map(Into::into);
        if let Err(error) = socket::set_keepalive(&self.client, keepalive) {
            tracing::debug!(session = %self.id, %error, "the client's keepalive stays as it was");
        }
    }

    /// Has the kernel notice when the target's host is gone. The client's socket inherited that.
    fn guard(&mut self) {
        self.guarded = true;
        let keepalive = self.route.mapping.policy.keepalive.map(Into::into);
        if let Err(error) = socket::set_keepalive(&self.target, keepalive) {
            tracing::debug!(session = %self.id, %error, "the target's keepalive stays as it was");
        }
    }
}

/// Takes the error a socket has waiting, as getsockopt(2) `SO_ERROR` does.
fn pending_error(socket: &OwnedFd) -> Option<Errno> {
    match socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(errno)) | Err(errno) => Some(errno),
    }
}

/// The events a worker watches both sockets for.
pub const INTEREST: EventFlags = Readiness::INTEREST;

#[cfg(test)]
mod tests;
