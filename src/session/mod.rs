//! One client connection: dialled, relayed, settled, and recorded how it ended.
//!
//! A [`Session`] is a plain value. It owns its two sockets and everything known about them; the
//! worker that drives it tells it what epoll reported and what time it is, and does what the
//! [`Verdict`] says. It never waits, never sleeps and keeps nothing outside itself, so it can be
//! moved to another worker between two calls.

mod acks;
mod admit;
mod dial;
mod error;
mod extras;
mod filter;
mod greeting;
mod path;
mod record;
mod retry;
mod silence;
mod throttle;
mod view;

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{event::epoll::EventFlags, io::Errno, net::getsockname, net::sockopt::socket_error};

pub use acks::{AckProbe, Standing, Unknown, acknowledged};
pub use admit::admit;
pub use error::SessionError;
use error::Step;
pub use extras::Extras;
pub use filter::SessionFilter;
pub use greeting::{Greeted, Greeting, Heard};
pub use record::{SessionId, SessionLine, SessionRecord};
use retry::Retry;
use silence::{Finding, Silence};
pub use view::{SessionView, Stage};

use crate::{
    limit::Dialling,
    listen::{Accepted, Front},
    os_error::in_words,
    proxy_protocol::{self, Endpoints, Value},
    relay::{Budget, Kernel, Pipe, PipePool, Progress, Readiness, Relay, RelayMode, Side},
    socket,
    table::Route,
    telemetry::EndReason,
};

/// A session that lives this long gets keepalive and the like on the socket to its target: five
/// system calls that a short one is spared.
const LONG_LIVED: Duration = Duration::from_secs(1);

/// A session that moved nothing for this long does not move bulk any more.
const CALM: Duration = Duration::from_secs(1);

/// Bytes a session has to move in bulk before it is worth a change of worker.
const LONG_BULK: u32 = 512 * 1024;

/// How long the side that did not break may take to acknowledge any more of what it was sent before the
/// break is passed on regardless.
const SETTLE_AT_MOST: Duration = Duration::from_secs(60);

/// How often to ask whether it has: at first, and at most.
const SETTLE_POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));

/// A client connection and the connection to its target.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    route: Arc<Route>,
    client: OwnedFd,
    target: OwnedFd,
    peer: SocketAddr,
    source: Option<SocketAddr>,
    opened: Instant,
    connected: Option<Instant>,
    /// When a byte last moved, or an end of stream.
    active: Instant,
    /// When control wants the session gone, and why.
    leave: Option<(Instant, EndReason)>,
    /// Whether the socket to the target notices a dead peer.
    guarded: bool,
    /// Bytes of the PROXY header in front of what the target is sent.
    header_len: u16,
    /// Bytes moved since bulk began; 0 without.
    bulk: u32,
    phase: Phase,
    relay: Relay<Pipe>,
    extras: Option<Box<Extras>>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// connect(2) is under way.
    Dialing,
    /// Bytes flow.
    Relaying,
    /// One side broke; this one is reset once it has acknowledged what it was sent.
    Settling {
        side: Side,
        /// When it last acknowledged something, and what was left then.
        since: Instant,
        left: u32,
        pause: Duration,
    },
}

/// What the worker has to do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Wait for a socket or the deadline.
    Wait,
    /// Give it another turn soon.
    Again,
    /// It is over.
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

/// What a worker lends to a session for one turn.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// Everything that had arrived by then has been looked at; not later than `now`.
    pub reported: Instant,
    /// Where pipes are borrowed.
    pub pipes: &'a mut PipePool,
    /// Working space; nothing in it is kept.
    pub scratch: &'a mut [u8],
    /// Bytes a direction may move before it yields.
    pub budget: usize,
    /// How to learn what a peer has acknowledged.
    pub acks: &'a mut AckProbe,
}

impl Session {
    /// Starts connecting an accepted client to the target of its route.
    ///
    /// # Errors
    ///
    /// Why no attempt could be made, and the client to be refused.
    pub fn dial(
        id: SessionId,
        accepted: Accepted,
        route: Arc<Route>,
        now: Instant,
        splice: bool,
        mut extras: Option<Box<Extras>>,
    ) -> Result<Self, (SessionError, Accepted)> {
        let target = match dial::start(&route, accepted.client) {
            Ok(target) => target,
            Err(error) => return Err((error, accepted)),
        };
        let mode = match splice {
            true => route.mapping.policy.relay,
            false => RelayMode::Copy,
        };
        if accepted.front.is_some() {
            extras.get_or_insert_default().front = accepted.front;
        }
        let relay = Relay::new(mode);
        throttle::take_on(&mut extras, &route.mapping, &relay);
        if route.mapping.policy.user_timeout.is_some() {
            extras.get_or_insert_default().silence = Some(Box::default());
        }
        Ok(Self {
            id,
            route,
            client: accepted.socket,
            target,
            peer: accepted.client,
            source: None,
            opened: now,
            connected: None,
            active: now,
            leave: None,
            guarded: false,
            header_len: 0,
            bulk: 0,
            phase: Phase::Dialing,
            relay,
            extras,
        })
    }

    /// The socket of one side, to be watched for [`Readiness::INTEREST`].
    pub fn socket(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::Client => self.client.as_fd(),
            Side::Target => self.target.as_fd(),
        }
    }

    /// The route the session belongs to.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Its number.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Who connected.
    pub fn client(&self) -> SocketAddr {
        self.peer
    }

    /// Who brought the client here, if it did not come by itself.
    fn front(&self) -> Option<&Front> {
        self.extras.as_ref()?.front.as_deref()
    }

    /// Whether the target has answered.
    pub fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// The session as it is now.
    pub fn view(&self, now: Instant) -> SessionView {
        let (bytes_up, bytes_down) = self.delivered();
        SessionView {
            id: self.id,
            route: Arc::clone(&self.route),
            client: self.peer,
            front: self.front().map(|front| front.peer),
            source: self.source,
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
    pub fn turn(&mut self, side: Side, events: EventFlags, turn: &mut Turn<'_>) -> Verdict {
        self.note(side, events);
        match self.phase {
            Phase::Dialing => self.check_dial(side, events, turn),
            Phase::Relaying => self.relay(turn),
            Phase::Settling { side: waiting, .. } => {
                // Bytes from a side about to be reset have nowhere to go; its own break ends the
                // wait.
                if side == waiting && events.intersects(EventFlags::ERR | EventFlags::HUP) {
                    return Verdict::End(self.fault_reason());
                }
                Verdict::Wait
            }
        }
    }

    /// Another turn for a session that had said [`Verdict::Again`].
    pub fn resume(&mut self, turn: &mut Turn<'_>) -> Verdict {
        match self.phase {
            Phase::Relaying => self.relay(turn),
            Phase::Dialing | Phase::Settling { .. } => Verdict::Wait,
        }
    }

    fn check_dial(&mut self, side: Side, events: EventFlags, turn: &mut Turn<'_>) -> Verdict {
        let broke = events.intersects(EventFlags::ERR | EventFlags::HUP);
        if side == Side::Client {
            // A client that has merely closed its sending half still wants its answer.
            if broke && pending_error(&self.client).is_some() {
                return Verdict::End(EndReason::ClientGone);
            }
            return Verdict::Wait;
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
                self.relay.report_fault(Side::Target, errno);
                return Verdict::End(dial::failed(errno));
            }
            None if !events.intersects(EventFlags::OUT) => return Verdict::Wait,
            None => {}
        }
        self.source = getsockname(&self.target)
            .ok()
            .and_then(|addr| addr.try_into().ok());
        // Where nobody listens on a port of this machine, the kernel may pick that very port to call
        // from; the socket is then connected to itself and would send the client its own bytes.
        if self.source == Some(self.route.target) {
            return Verdict::End(EndReason::ConnectRefused);
        }
        self.connected = Some(turn.now);
        self.active = turn.now;
        if let Some(extras) = &mut self.extras {
            extras.dialling = Dialling::default();
        }
        self.route
            .mapping
            .stats
            .connect_latency
            .observe(turn.now.duration_since(self.opened));
        if let Some(version) = self.route.mapping.policy.send_proxy {
            let header = self.header(version);
            self.header_len = u16::try_from(header.len()).unwrap_or(u16::MAX);
            self.relay.prepend(Side::Target, header.into());
            self.note_sent([false, true], turn.now);
        }
        self.phase = Phase::Relaying;
        self.relay(turn)
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

    fn relay(&mut self, turn: &mut Turn<'_>) -> Verdict {
        let before = (self.delivered(), self.relay.half_closed_by());
        let budget = match &self.extras {
            None => Budget::turn(turn.budget),
            Some(extras) => throttle::budget(extras, &self.route.mapping, turn),
        };
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
            throttle::charge(extras, &self.route.mapping, moved, turn.now);
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
        self.bulk = match self.relay.is_bulk() {
            true => {
                let moved = u32::try_from(moved.0 + moved.1).unwrap_or(u32::MAX);
                self.bulk.saturating_add(moved).max(1)
            }
            false => 0,
        };
        match progress {
            Progress::Waiting => Verdict::Wait,
            Progress::Again => Verdict::Again,
            Progress::Exhausted => self.pause(turn.now),
            Progress::Refused(errno) => self.retry(errno, turn.now),
            Progress::Closed => Verdict::End(EndReason::Closed),
            Progress::Broken => Verdict::End(self.fault_reason()),
            Progress::Settling(side) => {
                self.phase = Phase::Settling {
                    side,
                    since: turn.now,
                    left: u32::MAX,
                    pause: SETTLE_POLL.0,
                };
                self.active = turn.now;
                self.settle(turn)
            }
        }
    }

    /// Ends the session if the side that did not break has acknowledged everything.
    fn settle(&mut self, turn: &mut Turn<'_>) -> Verdict {
        let Phase::Settling {
            side,
            mut since,
            mut left,
            pause,
        } = self.phase
        else {
            return Verdict::Wait;
        };
        let longest = SETTLE_POLL.1;
        let settled = match turn.acks.unacknowledged(self.socket(side)) {
            Some(bytes) => {
                let stood_still = turn.now.duration_since(self.active) > SETTLE_AT_MOST / 2;
                if bytes < left || stood_still {
                    (since, left) = (turn.now, bytes);
                }
                bytes == 0
            }
            // Not to be learnt on this kernel: a good while has to do.
            None => pause >= longest,
        };
        if settled || turn.now.duration_since(since) >= SETTLE_AT_MOST {
            return Verdict::End(self.fault_reason());
        }
        self.active = turn.now;
        self.phase = Phase::Settling {
            side,
            since,
            left,
            pause: (pause * 2).min(longest),
        };
        Verdict::Wait
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
    fn pause(&mut self, now: Instant) -> Verdict {
        let wake = self.extras.as_ref().and_then(|extras| {
            let lanes = [&extras.up, &extras.down];
            let ready = lanes.map(|lane| lane.ready().instant());
            ready.into_iter().filter(|at| *at > now).min()
        });
        let (Some(extras), Some(_)) = (&mut self.extras, wake) else {
            return Verdict::Again;
        };
        extras.wake = wake;
        self.route.mapping.stats.count_pause();
        Verdict::Wait
    }

    /// Tries again after a while what this machine refused.
    fn retry(&mut self, errno: Errno, now: Instant) -> Verdict {
        let retry = &mut self.extras.get_or_insert_default().retry;
        let hope = match retry {
            Some(retry) => retry.go_on(now),
            None => {
                *retry = Some(Box::new(Retry::begin(now)));
                true
            }
        };
        if hope {
            return Verdict::Wait;
        }
        tracing::warn!(
            session = %self.id,
            errno = in_words(&errno.into()),
            "this machine refuses to move the bytes of a session"
        );
        Verdict::End(match self.relay.fault() {
            Some(_) => self.fault_reason(),
            None => EndReason::SystemError,
        })
    }

    /// Until when bytes wait: because of a limit of bandwidth, or because this machine refused to move
    /// them.
    pub fn paused_until(&self) -> Option<Instant> {
        let extras = self.extras.as_ref()?;
        let retry = extras.retry.as_ref().map(|retry| retry.at());
        [extras.wake, retry].into_iter().flatten().min()
    }

    /// For how long no byte has moved.
    pub fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.active)
    }

    /// Notes for `user_timeout` whether something was sent to the client and to the target.
    fn note_sent(&mut self, [to_client, to_target]: [bool; 2], now: Instant) {
        let silence = self
            .extras
            .as_mut()
            .and_then(|extras| extras.silence.as_mut());
        if let (Some(silence), Some(limit)) = (silence, self.route.mapping.policy.user_timeout) {
            if to_client {
                silence.sent(Side::Client, now, limit);
            }
            if to_target {
                silence.sent(Side::Target, now, limit);
            }
        }
    }

    /// The side whose host has not answered for `user_timeout`.
    fn find_lost(&mut self, turn: &mut Turn<'_>) -> Option<Side> {
        let limit = self.route.mapping.policy.user_timeout?;
        loop {
            let silence = self.extras.as_mut()?.silence.as_mut()?;
            let (client, target) = (self.client.as_fd(), self.target.as_fd());
            let ask = |side| {
                turn.acks.standing(match side {
                    Side::Client => client,
                    Side::Target => target,
                })
            };
            match silence.look(turn.now, limit, ask) {
                Finding::Nothing => return None,
                Finding::Lost(side) => return Some(side),
                Finding::Untold(side) => {
                    if let Err(error) = socket::set_user_timeout(self.socket(side), Some(limit)) {
                        tracing::debug!(session = %self.id, %error, "the {side} has no user_timeout");
                    }
                }
            }
        }
    }

    /// Has `user_timeout` judged as the policy of the moment wants.
    fn take_on_user_timeout(&mut self) {
        let limit = self.route.mapping.policy.user_timeout;
        let before = self
            .extras
            .as_mut()
            .and_then(|extras| extras.silence.take());
        for side in [Side::Client, Side::Target] {
            if before
                .as_ref()
                .is_some_and(|silence| silence.is_left_to_kernel(side))
                && let Err(error) = socket::set_user_timeout(self.socket(side), None)
            {
                tracing::debug!(session = %self.id, %error, "the {side} keeps its user_timeout");
            }
        }
        if let Some(limit) = limit {
            let silence = Silence::of_a_session(Instant::now(), limit);
            self.extras.get_or_insert_default().silence = Some(Box::new(silence));
        }
    }

    fn fault_reason(&self) -> EndReason {
        let Some(fault) = self.relay.fault() else {
            return EndReason::Internal;
        };
        match (fault.side, fault.errno) {
            (Side::Client, Errno::CONNRESET | Errno::PIPE) => EndReason::ClientReset,
            (Side::Target, Errno::CONNRESET | Errno::PIPE) => EndReason::TargetReset,
            (_, Errno::BADF | Errno::INVAL) => EndReason::Internal,
            (side, _) => lost(side),
        }
    }

    /// When the session next wants [`Self::on_deadline`] called, however often it is active until
    /// then.
    pub fn deadline(&self) -> Option<Instant> {
        let policy = &self.route.mapping.policy;
        let own = match self.phase {
            Phase::Dialing => Some(self.opened + policy.connect_timeout),
            Phase::Settling { pause, .. } => Some(self.active + pause),
            Phase::Relaying => [
                (self.bulk > 0).then_some(CALM),
                self.relay.half_closed_by().and(policy.half_close_timeout),
                policy.idle_timeout,
            ]
            .into_iter()
            .flatten()
            .min()
            .map(|span| self.active + span),
        };
        let guard = (!self.guarded).then(|| self.opened + LONG_LIVED);
        let leave = self.leave().map(|(at, _)| at);
        let silence = self
            .extras
            .as_ref()
            .and_then(|extras| extras.silence.as_ref());
        let silence = silence.and_then(|silence| silence.next());
        [own, guard, leave, silence].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn on_deadline(&mut self, turn: &mut Turn<'_>) -> Verdict {
        let now = turn.now;
        if let Some((at, reason)) = self.leave()
            && at <= now
        {
            return Verdict::End(reason);
        }
        if !self.guarded && now.duration_since(self.opened) >= LONG_LIVED {
            self.guard();
        }
        if let Some(side) = self.find_lost(turn) {
            // What broke first is why the session ends.
            return Verdict::End(match self.relay.fault() {
                Some(_) => self.fault_reason(),
                None => lost(side),
            });
        }
        let policy = &self.route.mapping.policy;
        // Later than that, something may have arrived that nobody has looked at.
        let quiet = turn.reported.saturating_duration_since(self.active);
        let dialled = turn.reported.saturating_duration_since(self.opened);
        match self.phase {
            Phase::Dialing if dialled >= policy.connect_timeout => {
                Verdict::End(EndReason::ConnectTimeout)
            }
            Phase::Dialing => Verdict::Wait,
            Phase::Settling { pause, .. } if quiet >= pause => self.settle(turn),
            Phase::Settling { .. } => Verdict::Wait,
            Phase::Relaying if self.paused_until().is_some() => {
                // It is neither idle nor silent: bytes wait for their time.
                self.active = now;
                Verdict::Wait
            }
            Phase::Relaying => {
                let over = |span: Option<Duration>| span.is_some_and(|span| quiet >= span);
                if let Some(closed) = self.relay.half_closed_by()
                    && over(policy.half_close_timeout)
                {
                    return Verdict::End(match closed {
                        Side::Client => EndReason::TargetHalfCloseTimeout,
                        Side::Target => EndReason::ClientHalfCloseTimeout,
                    });
                }
                if over(policy.idle_timeout) {
                    return Verdict::End(EndReason::IdleTimeout);
                }
                if quiet >= CALM {
                    self.relay.calm();
                    self.bulk = 0;
                }
                Verdict::Wait
            }
        }
    }

    /// When the session has to be gone, and why.
    fn leave(&self) -> Option<(Instant, EndReason)> {
        let drained = self.extras.as_ref().and_then(|extras| extras.drained);
        let drained = drained.map(|at| (at, EndReason::DrainDeadline));
        [self.leave, drained]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// Has the session end at `at`, or earlier if that was wanted already.
    pub fn leave_by(&mut self, at: Instant, reason: EndReason) {
        if self.leave.is_none_or(|(earlier, _)| at < earlier) {
            self.leave = Some((at, reason));
        }
    }

    /// Has the session end at `at` because an operator wants it to; whether that is news. It is none
    /// if the session is to end before.
    pub fn kill(&mut self, at: Instant) -> bool {
        let news = match self.leave {
            Some((_, EndReason::Killed)) => false,
            Some((earlier, _)) => at < earlier,
            None => true,
        };
        if news {
            self.leave_by(at, EndReason::Killed);
        }
        news
    }

    /// Has the session end at `until`, or go on, as an operator's latest word on its mapping wants.
    pub fn drain_by(&mut self, until: Option<Instant>) {
        if until.is_some() || self.extras.is_some() {
            self.extras.get_or_insert_default().drained = until;
        }
    }

    /// Puts the session under the route's new mapping; it keeps its target.
    pub fn adopt(&mut self, successor: &Arc<Route>) {
        let old = &self.route.mapping.stats;
        let new = &successor.mapping.stats;
        if !Arc::ptr_eq(old, new) {
            old.hand_over(new);
        }
        self.route = match successor.target == self.route.target {
            true => Arc::clone(successor),
            false => Arc::new(Route {
                listen: self.route.listen,
                target: self.route.target,
                mapping: Arc::clone(&successor.mapping),
            }),
        };
        throttle::take_on(&mut self.extras, &self.route.mapping, &self.relay);
        self.take_on_user_timeout();
        self.guard();
        if let Err(error) = socket::set_liveness(&self.client, &self.route.mapping.policy) {
            tracing::debug!(session = %self.id, %error, "the client's keepalive stays as it was");
        }
    }

    /// Has the kernel notice when the target's host is gone. The client's socket inherited that.
    fn guard(&mut self) {
        self.guarded = true;
        if let Err(error) = socket::set_liveness(&self.target, &self.route.mapping.policy) {
            tracing::debug!(session = %self.id, %error, "the target's keepalive stays as it was");
        }
    }

    /// Closes both sockets and says how it went.
    ///
    /// Any end but a clean one is passed on as a reset, so that nobody takes it for a whole answer; what
    /// was not acknowledged then is lost.
    pub fn end(
        mut self,
        reason: EndReason,
        pipes: &mut PipePool,
        acks: &mut AckProbe,
        now: Instant,
    ) -> SessionRecord {
        self.relay.abandon(&mut Kernel {
            client: self.client.as_fd(),
            target: self.target.as_fd(),
            pipes,
        });
        let mut lost = (0, 0);
        if reason != EndReason::Closed {
            if self.is_connected() {
                lost = self.unacknowledged(acks);
            }
            socket::reset_on_close(&self.client);
            socket::reset_on_close(&self.target);
        }
        let stats = &self.route.mapping.stats;
        stats.count_undelivered(lost);
        let connecting = dial::connect_failure(reason);
        let step = if connecting.is_some() {
            Step::Connect
        } else {
            Step::Relay
        };
        let error = self.relay.fault().filter(|_| says_more(reason));
        let error = error.map(|fault| SessionError::during(step)(fault.errno));
        if let Some(cause) = connecting {
            stats.count_connect_failure(cause, error.map(|error| error.to_string()));
        }
        stats.close(reason);
        let duration = now.duration_since(self.opened);
        stats.session_length.observe(duration);
        let (bytes_up, bytes_down) = self.delivered();
        let front = self.front().map(|front| front.peer);
        SessionRecord {
            id: self.id,
            bytes_up: bytes_up - lost.0,
            bytes_down: bytes_down - lost.1,
            bytes_spliced: self.relay.spliced(),
            duration,
            connect: self.connected.map(|at| at.duration_since(self.opened)),
            client: self.peer,
            front,
            source: self.source,
            route: self.route,
            reason,
            error,
        }
    }
}

impl Session {
    /// Bytes counted as delivered to the target and to the client that were not acknowledged, as far as
    /// the kernel tells.
    fn unacknowledged(&self, acks: &mut AckProbe) -> (u64, u64) {
        let (up, down) = self.delivered();
        let mut of = |side: Side, most: u64| {
            let socket = self.socket(side);
            let (before, connected_here) = match side {
                Side::Client => (0, false),
                Side::Target => (self.header_len.into(), true),
            };
            let lost = match acknowledged(socket, connected_here) {
                Some(bytes) => (before + most).saturating_sub(bytes),
                None => {
                    let waiting = acks.unacknowledged(socket).unwrap_or(0);
                    // The end of a stream is acknowledged as a byte is, and comes last.
                    waiting
                        .saturating_sub(self.relay.has_ended_to(side).into())
                        .into()
                }
            };
            lost.min(most)
        };
        (of(Side::Target, up), of(Side::Client, down))
    }
}

/// The end of a session whose host on that side does not answer.
fn lost(side: Side) -> EndReason {
    match side {
        Side::Client => EndReason::ClientLost,
        Side::Target => EndReason::TargetLost,
    }
}

/// Whether an error says more than the reason for which a session ended.
fn says_more(reason: EndReason) -> bool {
    dial::connect_failure(reason).is_some()
        || matches!(
            reason,
            EndReason::ClientLost
                | EndReason::TargetLost
                | EndReason::SystemError
                | EndReason::Internal
        )
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
