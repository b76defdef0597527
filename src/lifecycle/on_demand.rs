//! A task that runs while there is something for it to do.

use std::sync::Arc;

use tokio::{sync::watch, task::JoinHandle};

use super::tasks::{Ended, Tasks, end, why_ended};
use crate::telemetry::Task;

/// What a task has to do.
pub(super) trait Demand: Default {
    /// Whether that is nothing.
    fn is_empty(&self) -> bool;
}

/// A task that hears what it has to do, and does not run while that is nothing.
#[derive(Debug)]
pub(super) struct OnDemand<D> {
    tasks: Tasks,
    demand: watch::Sender<Arc<D>>,
    running: Option<JoinHandle<String>>,
}

impl<D: Demand> OnDemand<D> {
    /// There is nothing to do yet.
    pub fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            demand: watch::Sender::default(),
            running: None,
        }
    }

    /// Has it do this and nothing else. One that runs is told, also if nothing has changed.
    pub async fn set<W>(&mut self, demand: D, work: impl FnOnce(watch::Receiver<Arc<D>>) -> W)
    where
        W: Future<Output = String> + Send + 'static,
    {
        let is_idle = demand.is_empty();
        self.demand.send_replace(Arc::new(demand));
        match self.running.take_if(|_| is_idle) {
            Some(idle) => end(idle).await,
            None => self.start(work),
        }
    }

    /// Starts it, if there is anything to do and it does not run.
    pub fn start<W>(&mut self, work: impl FnOnce(watch::Receiver<Arc<D>>) -> W)
    where
        W: Future<Output = String> + Send + 'static,
    {
        if self.running.is_none() && !self.demand.borrow().is_empty() {
            self.running = Some(self.tasks.spawn(work(self.demand.subscribe())));
        }
    }

    /// Whether it has ended by itself, and why.
    pub async fn take_ended(&mut self, task: Task, what: &str) -> Option<Ended> {
        let running = self.running.take_if(|running| running.is_finished())?;
        Some(Ended {
            task,
            what: what.to_owned(),
            why: why_ended(running).await,
        })
    }
}
