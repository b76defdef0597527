//! The proxies under test: which are installed, how each is configured, started and ended.

mod haproxy;
mod nginx;
mod tml;

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

pub use tml::Overrides;

use crate::{
    args::Args,
    backend::{SERVICES, Service},
    harness::process::with_descendants,
    load::idle,
    meter::Meter,
    net,
    network::{self, Network},
    process::Process,
};

/// The name of the proxy that the others are compared with.
pub const OWN: &str = "tml-proxy";

/// Unprivileged user and group that own nothing.
const NOBODY: u32 = 65_534;

/// One public address and the target behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where their bytes go.
    pub target: SocketAddr,
}

/// The targets of `exchange` that a proxy chooses from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// None: the route has its target.
    #[default]
    Plain,
    /// So many, each of which is kept track of, the one with the fewest sessions first.
    LeastSessions(usize),
}

/// What a proxy is to do, the same for every peer.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// What to forward; the services of the backend come first, in their order.
    pub routes: Vec<Route>,
    /// Where the route of `exchange` leads instead of to its target.
    pub choice: Choice,
    /// The addresses that are chosen from.
    pub alike: Vec<SocketAddr>,
    /// Whether to write a line per session.
    pub log_sessions: bool,
    /// Whether to run without privileges.
    pub unprivileged: bool,
    /// The network namespace to run in, if not this one.
    pub namespace: Option<String>,
    /// Whether to run so that the program can be replaced, by a master process where one is needed.
    pub supervised: bool,
}

/// A way to get from the client to the target.
#[derive(Debug, Clone)]
pub struct Peer {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Direct,
    Tml(tml::Tml),
    Haproxy(haproxy::Haproxy),
    Nginx(nginx::Nginx),
}

/// A peer that is up.
pub struct Running {
    /// Where the services of the backend are reached through it.
    pub services: [SocketAddr; SERVICES],
    /// What it forwards.
    pub job: Job,
    /// From the start of the program to the first byte through it.
    pub started_in: Duration,
    meter: Meter,
    process: Option<Process>,
    directory: PathBuf,
}

impl Job {
    /// The services of the backend, and `further` mappings to one of them.
    pub fn new(targets: [SocketAddr; SERVICES], further: usize) -> Self {
        let exchange = targets[Service::Exchange as usize];
        let targets = targets
            .into_iter()
            .chain(std::iter::repeat_n(exchange, further));
        let routes = targets.map(|target| Route {
            listen: net::free_address(),
            target,
        });
        Self {
            routes: routes.collect(),
            ..Self::default()
        }
    }

    /// The targets that a route chooses from, unless it has one.
    fn choices(&self, index: usize) -> Option<&[SocketAddr]> {
        match self.choice {
            Choice::LeastSessions(count) if index == Service::Exchange as usize => {
                self.alike.get(..count)
            }
            _ => None,
        }
    }

    /// The same in a network, whose proxies listen elsewhere.
    pub fn within(mut self, network: &Network) -> Self {
        for route in &mut self.routes {
            route.listen.set_ip(network.front());
        }
        self.namespace = network.proxy_namespace().map(str::to_owned);
        self
    }
}

impl Peer {
    /// Every peer asked for that this machine has, the floor and our own first.
    pub fn find(args: &Args) -> Vec<Self> {
        let mut found = vec![
            Self::new("direct", Kind::Direct),
            Self::new(OWN, Kind::Tml(tml::Tml::just_built(Overrides::default()))),
        ];
        for extra in args.extra_binary.iter().chain(&args.extra_config) {
            let overrides = extra.overrides.clone();
            let tml = match &extra.binary {
                Some(path) => tml::Tml::new(path.clone(), overrides),
                None => tml::Tml::just_built(overrides),
            };
            found.push(Self::new(&extra.name, Kind::Tml(tml)));
        }
        for (name, haproxy) in haproxy::find() {
            found.push(Self::new(name, Kind::Haproxy(haproxy)));
        }
        for (name, nginx) in nginx::find() {
            found.push(Self::new(name, Kind::Nginx(nginx)));
        }
        let extra = |name: &str| {
            args.extra_binary
                .iter()
                .chain(&args.extra_config)
                .any(|e| e.name == name)
        };
        found.retain(|peer| args.wants_peer(&peer.name) || extra(&peer.name));
        found
    }

    fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
        }
    }

    /// The proxy just built with other settings.
    pub fn own_with(name: &str, overrides: Overrides) -> Self {
        Self::new(name, Kind::Tml(tml::Tml::just_built(overrides)))
    }

    /// The same tml-proxy with one setting more.
    pub fn with(&self, key: &str, value: &str) -> Option<Self> {
        let Kind::Tml(tml) = &self.kind else {
            return None;
        };
        let name = format!("{}, {key} = {value}", self.name);
        Some(Self::new(&name, Kind::Tml(tml.with(key, value))))
    }

    /// What it is called in the tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is a proxy at all.
    pub fn is_proxy(&self) -> bool {
        !matches!(self.kind, Kind::Direct)
    }

    /// Whether it is a tml-proxy.
    pub fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Tml(_))
    }

    /// Whether it can be given several targets here.
    pub fn has_choices(&self) -> bool {
        matches!(self.kind, Kind::Tml(_) | Kind::Haproxy(_))
    }

    /// Version and how it is configured, in a line.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Direct => "no proxy: the floor".to_owned(),
            Kind::Tml(tml) => tml.describe(),
            Kind::Haproxy(haproxy) => haproxy.describe(),
            Kind::Nginx(nginx) => nginx.describe(),
        }
    }

    /// Starts it and waits until it forwards. Configuration and log go to a directory of its own
    /// in `workspace`.
    pub fn start(&self, workspace: &Path, job: Job) -> Result<Running> {
        let services: Vec<SocketAddr> = job
            .routes
            .iter()
            .take(SERVICES)
            .map(|route| {
                if self.is_proxy() {
                    route.listen
                } else {
                    route.target
                }
            })
            .collect();
        let services = services.try_into().ok().context("a route per service")?;
        // The same peer may run twice at once.
        static STARTS: AtomicU32 = AtomicU32::new(0);
        let start = STARTS.fetch_add(1, Ordering::Relaxed);
        let directory = workspace.join(format!("{}-{start}", self.name));
        fs::create_dir(&directory)?;
        if job.unprivileged {
            chown(&directory, Some(NOBODY), Some(NOBODY))?;
        }
        let command = match &self.kind {
            Kind::Direct => None,
            Kind::Tml(tml) => Some(tml.command(&directory, &job)?),
            Kind::Haproxy(haproxy) => Some(haproxy.command(&directory, &job)?),
            Kind::Nginx(nginx) => Some(nginx.command(&directory, &job)?),
        };
        let mut running = Running {
            services,
            job,
            started_in: Duration::ZERO,
            meter: Meter::default(),
            process: None,
            directory,
        };
        if let Some(command) = command {
            running
                .launch(command)
                .with_context(|| format!("{} does not start", self.name))?;
        }
        Ok(running)
    }

    /// Has the program of a running peer replaced by itself, and waits until that has happened.
    pub fn replace(&self, running: &Running) -> Result<()> {
        let process = running.process().context("not a process")?;
        let signal = match &self.kind {
            Kind::Direct => bail!("there is nothing to replace"),
            Kind::Tml(_) | Kind::Haproxy(_) => Signal::USR2,
            Kind::Nginx(_) => Signal::HUP,
        };
        let (log, children) = (running.log().len(), with_descendants(process.id()));
        process.signal(signal)?;
        let deadline = Instant::now() + net::PATIENCE;
        let happened = || match &self.kind {
            Kind::Tml(_) => running.log()[log..].contains(tml::REPLACED),
            _ => with_descendants(process.id())
                .iter()
                .any(|pid| !children.contains(pid)),
        };
        while !happened() {
            ensure!(
                Instant::now() < deadline,
                "it was not replaced: {}",
                running.log()
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Rewrites the configuration of a running tml-proxy.
    pub fn reconfigure(&self, running: &Running, job: &Job) -> Result<()> {
        match &self.kind {
            Kind::Tml(tml) => tml.configure(&running.directory, job).map(drop),
            _ => bail!("{} is not reloaded here", self.name),
        }
    }
}

impl Running {
    /// Where a service is reached.
    pub fn service(&self, service: Service) -> SocketAddr {
        self.services[service as usize]
    }

    /// Every address that leads to a service.
    pub fn ways_to(&self, service: Service) -> Vec<SocketAddr> {
        if self.process.is_none() {
            return vec![self.service(service)];
        }
        let target = self.job.routes[service as usize].target;
        let ways = self
            .job
            .routes
            .iter()
            .filter(|route| route.target == target);
        ways.map(|route| route.listen).collect()
    }

    /// What measures it.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Its process, unless there is no proxy.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Fails if it has ended by itself.
    pub fn ensure_alive(&mut self) -> Result<()> {
        if let Some(status) = self.process.as_mut().and_then(Process::ended) {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            bail!(
                "it ended ({status}): {}",
                last.into_iter().rev().collect::<Vec<_>>().join(" | ")
            );
        }
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn launch(&mut self, command: Command) -> Result<()> {
        let mut command = network::inside(self.job.namespace.as_deref(), command);
        let log = fs::File::create(self.log_path())?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if self.job.unprivileged {
            command.uid(NOBODY).gid(NOBODY);
        }
        let started = Instant::now();
        let process = self.process.insert(Process::spawn(&mut command)?).id();
        let last = self.job.routes.last().context("nothing to forward")?.listen;
        while idle::round_trip(self.service(Service::Echo)).is_err() || net::connect(last).is_err()
        {
            self.ensure_alive()?;
            ensure!(started.elapsed() < net::PATIENCE, "it does not forward");
            thread::sleep(Duration::from_millis(2));
        }
        self.started_in = started.elapsed();
        self.meter = Meter::of_process(process);
        Ok(())
    }
}

/// What a program prints about its version, in one piece.
fn output_of(program: &Path, argument: &str) -> String {
    match Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => [output.stdout, output.stderr]
            .iter()
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect(),
        Err(error) => format!("does not run: {error}"),
    }
}
