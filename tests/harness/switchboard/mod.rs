//! A switchboard of the tests' own: jobs, hosts and watches over HTTP/1.1, and over HTTP/2 where it
//! has TLS, in the shapes of two generations. A script changes jobs at any time, and says how it is
//! to misbehave.
//!
//! It answers as the captures do; it keeps no time and does nothing that it was not told to.

mod answer;
mod fault;
mod server;
mod state;

use std::{
    path::PathBuf,
    sync::{Arc, MutexGuard, atomic::Ordering::Relaxed},
};

use serde_json::{Value, json};

use crate::harness::TempDir;

pub use self::{
    fault::{Fault, Route},
    state::Generation,
};
use self::{server::Server, state::State};

/// What kind of switchboard.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kind {
    /// The shape of its answers.
    pub generation: Generation,
    /// TLS with a certificate of its own, and HTTP/2 by ALPN.
    pub secure: bool,
    /// Streams at a time on an HTTP/2 connection; 200 where nothing is said.
    pub streams: Option<u32>,
    /// Its port; a free one where nothing is said.
    pub port: Option<u16>,
}

/// A switchboard that is running. It ends when dropped.
pub struct Switchboard {
    state: Arc<State>,
    server: Server,
    dir: TempDir,
    secure: bool,
}

impl Switchboard {
    /// One of the third generation, without TLS.
    pub fn start() -> Self {
        Self::of(Kind::default())
    }

    pub fn of(kind: Kind) -> Self {
        let dir = TempDir::new();
        dir.write("token", "c2VzYW1l+/=\n");
        let state = Arc::new(State::new(kind.generation, "c2VzYW1l+/="));
        let server = Server::start(Arc::clone(&state), kind, &dir);
        Self {
            state,
            server,
            dir,
            secure: kind.secure,
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        match self.secure {
            true => format!("https://localhost:{}", self.server.port()),
            false => format!("http://127.0.0.1:{}", self.server.port()),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// A file with a token that it accepts.
    pub fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// The token that it accepts, which nobody is to show.
    pub fn token(&self) -> String {
        self.lock().token.clone()
    }

    /// The certificate to trust, if it has one.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.secure.then(|| self.dir.join("ca.pem"))
    }

    /// Accepts `token` and no other from now on.
    pub fn accept_only(&self, token: &str) {
        self.lock().token = token.to_owned();
    }

    /// Gives the account of the token the right to all jobs, or takes it away.
    pub fn set_admin(&self, is_admin: bool) {
        self.lock().is_admin = is_admin;
    }

    /// Lets the account of the token read a job even without the right to all.
    pub fn grant(&self, id: &str) {
        self.lock().granted.insert(id.to_owned());
    }

    /// Has so many jobs that have ended, before every other.
    pub fn set_history(&self, jobs: u32) {
        self.lock().history = jobs;
    }

    /// Takes no cursor any more that it has given so far.
    pub fn refuse_old_cursors(&self) {
        self.lock().cursors = "new-";
    }

    /// Says that the token expires then.
    pub fn token_expires(&self, at: &str) {
        self.lock().token_expires = at.to_owned();
    }

    /// Has host number `host`, alive.
    pub fn add_host(&self, host: u32) -> String {
        let id = host_id(host);
        let row = json!({
            "host_id": id, "name": format!("lab-{host}"), "tags": [], "live": true,
            "last_seen_at": null, "targets": [],
        });
        self.lock().hosts.insert(id.clone(), row);
        id
    }

    /// Says whether host number `host` is alive.
    pub fn set_live(&self, host: u32, live: bool) {
        let mut content = self.lock();
        content.hosts.get_mut(&host_id(host)).expect("a host")["live"] = json!(live);
    }

    /// Has a job in `state` on host number `host`, and wakes those who watch the host.
    pub fn add_job(&self, job: u32, host: u32, state: &str) -> String {
        let id = job_id(job);
        let mut content = self.lock();
        content.add(&id, state, Some(&host_id(host)));
        content.wake(&host_id(host));
        id
    }

    /// Has a job in `state` that no watch tells of.
    pub fn add_job_quietly(&self, job: u32, state: &str) -> String {
        let id = job_id(job);
        self.lock().add(&id, state, None);
        id
    }

    /// Has the job of a captured body.
    pub fn add_captured(&self, body: &[u8]) -> String {
        let job: Value = serde_json::from_slice(body).expect("a captured body");
        let id = job["job_id"].as_str().expect("an id").to_owned();
        self.lock().jobs.insert(id.clone(), job);
        id
    }

    /// Changes a job and wakes those who watch it.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let mut content = self.lock();
        content.change(id, change);
        content.wake(id);
    }

    /// Changes a job without anybody noticing.
    pub fn change_quietly(&self, id: &str, change: impl FnOnce(&mut Value)) {
        self.lock().change(id, change);
    }

    /// Puts a job into a state and wakes those who watch it.
    pub fn put(&self, id: &str, state: &str) {
        self.change(id, |job| job["state"] = json!(state));
    }

    /// Forgets a job without anybody noticing.
    pub fn forget(&self, id: &str) {
        self.lock().jobs.remove(id);
    }

    /// A job's body.
    pub fn job(&self, id: &str) -> Value {
        self.lock().jobs[id].clone()
    }

    /// Wakes those who watch a job or a host.
    pub fn wake(&self, id: &str) {
        self.lock().wake(id);
    }

    /// Sends a sign of life on every watch.
    pub fn keep_alive(&self) {
        self.lock().tell_all(b":\n\n");
    }

    /// Ends every watch, as its lifetime does.
    pub fn end_watches(&self) {
        self.lock().watches.clear();
    }

    /// Breaks every watch off.
    pub fn cut_watches(&self) {
        self.lock().cut_all();
    }

    /// Watches open on a job or host.
    pub fn watches(&self, id: &str) -> usize {
        self.lock().watches_of(id)
    }

    /// Misbehaves on a route from now on.
    pub fn misbehave(&self, route: Route, fault: Fault) {
        let mut content = self.lock();
        content.faults.retain(|(at, _)| *at != route);
        content.faults.push((route, fault));
    }

    /// Behaves again.
    pub fn behave(&self) {
        self.lock().faults.clear();
        self.state.behaves.notify_waiters();
    }

    /// Requests on a route so far.
    pub fn requests(&self, route: &Route) -> usize {
        self.lock()
            .requests
            .iter()
            .filter(|at| *at == route)
            .count()
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Relaxed)
    }

    /// The most connections that were open at once.
    pub fn connections_at_most(&self) -> usize {
        self.state.connections_at_most.load(Relaxed)
    }

    /// Closes everything and refuses connections.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Is there again, on the same port.
    pub fn go_on(&self) {
        self.server.go_on();
    }

    fn lock(&self) -> MutexGuard<'_, state::Content> {
        self.state.lock()
    }
}

/// The id of job number `job`.
pub fn job_id(job: u32) -> String {
    format!("10b00000-0000-7000-8000-{job:012}")
}

fn host_id(host: u32) -> String {
    format!("40000000-0000-4000-8000-{host:012}")
}
