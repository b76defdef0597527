//! Writing endpoints back to where users look for them: one annotation on each job.
//!
//! For switchboards that have annotations, and accounts that may change them. Every change names
//! the version it is made to, so nobody else's annotation is lost, and is made again to the newer
//! version if there is one. What cannot be written is given up with the job untouched: an
//! annotation is a courtesy, and no mapping waits for it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};
use tracing::{debug, warn};

use super::{
    client::{Client, Failure, FailureKind},
    job::JobId,
    stats::{FollowStats, Request},
};

/// Tries for one text, conflicts included.
const TRIES: u32 = 5;

/// The pause before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// Jobs that wait for their turn. One that comes too late finds its endpoint through the proxy.
const WAITING_AT_MOST: usize = 10_000;

/// The key of the annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationKey(String);

impl AnnotationKey {
    /// The longest key, in bytes.
    pub const LONGEST: usize = 128;

    /// Takes up to 128 printable ASCII characters, none of them a space.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = (1..=Self::LONGEST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for AnnotationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what jobs are to be annotated with. Clones speak to the same writer.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Wishes>);

#[derive(Debug, Default)]
struct Wishes {
    /// The last wish for each job that has one.
    waiting: Mutex<BTreeMap<JobId, Option<String>>>,
    came: Notify,
}

/// Does what a [`Publisher`] says.
#[derive(Debug)]
pub struct Writer {
    wishes: Arc<Wishes>,
    client: Client,
    key: AnnotationKey,
    stats: Arc<FollowStats>,
}

impl Publisher {
    /// A publisher, and the writer that has to [run](Writer::run) for anything to happen.
    pub fn new(client: Client, key: AnnotationKey, stats: Arc<FollowStats>) -> (Self, Writer) {
        let wishes = Arc::<Wishes>::default();
        let writer = Writer {
            wishes: Arc::clone(&wishes),
            client,
            key,
            stats,
        };
        (Self(wishes), writer)
    }

    /// Has `job` annotated with `text`, or the annotation removed. Returns at once; what was said
    /// before about the same job and has not been done is not done any more.
    pub fn set(&self, job: JobId, text: Option<String>) {
        let mut waiting = self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_AT_MOST || waiting.contains_key(&job) {
            waiting.insert(job, text);
        }
        self.0.came.notify_one();
    }
}

impl Wishes {
    async fn next(&self) -> (JobId, Option<String>) {
        loop {
            let wish = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.pop_first()
            };
            match wish {
                Some(wish) => return wish,
                None => self.came.notified().await,
            }
        }
    }

    /// Whether something else was said about `job` meanwhile.
    fn is_outdated(&self, job: &JobId) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.contains_key(job)
    }
}

impl Writer {
    /// Writes one annotation after the other until dropped.
    pub async fn run(self) {
        // The cause of the last failure, so that it is said once.
        let mut failing = None;
        loop {
            let (job, text) = self.wishes.next().await;
            let failure = self.write(&job, text.as_deref()).await.err();
            let kind = failure.as_ref().map(Failure::kind);
            if let Some(failure) = failure
                && failing != kind
            {
                warn!(%job, key = %self.key, "cannot annotate the job: {failure}");
            }
            failing = kind;
        }
    }

    async fn write(&self, job: &JobId, text: Option<&str>) -> Result<(), Failure> {
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let written = self.write_once(job, text).await;
            self.stats.count(Request::Annotate, &written);
            match written {
                Err(failure) if tries < TRIES && is_worth_a_retry(&failure) => {
                    debug!(%job, "trying again to annotate the job: {failure}");
                }
                written => return written,
            }
            tries += 1;
            sleep(pause).await;
            pause *= 2;
            if self.wishes.is_outdated(job) {
                return Ok(());
            }
        }
    }

    async fn write_once(&self, job: &JobId, text: Option<&str>) -> Result<(), Failure> {
        let mut annotated = self.client.annotations(job).await?;
        let before = annotated.annotations.get(&self.key.0).map(String::as_str);
        if before == text {
            return Ok(());
        }
        match text {
            Some(text) => annotated
                .annotations
                .insert(self.key.0.clone(), text.to_owned()),
            None => annotated.annotations.remove(&self.key.0),
        };
        self.client.annotate(job, &annotated).await
    }
}

/// Whether the same will perhaps work in a moment.
fn is_worth_a_retry(failure: &Failure) -> bool {
    matches!(
        failure.kind(),
        FailureKind::Outdated
            | FailureKind::Connect
            | FailureKind::Timeout
            | FailureKind::Cut
            | FailureKind::Server
    )
}
