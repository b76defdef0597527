//! A database for proxies, and what they say of it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{
    Proxy, TempDir, config,
    postgresql::{Client, Cluster},
    process::output,
    proxy::PROGRAM,
    wait_until,
};

/// The password of the proxies' role, which nobody is to show.
pub const PASSWORD: &str = "5e5ame-open";

/// A database and a role for proxies, at a server of their own or that of all who share one.
pub struct Database {
    pub cluster: Arc<Mutex<Cluster>>,
    /// What both are called.
    pub name: String,
    /// A session of the superuser, which is kept: to open one takes the server much longer than to answer.
    session: Mutex<Option<Client>>,
    dir: TempDir,
}

/// The server of all tests that run at a time and do nothing to it.
fn shared() -> Arc<Mutex<Cluster>> {
    static SHARED: Mutex<Weak<Mutex<Cluster>>> = Mutex::new(Weak::new());
    let mut known = lock(&SHARED);
    known.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Mutex::new(Cluster::start()));
        *known = Arc::downgrade(&cluster);
        cluster
    })
}

/// Locks what a test that failed leaves whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until something holds that takes a heartbeat or two, without asking more than it has to.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until(what, || {
        holds() || {
            thread::sleep(Duration::from_millis(30));
            false
        }
    });
}

impl Database {
    /// With the schema.
    pub fn start() -> Self {
        Self::empty().migrated()
    }

    /// The same at a server of its own.
    pub fn alone() -> Self {
        Self::at(Arc::new(Mutex::new(Cluster::start()))).migrated()
    }

    /// The same with a standby, and these settings of the primary. Proxies are told of both by `url`.
    pub fn with_standby(settings: &[&str]) -> (Self, Cluster) {
        let [primary, standby] = Cluster::start_pair(settings);
        let database = Self::at(Arc::new(Mutex::new(primary)));
        (database.migrated(), standby)
    }

    /// The same without a standby, on a file system of its own.
    pub fn within(size: &str) -> Self {
        Self::at(Arc::new(Mutex::new(Cluster::start_within(size)))).migrated()
    }

    /// Kills the primary and everything it has started, and has its standby take its place. Returns what is
    /// left of the primary, its certificate too.
    #[must_use]
    pub fn fail_over(&self, standby: Cluster) -> Cluster {
        self.server().server.kill();
        standby.server.hold(Signal::CONT);
        let promoted = standby.query("postgres", "select pg_promote()");
        assert_eq!(promoted, "t");
        std::mem::replace(&mut *self.server(), standby)
    }

    fn migrated(self) -> Self {
        let database = self;
        let migrated = database.migrate();
        let said = String::from_utf8_lossy(&migrated.stdout).into_owned();
        assert!(said.contains("made the schema"), "{migrated:?}");
        database
    }

    /// Without it.
    pub fn empty() -> Self {
        Self::at(shared())
    }

    fn at(cluster: Arc<Mutex<Cluster>>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tml_{}", NEXT.fetch_add(1, Relaxed));
        let sql = [
            format!("create database {name}"),
            format!("create role {name} login password '{PASSWORD}'"),
        ];
        for sql in sql {
            lock(&cluster).query("postgres", &sql);
        }
        let dir = TempDir::new();
        dir.write("password", format!("{PASSWORD}\n"));
        Self {
            cluster,
            name,
            session: Mutex::default(),
            dir,
        }
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        self.server_addr().port()
    }

    /// Where the server listens.
    pub fn server_addr(&self) -> SocketAddr {
        lock(&self.cluster).server.addr
    }

    /// What is done to a server of its own.
    pub fn server(&self) -> MutexGuard<'_, Cluster> {
        *lock(&self.session) = None;
        lock(&self.cluster)
    }

    /// Where it is, for proxies.
    pub fn url(&self) -> String {
        self.url_by("localhost", self.port())
    }

    /// The same by another name or port.
    pub fn url_by(&self, host: &str, port: u16) -> String {
        let name = &self.name;
        format!("postgresql://{name}@{host}:{port}/{name}")
    }

    /// The file with the password of proxies.
    pub fn password_file(&self) -> PathBuf {
        self.dir.join("password")
    }

    /// The section for a proxy.
    pub fn section(&self, name: &str, region: &str, more: &str) -> String {
        self.section_at(&self.url(), name, region, more)
    }

    /// The same with another way to the database.
    pub fn section_at(&self, url: &str, name: &str, region: &str, more: &str) -> String {
        format!(
            "\n[fleet]\ndatabase = \"{url}\"\npassword_file = \"{}\"\nca_file = \"{}\"\nname = \"{name}\"\n\
             region = \"{region}\"\n{more}\n",
            self.password_file().display(),
            lock(&self.cluster).ca_file().display(),
        )
    }

    /// A proxy with one mapping and no switchboard.
    #[track_caller]
    pub fn proxy(&self, name: &str, region: &str) -> Proxy {
        let host = format!("public_host = \"{name}.example.org\"");
        Proxy::start(&config([self.section(name, region, &host)]))
    }

    /// `tml-proxy fleet` with a command, as the superuser.
    pub fn operate(&self, words: &[&str]) -> Output {
        let (port, name) = (self.port(), &self.name);
        let url = format!("postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable");
        output(
            Command::new(PROGRAM)
                .arg("fleet")
                .args(words)
                .args(["--database", &url]),
        )
    }

    /// Has the schema made, and the role of proxies given its rights.
    pub fn migrate(&self) -> Output {
        self.operate(&["migrate", "--grant", &self.name])
    }

    /// Checks that nobody has told the password.
    #[track_caller]
    pub fn is_secret(&self, proxy: &Proxy) {
        for text in [proxy.log().text(), proxy.page("/api/v1/config").1] {
            assert!(!text.contains(PASSWORD), "{text}");
        }
    }

    /// Runs a query in the database: the only column of the last row.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        let addr = self.server_addr();
        let mut session = lock(&self.session);
        let mut client = session.take().unwrap_or_else(|| {
            let client = Client::connect_to(addr, &self.name);
            client.unwrap_or_else(|error| panic!("{error}"))
        });
        let answer = client.query(sql);
        let answer = answer.unwrap_or_else(|error| panic!("{sql}: {error}"));
        *session = Some(client);
        answer
    }
}

/// What a proxy says at a path.
#[track_caller]
pub fn document(proxy: &Proxy, path: &str) -> Value {
    let (status, body) = proxy.page(path);
    assert!(status.contains(" 200 "), "{path}: {status} {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// How it stands with a proxy and its fleet.
#[track_caller]
pub fn membership(proxy: &Proxy) -> Value {
    document(proxy, "/api/v1/status")["fleet"].clone()
}

/// Waits until a proxy says that of itself and its fleet.
#[track_caller]
pub fn is(proxy: &Proxy, state: &str) {
    eventually(&format!("the fleet to be {state}"), || {
        membership(proxy)["state"] == state
    });
}

/// Waits until a proxy knows how another is.
#[track_caller]
pub fn knows(proxy: &Proxy, name: &str, state: &str) {
    eventually(&format!("{name} to be known as {state}"), || {
        let fleet = document(proxy, "/api/v1/fleet");
        let proxies = fleet["proxies"].as_array().expect("a list");
        proxies
            .iter()
            .any(|one| one["proxy"] == name && one["state"] == state)
    });
}

/// The endpoints of a job that a proxy tells.
#[track_caller]
pub fn endpoints(proxy: &Proxy, job: &str) -> Vec<Value> {
    let found = document(proxy, &format!("/api/v1/endpoints?job={job}"));
    found["endpoints"].as_array().expect("a list").clone()
}

/// The proxies at which a job is open, as a proxy tells them.
pub fn open_at(proxy: &Proxy, job: &str) -> Vec<String> {
    let open = endpoints(proxy, job)
        .into_iter()
        .filter(|one| one["state"] == "open");
    open.map(|one| one["proxy"].as_str().unwrap_or_default().to_owned())
        .collect()
}
