//! Keeping up with a switchboard: what it knows of its jobs, published whenever that changes.
//!
//! The listing is walked to its end at the start, and now and then, as a repair, to where nothing can
//! have changed that is not known. In between, its top is looked at for new jobs, at once when the
//! watch of a host hints at one, and every known job is kept up to date by a task of its own. What is
//! published is right or old, and never wrong: only valid answers change it, by the rules of the book.
//!
//! Nothing here judges an address or gives out a port.

mod backoff;
mod book;
mod episodes;
mod recent;
mod settings;
mod silent;
mod tend;
mod walk;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
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
    backoff::{Backoff, jittered},
    book::{Book, Listed, Seen, Verdict},
    episodes::{Episodes, Subject},
    tend::{Shared, Signal, TRY_AGAIN},
    walk::{Extent, Step, Walk},
};
use super::{
    client::{Client, Failure, FailureKind},
    job::{HostId, JobId, JobState, KnownJobs},
    read::{Detail, Hosts, Page, Position, Rights},
    stats::{FollowStats, Request},
    watch::{Lanes, Watched},
};

/// Events that wait to be taken in; who has more to say waits.
const EVENTS: usize = 256;

/// Hosts that have a watch. More is no testbed but a mistake.
const HOSTS_AT_MOST: usize = 4096;

/// Looks at the top are at least this far apart, however many hosts hint.
const LOOKS_APART: Duration = Duration::from_millis(100);

/// How long a walk waits at its beginning to hear what the account may read.
const RIGHTS_WITHIN: Duration = Duration::from_secs(5);

/// Of a listing of more rows only what is new is walked, most of the time.
const LONG_LISTING: usize = 1000;

/// Between two walks to the end of a long listing: with the right to all jobs, without, and if a job
/// may have gone from it.
const WHOLE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
const WHOLE_EVERY_IN_PART: Duration = Duration::from_secs(60 * 60);
const WHOLE_EVERY_IN_DOUBT: Duration = Duration::from_secs(60 * 60);

/// Between two looks that go down to every job without a watch, for each page that takes.
const LOOK_DOWN_PER_PAGE: Duration = Duration::from_millis(250);

/// While the switchboard does not answer, it is asked this often whether it does again.
const KNOCK: Duration = Duration::from_secs(1);

/// A walk asked for out of turn waits for so many times what the last one took.
const WALKS_APART: u32 = 10;

/// Something that a task found out.
#[derive(Debug)]
enum Event {
    /// The next page of a walk, with the first one what the account may read.
    Page(Walk, Result<Page, Failure>, Option<Result<Rights, Failure>>),
    /// What the account may read at the end of a walk.
    Walked(Walk, Result<Rights, Failure>),
    /// The hosts.
    Hosts(Result<Hosts, Failure>),
    /// A job, read because of a notice given at `noticed`, or without one.
    Job {
        id: JobId,
        answer: Result<Detail, Failure>,
        noticed: Option<Instant>,
    },
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
    stats.restored(before.complete);
    let shared = Arc::new(Shared {
        lanes: Lanes::new(client.clone(), settings.max_watches),
        client,
        settings,
        stats: Arc::clone(&stats),
        reading: Semaphore::new(settings.concurrency.max(1)),
        opening: Semaphore::new(settings.concurrency.max(1)),
        events,
        looked_down: AtomicBool::new(false),
    });
    let now = Instant::now();
    let availability = Arc::clone(shared.client.availability());
    let round = |limit| Round::new(now, Backoff::new(limit, availability.recoveries()));
    let repair_limit = settings.refresh.min(Duration::from_secs(60));
    let follower = Follower {
        book: Book::new(&before),
        episodes: Episodes::new(
            Arc::clone(&stats),
            Arc::clone(&availability),
            settings.needs_hosts,
        ),
        jobs: HashMap::new(),
        hosts: HashMap::new(),
        tasks: JoinSet::new(),
        whole: round(repair_limit),
        top: round(TRY_AGAIN),
        liveness: round(TRY_AGAIN),
        listed: false,
        walked: None,
        rights: None,
        covered: None,
        interrupted: None,
        doubt: false,
        look_down: now,
        look_again: false,
        appeared: Vec::new(),
        noticed: Vec::new(),
        shared,
        publish,
        stats,
    };
    follower.run(inbox).await;
}

/// The state of following.
#[derive(Debug)]
struct Follower {
    shared: Arc<Shared>,
    stats: Arc<FollowStats>,
    publish: watch::Sender<Arc<KnownJobs>>,
    book: Book,
    episodes: Episodes,
    jobs: HashMap<JobId, Tended>,
    hosts: HashMap<HostId, TendedHost>,
    /// Every task there is; they end with it.
    tasks: JoinSet<()>,
    /// Walks to the end of the listing.
    whole: Round,
    /// Looks at its top.
    top: Round,
    /// Looks at the hosts.
    liveness: Round,
    /// A page of a walk was had.
    listed: bool,
    /// How long the last walk took.
    walked: Option<Duration>,
    /// What the account may read, as it was said last.
    rights: Option<Rights>,
    /// What the last complete walk has seen.
    covered: Option<Covered>,
    /// A walk that a page could not be had for.
    interrupted: Option<Walk>,
    /// A job may have gone from the listing.
    doubt: bool,
    /// When a look goes down to the jobs without a watch again.
    look_down: Instant,
    /// A host hinted while the top was being looked at.
    look_again: bool,
    /// When what is about to be published was seen first.
    appeared: Vec<Clock>,
    /// When notice was given of what is about to be published.
    noticed: Vec<Instant>,
}

/// A job's task.
#[derive(Debug)]
struct Tended {
    signal: Arc<Signal>,
    task: AbortHandle,
}

/// A host's task.
#[derive(Debug)]
struct TendedHost {
    signal: Arc<Signal>,
    task: AbortHandle,
}

/// What need not be walked again: below a place, everything has ended or is followed by itself.
#[derive(Debug)]
struct Covered {
    below: Position,
    /// Rows that the last walk to the end met, and when that was.
    rows: usize,
    to_the_end: Instant,
}

/// Something that is done again and again, never twice at once.
#[derive(Debug)]
struct Round {
    due: Instant,
    running: bool,
    ended: Option<Instant>,
    backoff: Backoff,
    failing: bool,
}

impl Round {
    fn new(due: Instant, backoff: Backoff) -> Self {
        Self {
            due,
            running: false,
            ended: None,
            backoff,
            failing: false,
        }
    }

    /// Whether it is to begin, which it then has.
    fn begin(&mut self, now: Instant) -> bool {
        let begins = !self.running && self.due <= now;
        self.running |= begins;
        begins
    }

    /// It has ended; `again` is when to do it again if it worked.
    fn end(&mut self, worked: bool, again: Duration) {
        let now = Instant::now();
        self.running = false;
        self.failing = !worked;
        self.ended = Some(now);
        self.due = now
            + match worked {
                true => {
                    self.backoff.reset();
                    again
                }
                false => self.backoff.failed(),
            };
    }

    /// An outage has ended: what failed is done again at once.
    fn recover(&mut self) {
        if self.failing {
            self.backoff.reset();
            self.due = Instant::now();
        }
    }

    /// Does it as soon as it is `apart` from the last time. What fails waits its time out.
    fn hasten(&mut self, apart: Duration) {
        if !self.failing {
            let soonest = self.ended.map_or_else(Instant::now, |ended| ended + apart);
            self.due = self.due.min(soonest);
        }
    }
}

impl Follower {
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        let restored: Vec<_> = self.book.ids().cloned().collect();
        for id in &restored {
            self.tend(id);
        }
        let mut recoveries = self.shared.client.availability().recoveries();
        loop {
            self.begin_what_is_due();
            self.publish_news();
            let connections = self.shared.lanes.used();
            self.stats.set_watch_connections(connections);
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
                    for round in [&mut self.whole, &mut self.top, &mut self.liveness] {
                        round.recover();
                    }
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

    /// Whether to look at the top: before anything was listed, all of it is new.
    fn may_look(&self) -> bool {
        self.listed || self.whole.failing
    }

    fn next_due(&self) -> Instant {
        let top = self.may_look().then_some(&self.top);
        let rounds = [&self.whole, &self.liveness].into_iter().chain(top);
        let waiting = rounds.filter(|round| !round.running);
        let due = waiting.map(|round| round.due).min();
        due.unwrap_or_else(|| Instant::now() + self.shared.settings.refresh)
    }

    fn begin_what_is_due(&mut self) {
        let now = Instant::now();
        if self.whole.begin(now) {
            let began = self.book.now();
            let walk = self.interrupted.take();
            let walk =
                walk.unwrap_or_else(|| Walk::new(Extent::Whole, began, self.known_below(now)));
            self.ask_for_page(walk);
        }
        if self.may_look() && self.top.begin(now) {
            let down_to = self.unwatched_down_to(now);
            self.ask_for_page(Walk::new(Extent::Top, self.book.now(), down_to));
        }
        if self.liveness.begin(now) {
            let shared = Arc::clone(&self.shared);
            self.tasks.spawn(async move {
                let hosts = shared.client.hosts().await;
                shared.send(Event::Hosts(hosts)).await;
            });
        }
    }

    /// Where a walk may end, unless it is time for one to the end.
    fn known_below(&self, now: Instant) -> Option<Position> {
        let covered = self.covered.as_ref()?;
        let every = match self.rights {
            _ if self.doubt => WHOLE_EVERY_IN_DOUBT,
            Some(Rights::All) => WHOLE_EVERY,
            _ => WHOLE_EVERY_IN_PART,
        };
        let again = now.duration_since(covered.to_the_end) >= every;
        (covered.rows > LONG_LISTING && !again).then(|| covered.below.clone())
    }

    /// How far a look has to go to see every job that has no watch, if it is time to.
    fn unwatched_down_to(&self, now: Instant) -> Option<Position> {
        if now < self.look_down {
            return None;
        }
        let unwatched = |id: &JobId| {
            let tended = self.jobs.get(id);
            tended.is_some_and(|tended| !tended.signal.is_watched())
        };
        self.book.lowest(unwatched).cloned()
    }

    fn ask_for_page(&mut self, walk: Walk) {
        let shared = Arc::clone(&self.shared);
        let asks_rights = walk.extent == Extent::Whole && walk.pages() == 0;
        self.tasks.spawn(async move {
            let (limit, cursor) = walk.question();
            let rights = async {
                if !asks_rights {
                    return None;
                }
                let allowed = RIGHTS_WITHIN;
                let rights = timeout(allowed, shared.client.rights()).await;
                Some(rights.unwrap_or(Err(Failure::Timeout { allowed })))
            };
            let page = shared.client.jobs(limit, cursor.as_ref());
            let (page, rights) = tokio::join!(page, rights);
            shared.send(Event::Page(walk, page, rights)).await;
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
            Event::Job {
                id,
                answer,
                noticed,
            } => self.job(&id, &answer, noticed),
            Event::Watch(what, opened) => {
                let (subject, followed) = match what {
                    Watched::Job(id) => (Subject::Job(id.clone()), self.jobs.contains_key(&id)),
                    Watched::Host(id) => (Subject::Host(id.clone()), self.hosts.contains_key(&id)),
                };
                if followed {
                    self.episodes.note(Request::Watch, subject, &opened);
                }
            }
            Event::HostMoved(id) => self.host_moved(&id),
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
        let (extent, failed) = (walk.extent, page.as_ref().err().cloned());
        let step = match page {
            Ok(page) => {
                self.listed = true;
                self.stats.listing_fails(false);
                let any_new = self.rows(&page, walk.began, walk.rows() < book::TOP_ROWS);
                walk.page(page, any_new)
            }
            Err(failure) => match walk.smaller(&failure) {
                Ok(smaller) => Ok(Step::On(smaller)),
                Err(walk) => {
                    // What was read need not be read again, unless the place itself is refused.
                    let place_is_good = failure != Failure::Status { status: 400 };
                    if extent == Extent::Whole && walk.pages() > 0 && place_is_good {
                        self.interrupted = Some(*walk);
                    }
                    Err(failure)
                }
            },
        };
        match step {
            Ok(Step::On(walk)) => {
                if let Some(failure) = failed {
                    let failed: Result<(), _> = Err(failure);
                    self.episodes.note(Request::Jobs, subject(extent), &failed);
                }
                self.ask_for_page(walk);
            }
            Ok(Step::Done(walk)) if walk.of_all => {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move {
                    let rights = shared.client.rights().await;
                    shared.send(Event::Walked(walk, rights)).await;
                });
            }
            Ok(Step::Done(walk)) => self.walked(&walk),
            Err(failure) => self.not_walked(extent, failure),
        }
    }

    /// Takes in what the account may read, and says what that is.
    fn take_rights(&mut self, answer: &Result<Rights, Failure>) -> Option<Rights> {
        self.stats.count(Request::Account, answer);
        self.episodes.note(Request::Account, Subject::Only, answer);
        let rights = match answer {
            Ok(rights) => *rights,
            Err(failure)
                if matches!(
                    failure.kind(),
                    FailureKind::NotFound | FailureKind::Forbidden
                ) =>
            {
                Rights::Unknown
            }
            Err(_) => return None,
        };
        let before = self.rights.replace(rights);
        if before == self.rights {
            return self.rights;
        }
        self.stats.set_rights(rights);
        match rights {
            Rights::All => {
                info!("the account of the token may read all jobs");
                // There may be jobs where there were none to be seen.
                if before.is_some() {
                    self.covered = None;
                    self.whole.hasten(self.shared.settings.poll);
                }
            }
            Rights::Some => warn!(
                "the account of the token may not read all jobs: those it may not read are not \
                 found, and of those known none ends by being missing; what is open stays open"
            ),
            Rights::Unknown => {
                info!("the switchboard does not say which jobs the account may read");
            }
        }
        self.rights
    }

    /// Takes in the rows of a page, and says whether there is anything new on it.
    fn rows(&mut self, page: &Page, began: book::Moment, at_top: bool) -> bool {
        let unreadable = page.rows.iter().filter(|row| row.state.is_none()).count();
        self.stats.unreadable_rows(page.lost + unreadable);
        let mut any_new = false;
        for row in &page.rows {
            if at_top && row.state == Some(JobState::Finalized) {
                self.stats.finished.add(&row.id);
            }
            let seen = self.book.row(row, began, at_top);
            any_new |= matches!(seen, Seen::New | Seen::Past | Seen::OverLimit);
            match seen {
                Seen::New => self.tend(&row.id),
                Seen::Moved => self.raise(&row.id),
                Seen::Ended => self.ended(&row.id),
                Seen::OverLimit => self.stats.over_limit(),
                Seen::Known | Seen::Past => {}
            }
        }
        any_new
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
        self.episodes
            .note(Request::Jobs, subject(walk.extent), &outcome);
        let settings = self.shared.settings;
        match walk.extent {
            Extent::Top => {
                self.stats.polled();
                self.top.end(true, jittered(settings.poll));
                if walk.looks_down() {
                    self.shared.set_looked_down(walk.is_there());
                    let pages = u32::try_from(walk.pages()).unwrap_or(u32::MAX);
                    self.look_down = Instant::now() + LOOK_DOWN_PER_PAGE.saturating_mul(pages);
                }
                if std::mem::take(&mut self.look_again) {
                    self.top.hasten(LOOKS_APART);
                }
            }
            Extent::Whole => {
                let took = walk.started.elapsed();
                if self.stats.walks() == 0 && lost == 0 {
                    let (jobs, took) = (self.book.len(), took.as_secs_f64());
                    info!(jobs, seconds = took, "the switchboard's jobs are known");
                }
                self.walked = Some(took);
                self.whole.end(lost == 0, jittered(settings.refresh));
                if let Some(present) = walk.complete() {
                    self.cover(walk);
                    let held_before = self.book.held();
                    let missing = self.book.listed(&Listed {
                        began: walk.began,
                        present,
                        down_to: walk.down_to(),
                        of_all: walk.of_all,
                    });
                    self.stats.walked();
                    if missing.held > 0 {
                        warn!(
                            missing = missing.held,
                            jobs = self.book.len(),
                            "many jobs are missing from the listing all at once: they are held \
                             back, and end if the next walk confirms it"
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
            }
        }
    }

    /// Notes what need not be walked again.
    fn cover(&mut self, walk: &Walk) {
        let Some(below) = walk.first_page().cloned() else {
            self.covered = None;
            return;
        };
        match &mut self.covered {
            Some(covered) if walk.down_to().is_some() => covered.below = below,
            _ => {
                self.doubt = false;
                self.covered = Some(Covered {
                    below,
                    rows: walk.rows(),
                    to_the_end: Instant::now(),
                });
            }
        }
    }

    fn not_walked(&mut self, extent: Extent, failure: Failure) {
        self.stats.listing_fails(true);
        let failed: Result<(), _> = Err(failure);
        self.episodes.note(Request::Jobs, subject(extent), &failed);
        match extent {
            Extent::Top => {
                self.top.end(false, Duration::ZERO);
                if self.shared.client.availability().outage().is_some() {
                    let soon = Instant::now() + jittered(KNOCK);
                    self.top.due = self.top.due.min(soon);
                }
            }
            Extent::Whole => self.whole.end(false, Duration::ZERO),
        }
    }

    fn take_hosts(&mut self, hosts: Result<Hosts, Failure>) {
        self.stats.count(Request::Hosts, &hosts);
        self.episodes.note(Request::Hosts, Subject::Only, &hosts);
        let settings = self.shared.settings;
        let again = jittered(settings.host_interval());
        let hosts = match hosts {
            Ok(hosts) => hosts,
            Err(failure) => {
                let goes_without = !self.episodes.is_trouble(Request::Hosts, failure.kind());
                let again = jittered(settings.refresh);
                self.liveness.end(goes_without, again);
                self.book.no_hosts();
                return;
            }
        };
        self.liveness.end(true, again);
        let gone = |id: &HostId| !hosts.contains(id);
        for (id, tended) in self.hosts.extract_if(|id, _| gone(id)) {
            tended.task.abort();
            self.episodes.forget(&Subject::Host(id));
        }
        for id in hosts.ids().take(HOSTS_AT_MOST) {
            if !self.hosts.contains_key(id) {
                let signal = Arc::new(Signal::of_host(self.book.is_in_use(id)));
                let work = tend::host(Arc::clone(&self.shared), id.clone(), Arc::clone(&signal));
                let task = self.tasks.spawn(work);
                self.hosts.insert(id.clone(), TendedHost { signal, task });
            }
        }
        let now = Instant::now().into_std();
        self.book.hosts(hosts, now, settings.host_interval());
    }

    fn host_moved(&mut self, id: &HostId) {
        match self.top.running {
            true => self.look_again = true,
            false => self.top.hasten(LOOKS_APART),
        }
        for job in self.book.on_host(id) {
            if let Some(tended) = self.jobs.get(job) {
                tended.signal.raise();
            }
        }
    }

    fn job(&mut self, id: &JobId, answer: &Result<Detail, Failure>, noticed: Option<Instant>) {
        // A last answer about a job that has ended meanwhile.
        if !self.jobs.contains_key(id) {
            return;
        }
        self.episodes
            .note(Request::Job, Subject::Job(id.clone()), answer);
        if let Ok(detail) = answer {
            self.stats.leave_out(detail.left_out);
        }
        match self.book.job(id, answer) {
            Verdict::Same => {}
            Verdict::Appeared { first_seen } => self.appeared.push(first_seen),
            Verdict::Changed => self.noticed.extend(noticed),
            Verdict::Ended => {
                self.noticed.extend(noticed);
                self.ended(id);
            }
            Verdict::Doubtful => {
                self.doubt = true;
                // Of a long listing, only a walk to the end would tell.
                if self.known_below(Instant::now()).is_none() {
                    let apart = self.walked.unwrap_or_default() * WALKS_APART;
                    self.whole.hasten(apart.max(self.shared.settings.poll));
                }
            }
        }
    }

    fn tend(&mut self, id: &JobId) {
        let signal = Arc::new(Signal::of_job());
        let work = tend::job(Arc::clone(&self.shared), id.clone(), Arc::clone(&signal));
        let task = self.tasks.spawn(work);
        self.jobs.insert(id.clone(), Tended { signal, task });
        self.stats.set_jobs_active(self.book.len());
    }

    fn raise(&self, id: &JobId) {
        if let Some(tended) = self.jobs.get(id) {
            tended.signal.raise();
        }
    }

    fn ended(&mut self, id: &JobId) {
        if let Some(tended) = self.jobs.remove(id) {
            tended.task.abort();
        }
        self.stats.finished.add(id);
        self.episodes.forget(&Subject::Job(id.clone()));
        self.stats.set_jobs_active(self.book.len());
    }

    fn publish_news(&mut self) {
        for host in self.book.turned() {
            if let Some(tended) = self.hosts.get(&host) {
                tended.signal.set_in_use(self.book.is_in_use(&host));
            }
        }
        let Some(news) = self.book.news() else {
            return;
        };
        self.stats.set_held(self.book.held());
        self.publish.send_replace(Arc::new(news));
        for first_seen in self.appeared.drain(..) {
            self.stats.new_job_took(first_seen.elapsed());
        }
        for noticed in self.noticed.drain(..) {
            self.stats.change_took(noticed.elapsed());
        }
    }
}

/// Of what an episode of listing is.
fn subject(extent: Extent) -> Subject {
    match extent {
        Extent::Whole => Subject::Only,
        Extent::Top => Subject::Top,
    }
}
