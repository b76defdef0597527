//! Keeping listeners, workers and live sessions in step with the table.

mod saved;
mod session_changes;

use std::{
    cell::LazyCell,
    collections::{HashMap, HashSet},
    convert::Infallible,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time::timeout};

pub(super) use saved::{LoadedListeners, SavedListeners};
use session_changes::session_changes;

use super::{
    lost::Lost,
    store::{self, Store},
};
use crate::{
    end_reason::EndReason,
    listen::{ListenError, Listeners, Opened, check_congestion, check_transparent},
    provider::LocalAddresses,
    table::{
        self, Diff, DrainEnd, DrainEnds, ListenAddr, Mapping, MappingName, MappingOverride,
        MappingOverrides, Reserved, Route, Table,
    },
    target::TargetGroup,
    text::enumerated,
    units::millis,
    worker::{
        Command, LostListener, SessionChange, SessionChanges, SessionOrder, WorkerContext,
        WorkerHandle, WorkerRole, Workers,
    },
};

/// How long a change waits for removed listeners to be closed: what is asked of workers takes them a
/// few turns of their loop. One that is busy closes them when it gets to it.
const WAIT_AT_MOST: Duration = Duration::from_secs(1);

/// How long sockets of the last process wait for the mappings of jobs to claim them: their clients are
/// neither served nor refused meanwhile. What is known of jobs is in force after two seconds, whether
/// the switchboard answers or not.
const CLAIMED_WITHIN: Duration = Duration::from_secs(10);

/// What workers were told and have not done yet. They hold the sender until then, and send nothing.
#[derive(Debug)]
pub(super) struct Pending(mpsc::Receiver<Infallible>);

impl Pending {
    fn new() -> (mpsc::Sender<Infallible>, Self) {
        let (told, done) = mpsc::channel(1);
        (told, Self(done))
    }

    /// Waits until it is done, however busy a worker is.
    pub async fn done(mut self) {
        self.0.recv().await;
    }

    /// Waits until it is done, but not for a busy worker: nothing else happens meanwhile.
    async fn done_soon(self) {
        if timeout(WAIT_AT_MOST, self.done()).await.is_err() {
            tracing::warn!("a worker is busy: removed listeners are not closed yet");
        }
    }
}

/// The control plane's grip on the data path.
#[derive(Debug)]
pub(super) struct Control {
    shared: Arc<WorkerContext>,
    workers: Workers,
    /// How many of them accept; they are the first.
    front: usize,
    listeners: Listeners,
    /// The listeners that are kept for the next process.
    store: Store,
    /// When those of the last process are closed that nobody has claimed.
    unclaimed_until: Option<Instant>,
    /// Every listener that is open.
    placed: HashMap<ListenAddr, Placed>,
    /// Listeners that were lost.
    lost: Lost,
    /// Public addresses that are not listened on, because what connects to them would come back to us.
    looping: HashSet<ListenAddr>,
    next_worker: usize,
}

/// Where a listener is, and how.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// The worker that accepts from it.
    worker: usize,
    /// Whether its clients have to wait.
    paused: bool,
}

impl Control {
    /// Control over the workers, with nothing forwarded yet.
    pub fn new(shared: Arc<WorkerContext>, workers: Workers) -> Self {
        let accepts = |worker: &&WorkerHandle| worker.role() == WorkerRole::Interactive;
        Self {
            shared,
            front: workers.handles().iter().filter(accepts).count(),
            workers,
            listeners: Listeners::default(),
            store: Store::default(),
            unclaimed_until: None,
            placed: HashMap::new(),
            lost: Lost::default(),
            looping: HashSet::new(),
            next_worker: 0,
        }
    }

    /// Takes over what an earlier process listened on, for the mappings that will claim it, and what
    /// keeps listeners for the next one. Nothing is open yet.
    pub fn inherit(&mut self, store: Store, sockets: HashMap<ListenAddr, Arc<OwnedFd>>) {
        self.store = store;
        self.unclaimed_until = (!sockets.is_empty()).then(|| Instant::now() + CLAIMED_WITHIN);
        self.listeners = Listeners::with(sockets);
    }

    /// Waits until systemd has been told which listeners to keep, but not for long.
    pub async fn store_told(&self) {
        self.store.told().await;
    }

    /// When the sockets of the last process are to be closed that nobody has claimed.
    pub fn unclaimed_until(&self) -> Option<Instant> {
        self.unclaimed_until
    }

    /// Closes them.
    pub fn close_unclaimed(&mut self) {
        self.unclaimed_until = None;
        for (addr, socket) in self.listeners.take_unclaimed() {
            tracing::info!(listen = %addr, "no job has claimed a listener of the last process; it is closed");
            self.store.forget(&addr);
            store::close(&addr, &socket);
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
    /// what did not change is not touched. A mapping that an operator paused or drained stays so; so does one that
    /// is gone, if it `returns` under the same name.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened. Nothing has changed then.
    pub async fn apply(
        &mut self,
        table: Table,
        returns: &dyn Fn(&MappingName) -> bool,
    ) -> Result<Diff, Vec<ListenError>> {
        let diff = table::diff(&self.table(), &table);
        let mut overrides = MappingOverrides::clone(&self.shared.overrides.load());
        overrides.retain(|name, _| table.mapping(name).is_some() || returns(name));
        let changed = diff.changed.iter().map(|change| &change.new);
        let touched: Vec<_> = diff.added.iter().chain(changed).cloned().collect();
        let refused = touched.iter().filter_map(|route| {
            let checked = check_transparent(route).and_then(|()| check_congestion(route));
            checked.err()
        });
        let refused: Vec<_> = refused.collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let missing = self.missing(&touched, &overrides);
        let opened = self.listeners.prepare(missing, &diff.removed)?;
        self.retire(&diff, &table);
        self.shared.table.store(Arc::new(table));
        let mut drain_ends = DrainEnds::clone(&self.shared.drain_ends.load());
        drain_ends.retain(|name, _| overrides.contains_key(name));
        self.shared.drain_ends.store(Arc::new(drain_ends));
        self.shared.overrides.store(Arc::new(overrides));
        // The next change may want the ports again.
        self.unlisten(&diff.removed).done_soon().await;
        for change in &diff.changed {
            self.listeners.adjust(&change.new);
        }
        self.place(opened, &touched).done_soon().await;
        // Also if none of them has to do anything: a connection may not be a session yet.
        if !diff.removed.is_empty() || !diff.changed.is_empty() {
            self.tell_sessions(session_changes(&diff));
        }
        // What this change did not concern does not make it fail.
        self.reopen(self.lost.all_closed().into_iter().map(|lost| lost.addr));
        Ok(diff)
    }

    /// Closes a listener that a worker had to give up, unless that has happened already.
    pub fn lose(&mut self, lost: LostListener) {
        let LostListener { addr, socket, why } = lost;
        if !self.listeners.is(&addr, &socket) {
            return;
        }
        self.listeners.remove(&addr);
        self.placed.remove(&addr);
        self.store.forget(&addr);
        store::close(&addr, &socket);
        let again_in_ms = self.lost.closed(addr, why.clone(), Instant::now());
        let again_in_ms = millis(again_in_ms);
        tracing::error!(listen = %addr, error = why, again_in_ms, "listener lost; it is closed and will be opened again");
        self.show_closed();
    }

    /// When listeners that were lost are to be opened again.
    pub fn reopens_at(&self) -> Option<Instant> {
        self.lost.next()
    }

    /// Opens those again that are due.
    pub fn reopen_due(&mut self) {
        let due = self.lost.due(Instant::now());
        self.reopen(due.into_iter());
    }

    /// Opens lost listeners again, as far as they are wanted and can be.
    fn reopen(&mut self, addrs: impl Iterator<Item = ListenAddr>) {
        let table = self.table();
        let overrides = self.shared.overrides.load_full();
        let wanted = |addr: &ListenAddr| {
            let route = table.route(addr)?;
            let drained = overrides.get(&route.mapping.name) == Some(&MappingOverride::Drained);
            (!drained).then_some(route)
        };
        self.lost.retain(|addr| wanted(addr).is_some());
        let missing =
            addrs.filter(|addr| !self.listeners.contains(addr) && !self.looping.contains(addr));
        for addr in missing.collect::<Vec<_>>() {
            let Some(route) = wanted(&addr) else { continue };
            match self.listeners.prepare([route], &[]) {
                // None is closed for it.
                Ok(opened) => drop(self.place(opened, std::slice::from_ref(route))),
                Err(errors) => {
                    let why: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    let error = why.join("; ");
                    let pause = self.lost.closed(addr, error.clone(), Instant::now());
                    let again_in_ms = millis(pause);
                    tracing::warn!(listen = %addr, error, again_in_ms, "a lost listener cannot be opened again yet");
                }
            }
        }
        self.show_closed();
    }

    /// The public addresses that are not listened on because their targets lead back here.
    pub fn looping(&self) -> &HashSet<ListenAddr> {
        &self.looping
    }

    /// Closes the listeners whose targets have become addresses of this machine and lead to one of our
    /// own listeners, and opens those again whose targets are elsewhere now. Each session of a loop is
    /// the client of the next, so without the listener the last of them finds no target, and all end;
    /// sessions that began before are no part of it and stay.
    pub fn follow_addresses(&mut self, reserved: &[Reserved]) {
        let own = LocalAddresses::default();
        let table = self.table();
        let is_local = |ip| own.contains(ip);
        let found: Vec<_> = table.loops(reserved, &is_local).collect();
        let looping = found.iter().map(|route| route.listen).collect();
        let before = std::mem::replace(&mut self.looping, looping);
        for route in found {
            if !before.contains(&route.listen) {
                self.close_loop(route);
            }
        }
        let elsewhere: Vec<_> = before.difference(&self.looping).copied().collect();
        self.reopen(elsewhere.into_iter());
    }

    fn close_loop(&mut self, route: &Route) {
        let Route { listen, target, .. } = route;
        let error = format!(
            "the target {target} is an address of this machine now, and a listener of this proxy: \
             connections would loop"
        );
        if let Some(socket) = self.listeners.remove(listen) {
            self.placed.remove(listen);
            self.store.forget(listen);
            // It is closed at once; the worker finds it lost and lets go of it, too.
            store::close(listen, &socket);
            tracing::error!(%listen, mapping = %route.mapping.name, error, "listener closed until its target is elsewhere");
        }
        self.lost.loops(*listen, error);
    }

    fn show_closed(&self) {
        self.shared.closed.store(Arc::new(self.lost.all_closed()));
    }

    /// Keeps what the mappings counted that `new` has not, and the mappings as long as they have
    /// sessions. One that goes now may get some yet, from the queues of its listeners.
    fn retire(&self, diff: &Diff, new: &Table) {
        let removed = diff.removed.iter().map(|route| &route.mapping);
        let changed = diff.changed.iter().map(|change| &change.old.mapping);
        let before = self.shared.departed.load();
        let lingering = before.iter().filter(|mapping| mapping.stats.open() > 0);
        // Mappings of jobs are found without a look at ten thousand names.
        let file = LazyCell::new(|| {
            let mappings = new.file_mappings();
            mappings
                .map(|mapping| &mapping.name)
                .collect::<HashSet<_>>()
        });
        let is_there = |mapping: &Arc<Mapping>| match mapping.name.job() {
            Some(_) => new.mapping(&mapping.name).is_some(),
            None => file.contains(&mapping.name),
        };
        for mapping in before.iter().filter(|mapping| is_there(mapping)) {
            // It is back, and counts in the table again.
            self.shared.stats.retired.take_back(&mapping.stats);
        }
        let changed_routes = diff.changed.iter().map(|change| &change.old);
        for route in diff.removed.iter().chain(changed_routes) {
            if let Some(group) = route.target.group()
                && !is_there(&route.mapping)
            {
                route.mapping.leave(route.listen, group);
            }
        }
        let mut departed = Vec::new();
        let mut names = HashSet::new();
        let mut is_gone =
            |mapping: &&Arc<Mapping>| !is_there(mapping) && names.insert(mapping.name.clone());
        for mapping in removed.chain(changed).filter(&mut is_gone) {
            self.shared.stats.retired.add(Arc::clone(&mapping.stats));
            departed.push(Arc::clone(mapping));
        }
        departed.extend(lingering.filter(is_gone).cloned());
        self.shared.departed.store(Arc::new(departed));
    }

    /// Pauses or drains a mapping, or resumes it.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened again. Nothing has changed then.
    pub fn hold(
        &mut self,
        mapping: &MappingName,
        hold: Option<MappingOverride>,
    ) -> Result<Pending, Vec<ListenError>> {
        let mut overrides = MappingOverrides::clone(&self.shared.overrides.load());
        match hold {
            Some(hold) => overrides.insert(mapping.clone(), hold),
            None => overrides.remove(mapping),
        };
        let touched = self.routes_of(mapping);
        let opened = self
            .listeners
            .prepare(self.missing(&touched, &overrides), &[])?;
        self.shared.overrides.store(Arc::new(overrides));
        let pending = self.place(opened, &touched);
        for route in &touched {
            if self.looping.contains(&route.listen) {
                self.close_loop(route);
            }
        }
        self.reopen(std::iter::empty());
        Ok(pending)
    }

    /// Has the live sessions of a mapping end within a time, or lifts what was said of that before.
    pub fn drain_sessions(&self, mapping: &MappingName, within: Option<Duration>) {
        let mut drain_ends = DrainEnds::clone(&self.shared.drain_ends.load());
        match within {
            Some(within) => drain_ends.insert(mapping.clone(), DrainEnd::within(within)),
            None => drain_ends.remove(mapping),
        };
        self.shared.drain_ends.store(Arc::new(drain_ends));
        let drain = SessionChange::Drain(within);
        let routes = self.routes_of(mapping);
        let changes = routes
            .iter()
            .map(|route| (route.listen, (mapping.clone(), drain.clone())));
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
    fn missing<'r>(
        &self,
        routes: &'r [Arc<Route>],
        overrides: &MappingOverrides,
    ) -> Vec<&'r Arc<Route>> {
        let drained =
            |route: &Route| overrides.get(&route.mapping.name) == Some(&MappingOverride::Drained);
        let missing = |route: &&Arc<Route>| {
            !drained(route.as_ref())
                && !self.listeners.contains(&route.listen)
                && !self.looping.contains(&route.listen)
        };
        routes.iter().filter(missing).collect()
    }

    /// Hands new listeners to workers and brings those of `routes` that exist in step with the
    /// overrides in force.
    fn place(&mut self, opened: Vec<Opened>, routes: &[Arc<Route>]) -> Pending {
        let (told, pending) = Pending::new();
        let overrides = self.shared.overrides.load_full();
        let hold = |route: &Route| overrides.get(&route.mapping.name).copied();
        for route in routes {
            let hold = hold(route);
            if hold == Some(MappingOverride::Drained) {
                self.unlisten_one(route, &told);
            } else if let Some(placed) = self.placed.get_mut(&route.listen)
                && placed.paused != hold.is_some()
            {
                placed.paused = hold.is_some();
                let worker = &self.workers.handles()[placed.worker];
                worker.send(Command::Pause(route.listen, placed.paused, told.clone()));
            }
        }
        self.listeners.commit(&opened);
        for opened in opened {
            let addr = opened.route.listen;
            let worker = self.next_worker % self.front;
            self.next_worker += 1;
            let paused = hold(&opened.route).is_some();
            self.store.keep(addr, &opened.socket);
            self.placed.insert(addr, Placed { worker, paused });
            if self.lost.opened(&addr, Instant::now()) {
                tracing::info!(listen = %addr, "lost listener opened again");
            }
            self.workers.handles()[worker].send(Command::Listen {
                addr,
                socket: opened.socket,
                paused,
            });
        }
        pending
    }

    /// Stops accepting for routes; what waits in their queues is served first.
    fn unlisten(&mut self, routes: &[Arc<Route>]) -> Pending {
        let (told, pending) = Pending::new();
        for route in routes {
            self.unlisten_one(route, &told);
        }
        pending
    }

    fn unlisten_one(&mut self, route: &Arc<Route>, told: &mpsc::Sender<Infallible>) {
        self.listeners.remove(&route.listen);
        self.store.forget(&route.listen);
        if let Some(placed) = self.placed.remove(&route.listen) {
            let command = Command::Unlisten(Arc::clone(route), told.clone());
            self.workers.handles()[placed.worker].send(command);
        }
    }

    /// Has sessions of a group of targets do what comes with a change of it, if anything does.
    pub fn tell_sessions_of(&self, group: &Arc<TargetGroup>, change: Option<SessionChange>) {
        let Some(change) = change else { return };
        let table = self.shared.table.load();
        let leads_there = |route: &&Arc<Route>| {
            let own = route.target.group();
            own.is_some_and(|own| Arc::ptr_eq(own, group))
        };
        let routes = table.routes().filter(leads_there);
        let changes =
            routes.map(|route| (route.listen, (route.mapping.name.clone(), change.clone())));
        self.tell_sessions(changes.collect());
    }

    fn tell_sessions(&self, changes: SessionChanges) {
        self.workers.order(&SessionOrder::Apply(Arc::new(changes)));
    }

    /// Whether there is a listener on an address.
    pub fn is_open(&self, addr: &ListenAddr) -> bool {
        self.listeners.contains(addr)
    }

    /// How many listeners are open.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Where they are, as far as a line has room for it.
    pub fn listens_on(&self) -> String {
        let ranges = ListenAddr::in_ranges(self.placed.keys().copied().collect());
        enumerated(ranges.iter(), ranges.len())
    }

    /// Stops accepting and lets the workers end with their last session.
    pub fn drain(&mut self) {
        self.workers.order(&SessionOrder::Drain);
        // The workers hold the sockets until they have served what waits in the queues.
        self.listeners = Listeners::default();
    }

    /// Ends every session, spread over a time.
    pub fn cut(&self, spread: Duration) {
        self.workers
            .order(&SessionOrder::Cut(EndReason::Shutdown, spread));
    }

    /// Asks every worker to show that it goes round.
    pub fn beat(&self) {
        for worker in self.workers.handles() {
            worker.send(Command::Beat);
        }
    }

    /// How often the slowest worker has shown it.
    pub fn beats(&self) -> u64 {
        self.workers
            .handles()
            .iter()
            .map(WorkerHandle::beats)
            .min()
            .unwrap_or(0)
    }
}
