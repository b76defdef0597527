//! All workers as one, for orders and questions about live sessions.
//!
//! Each worker owns its sessions, so a question goes to all of them and the answers are put
//! together. A session that moves between workers while they are asked may be missed or met twice.
//! Orders have numbers, so that they are not.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::{Command, Kill, OrderNumber, PathSample, SessionOrder, WorkerHandle};
use crate::session::{SessionFilter, SessionId, SessionView};

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
