//! All workers as one, for orders and questions about live sessions.
//!
//! Each worker owns its sessions, so a question goes to all of them and the answers are put
//! together. A session that moves between workers while they are asked may be missed or met twice.
//! Orders have numbers, so that they are not.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Adopted, Command, Describe, Freeze, Frozen, Kill, NotBegun, OrderNumber, PathSample,
    SessionOrder, WorkerHandle, WorkerRole,
};
use crate::{
    handover::Sink,
    session::{Pace, SessionFilter, SessionId, SessionView},
};

#[derive(Debug, Clone)]
pub struct Workers {
    workers: Arc<[WorkerHandle]>,
    ordered: Arc<Mutex<OrderNumber>>,
}

impl Workers {
    pub fn new(workers: Vec<WorkerHandle>) -> Self {
        Self {
            workers: workers.into(),
            ordered: Arc::default(),
        }
    }

    pub fn handles(&self) -> &[WorkerHandle] {
        &self.workers
    }

    /// Has every worker carry out an order. Whoever is busy does so when it gets to it.
    pub fn order(&self, order: &SessionOrder) {
        // Held while they are told, so that all hear of orders in one sequence.
        let mut last = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last.next();
        for worker in &*self.workers {
            worker.send(Command::Order(*last, order.clone()));
        }
    }

    /// Waits until the queues of all closed listeners are served. Without one that is closed meanwhile,
    /// workers can be frozen then.
    pub async fn queues_served(&self) {
        let (served, mut all) = tokio::sync::mpsc::channel(1);
        for worker in &*self.workers {
            worker.send(Command::ServeQueues(served.clone()));
        }
        drop(served);
        // Nothing is sent: it ends when the last worker has let go.
        all.recv().await;
    }

    /// Has all workers stand still and hand over what they have, each as a part whose name begins with
    /// [`PART`](super::PART). They go on as if nothing had happened when the answer is dropped.
    ///
    /// Blocks: whoever calls it must see to it that nobody else tells workers anything.
    ///
    /// # Errors
    ///
    /// Why not all of them could, in words; all go on then.
    pub fn freeze(&self, sink: Arc<dyn Sink>, within: Duration) -> Result<Frozen, String> {
        let freeze = Freeze::new(self.workers.len(), sink);
        for worker in &*self.workers {
            worker.send(Command::Freeze(Arc::clone(&freeze)));
        }
        Frozen::begin(freeze, within)
    }

    /// Has all workers say what they would hand over, while they go on. What goes from one to another
    /// meanwhile may be missing. They keep what they have said until they stand still or are told to
    /// forget it, so that it need not all be said again then. Returns how many sessions there are.
    ///
    /// Blocks.
    ///
    /// # Errors
    ///
    /// Why not all of them could, in words.
    pub fn describe(&self, sink: &Arc<dyn Sink>, within: Duration) -> Result<usize, String> {
        let (reply, answers) = mpsc::channel();
        for worker in &*self.workers {
            worker.send(Command::Describe(Describe {
                sink: Arc::clone(sink),
                reply: reply.clone(),
            }));
        }
        drop(reply);
        let deadline = Instant::now() + within;
        let mut sessions = 0;
        for _ in 0..self.workers.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            sessions += match answers.recv_timeout(left) {
                Ok(answer) => answer?,
                Err(RecvTimeoutError::Timeout) => return Err("a worker is busy".to_owned()),
                Err(RecvTimeoutError::Disconnected) => return Err("a worker has ended".to_owned()),
            };
        }
        Ok(sessions)
    }

    /// Has workers let go of what they have kept of a description, since nothing comes of it.
    pub fn forget_described(&self) {
        for worker in &*self.workers {
            worker.send(Command::ForgetDescribed);
        }
    }

    /// Gives the workers all that was handed over, and has them begin. What one had begun with before
    /// it got its own would be lost.
    pub fn adopt(&self, not_begun: NotBegun, adopted: impl IntoIterator<Item = Adopted>) {
        let named: HashMap<String, &WorkerHandle> = (self.workers.iter())
            .map(|worker| (worker.label(), worker))
            .collect();
        let mut without = Vec::new();
        for adopted in adopted {
            match named.get(&adopted.label) {
                Some(worker) => worker.send(Command::TakeUp(Box::new(adopted))),
                None => without.push(adopted),
            }
        }
        self.spread(without);
        drop(not_begun);
    }

    /// Gives what workers had that are no more to all in turn.
    fn spread(&self, without: Vec<Adopted>) {
        let count = self.workers.len();
        let of_role = |role| (0..count).filter(move |&number| self.workers[number].role() == role);
        let mut interactive = of_role(WorkerRole::Interactive).cycle();
        let mut bulk = of_role(WorkerRole::Bulk).cycle();
        let mut give = |pace, command| {
            let next = match pace {
                Pace::Bulk => bulk.next(),
                Pace::Interactive | Pace::Undecided => interactive.next(),
            };
            if let Some(number) = next {
                self.workers[number].send(command);
            }
        };
        for Adopted {
            sessions,
            headers,
            queued,
            ..
        } in without
        {
            for entry in sessions.into_occupants() {
                let session = Box::new(entry.session);
                let pace = session.pace();
                give(pace, Command::Take(session, OrderNumber::default()));
            }
            for entry in headers.into_occupants() {
                let pending = Box::new(entry.client);
                give(Pace::Interactive, Command::AwaitHeader(pending));
            }
            for entry in queued.into_occupants() {
                let queued = Box::new(entry.client);
                give(Pace::Interactive, Command::AwaitTarget(queued));
            }
        }
    }

    pub fn session_counts(&self) -> impl Iterator<Item = (String, usize)> {
        self.workers
            .iter()
            .map(|worker| (worker.label(), worker.sessions()))
    }

    /// Hands every session meant to `each`, once. Those of a worker that has ended are gone with it.
    pub async fn list_sessions(&self, filter: &SessionFilter, mut each: impl FnMut(SessionView)) {
        let mut met: HashSet<SessionId> = HashSet::new();
        for worker in &*self.workers {
            let mut next = Some(0);
            while let Some(from) = next {
                let (reply, answer) = oneshot::channel();
                worker.send(Command::ListSessions {
                    from,
                    filter: filter.clone(),
                    reply,
                });
                let Ok(page) = answer.await else { break };
                let sessions = page.sessions.into_iter();
                sessions
                    .filter(|session| met.insert(session.id))
                    .for_each(&mut each);
                next = page.next;
            }
        }
    }

    /// Has the sessions meant end; returns how many there are, once all have been told.
    pub async fn kill(&self, filter: &SessionFilter) -> usize {
        let (kill, told) = Kill::new(filter.clone());
        self.order(&SessionOrder::Kill(Arc::new(kill)));
        // The answer comes when nobody holds the order any more.
        told.await.unwrap_or_default()
    }

    /// Looks at the way to the target of a few sessions of each worker; one that has ended gives no
    /// answer.
    pub async fn sample_paths(&self) -> Vec<PathSample> {
        let ask = |worker: &WorkerHandle| {
            let (reply, answer) = oneshot::channel();
            worker.send(Command::SamplePaths(reply));
            answer
        };
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        let mut samples = Vec::new();
        for answer in answers {
            samples.extend(answer.await.unwrap_or_default());
        }
        samples
    }
}
