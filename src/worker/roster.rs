//! All workers as one, for questions about live sessions.
//!
//! Each worker owns its sessions, so a question goes to all of them and the answers are put
//! together. A session that moves between workers while they are asked may be missed or met twice.

use tokio::sync::oneshot;

use super::{Command, PathSample, WorkerHandle};
use crate::session::{SessionFilter, SessionView};

/// Every worker of the process.
#[derive(Debug, Clone)]
pub struct Roster(Vec<WorkerHandle>);

impl Roster {
    /// These workers.
    pub fn new(workers: Vec<WorkerHandle>) -> Self {
        Self(workers)
    }

    /// The label and the number of sessions of each worker.
    pub fn session_counts(&self) -> impl Iterator<Item = (String, usize)> {
        self.0
            .iter()
            .map(|worker| (worker.label(), worker.sessions()))
    }

    /// Hands every session meant to `each`. Those of a worker that has ended are gone with it.
    pub async fn survey(&self, filter: &SessionFilter, mut each: impl FnMut(SessionView)) {
        for worker in &self.0 {
            let mut next = Some(0);
            while let Some(from) = next {
                let (reply, answer) = oneshot::channel();
                worker.send(Command::Survey {
                    from,
                    filter: filter.clone(),
                    reply,
                });
                let Ok(page) = answer.await else { break };
                page.sessions.into_iter().for_each(&mut each);
                next = page.next;
            }
        }
    }

    /// Has the sessions meant end; returns how many there are.
    pub async fn kill(&self, filter: &SessionFilter) -> usize {
        let ask = |reply| Command::Kill {
            filter: filter.clone(),
            reply,
        };
        let killed: usize = self.ask(ask).await.into_iter().sum();
        // A session on its way between two workers was with neither; by now it has arrived.
        let late: usize = self.ask(ask).await.into_iter().sum();
        killed + late
    }

    /// Looks at the way to the target of a few sessions of each worker.
    pub async fn sample_paths(&self) -> Vec<PathSample> {
        let samples = self.ask(Command::SamplePaths).await;
        samples.into_iter().flatten().collect()
    }

    /// Asks all workers at once; one that has ended gives no answer.
    async fn ask<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let mut waiting = Vec::with_capacity(self.0.len());
        for worker in &self.0 {
            let (reply, answer) = oneshot::channel();
            worker.send(command(reply));
            waiting.push(answer);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.extend(answer.await);
        }
        answers
    }
}
