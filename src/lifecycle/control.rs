//! Keeping listeners, workers and live sessions in step with the table.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use crate::{
    listen::{Change, ListenError, Listeners, check_transparent},
    table::{
        self, Diff, Hold, Holds, ListenAddr, Mapping, MappingName, Route, RouteChange, Summary,
        Table,
    },
    telemetry::EndReason,
    worker::{Command, Lane, SessionChange, SessionChanges, Shared, WorkerHandle},
};

/// How long to wait for workers; what they are asked for takes one turn of their loop.
const WAIT_AT_MOST: Duration = Duration::from_secs(1);

/// The control plane's grip on the data path.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    /// How many of them accept; they are the first.
    front: usize,
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
        let accepts = |worker: &&WorkerHandle| worker.lane() == Lane::Front;
        Self {
            shared,
            front: workers.iter().filter(accepts).count(),
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

    /// The mappings that have left the table and may have sessions yet.
    pub fn departed(&self) -> Arc<Vec<Arc<Mapping>>> {
        self.shared.departed.load_full()
    }

    /// Puts `table` into force: every new socket is opened first, then everything changes, and
    /// what did not change is not touched. A mapping an operator holds stays held; so does one that
    /// is gone, if it `returns` under the same name.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened. Nothing has changed then.
    pub async fn apply(
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
        let refused = touched
            .iter()
            .filter_map(|route| check_transparent(route).err());
        let refused: Vec<_> = refused.collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let missing = self.missing(&touched, &holds);
        let opened = self.listeners.prepare(missing, &diff.removed)?;
        self.retire(&diff, &table);
        self.shared.table.store(Arc::new(table));
        self.shared.holds.store(Arc::new(holds));
        self.close(&diff.removed).await;
        for change in &diff.changed {
            self.listeners.adjust(&change.new);
        }
        self.place(opened, &touched).await;
        self.tell_sessions(session_changes(&diff)).await;
        Ok(diff.summary())
    }

    /// Keeps what the mappings counted that `new` has not, and the mappings as long as they have
    /// sessions. One that goes now may get some yet, from the queues of its listeners.
    fn retire(&self, diff: &Diff, new: &Table) {
        let removed = diff.removed.iter().map(|route| &route.mapping);
        let changed = diff.changed.iter().map(|change| &change.old.mapping);
        let before = self.shared.departed.load();
        let lingering = before.iter().filter(|mapping| mapping.stats.open() > 0);
        let mut leaving = removed.chain(changed).peekable();
        let mut departed = Vec::new();
        let mut names = HashSet::new();
        // With nothing to leave out there is no need to look at ten thousand names.
        if leaving.peek().is_some() || !before.is_empty() {
            names.extend(new.mappings().iter().map(|mapping| &mapping.name));
        }
        for mapping in before
            .iter()
            .filter(|mapping| names.contains(&mapping.name))
        {
            // It is back, and counts in the table again.
            self.shared.stats.retired.take_back(&mapping.stats);
        }
        for mapping in leaving.filter(|mapping| names.insert(&mapping.name)) {
            self.shared.stats.retired.add(Arc::clone(&mapping.stats));
            departed.push(Arc::clone(mapping));
        }
        departed.extend(
            lingering
                .filter(|mapping| names.insert(&mapping.name))
                .cloned(),
        );
        self.shared.departed.store(Arc::new(departed));
    }

    /// Holds a mapping, or lets go of it.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened again. Nothing has changed then.
    pub async fn hold(
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
        let opened = self
            .listeners
            .prepare(self.missing(&touched, &holds), &[])?;
        self.shared.holds.store(Arc::new(holds));
        self.place(opened, &touched).await;
        Ok(())
    }

    /// Has the live sessions of a mapping end within a time, or lifts what was said of that before.
    pub async fn drain_sessions(&self, mapping: &MappingName, within: Option<Duration>) {
        let drain = SessionChange::Drain(within);
        let routes = self.routes_of(mapping);
        let changes = routes
            .iter()
            .map(|route| (route.listen, (mapping.clone(), drain.clone())));
        self.tell_sessions(changes.collect()).await;
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
    async fn place(&mut self, opened: Change, routes: &[Arc<Route>]) {
        let holds = self.shared.holds.load_full();
        let hold = |route: &Route| holds.get(&route.mapping.name).copied();
        let mut drained = Vec::new();
        for route in routes {
            match (hold(route), self.placed.get_mut(&route.listen)) {
                (_, None) => {}
                (Some(Hold::Drained), Some(_)) => drained.push(Arc::clone(route)),
                (hold, Some(placed)) => {
                    let held = hold.is_some();
                    if placed.held != held {
                        placed.held = held;
                        self.workers[placed.worker].send(Command::Hold(route.listen, held));
                    }
                }
            }
        }
        self.close(&drained).await;
        for opened in self.listeners.commit(opened) {
            let addr = opened.route.listen;
            let worker = self.next_worker % self.front;
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

    /// Stops accepting for routes; what waits in their queues is served first. Returns when all the
    /// sockets are closed: the next change may want the ports again.
    async fn close(&mut self, routes: &[Arc<Route>]) {
        let (holding, closed) = mpsc::channel(1);
        for route in routes {
            self.listeners.remove(&route.listen);
            if let Some(placed) = self.placed.remove(&route.listen) {
                let command = Command::Unlisten(Arc::clone(route), holding.clone());
                self.workers[placed.worker].send(command);
            }
        }
        drop(holding);
        wait_for(closed, "removed listeners are not closed yet").await;
    }

    async fn tell_sessions(&self, changes: SessionChanges) {
        if changes.is_empty() {
            return;
        }
        let changes = Arc::new(changes);
        self.hold_sessions().await;
        for worker in &self.workers {
            worker.send(Command::Apply(Arc::clone(&changes)));
            worker.send(Command::Move);
        }
    }

    /// Has every session stay with its worker, so that a command to all of them reaches each once.
    async fn hold_sessions(&self) {
        let (holding, stayed) = mpsc::channel(1);
        for worker in &self.workers {
            worker.send(Command::Stay(holding.clone()));
        }
        drop(holding);
        wait_for(
            stayed,
            "sessions may move between workers and miss a change",
        )
        .await;
    }

    /// How many listeners are open.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Stops accepting and lets the workers end with their last session.
    pub async fn drain(&mut self) {
        self.hold_sessions().await;
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

/// Waits until all workers have let go of the sender; nothing is ever sent. The rest of the control
/// plane goes on meanwhile.
async fn wait_for(mut done: mpsc::Receiver<Infallible>, otherwise: &str) {
    if timeout(WAIT_AT_MOST, done.recv()).await.is_err() {
        tracing::warn!("a worker is busy: {otherwise}");
    }
}

/// What becomes of the live sessions of every route that changed. A route nobody uses has its say,
/// too: a client may be on its way from the listener to its session.
fn session_changes(diff: &Diff) -> SessionChanges {
    let removed = diff.removed.iter().filter_map(|route| {
        let change = SessionChange::departure(
            route.mapping.policy.on_remove,
            EndReason::MappingRemoved,
            None,
        )?;
        Some((route.listen, (route.mapping.name.clone(), change)))
    });
    let changed = diff.changed.iter().filter_map(|change| {
        let mapping = change.old.mapping.name.clone();
        Some((change.new.listen, (mapping, successor(change)?)))
    });
    removed.chain(changed).collect()
}

fn successor(change: &RouteChange) -> Option<SessionChange> {
    let new = &change.new;
    match (change.retargeted(), change.renamed()) {
        (false, _) => Some(SessionChange::Adopt(Arc::clone(new))),
        (true, false) => SessionChange::departure(
            new.mapping.policy.on_retarget,
            EndReason::MappingRetargeted,
            Some(Arc::clone(new)),
        )
        .or_else(|| Some(SessionChange::Adopt(Arc::clone(new)))),
        // The port went to another mapping: for these sessions theirs was removed.
        (true, true) => SessionChange::departure(
            change.old.mapping.policy.on_remove,
            EndReason::MappingRemoved,
            None,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::table::{Departure, ListenHost, Policy};

    #[test]
    fn a_removed_mapping_without_open_sessions_still_sets_its_queue_a_deadline() {
        let within = Duration::from_secs(30);
        let policy = Policy {
            on_remove: Departure::Drain(within),
            ..Policy::default()
        };
        let name = MappingName::new("m");
        let route = Arc::new(Route {
            listen: ListenAddr::new(ListenHost::Any, 1000),
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, 22)),
            mapping: Arc::new(Mapping::new(name.clone(), Arc::new(policy))),
        });
        let diff = Diff {
            removed: vec![Arc::clone(&route)],
            ..Diff::default()
        };
        let changes = session_changes(&diff);
        let (mapping, change) = &changes[&route.listen];
        assert_eq!(*mapping, name);
        assert!(matches!(change, SessionChange::Leave { within: w, .. } if *w == within));
    }
}
