//! What a switchboard knows and who watches it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::fault::{Fault, Route};

/// The shape of answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Generation {
    /// August 2026.
    #[default]
    Third,
    /// September 2026: an active filter, versions, annotations.
    Fourth,
}

/// One who watches.
pub type Watcher = mpsc::UnboundedSender<io::Result<Bytes>>;

pub struct State {
    pub generation: Generation,
    content: Mutex<Content>,
    pub behaves: Notify,
    pub connections: AtomicUsize,
    pub connections_at_most: AtomicUsize,
}

pub struct Content {
    pub token: String,
    pub token_expires: String,
    /// Whether the account of the token may read all jobs, or only these.
    pub is_admin: bool,
    pub granted: BTreeSet<String>,
    /// So many jobs that have ended, before every other.
    pub history: u32,
    /// In the shape of a detailed answer.
    pub jobs: BTreeMap<String, Value>,
    pub hosts: BTreeMap<String, Value>,
    pub watches: Vec<(String, Watcher)>,
    pub faults: Vec<(Route, Fault)>,
    pub requests: Vec<Route>,
    /// What every cursor begins with that is good.
    pub cursors: &'static str,
    generation: Generation,
    queued: u32,
}

impl State {
    pub fn new(generation: Generation, token: &str) -> Self {
        Self {
            generation,
            content: Mutex::new(Content {
                token: token.to_owned(),
                token_expires: "2126-01-01T00:00:00Z".to_owned(),
                is_admin: true,
                granted: BTreeSet::new(),
                history: 0,
                jobs: BTreeMap::new(),
                hosts: BTreeMap::new(),
                watches: Vec::new(),
                faults: Vec::new(),
                requests: Vec::new(),
                cursors: "",
                generation,
                queued: 0,
            }),
            behaves: Notify::new(),
            connections: AtomicUsize::new(0),
            connections_at_most: AtomicUsize::new(0),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().expect("no handler panics")
    }

    /// Counts a connection in until the result is dropped.
    pub fn connected(&self) -> impl Drop {
        struct Connected<'a>(&'a AtomicUsize);
        impl Drop for Connected<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        let open = self.connections.fetch_add(1, Relaxed) + 1;
        self.connections_at_most.fetch_max(open, Relaxed);
        Connected(&self.connections)
    }
}

impl Content {
    pub fn add(&mut self, id: &str, state: &str, host: Option<&str>) {
        self.queued += 1;
        let queued_at = format!("2026-11-24T00:00:00.{:09}Z", self.queued);
        let mut job = json!({
            "job_id": id, "label": null, "state": state, "initializing_stage": null,
            "parameters": {}, "queued_at": queued_at, "started_at": null,
            "dispatched_on_host_id": host, "termination_reason": null, "task_exit_status": null,
            "terminated_at": null, "services": [], "job_ip_address": null,
            "permissions": ["read"],
        });
        let image = json!({ "type": "image", "manifest_digest": "sha256:ab" });
        if self.generation == Generation::Fourth {
            job["image"] = json!({ "reference": image, "resolved_digest": null });
            job["owner"] = json!({ "id": "bbbb0000-0000-4000-8000-00000000000b" });
            job["revision"] = json!(1);
            job["annotations"] = json!({});
        } else {
            job["image"] = image;
            job["owner_id"] = json!("bbbb0000-0000-4000-8000-00000000000b");
        }
        self.jobs.insert(id.to_owned(), job);
    }

    pub fn change(&mut self, id: &str, change: impl FnOnce(&mut Value)) {
        let job = self.jobs.get_mut(id).expect("a job");
        change(job);
        if let Some(revision) = job.get("revision").and_then(Value::as_u64) {
            job["revision"] = json!(revision + 1);
        }
    }

    pub fn wake(&mut self, id: &str) {
        self.tell(Some(id), b"event: change\ndata: {}\n\n");
    }

    pub fn tell_all(&mut self, text: &'static [u8]) {
        self.tell(None, text);
    }

    fn tell(&mut self, about: Option<&str>, text: &'static [u8]) {
        self.watches.retain(|(id, watcher)| match about {
            Some(about) if about != id => true,
            _ => watcher.send(Ok(Bytes::from_static(text))).is_ok(),
        });
    }

    pub fn cut_all(&mut self) {
        for (_, watcher) in self.watches.drain(..) {
            let _ = watcher.send(Err(io::ErrorKind::ConnectionReset.into()));
        }
    }

    pub fn watches_of(&mut self, id: &str) -> usize {
        self.watches.retain(|(_, watcher)| !watcher.is_closed());
        self.watches.iter().filter(|(about, _)| about == id).count()
    }

    /// Whether the account may read a job.
    pub fn may_read(&self, id: &str) -> bool {
        self.is_admin || self.granted.contains(id)
    }

    /// Up to `limit` rows of a listing from the one after `after` on, the newest first.
    pub fn rows_after(&self, after: Option<&str>, limit: usize) -> Vec<Value> {
        let is_recent = |job: &&Value| {
            job["queued_at"]
                .as_str()
                .is_some_and(|at| at >= "2026-01-02")
        };
        let (recent, old): (Vec<_>, Vec<_>) = self.listed().into_iter().partition(is_recent);
        let has_past = self.generation == Generation::Third && self.is_admin;
        let history = if has_past { self.history } else { 0 };
        let place = |jobs: &[&Value]| {
            let found = jobs
                .iter()
                .position(|job| after.is_some() && job["job_id"].as_str() == after);
            found.map(|place| place + 1)
        };
        let past = after.and_then(|id| id.strip_prefix(PAST)?.parse::<u32>().ok());
        let (from_recent, from_past, from_old) = match (place(&recent), past, place(&old)) {
            (Some(place), _, _) => (place, 0, 0),
            (None, Some(number), _) => (recent.len(), history - number, 0),
            (None, None, Some(place)) => (recent.len(), history, place),
            (None, None, None) => (0, 0, 0),
        };
        let past = (from_past..history).map(|place| past_job(history - 1 - place));
        let recent = recent[from_recent..].iter().map(|job| summary(job));
        let old = old[from_old..].iter().map(|job| summary(job));
        recent.chain(past).chain(old).take(limit).collect()
    }

    /// The jobs of a listing, in its order, but for the history.
    pub fn listed(&self) -> Vec<&Value> {
        let all = self.generation == Generation::Third;
        let may_read = |job: &Value| self.may_read(job["job_id"].as_str().expect("an id"));
        let listed = |job: &&Value| (all || job["state"] != "finalized") && may_read(job);
        let mut jobs: Vec<_> = self.jobs.values().filter(listed).collect();
        let age = |job: &&Value| {
            let text = |field: &str| job[field].as_str().expect("text").to_owned();
            Reverse((text("queued_at"), text("job_id")))
        };
        jobs.sort_by_cached_key(age);
        jobs
    }
}

/// How the ids of the history begin.
const PAST: &str = "0a570000-0000-7000-8000-";

/// A job of the history as a listing has it.
fn past_job(number: u32) -> Value {
    let (minutes, seconds) = (number / 60, number % 60);
    let at = format!(
        "2026-01-{:02}T{:02}:{:02}:{seconds:02}Z",
        2 + minutes / 60 / 24,
        minutes / 60 % 24,
        minutes % 60
    );
    json!({
        "job_id": format!("{PAST}{number:012}"), "label": null, "state": "finalized",
        "queued_at": at, "started_at": at, "terminated_at": at,
        "dispatched_on_host_id": null, "termination_reason": "workload_exited",
        "task_exit_status": "success", "owner_id": null,
        "image": { "type": "image", "manifest_digest": "sha256:ab" },
    })
}

/// A job as a listing has it.
pub fn summary(job: &Value) -> Value {
    let mut job = job.clone();
    let fields = job.as_object_mut().expect("an object");
    for detail in ["services", "job_ip_address", "parameters", "permissions"] {
        fields.remove(detail);
    }
    job
}
