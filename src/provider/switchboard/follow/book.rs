//! What is known of the jobs, and what an answer does to it. No I/O.
//!
//! A job is forgotten when a valid answer says that it is finalized, or when a complete listing
//! that began after the job was known does not have it and a question about the job itself, asked
//! because of that, does not say otherwise. Nothing else ends a job: not an error, not an answer
//! that cannot be read, not part of a listing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::recent::Recent;
use crate::provider::switchboard::{
    client::{Failure, FailureKind},
    job::{Job, JobId, JobState, Knowledge},
    read::{Detail, HostId, Hosts, Row},
};

/// How many jobs are followed. More is no testbed but a mistake, and memory is not endless.
const JOBS_AT_MOST: usize = 20_000;

/// How many ids are remembered of jobs that have ended: more than the listing changes by between
/// two looks at its top.
const RECENT: usize = 4096;

/// How many rows at the top of the listing are looked at for such jobs: a history of any length
/// must not push out what is new.
pub(super) const TOP_ROWS: usize = RECENT / 4;

/// A point in the order in which things became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// What is known.
#[derive(Debug)]
pub(super) struct Book {
    jobs: BTreeMap<JobId, Entry>,
    /// Ended or never to be followed; a late answer about one revives nothing.
    ended: Recent,
    hosts: Hosts,
    complete: Option<SystemTime>,
    now: Moment,
    changed: bool,
}

/// A job that has not ended.
#[derive(Debug)]
struct Entry {
    since: Moment,
    first_seen: Instant,
    /// What the last valid answer about it said.
    known: Option<Arc<Job>>,
    host: Option<HostId>,
    absent: Option<Absence>,
}

/// A complete listing did not have the job.
#[derive(Debug, Clone, Copy)]
struct Absence {
    /// It had no job at all, as one who lost all rights would see it.
    listing_was_empty: bool,
}

/// What a row of a listing means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// A job to be followed from now on.
    New,
    /// A job that has another state than is known.
    Moved,
    /// A job that has ended.
    Ended,
    /// Nothing that was not known.
    Known,
    /// A job that has ended before it was known.
    Past,
    /// A job too many.
    OverLimit,
}

/// What an answer about a job, or the lack of one, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing for others to know.
    Same,
    /// It is known for the first time, `first_seen` ago.
    Appeared { first_seen: Instant },
    /// It is not what it was.
    Changed,
    /// It has ended.
    Ended,
    /// It may have ended; a complete listing will tell.
    Doubtful,
}

impl Book {
    /// With what was known before.
    pub(super) fn new(before: &Knowledge) -> Self {
        let mut book = Self {
            jobs: BTreeMap::new(),
            ended: Recent::new(RECENT),
            hosts: Hosts::default(),
            complete: before.complete,
            now: Moment(0),
            changed: false,
        };
        for (id, job) in &before.jobs {
            book.add(id, Some(Arc::clone(job)));
        }
        book
    }

    /// The present, for telling what became known later.
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// Every job followed.
    pub(super) fn ids(&self) -> impl Iterator<Item = &JobId> {
        self.jobs.keys()
    }

    /// How many jobs are followed.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The jobs on `host`.
    pub(super) fn on_host(&self, host: &HostId) -> impl Iterator<Item = &JobId> {
        let on_host =
            move |(id, entry): (_, &Entry)| (entry.host.as_ref() == Some(host)).then_some(id);
        self.jobs.iter().filter_map(on_host)
    }

    /// Takes in a row of a listing, which is one of the newest if `at_top`.
    pub(super) fn row(&mut self, row: &Row, at_top: bool) -> Seen {
        if row.state == Some(JobState::Finalized) {
            return match self.jobs.contains_key(&row.id) {
                true => {
                    self.end(&row.id);
                    Seen::Ended
                }
                false if self.ended.contains(&row.id) => Seen::Known,
                false => {
                    if at_top {
                        self.ended.insert(row.id.clone());
                    }
                    Seen::Past
                }
            };
        }
        if let Some(entry) = self.jobs.get(&row.id) {
            let known = entry.known.as_ref().map(|job| job.state);
            return match (known, row.state) {
                (Some(known), Some(found)) if known != found => Seen::Moved,
                _ => Seen::Known,
            };
        }
        match self.ended.contains(&row.id) {
            true => Seen::Known,
            false if self.jobs.len() >= JOBS_AT_MOST => Seen::OverLimit,
            false => {
                self.add(&row.id, None);
                Seen::New
            }
        }
    }

    /// Takes in an answer about one job, or why there was none.
    pub(super) fn job(&mut self, id: &JobId, answer: &Result<Detail, Failure>) -> Verdict {
        let Some(entry) = self.jobs.get_mut(id) else {
            return Verdict::Same;
        };
        let detail = match answer {
            Ok(detail) => detail,
            Err(failure) => return self.no_answer(id, failure.kind()),
        };
        if detail.job.state == JobState::Finalized {
            self.end(id);
            return Verdict::Ended;
        }
        entry.absent = None;
        entry.host.clone_from(&detail.host);
        let job = Job {
            host_live: live(&self.hosts, entry),
            ..detail.job.clone()
        };
        let verdict = match &entry.known {
            None => Verdict::Appeared {
                first_seen: entry.first_seen,
            },
            Some(known) if **known != job => Verdict::Changed,
            Some(_) => return Verdict::Same,
        };
        entry.known = Some(Arc::new(job));
        self.changed = true;
        verdict
    }

    fn no_answer(&mut self, id: &JobId, kind: FailureKind) -> Verdict {
        let absence = self.jobs.get(id).and_then(|entry| entry.absent);
        match (kind, absence) {
            // Says nothing about the job.
            (
                FailureKind::Connect
                | FailureKind::Timeout
                | FailureKind::Cut
                | FailureKind::Unauthorized
                | FailureKind::Outdated
                | FailureKind::Status,
                _,
            ) => Verdict::Same,
            // Nobody may see anything: that is about the account, not about the job.
            (FailureKind::Forbidden, Some(absence)) if absence.listing_was_empty => Verdict::Same,
            // No job that can be read, and none in the listing.
            (_, Some(_)) => {
                self.end(id);
                Verdict::Ended
            }
            // An admin gets 500 for a job that does not exist, and for any other trouble.
            (FailureKind::NotFound | FailureKind::Server, None) => Verdict::Doubtful,
            (FailureKind::Forbidden | FailureKind::TooLarge | FailureKind::Invalid, None) => {
                Verdict::Same
            }
        }
    }

    /// Takes in a complete listing that began at `began` and had `present` in it, and says which
    /// jobs have ended and which are to be asked about because they were not in it.
    pub(super) fn listed(
        &mut self,
        began: Moment,
        present: &HashSet<JobId>,
    ) -> (Vec<JobId>, Vec<JobId>) {
        let absence = Absence {
            listing_was_empty: present.is_empty(),
        };
        let (mut ended, mut doubtful) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.jobs {
            if present.contains(id) {
                entry.absent = None;
            } else if entry.since > began {
                // Came after the walk had passed the place where it would have been.
            } else if entry.absent.is_some() && !absence.listing_was_empty {
                // Asked about since, without an answer: twice missing is gone.
                ended.push(id.clone());
            } else {
                entry.absent = Some(absence);
                doubtful.push(id.clone());
            }
        }
        for id in &ended {
            self.end(id);
        }
        self.complete = Some(SystemTime::now());
        self.changed = true;
        (ended, doubtful)
    }

    /// Takes in the hosts.
    pub(super) fn hosts(&mut self, hosts: Hosts) {
        self.hosts = hosts;
        for entry in self.jobs.values_mut() {
            let live = live(&self.hosts, entry);
            if let Some(job) = &mut entry.known
                && entry.host.is_some()
                && job.host_live != live
            {
                Arc::make_mut(job).host_live = live;
                self.changed = true;
            }
        }
    }

    /// Everything known, if that is not what it was at the last call.
    pub(super) fn news(&mut self) -> Option<Knowledge> {
        let knowledge = || Knowledge {
            jobs: self
                .jobs
                .iter()
                .filter_map(|(id, entry)| Some((id.clone(), Arc::clone(entry.known.as_ref()?))))
                .collect(),
            complete: self.complete,
        };
        let news = self.changed.then(knowledge);
        self.changed = false;
        news
    }

    fn add(&mut self, id: &JobId, known: Option<Arc<Job>>) {
        self.now.0 += 1;
        let entry = Entry {
            since: self.now,
            first_seen: Instant::now(),
            known,
            host: None,
            absent: None,
        };
        self.jobs.insert(id.clone(), entry);
    }

    fn end(&mut self, id: &JobId) {
        if let Some(entry) = self.jobs.remove(id) {
            self.changed |= entry.known.is_some();
            self.ended.insert(id.clone());
        }
    }
}

fn live(hosts: &Hosts, entry: &Entry) -> Option<bool> {
    hosts.live(entry.host.as_ref()?)
}

#[cfg(test)]
mod tests;
