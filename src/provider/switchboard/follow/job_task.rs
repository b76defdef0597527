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
use crate::{
    provider::switchboard::{
        client::{Client, Failure, FailureKind},
        job::{HostId, Job, JobId, JobState},
        stats::{FollowStats, Request, WatchEnd},
        watch::{self, Priority, Purpose, Watch, WatchPool, Watched},
    },
    telemetry::metric,
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

/// What all tasks of a follower share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) settings: FollowSettings,
    pub(super) stats: Arc<FollowStats>,
    pub(super) watches: Arc<WatchPool>,
    /// Jobs being read at once.
    pub(super) reading: Semaphore,
    /// Watches being opened at once.
    pub(super) opening: Semaphore,
    pub(super) events: mpsc::Sender<Event>,
    /// Looks at the listing go down to every job without a watch.
    pub(super) looked_down: AtomicBool,
}

impl Context {
    pub(super) async fn send(&self, event: Event) {
        // Without a receiver there is no follower, and this task is about to be ended.
        let _ = self.events.send(event).await;
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(TRY_AGAIN, self.client.availability().recoveries())
    }

    /// How long an unwatched job goes without being read.
    fn unwatched_interval(&self) -> Duration {
        let jobs = self.stats.jobs_active();
        let unwatched = jobs.saturating_sub(self.stats.watches_open(Purpose::Job));
        let reads = match self.looked_down.load(Relaxed) {
            true => LISTED_READS,
            false => UNLISTED_READS,
        };
        let fair = Duration::from_secs(unwatched) / reads;
        self.settings.poll.max(fair)
    }
}

/// Says that something is to be looked at again.
#[derive(Debug)]
pub(super) struct Signal {
    raised: Notify,
    /// When it was raised first since it was last heeded.
    since: Mutex<Option<Instant>>,
    watched: AtomicBool,
    /// How much a watch is needed; of a job that was never read nobody knows.
    priority: latest::Sender<Option<Priority>>,
}

impl Signal {
    fn new(priority: Option<Priority>) -> Self {
        Self {
            raised: Notify::new(),
            since: Mutex::default(),
            watched: AtomicBool::new(false),
            priority: latest::Sender::new(priority),
        }
    }

    pub(super) fn of_job() -> Self {
        Self::new(None)
    }

    pub(super) fn of_host(in_use: bool) -> Self {
        Self::new(Some(host_priority(in_use)))
    }

    /// Notes whether a host has a job.
    pub(super) fn set_in_use(&self, in_use: bool) {
        self.set_priority(host_priority(in_use));
    }

    /// Whether its watch is open.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }

    fn set_priority(&self, priority: Priority) {
        self.priority.send_if_modified(|known| {
            let differs = *known != Some(priority);
            *known = Some(priority);
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

/// Follows one job until dropped.
pub(super) async fn follow_job(context: Arc<Context>, id: JobId, signal: Arc<Signal>) {
    let watching = keep_watched(&context, Watched::Job(id.clone()), &signal);
    tokio::join!(keep_read(&context, &id, &signal), watching);
}

/// Follows one host until dropped.
pub(super) async fn follow_host(context: Arc<Context>, id: HostId, signal: Arc<Signal>) {
    let watching = keep_watched(&context, Watched::Host(id.clone()), &signal);
    let telling = async {
        loop {
            signal.raised.notified().await;
            context.send(Event::HostMoved(id.clone())).await;
        }
    };
    tokio::join!(watching, telling);
}

async fn keep_read(context: &Context, id: &JobId, signal: &Signal) {
    let mut backoff = context.backoff();
    let mut ready_since = None;
    loop {
        let (answer, noticed, started) = {
            // Fails only if closed, which nobody does.
            let _turn = context.reading.acquire().await;
            let (noticed, started) = (signal.heed(), Instant::now());
            (context.client.job(id).await, noticed, started)
        };
        context.stats.count(Request::Job, &answer);
        let failed = answer.is_err();
        let wait = match &answer {
            Ok(detail) => {
                backoff.reset();
                let again = jittered(match signal.is_watched() {
                    true => context.settings.refresh,
                    false => context.unwatched_interval(),
                });
                match settles_in(&detail.job, &mut ready_since) {
                    Some(Duration::ZERO) => {
                        signal.set_priority(Priority::SettledJob);
                        again
                    }
                    settles => {
                        signal.set_priority(Priority::ChangingJob);
                        settles.map_or(again, |left| again.min(left))
                    }
                }
            }
            Err(_) => backoff.failed(),
        };
        let id = id.clone();
        context.send(Event::Job(id, answer, noticed)).await;
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
async fn keep_watched(context: &Context, what: Watched, signal: &Signal) {
    context.client.answered().await;
    let mut backoff = context.backoff();
    let mut priority = signal.priority.subscribe();
    loop {
        let slot = context.watches.slot(&mut priority).await;
        let opened = {
            let _turn = context.opening.acquire().await;
            Watch::open(&context.client, &what, &slot).await
        };
        context.stats.count(Request::Watch, &opened);
        let mut watch = match opened {
            Ok(watch) => watch,
            Err(failure) => {
                drop(slot);
                let wait = match is_refusal(&failure) {
                    true => jittered(context.settings.refresh),
                    false => backoff.failed(),
                };
                context.send(Event::Watch(what.clone(), Err(failure))).await;
                backoff.wait(wait).await;
                continue;
            }
        };
        let since = Instant::now();
        context.send(Event::Watch(what.clone(), Ok(()))).await;
        let end = {
            let _open = context.stats.watch_opened(what.purpose());
            signal.watched.store(true, Relaxed);
            tokio::select! {
                end = listen(&mut watch, signal) => Some(end),
                () = slot.keep(&mut priority) => None,
            }
        };
        drop(watch);
        drop(slot);
        signal.watched.store(false, Relaxed);
        signal.raise();
        let Some(end) = end else {
            // Somebody needs the slot more.
            continue;
        };
        let lasted = since.elapsed() >= LASTED;
        if lasted {
            backoff.reset();
        }
        let how = match &end {
            Ok(()) => WatchEnd::Ended,
            Err(Failure::Timeout { .. }) => WatchEnd::Silent,
            Err(_) => WatchEnd::Lost,
        };
        metric::SWITCHBOARD_WATCH_ENDS.add(&[how.into()], 1);
        let wait = match end {
            Ok(()) if lasted => jittered(REOPEN),
            _ => backoff.failed(),
        };
        backoff.wait(wait).await;
    }
}

/// Listens to `watch` until it ends.
async fn listen(watch: &mut Watch<'_>, signal: &Signal) -> Result<(), Failure> {
    while let Some(event) = watch.next().await? {
        if event == watch::Event::Change {
            metric::SWITCHBOARD_NOTICES.add(&[], 1);
            signal.raise();
        }
    }
    Ok(())
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

fn host_priority(in_use: bool) -> Priority {
    match in_use {
        true => Priority::HostInUse,
        false => Priority::FreeHost,
    }
}

/// A watch that is not to be had, and will not be soon.
fn is_refusal(failure: &Failure) -> bool {
    matches!(
        failure.kind(),
        FailureKind::Forbidden | FailureKind::NotFound
    )
}
