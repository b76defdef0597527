//! The far end of every session: a process of its own, so that its descriptors and its processor
//! time are not the client's, and so that one backend serves all peers alike.
//!
//! Five services: `echo` returns what it gets, `distant` does so a moment later, `exchange` answers one
//! request and closes, `bulk` sends and swallows as fast as it can, `verify` does both with content
//! that is checked. The client holds a control socket, on the child's standard input: a line asks, a
//! line answers, and when it closes the child ends.

mod bulk;
mod talk;
mod verify;

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    os::{fd::AsFd, unix::net::UnixStream},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

pub use verify::check as verify;

use crate::{
    net,
    network::{self, Network},
    process::Process,
};

/// The first argument that makes this binary a backend.
pub const ROLE: &str = "__backend";

/// Bytes of a request and of its answer, and of a keystroke and its echo.
pub const MESSAGE: usize = 64;

/// What a session may want from the backend; also the order of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Returns what it gets.
    Echo,
    /// Returns what it gets a millisecond later.
    Distant,
    /// Answers one message and closes.
    Exchange,
    /// Sends as told by [`Backend::send`], swallows what it gets.
    Bulk,
    /// Checked content both ways.
    Verify,
}

/// Further addresses where `exchange` is served, for who has several targets.
pub const ALIKE: usize = 3;

/// A bulk session that goes on until it is told to stop.
pub const UNLIMITED: u64 = u64::MAX;

/// How many services there are.
pub const SERVICES: usize = 5;

/// Counters of the services, as far as the client wants to know them.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes each bulk session is sent; 0 stops those that send.
    limit: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// Open sessions of `echo`, `distant` and `exchange`.
    talking: AtomicU64,
    /// Open sessions of `bulk`.
    in_bulk: AtomicU64,
}

/// A copy of the counters.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    /// Bytes sent by `bulk`.
    pub sent: u64,
    /// Bytes received by `bulk`.
    pub received: u64,
    /// Connections open to any service but `verify`.
    pub open: u64,
}

/// A running backend, seen from the client.
pub struct Backend {
    control: Mutex<BufReader<UnixStream>>,
    services: [SocketAddr; SERVICES],
    alike: Vec<SocketAddr>,
    resting: AtomicU64,
    _process: Process,
}

impl Backend {
    /// Starts this binary a second time, as the target in that network.
    pub fn start(network: &Network) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(net::PATIENCE))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE).arg(network.target().to_string());
        let mut command = network::inside(network.target_namespace(), command);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        let process = Process::spawn(&mut command)?;
        let mut control = BufReader::new(ours);
        let greeting = read_line(&mut control)?;
        let mut services: Vec<SocketAddr> = greeting
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ensure!(services.len() == SERVICES + ALIKE, "an address per service");
        let mut alike = services.split_off(SERVICES);
        alike.insert(0, services[Service::Exchange as usize]);
        Ok(Self {
            control: Mutex::new(control),
            services: services.try_into().ok().context("an address per service")?,
            alike,
            resting: AtomicU64::new(0),
            _process: process,
        })
    }

    /// Where the services listen.
    pub fn services(&self) -> [SocketAddr; SERVICES] {
        self.services
    }

    /// Every address of `exchange`, that among the services first.
    pub fn alike(&self) -> &[SocketAddr] {
        &self.alike
    }

    /// From now on `bulk` sends this much to each connection and closes it, as soon as the client
    /// has sent something; or, if it is [`UNLIMITED`], it sends to each new connection at once.
    pub fn send(&self, limit: u64) -> Result<()> {
        self.ask(&format!("send {limit}")).map(drop)
    }

    /// From now on `bulk` sends nothing, and goes on swallowing.
    pub fn stop_sending(&self) -> Result<()> {
        self.send(0)
    }

    /// What was moved so far.
    pub fn counters(&self) -> Result<Counters> {
        let answer = self.ask("count")?;
        let numbers: Vec<u64> = answer.split(' ').map_while(|n| n.parse().ok()).collect();
        let [sent, received, open] = numbers[..] else {
            bail!("the backend answered {answer:?}");
        };
        Ok(Counters {
            sent,
            received,
            open,
        })
    }

    /// Sessions that stay open whatever else comes and goes.
    pub fn resting(&self) -> &AtomicU64 {
        &self.resting
    }

    /// Waits until every session but the resting ones has ended on this side too, so that its
    /// whole cost is in.
    pub fn wait_until_quiet(&self) -> Result<()> {
        let deadline = Instant::now() + net::PATIENCE;
        loop {
            let open = self.counters()?.open;
            let resting = self.resting.load(Relaxed);
            ensure!(open >= resting, "{} idle sessions are gone", resting - open);
            if open == resting {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{} sessions never ended at the target",
                open - resting
            );
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(5));
        Ok(())
    }

    fn ask(&self, line: &str) -> Result<String> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())?;
        read_line(&mut control)
    }
}

fn read_line(control: &mut BufReader<UnixStream>) -> Result<String> {
    let mut line = String::new();
    let read = control
        .read_line(&mut line)
        .context("the backend does not answer")?;
    ensure!(read > 0, "the backend ended");
    Ok(line.trim_end().to_owned())
}

/// The child: serves at that address until the client is gone.
pub fn serve(address: IpAddr) -> Result<()> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let shared = Arc::new(Shared::default());
    let [echo, distant, exchange, bulk, verify] = [
        net::listen(address)?,
        net::listen(address)?,
        net::listen(address)?,
        net::listen(address)?,
        net::listen(address)?,
    ];
    let alike = (0..ALIKE).map(|_| net::listen(address));
    let alike: Vec<TcpListener> = alike.collect::<io::Result<_>>()?;
    let addresses: Vec<String> = [&echo, &distant, &exchange, &bulk, &verify]
        .into_iter()
        .chain(&alike)
        .map(|listener| Ok(listener.local_addr()?.to_string()))
        .collect::<Result<_>>()?;

    start("talk", &shared, move |shared| {
        let mut listeners = vec![
            (&echo, talk::Manner::Echo),
            (&distant, talk::Manner::EchoLater),
            (&exchange, talk::Manner::AnswerOnce),
        ];
        listeners.extend(alike.iter().map(|one| (one, talk::Manner::AnswerOnce)));
        talk::serve(&listeners, &shared)
    })?;
    start("bulk", &shared, move |shared| bulk::serve(&bulk, &shared))?;
    start("verify", &shared, move |_| verify::serve(&verify))?;

    let mut answers = control.try_clone()?;
    writeln!(answers, "{}", addresses.join(" "))?;
    for line in BufReader::new(control).lines() {
        let line = line?;
        if let Some(limit) = line.strip_prefix("send ") {
            shared.limit.store(limit.parse()?, Relaxed);
            writeln!(answers, "ok")?;
        } else {
            let open = shared.talking.load(Relaxed) + shared.in_bulk.load(Relaxed);
            let [sent, received] = [&shared.sent, &shared.received].map(|n| n.load(Relaxed));
            writeln!(answers, "{sent} {received} {open}")?;
        }
    }
    Ok(())
}

fn start(
    name: &str,
    shared: &Arc<Shared>,
    service: impl FnOnce(Arc<Shared>) -> Result<()> + Send + 'static,
) -> Result<()> {
    let shared = Arc::clone(shared);
    let run = move || {
        if let Err(error) = service(shared) {
            // The client notices by the control socket.
            eprintln!("backend: {error:#}");
            std::process::exit(1);
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(())
}

/// Every connection that waits at `listener`.
fn accept_all(listener: &TcpListener) -> impl Iterator<Item = Result<std::net::TcpStream>> + '_ {
    std::iter::from_fn(|| {
        let accepted = net::accept(listener).context("accept at the backend");
        accepted.transpose()
    })
}
