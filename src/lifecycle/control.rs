//! Keeping listeners, workers and live sessions in step with the table.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use crate::{
    listen::{ListenError, Listeners},
    table::{self, Departure, Diff, ListenAddr, RouteChange, Table},
    telemetry::EndReason,
    worker::{Command, SessionChange, SessionChanges, Shared, WorkerHandle},
};

/// How long to wait for a worker to close a listener; it takes one turn of its loop.
const CLOSE_AT_MOST: Duration = Duration::from_secs(1);

/// The control plane's grip on the data path.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    listeners: Listeners,
    /// Which worker accepts from which listener.
    placed: HashMap<ListenAddr, usize>,
    next_worker: usize,
}

/// What a new table changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Routes that came.
    pub added: usize,
    /// Routes that went.
    pub removed: usize,
    /// Routes with another target.
    pub retargeted: usize,
    /// Routes with another policy or name only.
    pub repolicied: usize,
    /// Routes as they were.
    pub unchanged: usize,
}

impl Control {
    /// Control over `workers`, with nothing forwarded yet.
    pub fn new(shared: Arc<Shared>, workers: Vec<WorkerHandle>) -> Self {
        Self {
            shared,
            workers,
            listeners: Listeners::default(),
            placed: HashMap::new(),
            next_worker: 0,
        }
    }

    /// The table in force.
    pub fn table(&self) -> Arc<Table> {
        self.shared.table.load_full()
    }

    /// Puts `table` into force: every new socket is opened first, then everything changes, and
    /// what did not change is not touched.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened. Nothing has changed then.
    pub fn apply(&mut self, table: Table) -> Result<Summary, Vec<ListenError>> {
        let diff = table::diff(&self.table(), &table);
        let change = self.listeners.prepare(&diff)?;
        self.shared.table.store(Arc::new(table));
        self.shared.depart(&diff);
        let opened = self.listeners.commit(change, &diff);
        self.unlisten(&diff);
        for opened in opened {
            let worker = self.next_worker % self.workers.len();
            self.next_worker += 1;
            self.placed.insert(opened.route.listen, worker);
            self.workers[worker].send(Command::Listen(opened.route.listen, opened.socket));
        }
        let changes = session_changes(&diff);
        if !changes.is_empty() {
            let changes = Arc::new(changes);
            for worker in &self.workers {
                worker.send(Command::Apply(Arc::clone(&changes)));
            }
        }
        let retargeted = diff.changed.iter().filter(|c| c.retargeted()).count();
        Ok(Summary {
            added: diff.added.len(),
            removed: diff.removed.len(),
            retargeted,
            repolicied: diff.changed.len() - retargeted,
            unchanged: diff.unchanged,
        })
    }

    /// Has the workers let go of removed listeners, and waits until they have: the next reload may
    /// want the ports again.
    fn unlisten(&mut self, diff: &Diff) {
        let (holding, closed) = mpsc::channel();
        for route in &diff.removed {
            if let Some(worker) = self.placed.remove(&route.listen) {
                let command = Command::Unlisten(Arc::clone(route), holding.clone());
                self.workers[worker].send(command);
            }
        }
        drop(holding);
        // Nothing is ever sent: it ends when the last sender is dropped.
        if let Err(RecvTimeoutError::Timeout) = closed.recv_timeout(CLOSE_AT_MOST) {
            tracing::warn!("removed listeners are not closed yet: a worker is busy");
        }
    }

    /// How many listeners are open.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Stops accepting and lets the workers end with their last session.
    pub fn drain(&mut self) {
        for worker in &self.workers {
            worker.send(Command::Drain);
        }
        // The workers hold the sockets until they have served what waits in the queues.
        self.listeners = Listeners::default();
    }

    /// Ends every session, spread over a time.
    pub fn cut(&self, spread: Duration) {
        for worker in &self.workers {
            worker.send(Command::Cut(EndReason::Shutdown, spread));
        }
    }

    /// Asks every worker to show that it goes round.
    pub fn beat(&self) {
        for worker in &self.workers {
            worker.send(Command::Beat);
        }
    }

    /// How often the slowest worker has shown it.
    pub fn beats(&self) -> u64 {
        self.workers
            .iter()
            .map(WorkerHandle::beats)
            .min()
            .unwrap_or(0)
    }
}

/// What becomes of the live sessions of every route that changed. Routes nobody uses are left out.
fn session_changes(diff: &Diff) -> SessionChanges {
    let removed = diff
        .removed
        .iter()
        .filter(|route| route.mapping.stats.open() > 0)
        .filter_map(|route| {
            let change = departure(
                route.mapping.policy.on_remove,
                EndReason::MappingRemoved,
                None,
            )?;
            Some((route.listen, change))
        });
    let changed = diff
        .changed
        .iter()
        .filter(|change| change.old.mapping.stats.open() > 0)
        .filter_map(|change| Some((change.new.listen, successor(change)?)));
    removed.chain(changed).collect()
}

fn successor(change: &RouteChange) -> Option<SessionChange> {
    let new = &change.new;
    match (change.retargeted(), change.renamed()) {
        (false, _) => Some(SessionChange::Adopt(Arc::clone(new))),
        (true, false) => departure(
            new.mapping.policy.on_retarget,
            EndReason::MappingRetargeted,
            Some(Arc::clone(new)),
        )
        .or_else(|| Some(SessionChange::Adopt(Arc::clone(new)))),
        // The port went to another mapping: for these sessions theirs was removed.
        (true, true) => departure(
            change.old.mapping.policy.on_remove,
            EndReason::MappingRemoved,
            None,
        ),
    }
}

fn departure(
    policy: Departure,
    reason: EndReason,
    successor: Option<Arc<table::Route>>,
) -> Option<SessionChange> {
    let (within, reason) = match policy {
        Departure::Keep => return None,
        Departure::Drain(within) => (within, EndReason::DrainDeadline),
        Departure::Kill => (Duration::ZERO, reason),
    };
    Some(SessionChange::Leave {
        within,
        reason,
        successor,
    })
}
