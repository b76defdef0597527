//! How following a switchboard goes, for whoever shows it. What is only counted goes to the metrics.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::{
    JobId,
    client::{Failure, FailureKind},
    finished::Finished,
    read::Rights,
    watch::Purpose,
};
use crate::{
    handover::monotonic,
    mutex::lock,
    telemetry::{
        Histogram, SavedHistogram,
        metric::{self, LATENCY_BUCKETS},
    },
};

/// What is asked of a switchboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Request {
    /// A page of the listing.
    Jobs,
    /// A job in detail.
    Job,
    /// The hosts.
    Hosts,
    /// To open a watch.
    Watch,
    /// To change an annotation.
    Annotate,
    /// What the account may do.
    Account,
}

impl Request {
    /// The request as a label.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// How watches end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(super) enum WatchEnd {
    /// The server ended it, as it does now and then.
    Ended,
    /// Nothing came for too long.
    Silent,
    /// The connection was lost, or what came made no sense.
    Lost,
}

/// How one follower does.
#[derive(Debug)]
pub struct FollowStats {
    state: Mutex<State>,
    /// Jobs that have ended lately.
    pub finished: Finished,
    /// From a new job's first row in a listing to its being published.
    pub new_job_latency: Histogram,
    /// From a watch's notice to the published change.
    pub change_latency: Histogram,
}

impl Default for FollowStats {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            finished: Finished::default(),
            new_job_latency: Histogram::new(&LATENCY_BUCKETS),
            change_latency: Histogram::new(&LATENCY_BUCKETS),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Requests of a kind that were answered as asked, and those that failed.
    succeeded: BTreeMap<Request, u64>,
    failed: BTreeMap<(Request, FailureKind), u64>,
    failing: BTreeMap<FailureKind, Episodes>,
    watches: [u64; 2],
    watch_connections: usize,
    polls: u64,
    walks: u64,
    jobs_active: usize,
    rights: Rights,
    is_listing_failing: bool,
    held: usize,
    /// When a complete listing was last had.
    complete: Option<Instant>,
}

/// Of failures of a kind: from the first failure of a kind of request to the first time that nothing
/// fails so any more.
#[derive(Debug, Default)]
struct Episodes {
    begun: u64,
    open: u64,
}

/// How following goes, as it is handed over to the next image of the program: counts by words, those
/// of which the next image does not know the words being forgotten there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedFollowStats {
    succeeded: Vec<(String, u64)>,
    failed: Vec<(String, String, u64)>,
    episodes: Vec<(String, u64)>,
    polls: u64,
    walks: u64,
    jobs_active: usize,
    rights: String,
    is_listing_failing: bool,
    held: usize,
    #[serde(with = "monotonic::option")]
    complete: Option<Instant>,
    finished: Vec<JobId>,
    new_job_latency: SavedHistogram,
    change_latency: SavedHistogram,
}

fn of_word<T: Copy + Into<&'static str>>(all: &[T], word: &str) -> Option<T> {
    all.iter().copied().find(|known| (*known).into() == word)
}

impl FollowStats {
    /// What was counted but what is under way now.
    pub fn save(&self) -> SavedFollowStats {
        let Self {
            state: _,
            finished,
            new_job_latency,
            change_latency,
        } = self;
        let State {
            succeeded,
            failed,
            failing,
            watches: _,
            watch_connections: _,
            polls,
            walks,
            jobs_active,
            rights,
            is_listing_failing,
            held,
            complete,
        } = &*lock(&self.state);
        let succeeded = succeeded.iter();
        let failed = failed.iter().map(|((request, kind), count)| {
            (request.word().to_owned(), kind.word().to_owned(), *count)
        });
        let episodes = failing.iter();
        SavedFollowStats {
            succeeded: succeeded
                .map(|(request, count)| (request.word().to_owned(), *count))
                .collect(),
            failed: failed.collect(),
            episodes: episodes
                .map(|(kind, episodes)| (kind.word().to_owned(), episodes.begun))
                .collect(),
            polls: *polls,
            walks: *walks,
            jobs_active: *jobs_active,
            rights: rights.word().to_owned(),
            is_listing_failing: *is_listing_failing,
            held: *held,
            complete: *complete,
            finished: finished.all(),
            new_job_latency: new_job_latency.save(),
            change_latency: change_latency.save(),
        }
    }

    /// Goes on counting.
    pub fn load(saved: SavedFollowStats) -> Self {
        let SavedFollowStats {
            succeeded,
            failed,
            episodes,
            polls,
            walks,
            jobs_active,
            rights,
            is_listing_failing,
            held,
            complete,
            finished,
            new_job_latency,
            change_latency,
        } = saved;
        let request = |word: &str| of_word(Request::VARIANTS, word);
        let kind = |word: &str| of_word(FailureKind::ALL, word);
        let succeeded = succeeded.iter();
        let failed = failed.iter().filter_map(|(of, as_what, count)| {
            let cause = (request(of)?, kind(as_what)?);
            Some((cause, *count))
        });
        let failing = episodes.iter().filter_map(|(word, begun)| {
            let begun = *begun;
            Some((kind(word)?, Episodes { begun, open: 0 }))
        });
        let state = State {
            succeeded: succeeded
                .filter_map(|(word, count)| Some((request(word)?, *count)))
                .collect(),
            failed: failed.collect(),
            failing: failing.collect(),
            watches: [0; 2],
            watch_connections: 0,
            polls,
            walks,
            jobs_active,
            rights: of_word(Rights::ALL, &rights).unwrap_or_default(),
            is_listing_failing,
            held,
            complete,
        };
        let stats = Self {
            state: Mutex::new(state),
            finished: Finished::default(),
            new_job_latency: Histogram::load(&LATENCY_BUCKETS, &new_job_latency),
            change_latency: Histogram::load(&LATENCY_BUCKETS, &change_latency),
        };
        finished.iter().for_each(|id| stats.finished.add(id));
        stats
    }

    /// Requests of a kind that were answered as asked.
    pub fn succeeded(&self, request: Request) -> u64 {
        lock(&self.state)
            .succeeded
            .get(&request)
            .copied()
            .unwrap_or(0)
    }

    /// Requests of a kind that failed.
    pub fn failed(&self, request: Request, kind: FailureKind) -> u64 {
        let state = lock(&self.state);
        state.failed.get(&(request, kind)).copied().unwrap_or(0)
    }

    /// Every request so far: what was asked for, what came of it, and how often.
    pub(crate) fn requests(&self) -> Vec<(Request, &'static str, u64)> {
        let state = lock(&self.state);
        let succeeded = state.succeeded.iter();
        let succeeded = succeeded.map(|(request, count)| (*request, "success", *count));
        let failed = state.failed.iter();
        let failed = failed.map(|((request, kind), count)| (*request, kind.word(), *count));
        succeeded.chain(failed).collect()
    }

    /// Episodes of failures of a kind that have begun.
    pub fn episodes(&self, kind: FailureKind) -> u64 {
        lock(&self.state)
            .failing
            .get(&kind)
            .map_or(0, |one| one.begun)
    }

    /// Such episodes that have not ended.
    pub fn episodes_open(&self, kind: FailureKind) -> u64 {
        lock(&self.state)
            .failing
            .get(&kind)
            .map_or(0, |one| one.open)
    }

    /// Watches open now.
    pub fn watches_open(&self, purpose: Purpose) -> u64 {
        lock(&self.state).watches[purpose as usize]
    }

    /// Connections that watches are on.
    pub fn watch_connections(&self) -> u64 {
        lock(&self.state).watch_connections as u64
    }

    /// Times the newest jobs were asked for and all that was new was had.
    pub fn polls(&self) -> u64 {
        lock(&self.state).polls
    }

    /// Complete listings had.
    pub fn walks(&self) -> u64 {
        lock(&self.state).walks
    }

    /// Jobs that have not ended, as far as is known.
    pub fn jobs_active(&self) -> u64 {
        lock(&self.state).jobs_active as u64
    }

    /// How long ago the last complete listing was had; `None` before the first. Not moved by a
    /// clock that is set.
    pub fn knowledge_age(&self) -> Option<Duration> {
        lock(&self.state).complete.map(|at| at.elapsed())
    }

    /// Which jobs the account may read, as it was said last.
    pub fn rights(&self) -> Rights {
        lock(&self.state).rights
    }

    /// Whether the last page of the listing that was asked for was not had.
    pub(crate) fn is_listing_failing(&self) -> bool {
        lock(&self.state).is_listing_failing
    }

    /// Jobs that are missing from a listing, too many at once to be believed.
    pub fn held(&self) -> u64 {
        lock(&self.state).held as u64
    }

    pub(super) fn count<T>(&self, request: Request, answer: &Result<T, Failure>) {
        let mut state = lock(&self.state);
        *match answer {
            Ok(_) => state.succeeded.entry(request).or_default(),
            Err(failure) => state.failed.entry((request, failure.kind())).or_default(),
        } += 1;
    }

    pub(super) fn set_rights(&self, rights: Rights) {
        lock(&self.state).rights = rights;
    }

    pub(super) fn listing_fails(&self, fails: bool) {
        lock(&self.state).is_listing_failing = fails;
    }

    pub(super) fn set_held(&self, jobs: usize) {
        lock(&self.state).held = jobs;
    }

    pub(super) fn set_jobs_active(&self, jobs: usize) {
        lock(&self.state).jobs_active = jobs;
    }

    pub(super) fn set_watch_connections(&self, connections: usize) {
        lock(&self.state).watch_connections = connections;
    }

    pub(super) fn polled(&self) {
        lock(&self.state).polls += 1;
    }

    pub(super) fn walked(&self) {
        let mut state = lock(&self.state);
        state.walks += 1;
        state.complete = Some(Instant::now());
    }

    /// Following begins, with knowledge from before that was complete at a time.
    pub(super) fn begin(&self, complete: Option<SystemTime>) {
        let age = complete.map(|at| at.elapsed().unwrap_or_default());
        let mut state = lock(&self.state);
        state.complete = age.and_then(|age| Instant::now().checked_sub(age));
        for request in Request::VARIANTS {
            state.succeeded.entry(*request).or_default();
        }
        // What has not happened is 0, so that the first time is an increase.
        for end in WatchEnd::VARIANTS {
            metric::SWITCHBOARD_WATCH_ENDS.add(&[end.into()], 0);
        }
        for what in ["rows", "particulars", "jobs"] {
            metric::SWITCHBOARD_LEFT_OUT.add(&[what], 0);
        }
        metric::SWITCHBOARD_NOTICES.add(&[], 0);
        metric::SWITCHBOARD_OVERWRITTEN.add(&[], 0);
    }

    pub(super) fn episode_began(&self, kind: FailureKind) {
        let mut state = lock(&self.state);
        let episodes = state.failing.entry(kind).or_default();
        episodes.begun += 1;
        episodes.open += 1;
    }

    pub(super) fn episode_ended(&self, kind: FailureKind) {
        lock(&self.state).failing.entry(kind).or_default().open -= 1;
    }

    /// Counts a watch in until the result is dropped.
    pub(super) fn watch_opened(&self, purpose: Purpose) -> OpenWatch<'_> {
        lock(&self.state).watches[purpose as usize] += 1;
        OpenWatch(self, purpose)
    }
}

/// A watch that is counted as open.
#[derive(Debug)]
pub(super) struct OpenWatch<'a>(&'a FollowStats, Purpose);

impl Drop for OpenWatch<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).watches[self.1 as usize] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_what_was_asked_and_what_came() {
        let stats = FollowStats::default();
        stats.count(Request::Job, &Ok(()));
        stats.count::<()>(Request::Job, &Err(Failure::Forbidden));
        assert_eq!(stats.succeeded(Request::Job), 1);
        assert_eq!(stats.failed(Request::Job, FailureKind::Forbidden), 1);
        assert_eq!(stats.failed(Request::Jobs, FailureKind::Forbidden), 0);
    }

    #[test]
    fn a_clock_set_back_makes_knowledge_no_younger_than_new() {
        let stats = FollowStats::default();
        assert_eq!(stats.knowledge_age(), None);
        stats.begin(Some(SystemTime::now() + Duration::from_secs(3600)));
        assert!(stats.knowledge_age().expect("an age") < Duration::from_secs(60));
        stats.begin(Some(SystemTime::now() - Duration::from_secs(100)));
        assert!(stats.knowledge_age().expect("an age") >= Duration::from_secs(99));
    }
}
