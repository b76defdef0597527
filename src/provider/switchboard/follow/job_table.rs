//! What is known of the jobs, and what a row of a listing or an answer about a job does to it. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use lru::LruCache;

use super::{
    absence::{Absence, Conclusion},
    hosts::KnownHosts,
};
use crate::{
    provider::switchboard::{
        client::Failure,
        job::{Job, JobId, JobState, KnownJobs, Remembered},
        read::{Detail, Hosts, Position, Row},
    },
    shared_map::SharedMap,
};

/// How many jobs are followed. More is no testbed but a mistake, and memory is not endless.
const JOBS_AT_MOST: usize = 20_000;

/// How many ids are remembered of jobs that have ended: more than the listing changes by between
/// two looks at its top.
const ENDED_AT_MOST: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// How many rows at the top of the listing are looked at for such jobs: a history of any length
/// must not push out what is new.
pub(super) const TOP_ROWS: usize = ENDED_AT_MOST.get() / 4;

/// A place in the order in which things became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sequence(u64);

#[derive(Debug)]
pub(super) struct JobTable {
    jobs: BTreeMap<JobId, Entry>,
    /// Ended or never to be followed, and since when; a late answer about one revives nothing.
    ended: LruCache<JobId, Sequence>,
    pub(super) hosts: KnownHosts,
    now: Sequence,
    /// What was told of all that at the last call of [`JobTable::changed`], but for what has `changed`.
    told: KnownJobs,
    changed: BTreeSet<JobId>,
    /// There was a complete listing since, or something else of no job in particular.
    news: bool,
    /// Whether any job may be missing from the listing together with too many others.
    any_held: bool,
}

/// A job that has not ended.
#[derive(Debug)]
struct Entry {
    since: Sequence,
    first_seen: Instant,
    /// What the last valid answer about it said.
    known: Option<Arc<Job>>,
    /// It is from before the start, and there was no such answer yet.
    remembered: Option<Remembered>,
    /// Where it stands in the listing, if it was seen there.
    position: Option<Position>,
    absence: Option<Absence>,
}

/// What a row of a listing means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowMeaning {
    /// A job to be followed from now on.
    New,
    /// A job that has another state than is known.
    StateChanged,
    /// A job that has ended.
    Ended,
    /// Nothing that was not known.
    Known,
    /// A job that has ended before it was known.
    EndedBefore,
    /// A job too many.
    OverLimit,
}

impl RowMeaning {
    /// Whether nothing was known of the job.
    pub(super) fn is_new(self) -> bool {
        matches!(self, Self::New | Self::OverLimit | Self::EndedBefore)
    }
}

/// What an answer about a job, or the lack of one, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerMeaning {
    /// Nothing for others to know.
    Same,
    /// It is known for the first time; a listing had it first at `first_seen`.
    Appeared { first_seen: Instant },
    /// It is not what it was.
    Changed,
    /// It has ended.
    Ended,
    /// It may have ended; a complete listing will tell.
    Doubtful,
}

/// A complete listing, or all of one above a place.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    /// When it began.
    pub(super) began: Sequence,
    /// The jobs in it.
    pub(super) present: &'a HashSet<JobId>,
    /// Where it was left, if not at its end.
    pub(super) down_to: Option<&'a Position>,
    /// Whether the account was seen to have the right to all jobs meanwhile.
    pub(super) of_all: bool,
}

/// What is missing from a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// They have ended.
    pub(super) ended: Vec<JobId>,
    /// They are to be asked about.
    pub(super) doubtful: Vec<JobId>,
    /// So many of the latter are too many to be believed at once.
    pub(super) held: usize,
}

impl JobTable {
    /// With what was known before.
    pub(super) fn new(before: &KnownJobs) -> Self {
        let mut table = Self {
            jobs: BTreeMap::new(),
            ended: LruCache::new(ENDED_AT_MOST),
            hosts: KnownHosts::default(),
            now: Sequence(0),
            told: before.clone(),
            changed: BTreeSet::new(),
            news: false,
            any_held: false,
        };
        for (id, job) in &before.jobs {
            table.add(id, Some(Arc::clone(job)), None, None);
        }
        for (id, remembered) in &before.remembered {
            table.add(id, None, Some(*remembered), None);
        }
        for (id, silent) in &before.silent {
            let host = before.jobs.get(id).and_then(|job| job.host.as_ref());
            host.inspect(|host| table.hosts.was_silent(host, *silent));
        }
        table
    }

    /// The present, for telling what became known later.
    pub(super) fn now(&self) -> Sequence {
        self.now
    }

    /// Every job followed.
    pub(super) fn ids(&self) -> impl Iterator<Item = &JobId> {
        self.jobs.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Where the lowest of some jobs stands in the listing.
    pub(super) fn lowest<'j>(&self, of: impl Iterator<Item = &'j JobId>) -> Option<&Position> {
        let entries = of.filter_map(|id| self.jobs.get(id));
        entries.filter_map(|entry| entry.position.as_ref()).min()
    }

    /// Jobs that a listing did not have, but too many at once.
    pub(super) fn held(&mut self) -> usize {
        if !self.any_held {
            return 0;
        }
        let held = |entry: &&Entry| entry.absence.is_some_and(Absence::is_held);
        let held = self.jobs.values().filter(held).count();
        self.any_held = held > 0;
        held
    }

    /// Takes in a row of a listing that began at `began`; it is one of the newest if `at_top`.
    pub(super) fn row(&mut self, row: &Row, began: Sequence, at_top: bool) -> RowMeaning {
        if row.state == Some(JobState::Finalized) {
            return if self.jobs.contains_key(&row.id) {
                self.end(&row.id);
                RowMeaning::Ended
            } else if self.ended.contains(&row.id) {
                RowMeaning::Known
            } else {
                if at_top {
                    self.ended.put(row.id.clone(), self.now);
                }
                RowMeaning::EndedBefore
            };
        }
        if let Some(entry) = self.jobs.get_mut(&row.id) {
            if row.position.is_some() {
                entry.position.clone_from(&row.position);
            }
            entry.absence = None;
            if let Some(remembered) = &mut entry.remembered
                && remembered.listed != row.state
            {
                remembered.listed = row.state;
                self.changed.insert(row.id.clone());
            }
            let known = entry.known.as_ref().map(|job| job.state);
            return match (known, row.state) {
                (Some(known), Some(found)) if known != found => RowMeaning::StateChanged,
                _ => RowMeaning::Known,
            };
        }
        match self.ended.peek(&row.id) {
            // The row may be older than that.
            Some(since) if *since > began => RowMeaning::Known,
            _ if self.jobs.len() >= JOBS_AT_MOST => RowMeaning::OverLimit,
            _ => {
                self.ended.pop(&row.id);
                self.add(&row.id, None, None, row.position.clone());
                RowMeaning::New
            }
        }
    }

    /// Takes in an answer about one job, or why there was none.
    pub(super) fn answer(&mut self, id: &JobId, answer: &Result<Detail, Failure>) -> AnswerMeaning {
        let Some(entry) = self.jobs.get_mut(id) else {
            return AnswerMeaning::Same;
        };
        let detail = match answer {
            Ok(detail) => detail,
            Err(failure) => {
                if let Some(remembered) = &mut entry.remembered
                    && !remembered.asked
                {
                    remembered.asked = true;
                    self.changed.insert(id.clone());
                }
                return match Absence::after(&mut entry.absence, failure.kind()) {
                    Conclusion::Nothing => AnswerMeaning::Same,
                    Conclusion::Doubtful => AnswerMeaning::Doubtful,
                    Conclusion::Over => {
                        self.end(id);
                        AnswerMeaning::Ended
                    }
                };
            }
        };
        if detail.job.state == JobState::Finalized {
            self.end(id);
            return AnswerMeaning::Ended;
        }
        entry.absence = None;
        if entry.remembered.take().is_some() {
            self.changed.insert(id.clone());
        }
        let mut job = detail.job.clone();
        if let Some(known) = &entry.known
            && known.host == job.host
        {
            job.host_name.clone_from(&known.host_name);
            job.host_live = known.host_live;
        }
        self.hosts.describe(&mut job);
        let meaning = match &entry.known {
            None => AnswerMeaning::Appeared {
                first_seen: entry.first_seen,
            },
            Some(known) if **known != job => AnswerMeaning::Changed,
            Some(_) => return AnswerMeaning::Same,
        };
        let host = job.host.clone();
        let before = entry.known.replace(Arc::new(job));
        self.changed.insert(id.clone());
        self.hosts
            .job_moved(id, before.and_then(|job| job.host.clone()), host);
        meaning
    }

    /// Takes in a complete listing, and says which jobs have ended and which are to be asked about
    /// because they were not in it.
    pub(super) fn listing(&mut self, listing: &Listing<'_>) -> Missing {
        let (mut ended, mut doubtful) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.jobs {
            let reached = listing
                .down_to
                .is_none_or(|place| entry.position.as_ref().is_some_and(|own| own > place));
            if listing.present.contains(id) {
                entry.absence = None;
            } else if entry.since > listing.began || !reached {
                // Came after the walk had passed the place where it would have been, or is where
                // the walk did not come.
            } else if entry
                .absence
                .is_some_and(|one| one.is_confirmed(listing.of_all))
            {
                ended.push(id.clone());
            } else {
                doubtful.push(id.clone());
            }
        }
        let absence = Absence::of_many(doubtful.len(), self.jobs.len(), listing.of_all);
        for id in &doubtful {
            if let Some(entry) = self.jobs.get_mut(id) {
                entry.absence = Some(absence);
            }
        }
        for id in &ended {
            self.end(id);
        }
        self.told.complete = Some(SystemTime::now());
        self.news = true;
        self.any_held |= absence.is_held();
        Missing {
            held: if absence.is_held() { doubtful.len() } else { 0 },
            ended,
            doubtful,
        }
    }

    /// Takes in the hosts, read at `now`; readings are at most `apart` from one another.
    pub(super) fn hosts_read(&mut self, hosts: Hosts, now: Instant, apart: Duration) {
        self.news |= self.hosts.reading(hosts, now, apart);
        for (id, entry) in &mut self.jobs {
            let Some(known) = &mut entry.known else {
                continue;
            };
            let mut job = Job::clone(known);
            self.hosts.describe(&mut job);
            if **known != job {
                *known = Arc::new(job);
                self.changed.insert(id.clone());
            }
            if self.hosts.silent_for_job(known).as_ref() != self.told.silent.get(id) {
                self.changed.insert(id.clone());
            }
        }
    }

    /// Everything known, if that is not what it was at the last call.
    pub(super) fn changed(&mut self) -> Option<KnownJobs> {
        let changed = std::mem::take(&mut self.changed);
        if !std::mem::take(&mut self.news) && changed.is_empty() {
            return None;
        }
        for id in changed {
            let entry = self.jobs.get(&id);
            let known = entry.and_then(|entry| entry.known.as_ref());
            let remembered = entry.and_then(|entry| entry.remembered);
            let silent = known.and_then(|job| self.hosts.silent_for_job(job));
            let told = &mut self.told;
            put(&mut told.jobs, &id, known.cloned());
            put(&mut told.remembered, &id, remembered);
            put(&mut told.silent, &id, silent);
        }
        Some(self.told.clone())
    }

    fn add(
        &mut self,
        id: &JobId,
        known: Option<Arc<Job>>,
        remembered: Option<Remembered>,
        position: Option<Position>,
    ) {
        self.now.0 += 1;
        let host = known.as_ref().and_then(|job| job.host.clone());
        let entry = Entry {
            since: self.now,
            first_seen: Instant::now(),
            known,
            remembered,
            position,
            absence: None,
        };
        self.jobs.insert(id.clone(), entry);
        self.hosts.job_moved(id, None, host);
    }

    fn end(&mut self, id: &JobId) {
        let Some(entry) = self.jobs.remove(id) else {
            return;
        };
        self.now.0 += 1;
        if entry.known.is_some() || entry.remembered.is_some() {
            self.changed.insert(id.clone());
        }
        self.ended.put(id.clone(), self.now);
        let host = entry.known.and_then(|job| job.host.clone());
        self.hosts.job_moved(id, host, None);
    }
}

/// Has `map` say of a job what there is to say, if anything.
fn put<V: Clone>(map: &mut SharedMap<JobId, V>, id: &JobId, value: Option<V>) {
    match value {
        Some(value) => map.insert(id.clone(), value),
        None => map.remove(id),
    };
}

#[cfg(test)]
mod tests;
