//! Keeping up with a switchboard: what it knows of its jobs, published whenever that changes.
//!
//! The listing is [walked](walk) when its [schedule] says so, and every known job is kept up to date by
//! a [task of its own](job_task). What is published is right or old, and never wrong: only valid answers
//! change it, by the rules of the [table of jobs](job_table) and of what is [over](absence).
//!
//! Nothing here judges an address or gives out a port.

mod absence;
mod backoff;
mod failure_log;
mod hosts;
mod job_table;
mod job_task;
mod schedule;
mod settings;
mod walk;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant as Clock},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

pub use self::settings::FollowSettings;
use self::{
    backoff::{Backoff, Schedule, jittered},
    failure_log::{FailureLog, Subject},
    job_table::{AnswerMeaning, JobTable, Listing, RowMeaning, Sequence},
    job_task::{Context, Signal, TRY_AGAIN},
    schedule::WalkSchedule,
    walk::{Extent, Step, Walk},
};
use super::{
    client::{Client, Failure, FailureKind},
    job::{HostId, JobId, JobState, KnownJobs},
    read::{Detail, Hosts, Page, Rights},
    stats::{FollowStats, Request},
    watch::{WatchPool, Watched},
};
use crate::telemetry::metric;

/// Events that wait to be taken in; who has more to say waits.
const EVENTS: usize = 256;

/// Hosts that have a watch. More is no testbed but a mistake.
const HOSTS_AT_MOST: usize = 4096;

/// How long a walk waits at its beginning to hear what the account may read.
const RIGHTS_WITHIN: Duration = Duration::from_secs(5);

/// Something that a task found out.
#[derive(Debug)]
enum Event {
    /// The next page of a walk, with the first one what the account may read.
    Page(Walk, Result<Page, Failure>, Option<Result<Rights, Failure>>),
    /// What the account may read at the end of a walk.
    Walked(Walk, Result<Rights, Failure>),
    /// The hosts.
    Hosts(Result<Hosts, Failure>),
    /// A job, read because of a notice given at a time, or without one.
    Job(JobId, Result<Detail, Failure>, Option<Instant>),
    /// A watch was opened, or was not.
    Watch(Watched, Result<(), Failure>),
    /// A job came to a host or left it.
    HostMoved(HostId),
}

/// Follows the switchboard that `client` asks, and publishes what it knows by `publish`.
///
/// What `publish` holds at the beginning is taken for what was known before: it stays until an
/// answer says otherwise. Ends when nobody receives any more; dropping it ends everything at once.
pub async fn follow(
    settings: FollowSettings,
    client: Client,
    publish: watch::Sender<Arc<KnownJobs>>,
    stats: Arc<FollowStats>,
) {
    let before = Arc::clone(&publish.borrow());
    let (events, inbox) = mpsc::channel(EVENTS);
    stats.begin(before.complete);
    let availability = Arc::clone(client.availability());
    let recoveries = availability.recoveries();
    let context = Arc::new(Context {
        watches: WatchPool::new(client.clone(), settings.max_watches),
        client,
        settings,
        stats: Arc::clone(&stats),
        reading: Semaphore::new(settings.concurrency.max(1)),
        opening: Semaphore::new(settings.concurrency.max(1)),
        events,
        looked_down: AtomicBool::new(false),
    });
    let follower = Follower {
        table: JobTable::new(&before),
        failures: FailureLog::new(Arc::clone(&stats), availability, settings.needs_hosts),
        jobs: HashMap::new(),
        hosts: HashMap::new(),
        tasks: JoinSet::new(),
        walks: WalkSchedule::new(settings, &recoveries),
        host_readings: Schedule::new(Backoff::new(TRY_AGAIN, recoveries)),
        appeared: Vec::new(),
        noticed: Vec::new(),
        context,
        publish,
        stats,
    };
    follower.run(inbox).await;
}

/// The state of following.
#[derive(Debug)]
struct Follower {
    context: Arc<Context>,
    stats: Arc<FollowStats>,
    publish: watch::Sender<Arc<KnownJobs>>,
    table: JobTable,
    failures: FailureLog,
    jobs: HashMap<JobId, Followed>,
    hosts: HashMap<HostId, Followed>,
    /// Every task there is; they end with it.
    tasks: JoinSet<()>,
    walks: WalkSchedule,
    host_readings: Schedule,
    /// When what is about to be published was seen first.
    appeared: Vec<Clock>,
    /// When notice was given of what is about to be published.
    noticed: Vec<Instant>,
}

/// A job or a host with a task of its own.
#[derive(Debug)]
struct Followed {
    signal: Arc<Signal>,
    task: AbortHandle,
}

impl Follower {
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        let restored: Vec<_> = self.table.ids().cloned().collect();
        for id in &restored {
            self.follow_job(id);
        }
        let mut recoveries = self.context.client.availability().recoveries();
        loop {
            self.begin_what_is_due();
            self.publish_changes();
            self.stats
                .set_watch_connections(self.context.watches.used());
            tokio::select! {
                event = inbox.recv() => {
                    let mut next = event;
                    // What came together is published together.
                    while let Some(event) = next {
                        self.take_in(event);
                        next = inbox.try_recv().ok();
                    }
                }
                () = sleep_until(self.next_due()) => {}
                Ok(()) = recoveries.changed() => {
                    self.walks.recover();
                    self.host_readings.recover();
                }
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Err(error) = ended
                        && error.is_panic()
                    {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
                () = self.publish.closed() => return,
            }
        }
    }

    fn next_due(&self) -> Instant {
        let hosts = self.host_readings.due();
        let due = hosts.into_iter().chain(self.walks.next_due()).min();
        due.unwrap_or_else(|| Instant::now() + self.context.settings.refresh)
    }

    fn begin_what_is_due(&mut self) {
        let (table, jobs) = (&self.table, &self.jobs);
        let unwatched = jobs.iter().filter(|(_, job)| !job.signal.is_watched());
        let lowest = || table.lowest(unwatched.map(|(id, _)| id)).cloned();
        let walks = self.walks.begin_due(table.now(), lowest);
        for walk in walks {
            self.ask_for_page(walk);
        }
        if self.host_readings.begin(Instant::now()) {
            let context = Arc::clone(&self.context);
            self.tasks.spawn(async move {
                let hosts = context.client.hosts().await;
                context.send(Event::Hosts(hosts)).await;
            });
        }
    }

    fn ask_for_page(&mut self, walk: Walk) {
        let context = Arc::clone(&self.context);
        let asks_rights = walk.extent == Extent::Whole && walk.pages() == 0;
        self.tasks.spawn(async move {
            let (limit, cursor) = walk.question();
            let rights = async {
                if !asks_rights {
                    return None;
                }
                let allowed = RIGHTS_WITHIN;
                let rights = timeout(allowed, context.client.rights()).await;
                Some(rights.unwrap_or(Err(Failure::Timeout { allowed })))
            };
            let page = context.client.jobs(limit, cursor.as_ref());
            let (page, rights) = tokio::join!(page, rights);
            context.send(Event::Page(walk, page, rights)).await;
        });
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Page(walk, page, rights) => self.page(walk, page, rights),
            Event::Walked(mut walk, rights) => {
                walk.of_all &= self.take_rights(&rights) == Some(Rights::All);
                self.walked(&walk);
            }
            Event::Hosts(hosts) => self.take_hosts(hosts),
            Event::Job(id, answer, noticed) => self.job(&id, &answer, noticed),
            Event::Watch(what, opened) => {
                let (subject, followed) = match what {
                    Watched::Job(id) => (Subject::Job(id.clone()), self.jobs.contains_key(&id)),
                    Watched::Host(id) => (Subject::Host(id.clone()), self.hosts.contains_key(&id)),
                };
                if followed {
                    self.failures.note(Request::Watch, subject, &opened);
                }
            }
            Event::HostMoved(id) => {
                self.walks.host_hinted();
                self.table
                    .hosts
                    .jobs_on(&id)
                    .for_each(|job| self.raise(job));
            }
        }
    }

    fn page(
        &mut self,
        mut walk: Walk,
        page: Result<Page, Failure>,
        rights: Option<Result<Rights, Failure>>,
    ) {
        self.stats.count(Request::Jobs, &page);
        if let Some(rights) = rights {
            walk.of_all = self.take_rights(&rights) == Some(Rights::All);
        }
        let extent = walk.extent;
        let page = match page {
            Ok(page) => page,
            Err(failure) => match walk.smaller(&failure) {
                Ok(smaller) => {
                    self.note_listing(extent, &Err(failure));
                    return self.ask_for_page(smaller);
                }
                Err(walk) => {
                    self.walks.interrupted(*walk, &failure);
                    return self.not_walked(extent, failure);
                }
            },
        };
        self.walks.page_was_had();
        self.stats.listing_fails(false);
        let goes_on = self.rows(&page, walk.began, walk.rows() < job_table::TOP_ROWS);
        match walk.page(page, goes_on) {
            Ok(Step::On(walk)) => self.ask_for_page(walk),
            Ok(Step::Done(walk)) if walk.of_all => {
                let context = Arc::clone(&self.context);
                self.tasks.spawn(async move {
                    let rights = context.client.rights().await;
                    context.send(Event::Walked(walk, rights)).await;
                });
            }
            Ok(Step::Done(walk)) => self.walked(&walk),
            Err(failure) => self.not_walked(extent, failure),
        }
    }

    /// Takes in what the account may read, and says what that is.
    fn take_rights(&mut self, answer: &Result<Rights, Failure>) -> Option<Rights> {
        self.stats.count(Request::Account, answer);
        self.failures.note(Request::Account, Subject::Only, answer);
        let rights = match answer.as_ref().map_err(Failure::kind) {
            Ok(rights) => *rights,
            Err(FailureKind::NotFound | FailureKind::Forbidden) => Rights::Unknown,
            Err(_) => return None,
        };
        if self.walks.set_rights(rights) {
            self.stats.set_rights(rights);
            match rights {
                Rights::All => info!("the account of the token may read all jobs"),
                Rights::Some => warn!(
                    "the account of the token may not read all jobs: those it may not read are not \
                     found, and of those known none ends by being missing; what is open stays open"
                ),
                Rights::Unknown => {
                    info!("the switchboard does not say which jobs the account may read");
                }
            }
        }
        Some(rights)
    }

    /// Takes in the rows of a page, and says whether there is anything new on its lower half. Jobs that
    /// came meanwhile stand at the top, and so much below them that is known is enough.
    fn rows(&mut self, page: &Page, began: Sequence, at_top: bool) -> bool {
        let unreadable = page.rows.iter().filter(|row| row.state.is_none()).count();
        let unreadable = (page.lost + unreadable) as u64;
        metric::SWITCHBOARD_LEFT_OUT.add(&["rows"], unreadable);
        let mut goes_on = false;
        for (place, row) in page.rows.iter().enumerate() {
            if at_top && row.state == Some(JobState::Finalized) {
                self.stats.finished.add(&row.id);
            }
            let meaning = self.table.row(row, began, at_top);
            goes_on |= meaning.is_new() && place >= page.rows.len() / 2;
            match meaning {
                RowMeaning::New => self.follow_job(&row.id),
                RowMeaning::OverLimit => metric::SWITCHBOARD_LEFT_OUT.add(&["jobs"], 1),
                RowMeaning::StateChanged => self.raise(&row.id),
                RowMeaning::Ended => self.ended(&row.id),
                RowMeaning::EndedBefore | RowMeaning::Known => {}
            }
        }
        goes_on
    }

    /// A walk has come to its end.
    fn walked(&mut self, walk: &Walk) {
        let lost = walk.lost();
        let outcome = match lost {
            0 => Ok(()),
            _ => Err(Failure::invalid(&format!(
                "{lost} rows of the listing do not say whose they are, so no job is missing from it"
            ))),
        };
        self.note_listing(walk.extent, &outcome);
        self.walks.walked(walk);
        if walk.extent == Extent::Top {
            self.stats.polled();
            if let Some(all) = walk.looked_down() {
                self.context.looked_down.store(all, Relaxed);
            }
        } else if let Some(present) = walk.complete() {
            if self.stats.walks() == 0 {
                let (jobs, seconds) = (self.table.len(), walk.started.elapsed().as_secs_f64());
                info!(jobs, seconds, "the switchboard's jobs are known");
            }
            self.listed(&Listing {
                began: walk.began,
                present,
                down_to: walk.down_to(),
                of_all: walk.of_all,
            });
            self.stats.walked();
        }
    }

    /// A complete listing was had.
    fn listed(&mut self, listing: &Listing<'_>) {
        let held_before = self.table.held();
        let missing = self.table.listing(listing);
        if missing.held > 0 {
            warn!(
                missing = missing.held,
                jobs = self.table.len(),
                "many jobs are missing from the listing all at once: they are held back, and end if \
                 the next walk confirms it"
            );
        } else if held_before > 0 && !missing.ended.is_empty() {
            let jobs = missing.ended.len();
            warn!(
                jobs,
                "jobs are missing from a second listing and have ended"
            );
        }
        missing.ended.iter().for_each(|id| self.ended(id));
        missing.doubtful.iter().for_each(|id| self.raise(id));
    }

    fn not_walked(&mut self, extent: Extent, failure: Failure) {
        self.stats.listing_fails(true);
        self.note_listing(extent, &Err(failure));
        let in_outage = self.context.client.availability().outage().is_some();
        self.walks.failed(extent, in_outage);
    }

    fn note_listing(&mut self, extent: Extent, outcome: &Result<(), Failure>) {
        let subject = match extent {
            Extent::Whole => Subject::Only,
            Extent::Top => Subject::Top,
        };
        self.failures.note(Request::Jobs, subject, outcome);
    }

    fn take_hosts(&mut self, hosts: Result<Hosts, Failure>) {
        self.stats.count(Request::Hosts, &hosts);
        self.failures.note(Request::Hosts, Subject::Only, &hosts);
        let settings = self.context.settings;
        let hosts = match hosts {
            Ok(hosts) => hosts,
            Err(failure) => {
                match self.failures.is_trouble(Request::Hosts, failure.kind()) {
                    true => self.host_readings.failed(),
                    false => self.host_readings.worked(jittered(settings.refresh)),
                }
                self.table.hosts.reading_failed();
                return;
            }
        };
        let interval = settings.host_interval();
        self.host_readings.worked(jittered(interval));
        for (id, gone) in self.hosts.extract_if(|id, _| !hosts.contains(id)) {
            gone.task.abort();
            self.failures.forget(&Subject::Host(id));
        }
        for id in hosts.ids().take(HOSTS_AT_MOST) {
            if !self.hosts.contains_key(id) {
                let signal = Arc::new(Signal::of_host(self.table.hosts.is_in_use(id)));
                let context = Arc::clone(&self.context);
                let work = job_task::follow_host(context, id.clone(), Arc::clone(&signal));
                let task = self.tasks.spawn(work);
                self.hosts.insert(id.clone(), Followed { signal, task });
            }
        }
        let now = Instant::now().into_std();
        self.table.hosts_read(hosts, now, interval);
    }

    fn job(&mut self, id: &JobId, answer: &Result<Detail, Failure>, noticed: Option<Instant>) {
        // A last answer about a job that has ended meanwhile.
        if !self.jobs.contains_key(id) {
            return;
        }
        self.failures
            .note(Request::Job, Subject::Job(id.clone()), answer);
        if let Ok(detail) = answer {
            metric::SWITCHBOARD_LEFT_OUT.add(&["particulars"], detail.left_out as u64);
        }
        match self.table.answer(id, answer) {
            AnswerMeaning::Same => {}
            AnswerMeaning::Appeared { first_seen } => self.appeared.push(first_seen),
            AnswerMeaning::Changed => self.noticed.extend(noticed),
            AnswerMeaning::Ended => {
                self.noticed.extend(noticed);
                self.ended(id);
            }
            AnswerMeaning::Doubtful => self.walks.job_may_be_gone(),
        }
    }

    fn follow_job(&mut self, id: &JobId) {
        let signal = Arc::new(Signal::of_job());
        let context = Arc::clone(&self.context);
        let work = job_task::follow_job(context, id.clone(), Arc::clone(&signal));
        let task = self.tasks.spawn(work);
        self.jobs.insert(id.clone(), Followed { signal, task });
        self.stats.set_jobs_active(self.table.len());
    }

    fn raise(&self, id: &JobId) {
        if let Some(job) = self.jobs.get(id) {
            job.signal.raise();
        }
    }

    fn ended(&mut self, id: &JobId) {
        if let Some(job) = self.jobs.remove(id) {
            job.task.abort();
        }
        self.stats.finished.add(id);
        self.failures.forget(&Subject::Job(id.clone()));
        self.stats.set_jobs_active(self.table.len());
    }

    fn publish_changes(&mut self) {
        for host in self.table.hosts.turned() {
            if let Some(followed) = self.hosts.get(&host) {
                followed
                    .signal
                    .set_in_use(self.table.hosts.is_in_use(&host));
            }
        }
        let Some(known) = self.table.changed() else {
            return;
        };
        self.stats.set_held(self.table.held());
        self.publish.send_replace(Arc::new(known));
        for first_seen in self.appeared.drain(..) {
            self.stats.new_job_latency.observe(first_seen.elapsed());
        }
        for noticed in self.noticed.drain(..) {
            self.stats.change_latency.observe(noticed.elapsed());
        }
    }
}
