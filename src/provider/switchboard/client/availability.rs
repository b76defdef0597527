//! Whether the switchboard answers: since when it does not and why, and when it was last heard.
//!
//! Kept by the client from every request. An outage begins when a request that stands for the whole
//! switchboard fails and nothing was answered since it was asked; the log has one line at its
//! beginning and one at its end. Who waits to try something again is woken by the end.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::failure::{Failure, FailureKind};
use crate::{handover::monotonic, mutex::lock, units::millis};

/// For so long after an outage, what fails may still be due to it: it was asked before the end.
const AFTERMATH: Duration = Duration::from_secs(10);

/// What a request stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The listing of jobs, without which nothing works.
    Listing,
    /// Something else that is read.
    Reading,
    /// Something whose failure says nothing about the rest.
    Aside,
}

/// Whether the switchboard answers. Told by the client, read by everybody.
#[derive(Debug, Default)]
pub struct Availability {
    state: Mutex<State>,
    /// Outages that have ended.
    recoveries: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    heard: Option<Instant>,
    answered: Option<Instant>,
    outage: Option<Outage>,
    /// When the last outage ended.
    over: Option<Instant>,
}

/// The switchboard does not answer, or not as it has to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// Since when.
    pub since: Instant,
    /// Why, as far as the last request shows.
    pub failure: Failure,
}

impl Outage {
    /// Whether nobody can be asked, or not as ourselves. Otherwise there is an answer, and it is of
    /// no use.
    pub fn is_away(&self) -> bool {
        use FailureKind::{Connect, Cut, Timeout, Unauthorized};
        matches!(self.failure.kind(), Connect | Cut | Timeout | Unauthorized)
    }

    /// Whether an answer about something else than the listing shows nothing.
    fn is_of_listing(&self) -> bool {
        begins(About::Listing, self.failure.kind()) && !begins(About::Reading, self.failure.kind())
    }
}

/// Whether such a failure is one of the whole switchboard.
fn begins(about: About, kind: FailureKind) -> bool {
    use FailureKind::{Connect, Cut, Server, Status, Timeout, Unauthorized};
    match (about, kind) {
        (About::Aside, _) => false,
        (_, Connect | Timeout | Unauthorized) => true,
        // One job or host may be the only one that ends so.
        (About::Listing, Cut | Server | Status) => true,
        _ => false,
    }
}

/// Whether the switchboard answers, as it is handed over to the next image of the program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedAvailability {
    #[serde(with = "monotonic::option")]
    heard: Option<Instant>,
    #[serde(with = "monotonic::option")]
    answered: Option<Instant>,
    #[serde(with = "monotonic::option")]
    over: Option<Instant>,
    /// Since when there is an outage, and how it shows. What the next image cannot read of that shows
    /// again.
    #[serde(with = "monotonic::option")]
    outage: Option<Instant>,
    failure: Option<serde_json::Value>,
}

impl Availability {
    /// What is known.
    pub fn save(&self) -> SavedAvailability {
        let State {
            heard,
            answered,
            outage,
            over,
        } = &*lock(&self.state);
        let failure = outage.as_ref().map(|outage| &outage.failure);
        SavedAvailability {
            heard: *heard,
            answered: *answered,
            over: *over,
            outage: outage.as_ref().map(|outage| outage.since),
            failure: failure.and_then(|failure| serde_json::to_value(failure).ok()),
        }
    }

    /// Goes on from what was known.
    pub fn load(saved: SavedAvailability) -> Self {
        let SavedAvailability {
            heard,
            answered,
            over,
            outage,
            failure,
        } = saved;
        let failure = failure.and_then(|failure| serde_json::from_value(failure).ok());
        let state = State {
            heard,
            answered,
            outage: outage
                .zip(failure)
                .map(|(since, failure)| Outage { since, failure }),
            over,
        };
        Self {
            state: Mutex::new(state),
            recoveries: watch::Sender::default(),
        }
    }

    /// The outage going on, if there is one.
    pub fn outage(&self) -> Option<Outage> {
        lock(&self.state).outage.clone()
    }

    /// How long ago anything was last heard of the switchboard; `None` if nothing was yet.
    pub fn heard_ago(&self) -> Option<Duration> {
        lock(&self.state).heard.map(|at| at.elapsed())
    }

    /// Whether what fails now is due to an outage that the log has been told of.
    pub fn is_in_outage(&self) -> bool {
        let state = lock(&self.state);
        state.outage.is_some() || state.over.is_some_and(|at| at.elapsed() < AFTERMATH)
    }

    /// Changes when an outage ends.
    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.recoveries.subscribe()
    }

    /// Notes a sign of life.
    pub(in crate::provider::switchboard) fn heard(&self) {
        lock(&self.state).heard = Some(Instant::now());
    }

    /// Notes what came of a request that began at `asked`.
    pub(super) fn note(&self, about: About, asked: Instant, failure: Option<&Failure>) {
        match failure {
            None => self.answered(about),
            // Whoever refuses this account something has answered.
            Some(failure) if failure.kind() == FailureKind::Forbidden => self.answered(about),
            Some(failure) => self.failed(about, asked, failure),
        }
    }

    fn answered(&self, about: About) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        (state.heard, state.answered) = (Some(now), Some(now));
        let ends = |outage: &mut Outage| about == About::Listing || !outage.is_of_listing();
        let Some(outage) = state.outage.take_if(ends) else {
            return;
        };
        state.over = Some(now);
        drop(state);
        let lasted = now.duration_since(outage.since);
        info!(
            cause = outage.failure.cause(),
            duration_ms = millis(lasted),
            "the switchboard answers again"
        );
        self.recoveries.send_modify(|count| *count += 1);
    }

    fn failed(&self, about: About, asked: Instant, failure: &Failure) {
        if !begins(about, failure.kind()) {
            return;
        }
        let mut state = lock(&self.state);
        // Others are answered: what fails is this request, not the switchboard.
        if state.answered.is_some_and(|at| at >= asked) {
            return;
        }
        if let Some(outage) = &mut state.outage {
            if about == About::Listing || !outage.is_of_listing() {
                outage.failure = failure.clone();
            }
            drop(state);
            debug!(
                cause = failure.cause(),
                "the switchboard still does not answer: {failure}"
            );
            return;
        }
        state.outage = Some(Outage {
            since: asked,
            failure: failure.clone(),
        });
        drop(state);
        let advice = match failure.kind() {
            FailureKind::Unauthorized => "put a valid token into token_file",
            _ => "trying again",
        };
        warn!(
            cause = failure.cause(),
            "the switchboard does not answer: {failure}; what is known stays as it is, {advice}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ConnectCause, *};

    fn refused() -> Failure {
        Failure::Connect {
            cause: ConnectCause::Other,
            words: "x".into(),
        }
    }

    #[test]
    fn any_answer_ends_an_outage_and_wakes_who_waits() {
        let availability = Availability::default();
        let recoveries = availability.recoveries();
        availability.note(About::Reading, Instant::now(), Some(&refused()));
        let outage = availability.outage().expect("an outage");
        assert!(outage.is_away());
        availability.note(About::Aside, Instant::now(), None);
        assert_eq!(availability.outage(), None);
        assert!(recoveries.has_changed().expect("it is there"));
        assert!(availability.is_in_outage(), "others still fail for it");
    }

    #[test]
    fn one_that_fails_among_many_that_are_answered_is_no_outage() {
        let availability = Availability::default();
        let asked = Instant::now();
        availability.note(About::Reading, Instant::now(), None);
        let late = Failure::Timeout {
            allowed: Duration::ZERO,
        };
        availability.note(About::Reading, asked, Some(&late));
        assert_eq!(availability.outage(), None);
    }

    #[test]
    fn a_listing_that_fails_is_not_mended_by_an_answer_about_something_else() {
        let availability = Availability::default();
        let failure = Failure::Server { status: 500 };
        availability.note(About::Reading, Instant::now(), Some(&failure));
        assert_eq!(availability.outage(), None, "an admin gets 500 for no job");
        availability.note(About::Listing, Instant::now(), Some(&failure));
        availability.note(About::Reading, Instant::now(), None);
        let outage = availability.outage().expect("it goes on");
        assert!(!outage.is_away());
        availability.note(About::Listing, Instant::now(), None);
        assert_eq!(availability.outage(), None);
    }

    #[test]
    fn who_refuses_is_not_away() {
        let availability = Availability::default();
        availability.note(About::Listing, Instant::now(), Some(&refused()));
        availability.note(About::Reading, Instant::now(), Some(&Failure::Forbidden));
        assert_eq!(availability.outage(), None);
        assert!(availability.heard_ago().is_some());
    }

    #[test]
    fn a_sign_of_life_is_heard_and_no_answer() {
        let availability = Availability::default();
        availability.note(About::Listing, Instant::now(), Some(&refused()));
        assert_eq!(availability.heard_ago(), None);
        availability.heard();
        assert!(availability.heard_ago().is_some() && availability.outage().is_some());
    }
}
