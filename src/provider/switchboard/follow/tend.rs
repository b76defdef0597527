//! What is done all the time for one job, or one host, that is followed.
//!
//! A job has a watch, where one is to be had, and is read whenever the watch says so, now and then
//! besides, and often where it has no watch. Where watches are few, they are for jobs that are on
//! their way to an address; the end of the others shows on their hosts. A host has a watch only.
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
    job::{Job, JobId, JobState},
    read::HostId,
    stats::{FollowStats, Request, WatchEnd},
    watch::{Lanes, Purpose, Sign, Watch, Watched},
};

/// The longest wait between two tries of what fails for lack of an answer.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Two readings of one job are at least this far apart, whatever its watch says.
const SPACING: Duration = Duration::from_millis(100);

/// Jobs without a watch that are read in a second, all taken together.
const UNWATCHED_READS: u32 = 50;

/// A watch that lasted as long as this has worked.
const LASTED: Duration = Duration::from_secs(10);

/// How long to wait for somebody's place before asking again: a place that was given up may have
/// gone to another who asked.
const ASK_AGAIN: Duration = Duration::from_secs(1);

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
}

/// Says that something is to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: Notify,
    /// When it was raised first since it was last heeded.
    since: Mutex<Option<Instant>>,
    watched: AtomicBool,
    /// Nothing is expected to happen to it soon.
    settled: latest::Sender<bool>,
}

impl Signal {
    async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        // Fails only without a sender, which is here.
        let _ = settled.wait_for(|settled| *settled).await;
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
        let fair = Duration::from_secs(unwatched) / UNWATCHED_READS;
        self.settings.poll.max(fair)
    }
}

/// Follows one job until dropped.
pub(super) async fn job(shared: Arc<Shared>, id: JobId, signal: Arc<Signal>) {
    let watching = watch(&shared, Watched::Job(id.clone()), Purpose::Job, &signal);
    tokio::join!(read(&shared, &id, &signal), watching);
}

/// Follows one host until dropped.
pub(super) async fn host(shared: Arc<Shared>, id: HostId) {
    let signal = Signal::default();
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
    loop {
        let (answer, noticed, started) = {
            // Fails only if closed, which nobody does.
            let _turn = shared.reading.acquire().await;
            let (noticed, started) = (signal.heed(), Instant::now());
            (shared.client.job(id).await, noticed, started)
        };
        shared.stats.count(Request::Job, &answer);
        if let Ok(detail) = &answer {
            signal.settled.send_replace(is_settled(&detail.job));
        }
        let wait = match &answer {
            Ok(_) => {
                backoff.reset();
                match signal.watched.load(Relaxed) {
                    true => jittered(shared.settings.refresh),
                    false => jittered(shared.unwatched()),
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
    loop {
        let Some(place) = shared.lanes.take(purpose) else {
            let wait = jittered(shared.settings.poll * 2);
            if *signal.settled.borrow() {
                sleep(wait).await;
            } else {
                tokio::select! {
                    () = shared.lanes.want(wait.min(ASK_AGAIN)) => {}
                    () = signal.settled() => {}
                }
            }
            continue;
        };
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
                () = async { signal.settled().await; shared.lanes.wanted().await } => None,
            }
        };
        drop(watch);
        signal.watched.store(false, Relaxed);
        signal.raise();
        let Some(end) = end else {
            // Somebody else is about to take the place.
            sleep(jittered(shared.settings.poll * 2)).await;
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

/// Whether nothing is expected to happen to `job` soon: it waits for a host, or is all there.
fn is_settled(job: &Job) -> bool {
    match job.state {
        JobState::Queued | JobState::Terminating | JobState::Finalized => true,
        JobState::Ready => job.address.is_some(),
        JobState::Assigned | JobState::Initializing | JobState::Unknown => false,
    }
}

/// A watch that is not to be had, and will not be soon.
fn is_refusal(failure: &Failure) -> bool {
    matches!(
        failure.kind(),
        FailureKind::Forbidden | FailureKind::NotFound
    )
}
