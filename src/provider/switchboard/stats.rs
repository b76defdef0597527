//! How following a switchboard goes: plain atomics, read by a scrape.

use std::{
    array,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{
    client::{Failure, FailureKind},
    finished::Finished,
    read::Rights,
    watch::Purpose,
};
use crate::telemetry::{Distribution, Histogram, metric::LATENCY_BUCKETS};

/// How long something took, in the buckets of these counters.
pub type Latency = Distribution;

/// What is asked of a switchboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Every request there is, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Jobs,
        Self::Job,
        Self::Hosts,
        Self::Watch,
        Self::Annotate,
        Self::Account,
    ];

    /// The request as a label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Job => "job",
            Self::Hosts => "hosts",
            Self::Watch => "watch",
            Self::Annotate => "annotate",
            Self::Account => "account",
        }
    }
}

/// How watches end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchEnd {
    /// The server ended it, as it does now and then.
    Ended,
    /// Nothing came for too long.
    Silent,
    /// The connection was lost, or what came made no sense.
    Lost,
}

impl WatchEnd {
    /// Every end there is, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Ended, Self::Silent, Self::Lost];

    /// The end as a label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::Lost => "lost",
        }
    }
}

const RESULTS: usize = FailureKind::ALL.len() + 1;

/// The counters of one follower.
#[derive(Debug)]
pub struct FollowStats {
    requests: [[AtomicU64; RESULTS]; Request::ALL.len()],
    episodes: [AtomicU64; FailureKind::ALL.len()],
    episodes_open: [AtomicU64; FailureKind::ALL.len()],
    watches_open: [AtomicU64; 2],
    watch_connections: AtomicU64,
    watch_ends: [AtomicU64; WatchEnd::ALL.len()],
    notices: AtomicU64,
    polls: AtomicU64,
    walks: AtomicU64,
    jobs_active: AtomicU64,
    jobs_over_limit: AtomicU64,
    rows_unreadable: AtomicU64,
    left_out: AtomicU64,
    rights: AtomicU8,
    listing_fails: AtomicBool,
    held: AtomicU64,
    annotations_overwritten: AtomicU64,
    complete: Mutex<Option<Instant>>,
    /// Jobs that have ended lately.
    pub finished: Finished,
    new_job_latency: Histogram,
    change_latency: Histogram,
}

impl Default for FollowStats {
    fn default() -> Self {
        Self {
            requests: array::from_fn(|_| Default::default()),
            episodes: Default::default(),
            episodes_open: Default::default(),
            watches_open: Default::default(),
            watch_connections: AtomicU64::new(0),
            watch_ends: Default::default(),
            notices: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            walks: AtomicU64::new(0),
            jobs_active: AtomicU64::new(0),
            jobs_over_limit: AtomicU64::new(0),
            rows_unreadable: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            rights: AtomicU8::new(Rights::Unknown as u8),
            listing_fails: AtomicBool::new(false),
            held: AtomicU64::new(0),
            annotations_overwritten: AtomicU64::new(0),
            complete: Mutex::new(None),
            finished: Finished::default(),
            new_job_latency: Histogram::new(&LATENCY_BUCKETS),
            change_latency: Histogram::new(&LATENCY_BUCKETS),
        }
    }
}

impl FollowStats {
    /// Requests of a kind that were answered as asked.
    pub fn succeeded(&self, request: Request) -> u64 {
        self.requests[request as usize][FailureKind::ALL.len()].load(Relaxed)
    }

    /// Requests of a kind that failed.
    pub fn failed(&self, request: Request, kind: FailureKind) -> u64 {
        self.requests[request as usize][kind as usize].load(Relaxed)
    }

    /// Episodes of failures of a kind that have begun: from the first failure of a kind of request
    /// to the first time that nothing fails so any more.
    pub fn episodes(&self, kind: FailureKind) -> u64 {
        self.episodes[kind as usize].load(Relaxed)
    }

    /// Such episodes that have not ended.
    pub fn episodes_open(&self, kind: FailureKind) -> u64 {
        self.episodes_open[kind as usize].load(Relaxed)
    }

    /// Watches open now.
    pub fn watches_open(&self, purpose: Purpose) -> u64 {
        self.watches_open[purpose as usize].load(Relaxed)
    }

    /// Connections that watches are on.
    pub fn watch_connections(&self) -> u64 {
        self.watch_connections.load(Relaxed)
    }

    /// Watches that ended in a way.
    pub fn watch_ends(&self, end: WatchEnd) -> u64 {
        self.watch_ends[end as usize].load(Relaxed)
    }

    /// Changes that watches gave notice of.
    pub fn notices(&self) -> u64 {
        self.notices.load(Relaxed)
    }

    /// Times the newest jobs were asked for and all that was new was had.
    pub fn polls(&self) -> u64 {
        self.polls.load(Relaxed)
    }

    /// Complete listings had.
    pub fn walks(&self) -> u64 {
        self.walks.load(Relaxed)
    }

    /// Jobs that have not ended, as far as is known.
    pub fn jobs_active(&self) -> u64 {
        self.jobs_active.load(Relaxed)
    }

    /// Jobs that were not followed because there are too many.
    pub fn jobs_over_limit(&self) -> u64 {
        self.jobs_over_limit.load(Relaxed)
    }

    /// Rows of listings that could not be read.
    pub fn rows_unreadable(&self) -> u64 {
        self.rows_unreadable.load(Relaxed)
    }

    /// Things in valid answers that were left out: services too many or too long, addresses that
    /// are none.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }

    /// Annotations of this proxy that somebody else changed.
    pub fn annotations_overwritten(&self) -> u64 {
        self.annotations_overwritten.load(Relaxed)
    }

    pub(super) fn annotation_overwritten(&self) {
        self.annotations_overwritten.fetch_add(1, Relaxed);
    }

    /// How long ago the last complete listing was had; `None` before the first. Not moved by a
    /// clock that is set.
    pub fn knowledge_age(&self) -> Option<Duration> {
        let complete = self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        complete.map(|at| at.elapsed())
    }

    /// Which jobs the account may read, as it was said last.
    pub fn rights(&self) -> Rights {
        let number = self.rights.load(Relaxed);
        let found = Rights::ALL.iter().find(|one| **one as u8 == number);
        found.copied().unwrap_or_default()
    }

    /// Whether the last page of the listing that was asked for was not had.
    pub fn is_listing_failing(&self) -> bool {
        self.listing_fails.load(Relaxed)
    }

    /// Jobs that are missing from a listing, too many at once to be believed.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// From a new job's first row in a listing to its being published.
    pub fn new_job_latency(&self) -> Latency {
        self.new_job_latency.read()
    }

    /// From a watch's notice to the published change.
    pub fn change_latency(&self) -> Latency {
        self.change_latency.read()
    }

    pub(super) fn count<T>(&self, request: Request, answer: &Result<T, Failure>) {
        let place = match answer {
            Ok(_) => FailureKind::ALL.len(),
            Err(failure) => failure.kind() as usize,
        };
        self.requests[request as usize][place].fetch_add(1, Relaxed);
    }

    pub(super) fn set_rights(&self, rights: Rights) {
        self.rights.store(rights as u8, Relaxed);
    }

    pub(super) fn listing_fails(&self, fails: bool) {
        self.listing_fails.store(fails, Relaxed);
    }

    pub(super) fn set_held(&self, jobs: usize) {
        self.held.store(jobs as u64, Relaxed);
    }

    pub(super) fn episode_began(&self, kind: FailureKind) {
        self.episodes[kind as usize].fetch_add(1, Relaxed);
        self.episodes_open[kind as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn episode_ended(&self, kind: FailureKind) {
        self.episodes_open[kind as usize].fetch_sub(1, Relaxed);
    }

    /// Counts a watch in until the result is dropped.
    pub(super) fn watch_opened(&self, purpose: Purpose) -> OpenWatch<'_> {
        let open = &self.watches_open[purpose as usize];
        open.fetch_add(1, Relaxed);
        OpenWatch(open)
    }

    pub(super) fn set_watch_connections(&self, connections: usize) {
        self.watch_connections.store(connections as u64, Relaxed);
    }

    pub(super) fn watch_ended(&self, end: WatchEnd) {
        self.watch_ends[end as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn noticed(&self) {
        self.notices.fetch_add(1, Relaxed);
    }

    pub(super) fn polled(&self) {
        self.polls.fetch_add(1, Relaxed);
    }

    pub(super) fn walked(&self) {
        self.walks.fetch_add(1, Relaxed);
        self.set_complete(Some(Instant::now()));
    }

    /// Takes over when knowledge from before the start was complete.
    pub(super) fn restored(&self, complete: Option<SystemTime>) {
        let age = complete.map(|at| at.elapsed().unwrap_or_default());
        self.set_complete(age.and_then(|age| Instant::now().checked_sub(age)));
    }

    fn set_complete(&self, at: Option<Instant>) {
        *self.complete.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    pub(super) fn set_jobs_active(&self, jobs: usize) {
        self.jobs_active.store(jobs as u64, Relaxed);
    }

    pub(super) fn over_limit(&self) {
        self.jobs_over_limit.fetch_add(1, Relaxed);
    }

    pub(super) fn unreadable_rows(&self, rows: usize) {
        self.rows_unreadable.fetch_add(rows as u64, Relaxed);
    }

    pub(super) fn leave_out(&self, things: usize) {
        self.left_out.fetch_add(things as u64, Relaxed);
    }

    pub(super) fn new_job_took(&self, took: Duration) {
        self.new_job_latency.observe(took);
    }

    pub(super) fn change_took(&self, took: Duration) {
        self.change_latency.observe(took);
    }
}

/// A watch that is counted as open.
#[derive(Debug)]
pub(super) struct OpenWatch<'a>(&'a AtomicU64);

impl Drop for OpenWatch<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
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
        stats.restored(Some(SystemTime::now() + Duration::from_secs(3600)));
        assert!(stats.knowledge_age().expect("an age") < Duration::from_secs(60));
        stats.restored(Some(SystemTime::now() - Duration::from_secs(100)));
        assert!(stats.knowledge_age().expect("an age") >= Duration::from_secs(99));
    }
}
