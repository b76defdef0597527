//! The switchboard's part of the process: whoever follows the jobs, whoever exposes them, and whoever
//! answers for them in public, started, changed and ended together.

use std::sync::Arc;

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    exposing::{self, Exposing, Proposal},
    following,
    setup::open_own,
    tasks::{Ended, Tasks, why_ended},
};
use crate::{
    admin::{self, Sources},
    os_error::in_words,
    provider::switchboard::{KnownJobs, Switchboard, SwitchboardStatus},
    telemetry::Task,
};

/// Why something ended that has no end.
const BY_ITSELF: &str = "it ended by itself";

/// Everything there is of it.
#[derive(Debug)]
pub(super) struct Jobs {
    tasks: Tasks,
    status: Arc<SwitchboardStatus>,
    proposals: mpsc::Sender<Proposal>,
    running: Option<Running>,
    /// Removes what was written for users of the switchboard.
    withdrawing: Option<JoinHandle<()>>,
}

/// What runs while there is a switchboard in the configuration.
#[derive(Debug)]
struct Running {
    settings: watch::Sender<Arc<Switchboard>>,
    known_jobs: watch::Sender<Arc<KnownJobs>>,
    exposing: JoinHandle<String>,
    following: JoinHandle<String>,
    lookup: Option<JoinHandle<String>>,
}

/// What a change of the settings needs, had before anything is changed.
pub(super) struct Prepared {
    exposing: Option<Exposing>,
    lookup: Option<TcpListener>,
}

impl Jobs {
    /// Nothing runs yet; the other end takes the proposals.
    pub fn new(tasks: Tasks, status: Arc<SwitchboardStatus>) -> (Self, mpsc::Receiver<Proposal>) {
        let (proposals, proposed) = mpsc::channel(1);
        let jobs = Self {
            tasks,
            status,
            proposals,
            running: None,
            withdrawing: None,
        };
        (jobs, proposed)
    }

    fn current(&self) -> Option<Arc<Switchboard>> {
        let running = self.running.as_ref()?;
        Some(Arc::clone(&running.settings.borrow()))
    }

    /// Whether nothing runs yet, so that the state of the ports has to be opened first.
    pub fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// Lets go of what has ended by itself, and says what and why. What is wanted and not there is
    /// started by the next change, be it one to the same settings; ports and sessions stay meanwhile.
    pub async fn take_ended(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        let Some(running) = &mut self.running else {
            return ended;
        };
        let is_over = |task: &mut JoinHandle<String>| task.is_finished();
        if let Some(lookup) = running.lookup.take_if(is_over) {
            ended.push(Ended {
                task: Task::Lookup,
                what: "switchboard.lookup".to_owned(),
                why: why_ended(lookup).await,
            });
        }
        let over = [&running.exposing, &running.following].map(JoinHandle::is_finished);
        if over.contains(&true)
            && let Some(running) = self.running.take()
        {
            let parts = [
                (Task::Exposing, "exposing jobs", running.exposing),
                (
                    Task::Following,
                    "following the switchboard",
                    running.following,
                ),
            ];
            for (over, (task, what, running)) in over.into_iter().zip(parts) {
                match over {
                    true => ended.push(Ended {
                        task,
                        what: what.to_owned(),
                        why: why_ended(running).await,
                    }),
                    false => exposing::ended(running).await,
                }
            }
            if let Some(lookup) = running.lookup {
                exposing::ended(lookup).await;
            }
        }
        ended
    }

    /// Takes what `wanted` needs and is not there yet; `exposing` is what came of opening the state
    /// of the ports.
    ///
    /// # Errors
    ///
    /// What cannot be had, in words. Nothing has changed then.
    pub async fn prepare(
        &self,
        wanted: Option<&Switchboard>,
        exposing: Option<Result<Exposing, String>>,
    ) -> Result<Prepared, String> {
        let current = self.current();
        let mut prepared = Prepared {
            exposing: None,
            lookup: None,
        };
        let Some(wanted) = wanted else {
            return Ok(prepared);
        };
        let serves = |running: &Running| running.lookup.is_some();
        let known = current
            .as_ref()
            .filter(|_| self.running.as_ref().is_some_and(serves));
        let known = known.and_then(|current| current.lookup);
        if let Some(addr) = wanted.lookup.filter(|addr| Some(*addr) != known) {
            let failed = |error| {
                let why = in_words(&error);
                format!("cannot open the lookup listener {addr}: {why}")
            };
            prepared.lookup = Some(open_own("switchboard.lookup", &addr, None).map_err(failed)?);
        }
        if current.is_none() {
            prepared.exposing = exposing.transpose()?;
        }
        Ok(prepared)
    }

    /// Puts `wanted` into force with what was prepared for it.
    pub async fn set(
        &mut self,
        wanted: Option<&Switchboard>,
        prepared: Prepared,
        sources: &Arc<Sources>,
    ) {
        let Some(wanted) = wanted.cloned().map(Arc::new) else {
            self.stop().await;
            return;
        };
        if let Some(exposing) = prepared.exposing {
            self.start(Arc::clone(&wanted), exposing, sources);
        }
        let Some(running) = &mut self.running else {
            return;
        };
        // A reload is how an operator says that files have changed.
        self.status.token.look();
        let before = running.settings.send_replace(Arc::clone(&wanted));
        if before.state_dir != wanted.state_dir {
            tracing::warn!("a change of switchboard.state_dir takes effect at the next start");
        }
        if following::differs(&before, &wanted) {
            running.following.abort();
            running.following = self.tasks.spawn(following::run(
                &wanted,
                running.known_jobs.clone(),
                Arc::clone(&sources.switchboard),
                self.tasks.clone(),
            ));
        }
        if let Some(old) = running.lookup.take_if(|_| before.lookup != wanted.lookup) {
            exposing::ended(old).await;
        }
        if let Some(listener) = prepared.lookup {
            let serving = admin::serve_lookup(listener, Arc::clone(sources));
            let serving = async { in_words(&serving.await) };
            running.lookup = Some(self.tasks.spawn(serving));
        }
    }

    fn start(&mut self, wanted: Arc<Switchboard>, exposing: Exposing, sources: &Arc<Sources>) {
        let remembered = KnownJobs::remembering(exposing.remembered());
        let (known_jobs, known) = watch::channel(Arc::new(remembered));
        let following = following::run(
            &wanted,
            known_jobs.clone(),
            Arc::clone(&sources.switchboard),
            self.tasks.clone(),
        );
        let (settings, set) = watch::channel(wanted);
        let exposing = exposing.run(known, set, self.proposals.clone());
        self.running = Some(Running {
            settings,
            known_jobs,
            exposing: self.tasks.spawn(async {
                exposing.await;
                BY_ITSELF.to_owned()
            }),
            following: self.tasks.spawn(following),
            lookup: None,
        });
    }

    /// Waits until what was written for users of the switchboard is removed, after everything was ended.
    pub async fn withdrawn(&mut self) {
        if let Some(withdrawing) = self.withdrawing.take() {
            // It has a time of its own.
            let _ = withdrawing.await;
        }
    }

    /// Ends everything. What was kept stays where it is.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        let tasks = [
            Some(running.following),
            Some(running.exposing),
            running.lookup,
        ];
        for task in tasks.into_iter().flatten() {
            exposing::ended(task).await;
        }
        let withdraw = running.settings.borrow().withdraw;
        self.withdrawing = following::replace_publisher(&self.status, None, withdraw, &self.tasks);
        self.status.set_unusable(None);
        self.status.set(None);
    }
}
