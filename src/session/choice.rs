//! Which target a session is led to, where there are several or it may try more than once.
//!
//! An attempt that fails is followed by one at a target that has not been tried; once all have been, they
//! are tried again after a pause, as often as `retries` says. All of it has to be over within
//! `connect_timeout`, of which each attempt may use its share, so that a target that does not answer
//! leaves time for the others. Nothing has been taken from the client until then.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{dial, error::SessionError};
use crate::{
    end_reason::EndReason,
    handover::{is_default, monotonic},
    proxy_protocol::Version,
    setting::AutoOr,
    table::Route,
    target::{NoMember, Place, Target},
};

/// How long until targets that have all failed are tried again: a service that is restarted is back then.
const PAUSE: Duration = Duration::from_secs(1);

/// The target chosen for a session, and what was tried before.
#[derive(Debug)]
pub struct Choice {
    /// Its place at the target, if that is one of a group.
    pub(super) place: Option<Place>,
    /// Attempts begun.
    begun: u32,
    /// Targets tried since the last pause.
    tried: Vec<SocketAddr>,
    /// When the attempt under way is given up.
    until: Instant,
    /// When connecting has to be over.
    ends: Instant,
    /// When targets are tried again that have all been.
    again: Option<Instant>,
    /// Why the last attempt failed.
    failure: Option<EndReason>,
}

/// Why a connection could not be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub reason: EndReason,
    pub error: Option<SessionError>,
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Dial(SocketAddr),
    /// Nothing before a time that [`Choice::deadline`] tells.
    Pause,
    GiveUp,
}

impl Failure {
    pub(super) fn of(error: SessionError) -> Self {
        Self {
            reason: dial::failed(error.errno),
            error: Some(error),
        }
    }

    pub(super) const fn without_error(reason: EndReason) -> Self {
        Self {
            reason,
            error: None,
        }
    }

    /// Counts it for the mapping of a session that goes on.
    pub(super) fn count(self, route: &Route) {
        if let Some(cause) = dial::connect_failure(self.reason) {
            let error = self.error.map(|error| error.to_string());
            route.mapping.stats.count_connect_failure(cause, error);
        }
    }

    /// Whether it says anything of the target.
    fn is_of_target(self) -> bool {
        self.reason != EndReason::ConnectFailed
    }

    /// Whether no other attempt could go better.
    fn is_shortage(self) -> bool {
        let errno = self.error.map(|error| error.errno);
        matches!(
            errno,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
        )
    }
}

impl Choice {
    /// Chooses a target for a client of a route, unless there is one address and one attempt.
    ///
    /// # Errors
    ///
    /// The reason for which the client is refused; it has not been counted.
    pub fn make(route: &Route, client: IpAddr, now: Instant) -> Result<Option<Self>, EndReason> {
        if let Some(group) = route.target.group()
            && group.queue().len() > 0
        {
            // Others came before.
            return Err(EndReason::TargetFull);
        }
        Self::first_in_line(route, client, now)
    }

    /// The same for a client whose turn it is.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn first_in_line(
        route: &Route,
        client: IpAddr,
        now: Instant,
    ) -> Result<Option<Self>, EndReason> {
        let policy = &route.mapping.policy;
        let place = match &route.target {
            Target::Address(_) if retries(route) == 0 => return Ok(None),
            Target::Address(_) => None,
            Target::Group(group) => {
                let chosen = group.choose(policy.balance, client, &[], now.into());
                Some(chosen.map_err(|why| match why {
                    NoMember::Full => EndReason::TargetFull,
                    NoMember::Down | NoMember::Tried => EndReason::NoTarget,
                })?)
            }
        };
        let ends = now + policy.connect_timeout;
        let mut choice = Self {
            place,
            begun: 0,
            tried: Vec::new(),
            until: ends,
            ends,
            again: None,
            failure: None,
        };
        choice.begin(route, now);
        Ok(Some(choice))
    }

    /// One for a session that has its target already, and no other attempt to connect to it.
    pub(super) fn made(place: Place, ends: Instant) -> Self {
        Self {
            place: Some(place),
            begun: 1,
            tried: Vec::new(),
            until: ends,
            ends,
            again: None,
            failure: None,
        }
    }

    /// The target, if it is one of a group.
    pub fn address(&self) -> Option<SocketAddr> {
        Some(self.place.as_ref()?.member().address)
    }

    /// Attempts so far.
    pub fn attempts(&self) -> u32 {
        self.begun
    }

    /// What was said of PROXY headers for this target alone.
    pub(super) fn send_proxy(&self) -> Option<Option<Version>> {
        self.place.as_ref()?.member().settings.send_proxy
    }

    pub(super) fn succeeded(&self) {
        if let Some(place) = &self.place {
            place.succeeded();
        }
    }

    /// When the pause before the next attempt, or the time of the one under way, is over.
    pub(super) fn deadline(&self) -> Instant {
        self.again.unwrap_or(self.until)
    }

    pub(super) fn is_pausing(&self) -> bool {
        self.again.is_some()
    }

    /// Whether the attempt under way has taken too long, if everything until `reported` is known.
    pub(super) fn is_overdue(&self, reported: Instant) -> bool {
        self.again.is_none() && reported >= self.until
    }

    /// What to do after an attempt that failed.
    pub(super) fn after(
        &mut self,
        failure: Failure,
        route: &Route,
        client: IpAddr,
        now: Instant,
    ) -> Next {
        self.failure = Some(failure.reason);
        if let Some(place) = &self.place
            && failure.is_of_target()
        {
            place.failed(now.into());
        }
        if self.begun > retries(route) || now >= self.ends || failure.is_shortage() {
            return Next::GiveUp;
        }
        self.tried.extend(address(route, Some(self)));
        self.choose(route, client, now)
    }

    /// What to do once the pause is over.
    pub(super) fn resume(&mut self, route: &Route, client: IpAddr, now: Instant) -> Next {
        self.again = None;
        self.choose(route, client, now)
    }

    /// Why the last attempt failed.
    pub(super) fn failure(&self) -> EndReason {
        self.failure.unwrap_or(EndReason::ConnectFailed)
    }

    fn choose(&mut self, route: &Route, client: IpAddr, now: Instant) -> Next {
        let policy = &route.mapping.policy;
        let untried = match &route.target {
            Target::Address(address) if self.tried.contains(address) => Err(NoMember::Tried),
            Target::Address(address) => Ok((*address, None)),
            Target::Group(group) => {
                let chosen = group.choose(policy.balance, client, &self.tried, now.into());
                chosen.map(|place| (place.member().address, Some(place)))
            }
        };
        match untried {
            Ok((address, place)) => {
                self.place = place;
                self.begin(route, now);
                Next::Dial(address)
            }
            Err(NoMember::Tried) if policy.retries.value().is_some() => self.pause(now),
            Err(_) => Next::GiveUp,
        }
    }

    fn pause(&mut self, now: Instant) -> Next {
        let again = now + PAUSE;
        if again >= self.ends {
            return Next::GiveUp;
        }
        self.tried.clear();
        self.again = Some(again);
        Next::Pause
    }

    /// Gives the attempt that begins its share of the time: it leaves as much to each one that may
    /// follow at another target.
    fn begin(&mut self, route: &Route, now: Instant) {
        let others = match (&route.target, self.address()) {
            (Target::Group(group), Some(address)) => group.others(address, &self.tried),
            _ => 0,
        };
        let left = retries(route).saturating_sub(self.begun);
        self.begun += 1;
        let shares = left.min(others) + 1;
        let time = self.ends.saturating_duration_since(now);
        self.until = now + time / shares;
    }
}

/// The address a session is led to.
pub(super) fn address(route: &Route, choice: Option<&Choice>) -> Option<SocketAddr> {
    match &route.target {
        Target::Address(address) => Some(*address),
        Target::Group(_) => choice?.address(),
    }
}

/// Attempts there may be after the first.
fn retries(route: &Route) -> u32 {
    match (route.mapping.policy.retries, &route.target) {
        (AutoOr::Value(retries), _) => retries,
        (AutoOr::Auto, Target::Address(_)) => 0,
        (AutoOr::Auto, Target::Group(group)) => {
            u32::try_from(group.members().len()).map_or(u32::MAX, |members| members - 1)
        }
    }
}

/// A [`Choice`] as it is handed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedChoice {
    #[serde(default, skip_serializing_if = "is_default")]
    target: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "is_default")]
    begun: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    tried: Vec<SocketAddr>,
    #[serde(with = "monotonic")]
    until: Instant,
    #[serde(with = "monotonic")]
    ends: Instant,
    #[serde(
        default,
        with = "monotonic::option",
        skip_serializing_if = "is_default"
    )]
    again: Option<Instant>,
    #[serde(default, skip_serializing_if = "is_default")]
    failure: Option<EndReason>,
}

impl SavedChoice {
    pub fn of(choice: &Choice) -> Self {
        let Choice {
            place: _,
            begun,
            tried,
            until,
            ends,
            again,
            failure,
        } = choice;
        Self {
            target: choice.address(),
            begun: *begun,
            tried: tried.clone(),
            until: *until,
            ends: *ends,
            again: *again,
            failure: *failure,
        }
    }

    /// Takes it up, and counts the session at its target.
    pub fn load(self, route: &Route) -> Choice {
        let Self {
            target,
            begun,
            tried,
            until,
            ends,
            again,
            failure,
        } = self;
        let group = target.zip(route.target.group());
        Choice {
            place: group.map(|(target, group)| group.place_kept(target)),
            begun,
            tried,
            until,
            ends,
            again,
            failure,
        }
    }
}
