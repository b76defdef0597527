//! A database for proxies, and what they say of it.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

use super::harness::{
    Proxy, TempDir, config, postgresql::Cluster, process::output, proxy::PROGRAM, wait_until,
};

/// The password of the proxies' role, which nobody is to show.
const PASSWORD: &str = "5e5ame-open";

/// A server with a database `tml` and a role for proxies, the schema made or not.
pub struct Database {
    pub cluster: Cluster,
    dir: TempDir,
}

impl Database {
    /// With the schema.
    pub fn start() -> Self {
        let database = Self::empty();
        let migrated = database.migrate();
        let said = String::from_utf8_lossy(&migrated.stdout).into_owned();
        assert!(said.contains("made the schema"), "{migrated:?}");
        database
    }

    /// Without it.
    pub fn empty() -> Self {
        let cluster = Cluster::start();
        cluster.query("postgres", "create database tml");
        let role = format!("create role tml_proxy login password '{PASSWORD}'");
        cluster.query("postgres", &role);
        let dir = TempDir::new();
        dir.write("password", format!("{PASSWORD}\n"));
        Self { cluster, dir }
    }

    /// Where it is, for proxies.
    pub fn url(&self) -> String {
        let port = self.cluster.server.addr.port();
        format!("postgresql://tml_proxy@localhost:{port}/tml")
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
            self.cluster.ca_file().display(),
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
        let port = self.cluster.server.addr.port();
        let url = format!("postgresql://postgres@127.0.0.1:{port}/tml?sslmode=disable");
        output(
            Command::new(PROGRAM)
                .arg("fleet")
                .args(words)
                .args(["--database", &url]),
        )
    }

    /// Has the schema made, and the role of proxies given its rights.
    pub fn migrate(&self) -> Output {
        self.operate(&["migrate", "--grant", "tml_proxy"])
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
        self.cluster.query("tml", sql)
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
    wait_until(&format!("the fleet to be {state}"), || {
        membership(proxy)["state"] == state
    });
}

/// Waits until a proxy knows how another is.
#[track_caller]
pub fn knows(proxy: &Proxy, name: &str, state: &str) {
    wait_until(&format!("{name} to be known as {state}"), || {
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
