//! The connections that watches are on.
//!
//! Over HTTP/1.1 a connection carries one watch; over HTTP/2 it carries as many as common servers
//! allow at once, so that a thousand watches fit on ten. Watches have connections of their own
//! because a stream that never ends takes a place from requests that somebody waits for.
//!
//! Where there are too few slots, who needs one most has it: a watch is told to leave for one that
//! is needed more, and never for one that is needed as much.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use strum::VariantArray;
use tokio::sync::{Mutex as Turn, Notify, oneshot, watch as latest};

use super::super::client::{Client, Connections};
use crate::mutex::lock;

/// How many watches share a connection over HTTP/2. Proxies allow between 100 and 250 streams.
const SHARED_BY: usize = 100;

/// What a watch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A host's, which hints at new jobs.
    Host,
    /// A job's own.
    Job,
}

/// How much a watch is needed, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub(in super::super) enum Priority {
    /// A job that something is expected to happen to.
    ChangingJob,
    /// A host without a job: the next may come any time.
    FreeHost,
    /// A job that may go on as it is for long.
    SettledJob,
    /// A host with a job: until that ends, there is no other.
    HostInUse,
}

impl Priority {
    fn purpose(self) -> Purpose {
        match self {
            Self::ChangingJob | Self::SettledJob => Purpose::Job,
            Self::FreeHost | Self::HostInUse => Purpose::Host,
        }
    }

    /// Whether its watch can be taken away.
    fn yields(self) -> bool {
        self >= Self::SettledJob
    }
}

/// A number that nobody else has, behind how much a watch is needed.
type Key = (Priority, u64);

/// All connections for watches.
#[derive(Debug)]
pub(in super::super) struct WatchPool {
    client: Client,
    at_most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: Vec<Arc<Connection>>,
    /// Who waits for a slot, in the order in which they get one.
    waiting: BTreeMap<Key, oneshot::Sender<Slot>>,
    /// Who has one and was not told to leave.
    held: BTreeMap<Key, Arc<Notify>>,
    /// How many were told to leave and have not yet.
    leaving: usize,
    numbers: u64,
}

/// Opened when first used.
#[derive(Debug)]
struct Connection {
    http: Connections,
    /// For whom; half of the connections at most are for hosts, lest they leave none for jobs.
    purpose: Purpose,
    taken: AtomicUsize,
    /// How many watches it can take, as far as is known.
    room: AtomicUsize,
    /// Held while a watch is being opened: two at once would connect twice.
    opening: Turn<()>,
}

impl Connection {
    fn has_room(&self, multiplexed: bool) -> bool {
        let room = match multiplexed {
            true => self.room.load(Relaxed),
            false => 1,
        };
        self.taken.load(Relaxed) < room
    }
}

/// Room for one watch on a connection, given back when dropped.
#[derive(Debug)]
pub(in super::super) struct Slot {
    connection: Arc<Connection>,
    pool: Weak<WatchPool>,
    number: u64,
    leave: Arc<Notify>,
}

/// Somebody who waits, until dropped.
struct Waiting<'a> {
    pool: &'a WatchPool,
    key: Key,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.pool.state).waiting.remove(&self.key);
    }
}

impl WatchPool {
    /// Room for `at_most` connections.
    pub(in super::super) fn new(client: Client, at_most: usize) -> Arc<Self> {
        Arc::new(Self {
            client,
            at_most,
            state: Mutex::default(),
        })
    }

    /// Waits for a slot, for as long as `priority` says something.
    pub(in super::super) async fn slot(
        self: &Arc<Self>,
        priority: &mut latest::Receiver<Option<Priority>>,
    ) -> Slot {
        loop {
            let Some(now) = *priority.borrow_and_update() else {
                changed(priority).await;
                continue;
            };
            let (sender, slot) = oneshot::channel();
            let key = self.change(|state| {
                let key = (now, state.number());
                state.waiting.insert(key, sender);
                key
            });
            let _waiting = Waiting { pool: self, key };
            tokio::select! {
                Ok(slot) = slot => return slot,
                () = changed(priority) => {}
            }
        }
    }

    /// Connections with a watch on them.
    pub(in super::super) fn used(&self) -> usize {
        let state = lock(&self.state);
        let used = |one: &&Arc<Connection>| one.taken.load(Relaxed) > 0;
        state.connections.iter().filter(used).count()
    }

    /// Changes something, and gives slots to those who can have one then.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, given) = {
            let mut state = lock(&self.state);
            let result = change(&mut state);
            (result, self.give(&mut state))
        };
        for (to, slot) in given {
            // Who does not wait any more gives it back.
            drop(to.send(slot));
        }
        result
    }

    fn give(self: &Arc<Self>, state: &mut State) -> Vec<(oneshot::Sender<Slot>, Slot)> {
        let mut given = Vec::new();
        for &priority in Priority::VARIANTS {
            while let Some(key) = state.first_waiting(priority) {
                let Some(connection) = self.connection(state, priority.purpose()) else {
                    break;
                };
                let Some(to) = state.waiting.remove(&key) else {
                    break;
                };
                let leave = Arc::<Notify>::default();
                state.held.insert(key, Arc::clone(&leave));
                let slot = Slot {
                    connection,
                    pool: Arc::downgrade(self),
                    number: key.1,
                    leave,
                };
                given.push((to, slot));
            }
            self.make_room(state, priority);
        }
        given
    }

    /// A connection with room for one more watch, which is taken.
    fn connection(&self, state: &mut State, purpose: Purpose) -> Option<Arc<Connection>> {
        let multiplexed = self.client.is_multiplexed();
        let mut of_purpose = state
            .connections
            .iter()
            .filter(|one| one.purpose == purpose);
        let found = of_purpose.find(|one| one.has_room(multiplexed)).cloned();
        let connection = match found {
            Some(connection) => connection,
            None if state.connections.len() < self.at_most && !self.is_full(state, purpose) => {
                let connection = Arc::new(Connection {
                    http: self.client.own_connection(),
                    purpose,
                    taken: AtomicUsize::new(0),
                    room: AtomicUsize::new(SHARED_BY),
                    opening: Turn::new(()),
                });
                state.connections.push(Arc::clone(&connection));
                connection
            }
            None => return None,
        };
        connection.taken.fetch_add(1, Relaxed);
        Some(connection)
    }

    /// Whether a purpose has all the connections that it may have.
    fn is_full(&self, state: &State, purpose: Purpose) -> bool {
        let limit = match purpose {
            Purpose::Host => self.at_most.div_ceil(2),
            Purpose::Job => self.at_most,
        };
        let connections = state.connections.iter();
        connections.filter(|one| one.purpose == purpose).count() >= limit
    }

    /// Tells those to leave who need their slots less than those who wait with `priority`.
    fn make_room(&self, state: &mut State, priority: Priority) {
        let those = (priority, 0)..=(priority, u64::MAX);
        let waiting = state.waiting.range(those).count();
        let full = self.is_full(state, priority.purpose());
        while state.leaving < waiting {
            let Some(entry) = state.held.last_entry() else {
                return;
            };
            let (least, _) = *entry.key();
            let helps = !full || least.purpose() == priority.purpose();
            if least <= priority || !least.yields() || !helps {
                return;
            }
            entry.remove().notify_one();
            state.leaving += 1;
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn first_waiting(&self, priority: Priority) -> Option<Key> {
        let mut those = self.waiting.range((priority, 0)..=(priority, u64::MAX));
        those.next().map(|(key, _)| *key)
    }

    /// Takes who was not told to leave off the list.
    fn release(&mut self, number: u64) -> Option<Arc<Notify>> {
        let mut priorities = Priority::VARIANTS.iter();
        priorities.find_map(|priority| self.held.remove(&(*priority, number)))
    }
}

impl Slot {
    /// Keeps it for whatever `priority` says, until somebody needs it more.
    pub(in super::super) async fn keep(&self, priority: &mut latest::Receiver<Option<Priority>>) {
        loop {
            let now = *priority.borrow_and_update();
            if let (Some(now), Some(pool)) = (now, self.pool.upgrade()) {
                pool.change(|state| {
                    if let Some(leave) = state.release(self.number) {
                        state.held.insert((now, self.number), leave);
                    }
                });
            }
            tokio::select! {
                () = self.leave.notified() => return,
                () = changed(priority) => {}
            }
        }
    }

    /// The connection to use, for the one who opens a watch on it next.
    pub(super) async fn turn(&self) -> (tokio::sync::MutexGuard<'_, ()>, &Connections) {
        (self.connection.opening.lock().await, &self.connection.http)
    }

    /// Notes that the server left a watch waiting although the connection works: it takes no more.
    pub(super) fn is_one_too_many(&self) {
        let others = self.connection.taken.load(Relaxed).saturating_sub(1);
        if others > 0 {
            self.connection.room.fetch_min(others, Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        pool.change(|state| {
            if state.release(self.number).is_none() {
                state.leaving = state.leaving.saturating_sub(1);
            }
            if self.connection.taken.fetch_sub(1, Relaxed) == 1 {
                // An empty one is forgotten, and so closed.
                state.connections.retain(|one| one.taken.load(Relaxed) > 0);
            }
        });
    }
}

async fn changed(priority: &mut latest::Receiver<Option<Priority>>) {
    if priority.changed().await.is_err() {
        // Nobody is left who could say anything.
        pending::<()>().await;
    }
}
