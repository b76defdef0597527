//! What is done all the time for one job, or one host, that is followed.
//!
//! A job has a watch, where one is to be had, and is read whenever the watch says so, now and then
//! besides, and more often where it has no watch. Where watches are few, they are for jobs that are
//! on their way to an address and for hosts that may get one; that another has ended shows in the
//! listing. A host has a watch only.
//! Each failure makes the next try wait; none ends the work.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, mpsc, watch as latest},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Event, FollowSettings,
    backoff::{Backoff, jittered},
};
use crate::provider::switchboard::{
    client::{Client, Failure, FailureKind},
    job::{HostId, Job, JobId, JobState},
    stats::{FollowStats, Request, WatchEnd},
    watch::{Lanes, Need, Purpose, Sign, Watch, Watched},
};

/// The longest wait between two tries of what fails for lack of an answer.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Two readings of one job are at least this far apart, whatever its watch says.
const SPACING: Duration = Duration::from_millis(100);

/// Jobs without a watch that are read in a second, all taken together: those whose state is looked
/// up in the listing, and others.
const LISTED_READS: u32 = 8;
const UNLISTED_READS: u32 = 20;

/// For how long something may happen to a job that is ready and says no address.
const SETTLES: Duration = Duration::from_secs(60);

/// A watch that lasted as long as this has worked.
const LASTED: Duration = Duration::from_secs(10);

/// The longest pause between a watch that ended as watches do and the next.
const REOPEN: Duration = Duration::from_secs(1);

/// What all of them share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) settings: FollowSettings,
    pub(super) stats: Arc<FollowStats>,
    pub(super) lanes: Arc<Lanes>,
    /// Jobs being read at once.
    pub(super) reading: Semaphore,
    /// Watches being opened at once.
    pub(super) opening: Semaphore,
    pub(super) events: mpsc::Sender<Event>,
    /// Looks at the listing go down to every job without a watch.
    pub(super) looked_down: AtomicBool,
}

/// Says that something is to be looked at again.
#[derive(Debug)]
pub(super) struct Signal {
    raised: Notify,
    /// When it was raised first since it was last heeded.
    since: Mutex<Option<Instant>>,
    watched: AtomicBool,
    /// How much a watch is needed; of a job that was never read nobody knows.
    need: latest::Sender<Option<Need>>,
}

impl Signal {
    fn new(need: Option<Need>) -> Self {
        Self {
            raised: Notify::new(),
            since: Mutex::default(),
            watched: AtomicBool::new(false),
            need: latest::Sender::new(need),
        }
    }

    /// For a job.
    pub(super) fn of_job() -> Self {
        Self::new(None)
    }

    /// For a host that has a job, or has none.
    pub(super) fn of_host(in_use: bool) -> Self {
        Self::new(Some(host_need(in_use)))
    }

    /// Notes whether a host has a job.
    pub(super) fn set_in_use(&self, in_use: bool) {
        self.set_need(host_need(in_use));
    }

    /// Whether its watch is open.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }

    fn set_need(&self, need: Need) {
        self.need.send_if_modified(|known| {
            let differs = *known != Some(need);
            *known = Some(need);
            differs
        });
    }

    pub(super) fn raise(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now);
        self.raised.notify_one();
    }

    fn heed(&self) -> Option<Instant> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.take()
    }
}

impl Shared {
    pub(super) async fn send(&self, event: Event) {
        // Without a receiver there is no follower, and this task is about to be ended.
        let _ = self.events.send(event).await;
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(TRY_AGAIN, self.client.availability().recoveries())
    }

    /// How long an unwatched job goes without being read.
    fn unwatched(&self) -> Duration {
        let jobs = self.stats.jobs_active();
        let unwatched = jobs.saturating_sub(self.stats.watches_open(Purpose::Job));
        let reads = match self.looked_down.load(Relaxed) {
            true => LISTED_READS,
            false => UNLISTED_READS,
        };
        let fair = Duration::from_secs(unwatched) / reads;
        self.settings.poll.max(fair)
    }

    /// Notes whether looks at the listing go down to every job without a watch.
    pub(super) fn set_looked_down(&self, looked_down: bool) {
        self.looked_down.store(looked_down, Relaxed);
    }
}

/// Follows one job until dropped.
pub(super) async fn job(shared: Arc<Shared>, id: JobId, signal: Arc<Signal>) {
    let watching = watch(&shared, Watched::Job(id.clone()), Purpose::Job, &signal);
    tokio::join!(read(&shared, &id, &signal), watching);
}

/// Follows one host until dropped.
pub(super) async fn host(shared: Arc<Shared>, id: HostId, signal: Arc<Signal>) {
    let watching = watch(&shared, Watched::Host(id.clone()), Purpose::Host, &signal);
    let telling = async {
        loop {
            signal.raised.notified().await;
            shared.send(Event::HostMoved(id.clone())).await;
        }
    };
    tokio::join!(watching, telling);
}

async fn read(shared: &Shared, id: &JobId, signal: &Signal) {
    let mut backoff = shared.backoff();
    let mut ready_since = None;
    loop {
        let (answer, noticed, started) = {
            // Fails only if closed, which nobody does.
            let _turn = shared.reading.acquire().await;
            let (noticed, started) = (signal.heed(), Instant::now());
            (shared.client.job(id).await, noticed, started)
        };
        shared.stats.count(Request::Job, &answer);
        let wait = match &answer {
            Ok(detail) => {
                backoff.reset();
                let again = match signal.is_watched() {
                    true => jittered(shared.settings.refresh),
                    false => jittered(shared.unwatched()),
                };
                match settles_in(&detail.job, &mut ready_since) {
                    None => {
                        signal.set_need(Need::ChangingJob);
                        again
                    }
                    Some(Duration::ZERO) => {
                        signal.set_need(Need::SettledJob);
                        again
                    }
                    Some(left) => {
                        signal.set_need(Need::ChangingJob);
                        again.min(left)
                    }
                }
            }
            Err(_) => backoff.failed(),
        };
        let (id, failed) = (id.clone(), answer.is_err());
        shared
            .send(Event::Job {
                id,
                answer,
                noticed,
            })
            .await;
        tokio::select! {
            () = signal.raised.notified() => {}
            () = sleep(wait) => {}
            () = backoff.recovered(), if failed => {}
        }
        sleep_until(started + SPACING).await;
    }
}

/// Keeps a watch open, raising `signal` when it says that something changed and when it can say so
/// no longer.
async fn watch(shared: &Shared, what: Watched, purpose: Purpose, signal: &Signal) {
    shared.client.answered().await;
    let mut backoff = shared.backoff();
    let mut need = signal.need.subscribe();
    loop {
        let place = shared.lanes.place(&mut need).await;
        let tenant = place.tenant();
        let opened = {
            let _turn = shared.opening.acquire().await;
            Watch::open(&shared.client, &what, place).await
        };
        shared.stats.count(Request::Watch, &opened);
        let mut watch = match opened {
            Ok(watch) => watch,
            Err(failure) => {
                let wait = match is_refusal(&failure) {
                    true => jittered(shared.settings.refresh),
                    false => backoff.failed(),
                };
                shared.send(Event::Watch(what.clone(), Err(failure))).await;
                tokio::select! {
                    () = sleep(wait) => {}
                    () = backoff.recovered() => {}
                }
                continue;
            }
        };
        let since = Instant::now();
        shared.send(Event::Watch(what.clone(), Ok(()))).await;
        let end = {
            let _open = shared.stats.watch_opened(purpose);
            signal.watched.store(true, Relaxed);
            tokio::select! {
                end = attend(shared, &mut watch, signal) => Some(end),
                () = shared.lanes.keep(&tenant, &mut need) => None,
            }
        };
        drop(watch);
        signal.watched.store(false, Relaxed);
        signal.raise();
        let Some(end) = end else {
            // Somebody needs the place more.
            continue;
        };
        let lasted = since.elapsed() >= LASTED;
        if lasted {
            backoff.reset();
        }
        shared.stats.watch_ended(match &end {
            Ok(()) => WatchEnd::Ended,
            Err(Failure::Timeout { .. }) => WatchEnd::Silent,
            Err(_) => WatchEnd::Lost,
        });
        let wait = match end {
            Ok(()) if lasted => jittered(REOPEN),
            _ => backoff.failed(),
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = backoff.recovered() => {}
        }
    }
}

/// Listens to `watch` until it ends.
async fn attend(shared: &Shared, watch: &mut Watch, signal: &Signal) -> Result<(), Failure> {
    loop {
        match watch.next().await? {
            Sign::Change => {
                shared.stats.noticed();
                signal.raise();
            }
            Sign::Alive => {}
            Sign::End => return Ok(()),
        }
    }
}

/// When nothing is expected to happen to `job` any more: it waits for a host, or is all there.
/// `ready_since` is for the next question about the same job.
fn settles_in(job: &Job, ready_since: &mut Option<Instant>) -> Option<Duration> {
    match job.state {
        JobState::Queued | JobState::Terminating | JobState::Finalized => Some(Duration::ZERO),
        JobState::Ready if job.address.is_some() => Some(Duration::ZERO),
        JobState::Ready => {
            let since = ready_since.get_or_insert_with(Instant::now);
            Some(SETTLES.saturating_sub(since.elapsed()))
        }
        JobState::Assigned | JobState::Initializing | JobState::Unknown => None,
    }
}

fn host_need(in_use: bool) -> Need {
    match in_use {
        true => Need::HostInUse,
        false => Need::FreeHost,
    }
}

/// A watch that is not to be had, and will not be soon.
fn is_refusal(failure: &Failure) -> bool {
    matches!(
        failure.kind(),
        FailureKind::Forbidden | FailureKind::NotFound
    )
}
