//! Keeping listeners, workers and live sessions in step with the table.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use crate::{
    listen::{Change, ListenError, Listeners},
    table::{
        self, Departure, Diff, Hold, Holds, ListenAddr, Mapping, MappingName, Route, RouteChange,
        Summary, Table,
    },
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
    /// Every listener that is open.
    placed: HashMap<ListenAddr, Placed>,
    next_worker: usize,
}

/// Where a listener is, and how.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// The worker that accepts from it.
    worker: usize,
    /// Whether its clients have to wait.
    held: bool,
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
    /// what did not change is not touched. A mapping an operator holds stays held; so does one that
    /// is gone, if it `returns` under the same name.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened. Nothing has changed then.
    pub fn apply(
        &mut self,
        table: Table,
        returns: &dyn Fn(&MappingName) -> bool,
    ) -> Result<Summary, Vec<ListenError>> {
        let diff = table::diff(&self.table(), &table);
        let mut holds = Holds::clone(&self.shared.holds.load());
        holds.retain(|name, _| {
            table.mappings().iter().any(|mapping| mapping.name == *name) || returns(name)
        });
        let changed = diff.changed.iter().map(|change| &change.new);
        let touched: Vec<_> = diff.added.iter().chain(changed).cloned().collect();
        let missing = self.missing(&touched, &holds);
        let opened = self.listeners.prepare(missing)?;
        let departed = self.departed(&table);
        self.shared.departed.store(Arc::new(departed));
        self.shared.table.store(Arc::new(table));
        self.shared.holds.store(Arc::new(holds));
        self.close(&diff.removed);
        for change in &diff.changed {
            self.listeners.adjust(&change.new);
        }
        self.place(opened, &touched);
        self.tell_sessions(session_changes(&diff));
        Ok(diff.summary())
    }

    /// The mappings that `new` has not, as long as they have sessions.
    fn departed(&self, new: &Table) -> Vec<Arc<Mapping>> {
        let names: HashSet<&MappingName> = new.mappings().iter().map(|m| &m.name).collect();
        let (old, before) = (self.shared.table.load(), self.shared.departed.load());
        let known = old.mappings().iter().chain(before.iter());
        known
            .filter(|mapping| mapping.stats.open() > 0 && !names.contains(&mapping.name))
            .cloned()
            .collect()
    }

    /// Holds a mapping, or lets go of it.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened again. Nothing has changed then.
    pub fn hold(
        &mut self,
        mapping: &MappingName,
        hold: Option<Hold>,
    ) -> Result<(), Vec<ListenError>> {
        let mut holds = Holds::clone(&self.shared.holds.load());
        match hold {
            Some(hold) => holds.insert(mapping.clone(), hold),
            None => holds.remove(mapping),
        };
        let touched = self.routes_of(mapping);
        let opened = self.listeners.prepare(self.missing(&touched, &holds))?;
        self.shared.holds.store(Arc::new(holds));
        self.place(opened, &touched);
        Ok(())
    }

    /// Has the live sessions of a mapping end within a time.
    pub fn drain_sessions(&self, mapping: &MappingName, within: Duration) {
        let leave = SessionChange::Leave {
            within,
            reason: EndReason::DrainDeadline,
            successor: None,
        };
        let routes = self.routes_of(mapping);
        let changes = routes
            .iter()
            .map(|route| (route.listen, (mapping.clone(), leave.clone())));
        self.tell_sessions(changes.collect());
    }

    fn routes_of(&self, mapping: &MappingName) -> Vec<Arc<Route>> {
        let table = self.shared.table.load();
        let routes = table
            .routes()
            .filter(|route| route.mapping.name == *mapping);
        routes.cloned().collect()
    }

    /// Those of `routes` that should have a listener and have none.
    fn missing<'r>(&self, routes: &'r [Arc<Route>], holds: &Holds) -> Vec<&'r Arc<Route>> {
        let drained = |route: &Route| holds.get(&route.mapping.name) == Some(&Hold::Drained);
        let missing = |route: &&Arc<Route>| {
            !drained(route.as_ref()) && !self.listeners.contains(&route.listen)
        };
        routes.iter().filter(missing).collect()
    }

    /// Hands new listeners to workers and brings those of `routes` that exist in step with the
    /// holds in force.
    fn place(&mut self, opened: Change, routes: &[Arc<Route>]) {
        let holds = self.shared.holds.load_full();
        let hold = |route: &Route| holds.get(&route.mapping.name).copied();
        for route in routes {
            match (hold(route), self.placed.get_mut(&route.listen)) {
                (_, None) => {}
                (Some(Hold::Drained), Some(_)) => self.close(std::slice::from_ref(route)),
                (hold, Some(placed)) => {
                    let held = hold.is_some();
                    if placed.held != held {
                        placed.held = held;
                        self.workers[placed.worker].send(Command::Hold(route.listen, held));
                    }
                }
            }
        }
        for opened in self.listeners.commit(opened) {
            let addr = opened.route.listen;
            let worker = self.next_worker % self.workers.len();
            self.next_worker += 1;
            let held = hold(&opened.route).is_some();
            self.placed.insert(addr, Placed { worker, held });
            self.workers[worker].send(Command::Listen {
                addr,
                socket: opened.socket,
                held,
            });
        }
    }

    /// Stops accepting for routes; what waits in their queues is served first. Returns when the
    /// sockets are closed: the next change may want the ports again.
    fn close(&mut self, routes: &[Arc<Route>]) {
        let (holding, closed) = mpsc::channel();
        for route in routes {
            self.listeners.remove(&route.listen);
            if let Some(placed) = self.placed.remove(&route.listen) {
                let command = Command::Unlisten(Arc::clone(route), holding.clone());
                self.workers[placed.worker].send(command);
            }
        }
        drop(holding);
        // Nothing is ever sent: it ends when the last sender is dropped.
        if let Err(RecvTimeoutError::Timeout) = closed.recv_timeout(CLOSE_AT_MOST) {
            tracing::warn!("removed listeners are not closed yet: a worker is busy");
        }
    }

    fn tell_sessions(&self, changes: SessionChanges) {
        if changes.is_empty() {
            return;
        }
        let changes = Arc::new(changes);
        for worker in &self.workers {
            worker.send(Command::Apply(Arc::clone(&changes)));
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
            Some((route.listen, (route.mapping.name.clone(), change)))
        });
    let changed = diff
        .changed
        .iter()
        .filter(|change| change.old.mapping.stats.open() > 0)
        .filter_map(|change| {
            let mapping = change.old.mapping.name.clone();
            Some((change.new.listen, (mapping, successor(change)?)))
        });
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
