//! When a session wants to be called though nothing was reported, and what is then due: timeouts, the
//! time that control or an operator gave it, a host that does not answer.
//!
//! Nothing is armed for a byte: activity is a time in the session, and what is due is found when its
//! deadline passes.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use super::{
    Phase, Session, SessionStep, Turn,
    ending::lost,
    user_timeout::{Finding, UserTimeout},
};
use crate::{end_reason::EndReason, relay::Side, socket};

/// A session that lives this long gets keepalive and the like on the socket to its target: five
/// system calls that a short one is spared.
const LONG_LIVED: Duration = Duration::from_secs(1);

/// A session that moved nothing for this long does not move bulk any more.
const CALM: Duration = Duration::from_secs(1);

impl Session {
    /// Until when bytes wait: because of a limit of bandwidth, or because this machine refused to move
    /// them.
    pub fn paused_until(&self) -> Option<Instant> {
        let extras = self.extras.as_ref()?;
        let retry = extras.retry.as_ref().map(|retry| retry.at());
        [extras.wake, retry].into_iter().flatten().min()
    }

    pub fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.active)
    }

    /// When the session next wants [`Self::on_deadline`] called, however often it is active until
    /// then.
    pub fn deadline(&self) -> Option<Instant> {
        let policy = &self.route.mapping.policy;
        let own = match self.phase {
            Phase::Dialing => Some(match self.choice() {
                Some(choice) => choice.deadline(),
                None => self.opened + policy.connect_timeout,
            }),
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
        let oldest = policy.max_duration.map(|span| self.opened + span);
        let guard = (!self.guarded).then(|| self.opened + LONG_LIVED);
        let leave = self.leave().map(|(at, _)| at);
        let user_timeout = self
            .extras
            .as_ref()
            .and_then(|extras| extras.user_timeout.as_ref());
        let user_timeout = user_timeout.and_then(|user_timeout| user_timeout.next());
        [own, oldest, guard, leave, user_timeout]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn on_deadline(&mut self, turn: &mut Turn<'_>) -> SessionStep {
        let now = turn.now;
        if let Some((at, reason)) = self.leave()
            && at <= now
        {
            return SessionStep::End(reason);
        }
        let age = now.saturating_duration_since(self.opened);
        let limit = self.route.mapping.policy.max_duration;
        if limit.is_some_and(|limit| age >= limit) {
            return SessionStep::End(match self.relay.fault() {
                Some(_) => self.fault_reason(),
                None => EndReason::MaxDuration,
            });
        }
        if !self.guarded && age >= LONG_LIVED {
            self.guard();
        }
        if let Some(side) = self.find_lost(turn) {
            // What broke first is why the session ends.
            return SessionStep::End(match self.relay.fault() {
                Some(_) => self.fault_reason(),
                None => lost(side),
            });
        }
        let policy = &self.route.mapping.policy;
        // Later than that, something may have arrived that nobody has looked at.
        let quiet = turn.reported.saturating_duration_since(self.active);
        let dialled = turn.reported.saturating_duration_since(self.opened);
        match self.phase {
            Phase::Dialing if self.choice().is_some() => self.dial_overdue(turn),
            Phase::Dialing if dialled >= policy.connect_timeout => {
                SessionStep::End(EndReason::ConnectTimeout)
            }
            Phase::Dialing => SessionStep::Wait,
            Phase::Settling { pause, .. } if quiet >= pause => self.settle(turn),
            Phase::Settling { .. } => SessionStep::Wait,
            Phase::Relaying if self.paused_until().is_some() => {
                // It is neither idle nor silent: bytes wait for their time.
                self.active = now;
                SessionStep::Wait
            }
            Phase::Relaying => {
                let over = |span: Option<Duration>| span.is_some_and(|span| quiet >= span);
                if let Some(closed) = self.relay.half_closed_by()
                    && over(policy.half_close_timeout)
                {
                    return SessionStep::End(match closed {
                        Side::Client => EndReason::TargetHalfCloseTimeout,
                        Side::Target => EndReason::ClientHalfCloseTimeout,
                    });
                }
                if over(policy.idle_timeout) {
                    return SessionStep::End(EndReason::IdleTimeout);
                }
                if quiet >= CALM {
                    self.relay.calm();
                    self.bulk = 0;
                } else {
                    self.bound.look_soon();
                }
                SessionStep::Wait
            }
        }
    }

    /// When the session has to be gone, and why.
    pub(super) fn leave(&self) -> Option<(Instant, EndReason)> {
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

    /// Notes for `user_timeout` whether something was sent to the client and to the target.
    pub(super) fn note_sent(&mut self, [to_client, to_target]: [bool; 2], now: Instant) {
        let user_timeout = self
            .extras
            .as_mut()
            .and_then(|extras| extras.user_timeout.as_mut());
        if let (Some(user_timeout), Some(limit)) =
            (user_timeout, self.route.mapping.policy.user_timeout)
        {
            if to_client {
                user_timeout.sent(Side::Client, now, limit);
            }
            if to_target {
                user_timeout.sent(Side::Target, now, limit);
            }
        }
    }

    /// The side whose host has not answered for `user_timeout`.
    fn find_lost(&mut self, turn: &mut Turn<'_>) -> Option<Side> {
        let limit = self.route.mapping.policy.user_timeout?;
        loop {
            let user_timeout = self.extras.as_mut()?.user_timeout.as_mut()?;
            let (client, target) = (self.client.as_fd(), self.target.as_fd());
            let ask = |side| {
                turn.acks.peer_state(match side {
                    Side::Client => client,
                    Side::Target => target,
                })
            };
            match user_timeout.look(turn.now, limit, ask) {
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
    pub(super) fn take_on_user_timeout(&mut self) {
        let limit = self.route.mapping.policy.user_timeout;
        let before = self
            .extras
            .as_mut()
            .and_then(|extras| extras.user_timeout.take());
        for side in [Side::Client, Side::Target] {
            if before
                .as_ref()
                .is_some_and(|user_timeout| user_timeout.is_left_to_kernel(side))
                && let Err(error) = socket::set_user_timeout(self.socket(side), None)
            {
                tracing::debug!(session = %self.id, %error, "the {side} keeps its user_timeout");
            }
        }
        if let Some(limit) = limit {
            let user_timeout = UserTimeout::of_a_session(Instant::now(), limit);
            self.extras.get_or_insert_default().user_timeout = Some(Box::new(user_timeout));
        }
    }
}
