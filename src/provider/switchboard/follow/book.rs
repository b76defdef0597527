//! What is known of the jobs, and what an answer does to it. No I/O.
//!
//! A job is forgotten when a valid answer or a row of a listing says that it is finalized; when it
//! is missing from a complete listing of all jobs, had by an account that was seen to have the right
//! to all of them, and a question about the job itself, asked because of that, does not say
//! otherwise, or it is missing from the next such listing as well; and when it is missing from any
//! complete listing and the answer about itself is 404. Nothing else ends a job: not an error, not a
//! refusal, not an answer that cannot be read, not part of a listing.
//!
//! Many jobs that are missing all at once are held back until the next such listing. Whatever was
//! concluded, a job that a later listing has as active is followed again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{recent::Recent, silent::Silent};
use crate::provider::switchboard::{
    client::{Failure, FailureKind},
    job::{HostId, Job, JobId, JobState, KnownJobs, Remembered},
    read::{Detail, Hosts, Position, Row},
};

/// How many jobs are followed. More is no testbed but a mistake, and memory is not endless.
const JOBS_AT_MOST: usize = 20_000;

/// How many ids are remembered of jobs that have ended: more than the listing changes by between
/// two looks at its top.
const RECENT: usize = 4096;

/// How many rows at the top of the listing are looked at for such jobs: a history of any length
/// must not push out what is new.
pub(super) const TOP_ROWS: usize = RECENT / 4;

/// Jobs that may be missing from one listing without anybody wondering; of more, a third.
const MISSING_AT_MOST: usize = 5;

/// A point in the order in which things became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// What is known.
#[derive(Debug)]
pub(super) struct Book {
    jobs: BTreeMap<JobId, Entry>,
    /// Ended or never to be followed; a late answer about one revives nothing.
    ended: Recent,
    /// `None` before the first reading.
    hosts: Option<Hosts>,
    silent: Silent,
    /// Jobs on each host that has any.
    in_use: HashMap<HostId, usize>,
    /// Hosts that came into that or left it.
    turned: Vec<HostId>,
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
    /// It is from before the start, and there was no such answer yet.
    remembered: Option<Remembered>,
    /// Where it stands in the listing, if it was seen there.
    position: Option<Position>,
    absent: Option<Absence>,
}

/// A complete listing did not have the job.
#[derive(Debug, Clone, Copy)]
struct Absence {
    /// The account was seen to have the right to all jobs.
    of_all: bool,
    /// It was one of too many.
    held: bool,
    /// It was asked about since.
    asked: bool,
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

/// A complete listing, or all of one above a place.
#[derive(Debug)]
pub(super) struct Listed<'a> {
    /// When it began.
    pub(super) began: Moment,
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

impl Book {
    /// With what was known before.
    pub(super) fn new(before: &KnownJobs) -> Self {
        let mut book = Self {
            jobs: BTreeMap::new(),
            ended: Recent::new(RECENT),
            hosts: None,
            silent: Silent::default(),
            in_use: HashMap::new(),
            turned: Vec::new(),
            complete: before.complete,
            now: Moment(0),
            changed: false,
        };
        for (id, job) in &before.jobs {
            book.add(id, Some(Arc::clone(job)), None);
        }
        for (id, remembered) in &before.remembered {
            book.add(id, None, Some(*remembered));
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

    /// Where the lowest of some jobs stands in the listing.
    pub(super) fn lowest(&self, of: impl Fn(&JobId) -> bool) -> Option<&Position> {
        let those = self.jobs.iter().filter(|(id, _)| of(id));
        those.filter_map(|(_, entry)| entry.position.as_ref()).min()
    }

    /// The jobs on `host`.
    pub(super) fn on_host(&self, host: &HostId) -> impl Iterator<Item = &JobId> {
        let on_host = move |(id, entry): (_, &Entry)| {
            let known = entry.known.as_ref()?;
            (known.host.as_ref() == Some(host)).then_some(id)
        };
        self.jobs.iter().filter_map(on_host)
    }

    /// Whether there is a job on `host`.
    pub(super) fn is_in_use(&self, host: &HostId) -> bool {
        self.in_use.contains_key(host)
    }

    /// Hosts of which that may have changed since the last call.
    pub(super) fn turned(&mut self) -> Vec<HostId> {
        std::mem::take(&mut self.turned)
    }

    /// Jobs that a listing did not have, but too many at once.
    pub(super) fn held(&self) -> usize {
        let held = |entry: &&Entry| entry.absent.is_some_and(|absent| absent.held);
        self.jobs.values().filter(held).count()
    }

    /// Takes in a row of a listing that began at `began`; it is one of the newest if `at_top`.
    pub(super) fn row(&mut self, row: &Row, began: Moment, at_top: bool) -> Seen {
        if row.state == Some(JobState::Finalized) {
            return match self.jobs.contains_key(&row.id) {
                true => {
                    self.end(&row.id);
                    Seen::Ended
                }
                false if self.ended.since(&row.id).is_some() => Seen::Known,
                false => {
                    if at_top {
                        self.ended.insert(row.id.clone(), self.now);
                    }
                    Seen::Past
                }
            };
        }
        if let Some(entry) = self.jobs.get_mut(&row.id) {
            if row.position.is_some() {
                entry.position.clone_from(&row.position);
            }
            entry.absent = None;
            if let Some(remembered) = &mut entry.remembered
                && remembered.listed != row.state
            {
                remembered.listed = row.state;
                self.changed = true;
            }
            let known = entry.known.as_ref().map(|job| job.state);
            return match (known, row.state) {
                (Some(known), Some(found)) if known != found => Seen::Moved,
                _ => Seen::Known,
            };
        }
        match self.ended.since(&row.id) {
            // The row may be older than that.
            Some(since) if since > began => Seen::Known,
            _ if self.jobs.len() >= JOBS_AT_MOST => Seen::OverLimit,
            _ => {
                self.ended.remove(&row.id);
                self.add(&row.id, None, None);
                if let Some(entry) = self.jobs.get_mut(&row.id) {
                    entry.position.clone_from(&row.position);
                }
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
        self.changed |= entry.remembered.take().is_some();
        let mut job = detail.job.clone();
        let known = entry
            .known
            .as_deref()
            .filter(|known| known.host == job.host);
        if let Some(known) = known {
            job.host_name.clone_from(&known.host_name);
            job.host_live = known.host_live;
        }
        if let Some(hosts) = &self.hosts {
            describe_host(&mut job, hosts);
        }
        let host = job.host.clone();
        let verdict = match &entry.known {
            None => Verdict::Appeared {
                first_seen: entry.first_seen,
            },
            Some(known) if **known != job => Verdict::Changed,
            Some(_) => return Verdict::Same,
        };
        let before = entry.known.replace(Arc::new(job));
        self.changed = true;
        self.moved(before.and_then(|job| job.host.clone()), host);
        verdict
    }

    fn no_answer(&mut self, id: &JobId, kind: FailureKind) -> Verdict {
        let Some(entry) = self.jobs.get_mut(id) else {
            return Verdict::Same;
        };
        if let Some(remembered) = &mut entry.remembered
            && !remembered.asked
        {
            remembered.asked = true;
            self.changed = true;
        }
        if let Some(absent) = &mut entry.absent {
            absent.asked = true;
        }
        match (kind, entry.absent) {
            // Who may read all jobs is never refused one: it is about the account, and so was the
            // listing.
            (FailureKind::Forbidden | FailureKind::Unauthorized, _) => {
                entry.absent = None;
                Verdict::Same
            }
            // An admin gets 500 for a job that does not exist, and for any other trouble.
            (FailureKind::NotFound | FailureKind::Server, None) => Verdict::Doubtful,
            (_, Some(Absence { held: true, .. })) => Verdict::Same,
            (FailureKind::NotFound, Some(_))
            | (FailureKind::Server, Some(Absence { of_all: true, .. })) => {
                self.end(id);
                Verdict::Ended
            }
            // Says nothing about the job.
            _ => Verdict::Same,
        }
    }

    /// Takes in a complete listing, and says which jobs have ended and which are to be asked about
    /// because they were not in it.
    pub(super) fn listed(&mut self, listed: &Listed<'_>) -> Missing {
        let all = self.jobs.len();
        let (mut ended, mut doubtful) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.jobs {
            let reached = listed
                .down_to
                .is_none_or(|place| entry.position.as_ref().is_some_and(|own| own > place));
            if listed.present.contains(id) {
                entry.absent = None;
            } else if entry.since > listed.began || !reached {
                // Came after the walk had passed the place where it would have been, or is where
                // the walk did not come.
            } else if listed.of_all && entry.absent.is_some_and(|one| one.of_all && one.asked) {
                // Asked about since, without an answer: twice missing is gone.
                ended.push(id.clone());
            } else {
                doubtful.push(id.clone());
            }
        }
        let many = doubtful.len() > MISSING_AT_MOST && doubtful.len() * 3 > all;
        let absence = Absence {
            of_all: listed.of_all,
            held: listed.of_all && many,
            asked: false,
        };
        for id in &doubtful {
            if let Some(entry) = self.jobs.get_mut(id) {
                entry.absent = Some(absence);
            }
        }
        for id in &ended {
            self.end(id);
        }
        self.complete = Some(SystemTime::now());
        self.changed = true;
        Missing {
            held: if absence.held { doubtful.len() } else { 0 },
            ended,
            doubtful,
        }
    }

    /// Takes in the hosts, read at `now`; readings are at most `apart` from one another.
    pub(super) fn hosts(&mut self, hosts: Hosts, now: Instant, apart: Duration) {
        self.changed |= self.silent.read(&hosts, now, apart);
        for entry in self.jobs.values_mut() {
            let Some(known) = &mut entry.known else {
                continue;
            };
            let mut job = Job::clone(known);
            describe_host(&mut job, &hosts);
            if **known != job {
                *known = Arc::new(job);
                self.changed = true;
            }
        }
        self.hosts = Some(hosts);
    }

    /// Notes that the hosts could not be had.
    pub(super) fn no_hosts(&mut self) {
        self.silent.failed();
    }

    /// Everything known, if that is not what it was at the last call.
    pub(super) fn news(&mut self) -> Option<KnownJobs> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut news = KnownJobs {
            complete: self.complete,
            ..KnownJobs::default()
        };
        for (id, entry) in &self.jobs {
            if let Some(remembered) = entry.remembered {
                news.remembered.insert(id.clone(), remembered);
            }
            let Some(job) = &entry.known else { continue };
            let silent = job.host.as_ref().and_then(|host| self.silent.of(host));
            news.silent
                .extend(silent.map(|silent| (id.clone(), silent)));
            news.jobs.insert(id.clone(), Arc::clone(job));
        }
        Some(news)
    }

    fn add(&mut self, id: &JobId, known: Option<Arc<Job>>, remembered: Option<Remembered>) {
        self.now.0 += 1;
        let host = known.as_ref().and_then(|job| job.host.clone());
        let entry = Entry {
            since: self.now,
            first_seen: Instant::now(),
            known,
            remembered,
            position: None,
            absent: None,
        };
        self.jobs.insert(id.clone(), entry);
        self.moved(None, host);
    }

    fn end(&mut self, id: &JobId) {
        let Some(entry) = self.jobs.remove(id) else {
            return;
        };
        self.now.0 += 1;
        self.changed |= entry.known.is_some() || entry.remembered.is_some();
        self.ended.insert(id.clone(), self.now);
        self.moved(entry.known.and_then(|job| job.host.clone()), None);
    }

    /// Counts a job that was on one host and is on another.
    fn moved(&mut self, from: Option<HostId>, to: Option<HostId>) {
        if from == to {
            return;
        }
        if let Some(from) = from
            && let Some(count) = self.in_use.get_mut(&from)
        {
            *count -= 1;
            if *count == 0 {
                self.in_use.remove(&from);
                self.turned.push(from);
            }
        }
        if let Some(to) = to {
            let count = self.in_use.entry(to.clone()).or_default();
            *count += 1;
            if *count == 1 {
                self.turned.push(to);
            }
        }
    }
}

/// Completes a job by what a reading says of its host. A reading without it, or without its name, takes
/// the name from nobody: an address may hang on it.
fn describe_host(job: &mut Job, hosts: &Hosts) {
    let Some(host) = &job.host else { return };
    job.host_live = hosts.live(host);
    if let Some(name) = hosts.name(host) {
        job.host_name = Some(Arc::clone(name));
    }
}

#[cfg(test)]
mod tests;
