//! The proxy, run as its users run it.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use super::{
    Line, TempDir,
    lab::Netns,
    log::Log,
    metrics,
    metrics::Metrics,
    ports, process,
    process::Running,
    sandbox::{Lack, without},
    wait_until,
};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tml-proxy");

/// How to start it, where the ordinary way does not do.
#[derive(Debug, Default)]
pub struct Setup<'a> {
    /// A command that runs the one that follows it, such as `prlimit --nofile=64:64`.
    pub through: Vec<String>,
    /// The namespace to run in.
    pub netns: Option<&'a Netns>,
    /// What its kernel lacks.
    pub lack: Option<Lack>,
    /// Further environment.
    pub env: Vec<(&'static str, String)>,
    /// The admin address that the configuration begins with, where that, and the format of the log,
    /// are to be what it says and not what the command line does.
    pub admin_in_file: Option<SocketAddr>,
}

/// A running proxy. It is killed when dropped; if the test panics, its log is printed.
#[derive(Debug)]
pub struct Proxy {
    running: Running,
    log: Log,
    dir: TempDir,
    admin: Option<SocketAddr>,
    netns: Option<PathBuf>,
}

impl Proxy {
    /// Starts with a configuration and waits until it listens.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_with(&Setup::default(), config)
    }

    /// Starts in a special way and waits until it listens.
    #[track_caller]
    pub fn start_with(setup: &Setup<'_>, config: &str) -> Self {
        let dir = TempDir::new();
        let file = dir.write("proxy.toml", config);
        let arguments = ["--config".to_owned(), file.display().to_string()];
        Self::run(setup, dir, &arguments)
    }

    /// Starts without a file and waits until it listens.
    #[track_caller]
    pub fn start_without_file(setup: &Setup<'_>, arguments: &[String]) -> Self {
        Self::run(setup, TempDir::new(), arguments)
    }

    /// Starts without a file and without an admin address.
    #[track_caller]
    pub fn start_without_admin(arguments: &[String]) -> Self {
        Self::spawn(&Setup::default(), TempDir::new(), None, arguments)
    }

    #[track_caller]
    fn run(setup: &Setup<'_>, dir: TempDir, arguments: &[String]) -> Self {
        let free = || SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let admin = setup.admin_in_file.unwrap_or_else(free);
        Self::spawn(setup, dir, Some(admin), arguments)
    }

    #[track_caller]
    fn spawn(
        setup: &Setup<'_>,
        dir: TempDir,
        admin: Option<SocketAddr>,
        arguments: &[String],
    ) -> Self {
        process::raise_descriptor_limit();
        let on = admin.map_or("off".to_owned(), |admin| admin.to_string());
        let mut command = wrapped(setup, &dir, Path::new(PROGRAM));
        command.arg("run");
        if setup.admin_in_file.is_none() {
            command.args(["--admin", &on, "--log-format", "json"]);
        }
        command
            .args(arguments)
            .envs(setup.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = match setup.lack {
            None => Running::start(&mut command),
            Some(lack) => without(lack, || Running::start(&mut command)),
        };
        let log = Log::default();
        log.follow(running.child().stdout.take().expect("asked for"));
        log.follow(running.child().stderr.take().expect("asked for"));
        let proxy = Self {
            running,
            log,
            dir,
            admin,
            netns: setup.netns.map(Netns::path),
        };
        proxy.wait_for_line(0, "listening");
        proxy
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its directory, with `proxy.toml` in it.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.dir.join("proxy.toml")
    }

    /// Its admin address.
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("started with one")
    }

    /// The first line with that message after the first `from` lines.
    #[track_caller]
    pub fn wait_for_line(&self, from: usize, message: &str) -> Line {
        self.log.wait(from, &format!("{message:?}"), |line| {
            line.message() == message
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Replaces the file, as a careful editor does.
    pub fn write_config(&self, config: &str) {
        let new = self.dir.write("proxy.toml.new", config);
        fs::rename(new, self.file()).expect("both in one directory");
    }

    /// Gives it a new configuration, which it has to accept.
    #[track_caller]
    pub fn reload(&self, config: &str) -> Line {
        self.write_config(config);
        self.reload_file()
    }

    /// Has it read its file again, which it has to accept.
    #[track_caller]
    pub fn reload_file(&self) -> Line {
        let line = self.try_reload();
        assert_eq!(line.message(), "reload done");
        line
    }

    /// Gives it a new configuration, which it has to refuse.
    #[track_caller]
    pub fn reload_fails(&self, config: &str) -> Line {
        self.write_config(config);
        self.reload_file_fails()
    }

    /// Has it read its file again, which it has to refuse.
    #[track_caller]
    pub fn reload_file_fails(&self) -> Line {
        let line = self.try_reload();
        assert!(line.message().starts_with("reload failed"));
        line
    }

    /// The `wanted` lines it has written so far. A reload behind them shows that all are there.
    #[track_caller]
    pub fn said(&self, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
        self.try_reload();
        self.log.all(wanted)
    }

    #[track_caller]
    fn try_reload(&self) -> Line {
        let from = self.log.len();
        self.signal(Signal::HUP);
        self.log.wait(from, "the end of a reload", |line| {
            line.message() == "reload done" || line.message().starts_with("reload failed")
        })
    }

    /// The line of the session of that client, once it has ended.
    #[track_caller]
    pub fn ended_session(&self, client: SocketAddr) -> Line {
        let client = client.to_string();
        self.log
            .wait(0, &format!("the session of {client}"), |line| {
                line.message() == "session ended" && line.text("client") == client
            })
    }

    /// A scrape.
    pub fn metrics(&self) -> Metrics {
        self.get(Metrics::scrape)
    }

    /// Status line and body of an admin page.
    pub fn page(&self, path: &str) -> (String, String) {
        self.get(|addr| metrics::get(addr, path).expect("the admin address answers"))
    }

    fn get<T: Send>(&self, ask: impl FnOnce(SocketAddr) -> T + Send) -> T {
        match &self.netns {
            None => ask(self.admin()),
            Some(path) => Netns::run_in(path, || ask(self.admin())),
        }
    }

    /// Waits until a metric, summed over all samples with those labels, has that value.
    #[track_caller]
    pub fn wait_until(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.wait_until_metrics(&format!("{name} {labels:?} to be {value}"), |metrics| {
            metrics.sum(name, labels) == value
        });
    }

    /// Waits until the metrics are as wanted.
    #[track_caller]
    pub fn wait_until_metrics(&self, what: &str, holds: impl Fn(&Metrics) -> bool) {
        wait_until(what, || holds(&self.metrics()));
    }

    /// Waits until no session is open and no pipe in use, as it has to be once all peers are gone.
    #[track_caller]
    pub fn settles(&self) {
        self.wait_until("tml_proxy_sessions_open", &[], 0);
        self.wait_until("tml_proxy_pipes_in_use", &[], 0);
        let metrics = self.metrics();
        assert_eq!(metrics.sum("tml_proxy_log_dropped_total", &[]), 0);
        assert_eq!(
            metrics.sum("tml_proxy_sessions_ended_total", &[("reason", "internal")]),
            0
        );
    }

    /// Waits until it does not listen on `port` any more. Trying to connect would tell as well, but
    /// as long as it succeeds it makes sessions.
    #[track_caller]
    pub fn stops_listening(&self, port: u16) {
        wait_until("a listener to be closed", || {
            process::listening_inodes(self.id(), port).is_empty()
        });
    }

    /// Checks that it leaves the processor alone while its peers are quiet.
    #[track_caller]
    pub fn rests(&self) {
        // What is measured is processor time used, which a busy machine can only lessen. What is
        // under way in the kernel may take a while to come to an end; a loop never does.
        wait_until("the proxy to use less than 15 of 50 ticks", || {
            let before = process::cpu_ticks(self.id());
            thread::sleep(Duration::from_millis(500));
            process::cpu_ticks(self.id()) - before < 15
        });
    }

    /// Stops it with SIGTERM and waits for its end.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.running.wait();
        self.log.wait_for_end();
        status
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the proxy\n{}\n---", self.log.text());
        }
    }
}

/// A command that runs a program in a special way.
pub fn wrapped(setup: &Setup<'_>, dir: &TempDir, program: &Path) -> Command {
    // Another user may not be able to reach the build directory.
    let program = match setup.through.first() {
        Some(_) => dir.copy_program(program),
        None => program.to_owned(),
    };
    let mut words: Vec<String> = setup.through.clone();
    words.push(program.display().to_string());
    let (first, rest) = words.split_first().expect("at least the program");
    let mut command = match setup.netns {
        Some(netns) => netns.command(first),
        None => Command::new(first),
    };
    command.args(rest);
    command
}

/// The words that hand a program listening sockets at ports of every address, as systemd would that had
/// kept them. It starts when somebody connects to one of them.
pub fn with_kept_listeners(ports: &[u16]) -> Vec<String> {
    let names: Vec<String> = ports
        .iter()
        .map(|port| format!("listen/*-{port}"))
        .collect();
    let listen = ports
        .iter()
        .flat_map(|port| ["-l".to_owned(), port.to_string()]);
    let program = "systemd-socket-activate".to_owned();
    let names = format!("--fdname={}", names.join(":"));
    [program, names].into_iter().chain(listen).collect()
}

/// The words that run a program as another user without any privilege.
pub fn as_user(uid: u32) -> Vec<String> {
    let uid = uid.to_string();
    [
        "setpriv",
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
    ]
    .map(str::to_owned)
    .to_vec()
}
