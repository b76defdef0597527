//! How a session ends once a side broke: what the other side was sent is waited for, what was not
//! acknowledged is not counted, and the reason is found.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{
    AckProbe, Phase, Session, SessionError, SessionRecord, SessionStep, Turn, acknowledged, dial,
    error::Step,
};
use crate::{
    end_reason::EndReason,
    relay::{Kernel, PipePool, Side},
    socket,
};

/// How long the side that did not break may take to acknowledge any more of what it was sent before the
/// break is passed on regardless.
pub(super) const SETTLE_AT_MOST: Duration = Duration::from_secs(60);

/// How often to ask whether it has: at first, and at most.
const SETTLE_POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));

impl Session {
    /// Waits for the side that did not break to acknowledge what it was sent.
    pub(super) fn begin_settling(&mut self, side: Side, turn: &mut Turn<'_>) -> SessionStep {
        self.phase = Phase::Settling {
            side,
            since: turn.now,
            left: u32::MAX,
            pause: SETTLE_POLL.0,
        };
        self.active = turn.now;
        self.settle(turn)
    }

    /// Ends the session if the side that did not break has acknowledged everything.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) -> SessionStep {
        let Phase::Settling {
            side,
            mut since,
            mut left,
            pause,
        } = self.phase
        else {
            return SessionStep::Wait;
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
            return SessionStep::End(self.fault_reason());
        }
        self.active = turn.now;
        self.phase = Phase::Settling {
            side,
            since,
            left,
            pause: (pause * 2).min(longest),
        };
        SessionStep::Wait
    }

    pub(super) fn fault_reason(&self) -> EndReason {
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
            target: self.target(),
            attempts: self.attempts(),
            local: self.local,
            route: self.route,
            reason,
            error,
            upgrades: 0,
        }
    }

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
pub(super) fn lost(side: Side) -> EndReason {
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
