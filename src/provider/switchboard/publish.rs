//! Writing endpoints back to where users look for them: one annotation on each job.
//!
//! For switchboards that have annotations, and accounts that may change them. Every change names
//! the version it is made to, so nobody else's annotation is lost, and is made again to the newer
//! version if there is one. What cannot be written is given up with the job untouched: an
//! annotation is a courtesy, and no mapping waits for it.
//!
//! What others make of the annotation is seen whenever a job is read. A change by somebody else is
//! said and left alone, because two who write over each other would never end; what an earlier run
//! left on a job that is no longer exposed is removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, warn};

use super::{
    client::{Client, Failure, FailureKind, JobReader},
    job::JobId,
    read,
    stats::{FollowStats, Request},
};
use crate::{mutex::lock, telemetry::metric};

/// Tries for one text, conflicts included.
const TRIES: u32 = 5;

/// The pause before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// Jobs that wait for their turn. One that comes too late finds its endpoint through the proxy.
const WAITING_AT_MOST: usize = 10_000;

/// Annotations withdrawn at once.
const WITHDRAWN_AT_ONCE: usize = 8;

/// The key of the annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationKey(String);

impl AnnotationKey {
    /// The longest key, in bytes.
    pub const LONGEST: usize = 128;

    /// Takes what a switchboard takes for a key: up to 128 lower-case letters, digits and any of
    /// `. _ / -`, the first and the last a letter or a digit.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fit = |byte: u8| plain(byte) || b"._/-".contains(&byte);
        let valid = text.len() <= Self::LONGEST
            && text.bytes().all(fit)
            && text.bytes().next().is_some_and(plain)
            && text.bytes().last().is_some_and(plain);
        valid.then(|| Self(text.to_owned()))
    }

    /// What makes this key that of the proxy at `host`; nothing if it is too long with it.
    pub fn of_host(&self, host: &str) -> Option<Self> {
        let name = host.to_ascii_lowercase().replace(':', "-");
        self.named(name.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
    }

    /// The key with a name behind it; nothing if it is too long.
    pub fn named(&self, name: &str) -> Option<Self> {
        Self::parse(&format!("{self}/{name}"))
    }
}

impl fmt::Display for AnnotationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an endpoint at `host` is, up to the port.
pub(crate) fn before_port(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]:"),
        false => format!("{host}:"),
    }
}

/// Knows what jobs are to be annotated with, and what is there. It has to [run](Self::run) for anything
/// to happen.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    key: AnnotationKey,
    /// What endpoints of this proxy begin with.
    own: String,
    stats: Arc<FollowStats>,
    state: Mutex<State>,
    came: Notify,
    /// Whether the log has been told of somebody else.
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// What is still to be written, or removed.
    waiting: BTreeMap<JobId, Option<String>>,
    /// The job that is being written to.
    busy: Option<JobId>,
    /// What is there by our own hand, and since when at the latest.
    written: BTreeMap<JobId, (String, Instant)>,
    /// Jobs with an annotation of ours that this run has not written.
    left_over: BTreeSet<JobId>,
}

/// What a publisher has written, as it is handed over to the next image of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SavedWritten {
    key: String,
    written: BTreeMap<JobId, String>,
}

impl Publisher {
    /// A publisher of endpoints at `host`, which reads every job that `client` reads.
    pub fn new(
        client: Client,
        key: AnnotationKey,
        host: &str,
        stats: Arc<FollowStats>,
    ) -> Arc<Self> {
        let publisher = Arc::new(Self {
            client: client.clone(),
            key,
            own: before_port(host),
            stats,
            state: Mutex::default(),
            came: Notify::new(),
            told: AtomicBool::new(false),
        });
        let reader: Weak<Self> = Arc::downgrade(&publisher);
        client.show_jobs_to(reader);
        publisher
    }

    /// What is there by its hand, and what it was about to write, which may be there.
    pub(super) fn save(&self) -> SavedWritten {
        let State {
            waiting: _,
            busy,
            written,
            left_over: _,
        } = &*lock(&self.state);
        let written = written.iter();
        let written = written.map(|(job, (text, _))| (job.clone(), text.clone()));
        let mut written: BTreeMap<_, _> = written.collect();
        if let Some(job) = busy {
            written.entry(job.clone()).or_default();
        }
        SavedWritten {
            key: self.key.0.clone(),
            written,
        }
    }

    /// Takes what another has written under the same key for its own.
    pub(super) fn go_on_from(&self, saved: SavedWritten) {
        let SavedWritten { key, written } = saved;
        if key == self.key.0 {
            let now = Instant::now();
            let written = written.into_iter().map(|(job, text)| (job, (text, now)));
            lock(&self.state).written.extend(written);
        }
    }

    /// The key it writes.
    pub(crate) fn key(&self) -> &AnnotationKey {
        &self.key
    }

    /// Has `job` annotated with `text`, or the annotation removed. Returns at once; what was said
    /// before about the same job and has not been done is not done any more.
    pub fn set(&self, job: JobId, text: Option<String>) {
        let mut state = lock(&self.state);
        state.left_over.remove(&job);
        let is_there = state.written.get(&job).map(|(text, _)| text);
        if text.is_some() && is_there == text.as_ref() && state.busy.as_ref() != Some(&job) {
            state.waiting.remove(&job);
            return;
        }
        if state.waiting.len() < WAITING_AT_MOST || state.waiting.contains_key(&job) {
            state.waiting.insert(job, text);
        }
        drop(state);
        self.came.notify_one();
    }

    /// Jobs that were found with an annotation of ours that nobody has asked for since the start.
    pub fn left_over(&self) -> Vec<JobId> {
        lock(&self.state).left_over.iter().cloned().collect()
    }

    /// Removes what was written. It may be dropped at any time.
    pub async fn withdraw(self: &Arc<Self>) {
        let written = {
            let mut state = lock(&self.state);
            state.waiting.clear();
            // What was being written when the writer stopped may be there without our knowing.
            let busy = state.busy.take();
            state
                .written
                .keys()
                .cloned()
                .chain(busy)
                .collect::<BTreeSet<_>>()
        };
        let turns = Arc::new(Semaphore::new(WITHDRAWN_AT_ONCE));
        let mut tasks = JoinSet::new();
        for job in written {
            let (publisher, turns) = (Arc::clone(self), Arc::clone(&turns));
            tasks.spawn(async move {
                // Fails only if closed, which nobody does.
                let _turn = turns.acquire().await;
                if let Err(failure) = publisher.write(&job, None).await {
                    debug!(%job, "the annotation stays: {failure}");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    async fn next(&self) -> (JobId, Option<String>) {
        loop {
            let next = {
                let mut state = lock(&self.state);
                let next = state.waiting.pop_first();
                state.busy = next.as_ref().map(|(job, _)| job.clone());
                next
            };
            match next {
                Some(next) => return next,
                None => self.came.notified().await,
            }
        }
    }

    /// Whether this proxy, in this run or an earlier one, has written such a text.
    fn is_own(&self, text: &str) -> bool {
        let endpoint = |word: &str| {
            let word = word.split_once('=').map_or(word, |(_, endpoint)| endpoint);
            word.starts_with(&self.own)
        };
        text.split(' ').all(endpoint)
    }

    fn was_overwritten(&self, job: &JobId, found: Option<&str>) {
        metric::SWITCHBOARD_OVERWRITTEN.add(&[], 1);
        if !self.told.swap(true, Relaxed) {
            let found = found.map(|text| text.escape_debug().take(200).collect::<String>());
            warn!(
                %job,
                key = %self.key,
                found,
                "somebody else changes the annotation of this proxy: is there another with the same \
                 key (switchboard.publish and publish_name)?"
            );
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
            // Something else may have been said meanwhile.
            if lock(&self.state).waiting.contains_key(job) {
                return Ok(());
            }
        }
    }

    async fn write_once(&self, job: &JobId, text: Option<&str>) -> Result<(), Failure> {
        let mut annotated = self.client.annotations(job).await?;
        let before = annotated.annotations.get(&self.key.0).cloned();
        if let Some(before) = &before {
            let known = lock(&self.state).written.get(job).cloned();
            let known = known.is_some_and(|(text, _)| text == *before);
            if !known && text != Some(before) && !self.is_own(before) {
                self.was_overwritten(job, Some(before));
                if text.is_none() {
                    // It is theirs.
                    lock(&self.state).written.remove(job);
                    return Ok(());
                }
            }
        }
        if before.as_deref() != text {
            match text {
                Some(text) => annotated
                    .annotations
                    .insert(self.key.0.clone(), text.to_owned()),
                None => annotated.annotations.remove(&self.key.0),
            };
            self.client.annotate(job, &annotated).await?;
        }
        let mut state = lock(&self.state);
        match text {
            Some(text) => {
                let now = (text.to_owned(), Instant::now());
                state.written.insert(job.clone(), now);
            }
            None => {
                state.written.remove(job);
            }
        }
        Ok(())
    }

    /// Writes one annotation after the other until dropped.
    pub async fn run(self: Arc<Self>) {
        // The cause of the last failure, so that it is said once.
        let mut failing = None;
        loop {
            let (job, text) = self.next().await;
            let failure = self.write(&job, text.as_deref()).await.err();
            lock(&self.state).busy = None;
            let kind = failure.as_ref().map(Failure::kind);
            let Some(failure) = failure else {
                failing = None;
                continue;
            };
            if is_over(&failure, text.as_deref()) || self.client.availability().is_in_outage() {
                debug!(%job, "cannot annotate the job: {failure}");
                continue;
            }
            if failing != kind {
                warn!(%job, key = %self.key, "cannot annotate the job: {failure}");
            }
            failing = kind;
        }
    }
}

impl JobReader for Publisher {
    fn job_was_read(&self, job: &JobId, asked: Instant, body: &[u8]) {
        let Some(found) = read::annotation(body, &self.key.0) else {
            return;
        };
        let mut state = lock(&self.state);
        if state.waiting.contains_key(job) || state.busy.as_ref() == Some(job) {
            return;
        }
        match state.written.get(job) {
            Some((text, at)) if *at > asked || found.as_ref() == Some(text) => {}
            Some(_) => {
                state.written.remove(job);
                drop(state);
                self.was_overwritten(job, found.as_deref());
            }
            None if found.is_some_and(|text| self.is_own(&text)) => {
                state.left_over.insert(job.clone());
            }
            None => {
                state.left_over.remove(job);
            }
        }
    }
}

/// Whether the job is gone, and its annotation with it.
fn is_over(failure: &Failure, text: Option<&str>) -> bool {
    use FailureKind::{Forbidden, NotFound, Server, Status};
    text.is_none() && matches!(failure.kind(), Forbidden | NotFound | Server | Status)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_a_switchboard_takes_for_one() {
        for key in ["proxy", "a", "p.example/endpoints", "a_b-c"] {
            assert!(AnnotationKey::parse(key).is_some(), "{key}");
        }
        let long = "a".repeat(AnnotationKey::LONGEST + 1);
        for key in ["", "Proxy", "a b", "/a", "a/", "a:b", "\u{e4}", &long] {
            assert!(AnnotationKey::parse(key).is_none(), "{key}");
        }
        let key = AnnotationKey::parse("proxy").expect("a key");
        for (host, expected) in [
            ("US-1.example.org.", "proxy/us-1.example.org"),
            ("2001:db8::1", "proxy/2001-db8--1"),
            ("::1", "proxy/1"),
        ] {
            let named = key.of_host(host).expect("it is short");
            assert_eq!(named.to_string(), expected);
        }
        assert_eq!(key.of_host(&long), None);
    }
}
