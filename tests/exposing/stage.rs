//! A switchboard, a proxy that follows it, and what both say.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    board::Switchboard,
    harness::{Proxy, Setup, TempDir, config, ports, wait_for, wait_until},
};

/// The host that jobs are on.
pub const HOST: u32 = 1;

/// A switchboard with one host, ports to allocate, and a directory to keep allocations in.
pub struct Stage {
    pub board: Switchboard,
    pub first: u16,
    pub count: u16,
    pub public: String,
    dir: TempDir,
}

impl Stage {
    /// With that many ports.
    pub fn new(count: u16) -> Self {
        Self::with(Switchboard::start(), count)
    }

    /// With a switchboard that exists.
    pub fn with(board: Switchboard, count: u16) -> Self {
        board.add_host(HOST);
        Self {
            board,
            first: ports::range(count),
            count,
            public: "p.example.org".to_owned(),
            dir: TempDir::new(),
        }
    }

    /// Where allocations are kept.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The section for this switchboard; `keys` are further keys of it.
    pub fn section(&self, keys: &str) -> String {
        self.section_with(keys, "[[switchboard.expose]]\nname = \"ssh\"\nport = 22\n")
    }

    /// The same with other rules.
    pub fn section_with(&self, keys: &str, rules: &str) -> String {
        let (first, last) = (self.first, self.first + self.count - 1);
        let ports = match keys.contains("ports =") {
            true => String::new(),
            false => format!("ports = \"{first}-{last}\"\n"),
        };
        let ca_file = self.board.ca_file();
        let ca_file = ca_file.map(|file| format!("ca_file = \"{}\"\n", file.display()));
        format!(
            "\n[switchboard]\nurl = \"{}\"\ntoken_file = \"{}\"\n{}public_host = \"{}\"\n\
             {ports}targets = {{ allow = [\"fd00::/8\"] }}\nstate_dir = \"{}\"\n\
             poll = \"200ms\"\nrefresh = \"1s\"\n{keys}\n{rules}",
            self.board.url(),
            self.board.token_file().display(),
            ca_file.unwrap_or_default(),
            self.public,
            self.state_dir().display(),
        )
    }

    /// A proxy that follows the switchboard.
    #[track_caller]
    pub fn proxy(&self, keys: &str) -> Proxy {
        Proxy::start(&config([self.section(keys)]))
    }

    /// The same, started in a special way.
    #[track_caller]
    pub fn proxy_with(&self, setup: &Setup<'_>, keys: &str) -> Proxy {
        Proxy::start_with(setup, &config([self.section(keys)]))
    }

    /// A job that is ready at an address.
    pub fn ready(&self, number: u32, address: &str) -> String {
        self.ready_on(HOST, number, address)
    }

    /// A job that is ready at an address, on a certain host.
    pub fn ready_on(&self, host: u32, number: u32, address: &str) -> String {
        let id = self.board.add_job(number, host, "initializing");
        self.board.change(&id, |job| {
            job["state"] = json!("ready");
            job["job_ip_address"] = json!(address);
        });
        id
    }

    /// Ends a job.
    pub fn finalize(&self, id: &str) {
        self.board.put(id, "finalized");
    }
}

/// What the proxy says of a job that it knows.
pub fn endpoints(proxy: &Proxy, id: &str) -> Vec<Value> {
    let (status, body) = proxy.page(&format!("/api/v1/endpoints?job={id}"));
    assert!(status.contains(" 200 "), "{status}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let mut found = body["endpoints"].as_array().expect("a list").clone();
    found.retain(|one| {
        let absent = ["finished", "unknown", "not_heard_of"];
        one["reason"]
            .as_str()
            .is_none_or(|reason| !absent.contains(&reason))
    });
    found
}

/// Waits until the only endpoint of a job is open, and says on which port.
#[track_caller]
pub fn opens(proxy: &Proxy, id: &str) -> u16 {
    wait_for(&format!("{id} to be open"), || {
        let found = endpoints(proxy, id);
        let open = found.iter().find(|one| one["state"] == "open")?;
        let port = open["port"].as_u64()?;
        u16::try_from(port).ok()
    })
}

/// Waits until nothing of a job is open.
#[track_caller]
pub fn closes(proxy: &Proxy, id: &str) {
    wait_until(&format!("{id} to be closed"), || {
        endpoints(proxy, id).iter().all(|one| one["port"].is_null())
    });
}

/// Waits until a job is not exposed for that reason.
#[track_caller]
pub fn refuses(proxy: &Proxy, id: &str, reason: &str) {
    wait_until(&format!("{id} to be refused as {reason}"), || {
        endpoints(proxy, id)
            .iter()
            .any(|one| one["reason"] == reason)
    });
}

/// What the proxy says of the switchboard.
pub fn status(proxy: &Proxy) -> Value {
    let (_, body) = proxy.page("/api/v1/status");
    let status: Value = serde_json::from_str(&body).expect("JSON");
    status["switchboard"].clone()
}
