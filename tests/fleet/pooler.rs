//! pgbouncer in front of a database: it lends connections for a transaction.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::chown,
    path::PathBuf,
};

use super::{
    database::{Database, PASSWORD},
    harness::{
        TempDir, ports,
        postgresql::{NOBODY, as_nobody},
        process::{self, Running},
        require::{Need, find_program},
    },
};

/// What it takes beyond a database.
pub const POOLER: Need = Need::Tool("pgbouncer");

/// One with two connections to lend, until it is dropped.
pub struct Pooler {
    /// Where it listens.
    pub addr: SocketAddr,
    running: Running,
    settings: PathBuf,
    _dir: TempDir,
}

impl Pooler {
    pub fn start(database: &Database) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let dir = TempDir::new();
        let name = &database.name;
        let users = dir.write("users", format!("\"{name}\" \"{PASSWORD}\"\n"));
        let settings = dir.write(
            "pgbouncer.ini",
            format!(
                "[databases]\n{name} = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = {}\n\
                 listen_port = {}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\n\
                 pool_mode = transaction\ndefault_pool_size = 2\n",
                database.port(),
                addr.ip(),
                addr.port(),
                users.display(),
            ),
        );
        for file in [&users, &settings] {
            chown(file, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        Self {
            addr,
            running: run(&settings),
            settings,
            _dir: dir,
        }
    }

    /// The way to a database through it.
    pub fn url(&self, database: &Database) -> String {
        let url = database.url_by("127.0.0.1", self.addr.port());
        format!("{url}?sslmode=disable")
    }

    pub fn kill(&mut self) {
        process::kill(self.running.id());
        self.running.wait();
    }

    /// Starts it again, after it was killed.
    pub fn start_again(&mut self) {
        self.running = run(&self.settings);
    }
}

fn run(settings: &PathBuf) -> Running {
    let program = find_program("pgbouncer").expect("it was asked for");
    Running::start(as_nobody(&program).arg("-q").arg(settings))
}
