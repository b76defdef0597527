//! Failures as an operator wants to hear of them: once when something begins to fail, and once when
//! it no longer does.
//!
//! What has one line is an episode, of one kind of request and one cause. It lasts as long as anything
//! fails so: a thousand jobs that cannot be read are one, and a single one that keeps failing among a
//! thousand that do not is one as well. An outage has lines of its own, and what fails because of it
//! has none.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use strum::VariantArray;
use tracing::{info, warn};

use crate::provider::switchboard::{
    client::{Availability, Failure, FailureKind, Fault},
    job::{HostId, JobId},
    stats::{FollowStats, Request},
};

/// How long what may be the first sign of an outage has no line, so that the listing can show it.
const WAIT_FOR_OUTAGE: Duration = Duration::from_secs(10);

/// What fails.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// The only one there is of its kind, or all of it.
    Only,
    /// The newest of it.
    Top,
    Job(JobId),
    Host(HostId),
}

#[derive(Debug)]
pub(super) struct FailureLog {
    stats: Arc<FollowStats>,
    availability: Arc<Availability>,
    /// Whether hosts are needed.
    needs_hosts: bool,
    /// What is refused and not needed.
    without: HashSet<Request>,
    /// How each subject that fails last failed.
    failing: HashMap<(Request, Subject), FailureKind>,
    /// What fails in the same way.
    episodes: HashMap<(Request, FailureKind), Episode>,
}

#[derive(Debug)]
struct Episode {
    since: Instant,
    subjects: usize,
    /// Whether the log has a line about it.
    told: bool,
}

impl Drop for FailureLog {
    /// Who does not ask any more does not fail either.
    fn drop(&mut self) {
        for (_, kind) in self.episodes.keys() {
            self.stats.episode_ended(*kind);
        }
    }
}

impl FailureLog {
    pub(super) fn new(
        stats: Arc<FollowStats>,
        availability: Arc<Availability>,
        needs_hosts: bool,
    ) -> Self {
        Self {
            stats,
            availability,
            needs_hosts,
            without: HashSet::new(),
            failing: HashMap::new(),
            episodes: HashMap::new(),
        }
    }

    /// Notes that `request` about `subject` failed, or that it did not.
    pub(super) fn note<T>(
        &mut self,
        request: Request,
        subject: Subject,
        answer: &Result<T, Failure>,
    ) {
        let before = self.failing.get(&(request, subject.clone())).copied();
        let failure = answer.as_ref().err();
        let failure = failure.filter(|failure| self.is_trouble(request, failure.kind()));
        if let (Err(refusal), None) = (answer, failure)
            && self.without.insert(request)
        {
            info!(
                request = request.word(),
                "going without, as the switchboard refuses it: {refusal}"
            );
        }
        let now = failure.map(Failure::kind);
        if before == now {
            if let Some(failure) = failure {
                self.tell(request, &subject, failure);
            }
            return;
        }
        if let Some(failure) = failure {
            self.begin(request, &subject, failure);
            self.failing.insert((request, subject), failure.kind());
        } else {
            self.failing.remove(&(request, subject));
        }
        if let Some(kind) = before {
            self.end(request, kind);
        }
    }

    /// Whether to fail so is trouble: what is refused and not needed is none.
    pub(super) fn is_trouble(&self, request: Request, kind: FailureKind) -> bool {
        let needed = match request {
            Request::Hosts => self.needs_hosts,
            Request::Watch | Request::Account => false,
            Request::Jobs | Request::Job | Request::Annotate => true,
        };
        needed || !matches!(kind, FailureKind::Forbidden | FailureKind::NotFound)
    }

    /// Notes that there is no `subject` any more, which ends whatever failed about it.
    pub(super) fn forget(&mut self, subject: &Subject) {
        for request in Request::VARIANTS {
            let gone = self.failing.remove(&(*request, subject.clone()));
            if let Some(kind) = gone {
                self.end(*request, kind);
            }
        }
    }

    fn begin(&mut self, request: Request, subject: &Subject, failure: &Failure) {
        let episode = self.episodes.entry((request, failure.kind()));
        let episode = episode.or_insert_with(|| Episode {
            since: Instant::now(),
            subjects: 0,
            told: false,
        });
        episode.subjects += 1;
        if episode.subjects == 1 {
            self.stats.episode_began(failure.kind());
        }
        self.tell(request, subject, failure);
    }

    /// Tells the log of an episode, once, and not if it is part of an outage.
    fn tell(&mut self, request: Request, subject: &Subject, failure: &Failure) {
        let Some(episode) = self.episodes.get_mut(&(request, failure.kind())) else {
            return;
        };
        let early = may_be_outage(request, failure.kind());
        let early = early && episode.since.elapsed() < WAIT_FOR_OUTAGE;
        if episode.told || early || self.availability.is_in_outage() {
            return;
        }
        episode.told = true;
        let about = match subject {
            Subject::Only | Subject::Top => String::new(),
            Subject::Job(id) => format!("job {id}"),
            Subject::Host(id) => format!("host {id}"),
        };
        warn!(
            request = request.word(),
            cause = failure.cause(),
            about,
            "the switchboard does not answer as it should: {failure}; {}",
            advice(failure)
        );
    }

    fn end(&mut self, request: Request, kind: FailureKind) {
        let Some(episode) = self.episodes.get_mut(&(request, kind)) else {
            return;
        };
        episode.subjects -= 1;
        if episode.subjects > 0 {
            return;
        }
        let told = episode.told;
        self.episodes.remove(&(request, kind));
        self.stats.episode_ended(kind);
        if told {
            info!(
                request = request.word(),
                cause = kind.word(),
                "the switchboard no longer fails so"
            );
        }
    }
}

/// Whether such a failure may be the first sign of an outage, which has lines of its own.
fn may_be_outage(request: Request, kind: FailureKind) -> bool {
    match request {
        Request::Watch => kind.fault() == Fault::Network,
        Request::Job | Request::Hosts | Request::Account => {
            matches!(kind, FailureKind::Server | FailureKind::Cut)
        }
        Request::Jobs | Request::Annotate => false,
    }
}

/// What comes of a failure, and what would help.
fn advice(failure: &Failure) -> &'static str {
    match (failure.kind(), failure.kind().fault()) {
        (FailureKind::Unauthorized, _) => {
            "what is known stays as it is; put a valid token into token_file"
        }
        (_, Fault::Account) => {
            "what is known stays as it is; give the account of the token the right to read all jobs"
        }
        _ => "what is known stays as it is; trying again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u32) -> Subject {
        let id = format!("10b00000-0000-7000-8000-{number:012}");
        Subject::Job(JobId::parse(&id).expect("an id"))
    }

    #[test]
    fn many_failures_of_a_kind_are_one_episode_until_the_last_is_over() {
        let stats = Arc::new(FollowStats::default());
        let mut log = FailureLog::new(Arc::clone(&stats), Arc::default(), false);
        let count = || {
            let kind = FailureKind::Forbidden;
            (stats.episodes(kind), stats.episodes_open(kind))
        };
        for _ in 0..2 {
            for number in 0..10 {
                log.note::<()>(Request::Job, job(number), &Err(Failure::Forbidden));
            }
        }
        assert_eq!(count(), (1, 1));
        for number in 1..10 {
            log.note(Request::Job, job(number), &Ok(()));
        }
        assert_eq!(count(), (1, 1));
        log.forget(&job(0));
        assert_eq!(count(), (1, 0));
        log.note::<()>(Request::Job, job(1), &Err(Failure::Forbidden));
        assert_eq!(count(), (2, 1));
    }

    #[test]
    fn another_cause_is_another_episode() {
        let stats = Arc::new(FollowStats::default());
        let mut log = FailureLog::new(Arc::clone(&stats), Arc::default(), false);
        for failure in [Failure::Unauthorized, Failure::Forbidden] {
            log.note::<()>(Request::Jobs, Subject::Only, &Err(failure));
        }
        assert_eq!(stats.episodes_open(FailureKind::Unauthorized), 0);
        assert_eq!(stats.episodes_open(FailureKind::Forbidden), 1);
    }
}
