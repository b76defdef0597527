//! Handing over to another build of the program, from the side of the one that goes.
//!
//! Nothing is stopped before that build has shown that it can go on ([`Candidate`]). Then workers stop,
//! each between two system calls, everything is sent into a socket, and execve(2) puts the other image
//! into this process. That is the point of no return: whatever fails before it has changed nothing.

use std::{
    convert::Infallible,
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{self, Duration, SystemTime},
};

use futures_util::FutureExt;
use rustix::stdio::dup2_stdin;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking, yield_now},
    time::{Instant, timeout},
};

use super::{
    candidate::{Candidate, Refusal},
    invocation::{Executable, How, Invocation},
    running::Running,
    saved::{SavedProcess, SavedWayBack, Started, put, put_control, put_counted},
    saved_control::{ControlParts, SavedControl},
    signals::Signals,
};
use crate::{
    handover::{HEADER, Header, Outgoing, Rehearsal, Saver, Sink, version},
    orders::{OrderError, UpgradeBegun},
    os_error::in_words,
    telemetry::UpgradeOutcome,
};

/// How long whoever asked may take to hear that it begins.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// How long workers may take to stand still, or to say what they have.
const WORKERS_WITHIN: Duration = Duration::from_secs(2);

/// How long whoever reads the log may take for what is in its queue.
const LOG_WITHIN: Duration = Duration::from_millis(100);

/// The image that runs, by the kernel's word: its path may lead to another file by now.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Who waits for an upgrade to begin.
type Reply = oneshot::Sender<Result<UpgradeBegun, OrderError>>;

/// The upgrade that is wanted or under way.
#[derive(Debug)]
pub(super) struct Upgrading {
    invocation: Invocation,
    asked: Option<Asked>,
    under_way: Option<(u64, JoinHandle<Outcome>)>,
}

#[derive(Debug)]
struct Asked {
    binary: Option<PathBuf>,
    reply: Option<Reply>,
}

/// What comes of a rehearsal.
type Outcome = Result<Candidate, Refusal>;

/// An upgrade that was rehearsed.
#[derive(Debug)]
pub(super) struct Rehearsed {
    number: u64,
    outcome: Outcome,
}

/// What is saved when.
struct Moment<'a> {
    number: u64,
    /// What takes over.
    path: &'a Path,
    frozen: time::Instant,
    sessions: Option<usize>,
}

/// What to do when the upgrade has not happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    GoOn,
    Stop,
}

impl Upgrading {
    /// None is wanted.
    pub fn new(invocation: Invocation) -> Self {
        Self {
            invocation,
            asked: None,
            under_way: None,
        }
    }

    /// Notes that one is wanted, unless one is already.
    pub fn ask(&mut self, binary: Option<PathBuf>, reply: Reply) {
        let refused = match &binary {
            _ if self.is_under_way() || self.is_due() => "an upgrade is under way",
            Some(binary) if !binary.is_absolute() => "the path of the binary is not absolute",
            _ => {
                let reply = Some(reply);
                self.asked = Some(Asked { binary, reply });
                return;
            }
        };
        // Whoever asked may have gone.
        let _ = reply.send(Err(OrderError::Refused(refused.to_owned())));
    }

    /// The same without anybody to answer to.
    pub fn ask_by_signal(&mut self) {
        tracing::info!("upgrade asked for by a signal");
        if !self.is_under_way() {
            self.asked.get_or_insert(Asked {
                binary: None,
                reply: None,
            });
        }
    }

    /// Whether one is wanted and none under way.
    pub fn is_due(&self) -> bool {
        self.asked.is_some() && self.under_way.is_none()
    }

    /// Whether one is under way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Waits until the one under way has been rehearsed.
    pub async fn rehearsed(&mut self) -> Rehearsed {
        let Some((number, under_way)) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let number = *number;
        let outcome = match under_way.await {
            Ok(outcome) => outcome,
            Err(error) => Err(Refusal::from(format!("the rehearsal failed: {error}"))),
        };
        self.under_way = None;
        Rehearsed { number, outcome }
    }

    /// Gives up what is wanted or under way; a child that rehearses is killed.
    pub fn stop(&mut self) {
        self.asked = None;
        if let Some((_, under_way)) = self.under_way.take() {
            under_way.abort();
        }
    }
}

impl Running {
    /// Has the build that is to take over show that it can, while everything goes on.
    pub(super) fn begin_upgrade(&mut self) {
        let Some(Asked { binary, reply }) = self.upgrading.asked.take() else {
            return;
        };
        let invocation = &self.upgrading.invocation;
        let path = binary.unwrap_or_else(|| invocation.binary.clone());
        let number = self.sources.upgrades.begun();
        tracing::info!(upgrade = number, binary = %path.display(), "upgrade begins");
        let words = invocation.words.clone();
        let rehearsal = self.describe(number, &path);
        let workers = self.sources.workers.clone();
        let rehearse = async move {
            let rehearsal = Arc::new(rehearsal?);
            let sink: Arc<dyn Sink> = Arc::clone(&rehearsal) as _;
            let described = spawn_blocking(move || workers.describe(&sink, WORKERS_WITHIN));
            let described = described.await.map_err(|error| error.to_string())?;
            described?;
            let state = rehearsal.finish()?;
            Candidate::rehearse(path, &words, state).await
        };
        let under_way = tokio::spawn(async move {
            let outcome = rehearse.await;
            if let Some(reply) = reply {
                tell(reply, number, &outcome).await;
            }
            outcome
        });
        self.upgrading.under_way = Some((number, under_way));
    }

    /// Everything as it is now, for a rehearsal.
    fn describe(&self, number: u64, path: &Path) -> Result<Rehearsal, String> {
        let rehearsal = Rehearsal::new()?;
        let executable = own_executable()?;
        let now = Instant::now().into_std();
        let moment = Moment {
            number,
            path,
            frozen: now,
            sessions: None,
        };
        self.put_process(&moment, &executable, &rehearsal)?;
        let control = self.put_control(self.jobs.state_dir().as_ref(), &rehearsal)?;
        put_counted(&control, &self.sources, &rehearsal)?;
        Ok(rehearsal)
    }

    /// Hands over. It comes back only if that fails, and then nothing has changed.
    pub(super) async fn take_over(
        &mut self,
        Rehearsed { number, outcome }: Rehearsed,
        signals: &mut Signals,
    ) -> Afterwards {
        let candidate = match outcome {
            Ok(candidate) => candidate,
            Err(Refusal { why, version }) => {
                self.failed(number, version, why);
                return Afterwards::GoOn;
            }
        };
        self.forwarding.control.store_told().await;
        // Where that takes longer, a worker says so when it is to stand still.
        let _ = timeout(WORKERS_WITHIN, self.sources.workers.queues_served()).await;
        // Signals that have arrived are heard by this image, those that arrive from now on by the next.
        yield_now().await;
        if signals.hangup.recv().now_or_never().flatten().is_some() {
            self.loading.ask(None);
        }
        if signals.stop.recv().now_or_never().is_some() {
            let why = "the proxy is stopping".to_owned();
            self.failed(number, Some(candidate.version), why);
            return Afterwards::Stop;
        }
        let Err(why) = self.hand_over(number, &candidate);
        self.failed(number, Some(candidate.version), why);
        Afterwards::GoOn
    }

    /// From here on nothing is waited for but workers and the log, and both not for long.
    fn hand_over(&self, number: u64, candidate: &Candidate) -> Result<Infallible, String> {
        // Both stay open until the other image has them.
        let (executable, state_dir) = (own_executable()?, self.jobs.state_dir());
        let outgoing = Arc::new(Outgoing::new()?);
        let before = io::stdin().as_fd().try_clone_to_owned();
        let before = before.map_err(|error| format!("standard input: {}", in_words(&error)))?;
        self.sources.shared.log.flush(LOG_WITHIN);
        self.sources.log.syslog().flush(LOG_WITHIN);
        // All that workers have no part in need not wait for them to stand still.
        let control = self.put_control(state_dir.as_ref(), &*outgoing)?;
        let begun = Instant::now().into_std();
        let sink: Arc<dyn Sink> = Arc::clone(&outgoing) as _;
        // They go on when it is dropped.
        let frozen = self.sources.workers.freeze(sink, WORKERS_WITHIN)?;
        let moment = Moment {
            number,
            path: &candidate.path,
            frozen: begun,
            sessions: Some(frozen.sessions()),
        };
        self.sources.shared.log.flush(LOG_WITHIN);
        self.sources.log.syslog().flush(LOG_WITHIN);
        put_counted(&control, &self.sources, &*outgoing)?;
        candidate.is_unchanged()?;
        // Last, since it says how long all of that took.
        self.put_process(&moment, &executable, &*outgoing)?;
        outgoing.finish()?;
        let error = match dup2_stdin(outgoing.receiving()) {
            Ok(()) => {
                let executable = Executable::At(&candidate.path);
                self.upgrading.invocation.exec(&executable, &How::Adopt)
            }
            Err(errno) => errno.into(),
        };
        put_back(&before);
        let path = candidate.path.display();
        Err(format!(
            "{path}: it cannot be executed: {}",
            in_words(&error)
        ))
    }

    /// What is known of the process.
    fn put_process(
        &self,
        moment: &Moment<'_>,
        executable: &File,
        sink: &dyn Sink,
    ) -> Result<(), String> {
        let mut saver = Saver::default();
        let (at, time) = self.sources.started;
        let saved = SavedProcess {
            header: Header::own(),
            way_back: SavedWayBack {
                executable: saver.descriptor(executable.as_fd()),
                binary_before: self.upgrading.invocation.binary.clone(),
                binary: moment.path.to_owned(),
            },
            number: moment.number,
            sessions: moment.sessions,
            frozen: moment.frozen,
            saved: time::Instant::now(),
            started: Started { at, time },
            upgrades: self.sources.upgrades.read(),
            reload: self.loading.is_wanted(),
        };
        put(sink, HEADER, &saved, saver)
    }

    /// What control has.
    fn put_control(
        &self,
        state_dir: Option<&(PathBuf, OwnedFd)>,
        sink: &dyn Sink,
    ) -> Result<SavedControl, String> {
        let parts = ControlParts {
            forwarding: &self.forwarding,
            jobs: &self.jobs,
            state_dir,
            admin: &self.admin,
            sources: &self.sources,
            budget: &self.budget,
        };
        put_control(parts, sink)
    }

    /// Notes that an upgrade has changed nothing, and why.
    fn failed(&self, number: u64, to: Option<String>, error: String) {
        self.sources.workers.forget_described();
        tracing::error!(
            upgrade = number,
            to,
            error,
            "upgrade failed, nothing has changed"
        );
        self.sources.upgrades.ended(UpgradeOutcome {
            number,
            at: SystemTime::now(),
            from: version().to_owned(),
            to,
            sessions: self.sources.shared.stats.sessions_open().into(),
            pause: Duration::ZERO,
            error: Some(error),
        });
    }
}

/// Tells whoever asked that it begins, and waits until he has heard it; or why it does not.
async fn tell(reply: Reply, number: u64, outcome: &Outcome) {
    let candidate = match outcome {
        Ok(candidate) => candidate,
        Err(refusal) => {
            let refused = OrderError::Refused(refusal.why.clone());
            // Whoever asked may have gone.
            return drop(reply.send(Err(refused)));
        }
    };
    let (told, heard) = oneshot::channel();
    let begun = UpgradeBegun {
        number,
        from: version().to_owned(),
        to: candidate.version.clone(),
        told,
    };
    if reply.send(Ok(begun)).is_ok() {
        // Nothing is sent; it ends when the other end is gone.
        let _ = timeout(TOLD_WITHIN, heard).await;
    }
}

fn own_executable() -> Result<File, String> {
    let opened = fs::File::open(OWN_EXECUTABLE);
    opened.map_err(|error| format!("{OWN_EXECUTABLE}, for the way back: {}", in_words(&error)))
}

fn put_back(stdin: &OwnedFd) {
    if let Err(errno) = dup2_stdin(stdin) {
        let error = in_words(&errno.into());
        tracing::warn!(error, "standard input is not what it was");
    }
}
