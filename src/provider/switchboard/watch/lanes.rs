//! The connections that watches are on.
//!
//! A lane is one connection. Over HTTP/1.1 it carries one watch; over HTTP/2 it carries as many as
//! common servers allow at once, so that a thousand watches fit on ten. Watches have lanes of their
//! own because a stream that never ends takes a place from requests that somebody waits for.
//!
//! Where there are too few places, who needs one most has it: a watch is told to leave for one that
//! is needed more, and never for one that is needed as much.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::{Mutex as Turn, Notify, oneshot, watch as latest};

use super::super::client::{Client, Connections};

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

/// Who needs a watch, the most in need first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A job that something is expected to happen to.
    ChangingJob,
    /// A host without a job: the next may come any time.
    FreeHost,
    /// A job that may go on as it is for long.
    SettledJob,
    /// A host with a job: until that ends, there is no other.
    HostInUse,
}

impl Need {
    /// Every need, the most urgent first.
    const ALL: [Self; 4] = [
        Self::ChangingJob,
        Self::FreeHost,
        Self::SettledJob,
        Self::HostInUse,
    ];

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

/// All lanes.
#[derive(Debug)]
pub struct Lanes {
    client: Client,
    at_most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Arc<Lane>>,
    /// Who waits for a place, in the order in which they get one.
    waiting: BTreeMap<(Need, u64), oneshot::Sender<Place>>,
    /// Who has one and was not told to leave.
    held: BTreeMap<(Need, u64), Arc<Notify>>,
    /// How many were told to leave and have not yet.
    leaving: usize,
    numbers: u64,
}

/// One connection, opened when first used.
#[derive(Debug)]
struct Lane {
    connections: Connections,
    /// For whom; half of the lanes at most are for hosts, lest they leave none for jobs.
    purpose: Purpose,
    taken: AtomicUsize,
    /// How many it can take, as far as is known.
    room: AtomicUsize,
    /// Held while a watch is being opened: two at once on a lane would connect twice.
    opening: Turn<()>,
}

/// A place for one watch, given back when dropped.
#[derive(Debug)]
pub struct Place {
    lane: Arc<Lane>,
    lanes: Weak<Lanes>,
    tenant: Tenant,
}

/// Who has a place.
#[derive(Debug, Clone)]
pub struct Tenant {
    number: u64,
    leave: Arc<Notify>,
}

/// Somebody who waits, until dropped.
struct Waiting<'a> {
    lanes: &'a Lanes,
    key: (Need, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lanes.lock().waiting.remove(&self.key);
    }
}

impl Lanes {
    /// Room for `at_most` connections.
    pub fn new(client: Client, at_most: usize) -> Arc<Self> {
        Arc::new(Self {
            client,
            at_most,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place, for as long as `need` says something.
    pub async fn place(self: &Arc<Self>, need: &mut latest::Receiver<Option<Need>>) -> Place {
        loop {
            let now = *need.borrow_and_update();
            let Some(now) = now else {
                self.changed(need).await;
                continue;
            };
            let (sender, place) = oneshot::channel();
            let key = self.change(|state| {
                let key = (now, state.number());
                state.waiting.insert(key, sender);
                key
            });
            let _waiting = Waiting { lanes: self, key };
            tokio::select! {
                Ok(place) = place => return place,
                () = self.changed(need) => {}
            }
        }
    }

    /// Keeps the place of `tenant` for whatever `need` says, until somebody needs it more.
    pub async fn keep(
        self: &Arc<Self>,
        tenant: &Tenant,
        need: &mut latest::Receiver<Option<Need>>,
    ) {
        loop {
            if let Some(now) = *need.borrow_and_update() {
                self.change(|state| {
                    if let Some(leave) = state.release(tenant.number) {
                        state.held.insert((now, tenant.number), leave);
                    }
                });
            }
            tokio::select! {
                () = tenant.leave.notified() => return,
                () = self.changed(need) => {}
            }
        }
    }

    async fn changed(&self, need: &mut latest::Receiver<Option<Need>>) {
        if need.changed().await.is_err() {
            // Nobody is left who could say anything.
            std::future::pending::<()>().await;
        }
    }

    /// Changes something, and gives places to those who can have one then.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, given) = {
            let mut state = self.lock();
            let result = change(&mut state);
            (result, self.give(&mut state))
        };
        for (to, place) in given {
            // Who does not wait any more gives it back.
            drop(to.send(place));
        }
        result
    }

    fn give(self: &Arc<Self>, state: &mut State) -> Vec<(oneshot::Sender<Place>, Place)> {
        let mut given = Vec::new();
        for need in Need::ALL {
            while let Some(key) = state.first_waiting(need) {
                let Some(lane) = self.lane(state, need.purpose()) else {
                    break;
                };
                let Some(to) = state.waiting.remove(&key) else {
                    break;
                };
                let tenant = Tenant {
                    number: key.1,
                    leave: Arc::default(),
                };
                state.held.insert(key, Arc::clone(&tenant.leave));
                let lanes = Arc::downgrade(self);
                given.push((
                    to,
                    Place {
                        lane,
                        lanes,
                        tenant,
                    },
                ));
            }
            self.make_room(state, need);
        }
        given
    }

    /// A lane with room for one more, which is taken.
    fn lane(&self, state: &mut State, purpose: Purpose) -> Option<Arc<Lane>> {
        let multiplexed = self.client.is_multiplexed();
        let mut of_purpose = state.lanes.iter().filter(|lane| lane.purpose == purpose);
        let found = of_purpose.find(|lane| lane.has_room(multiplexed)).cloned();
        let lane = match found {
            Some(lane) => lane,
            None if state.lanes.len() < self.at_most && !self.is_full(state, purpose) => {
                let lane = Arc::new(Lane::new(&self.client, purpose));
                state.lanes.push(Arc::clone(&lane));
                lane
            }
            None => return None,
        };
        lane.taken.fetch_add(1, Relaxed);
        Some(lane)
    }

    /// Whether a purpose has all the lanes that it may have.
    fn is_full(&self, state: &State, purpose: Purpose) -> bool {
        let limit = match purpose {
            Purpose::Host => self.at_most.div_ceil(2),
            Purpose::Job => self.at_most,
        };
        let lanes = state.lanes.iter();
        lanes.filter(|lane| lane.purpose == purpose).count() >= limit
    }

    /// Tells those to leave who need their places less than those who wait with `need`.
    fn make_room(&self, state: &mut State, need: Need) {
        let waiting = state.waiting.range((need, 0)..=(need, u64::MAX)).count();
        let full = self.is_full(state, need.purpose());
        while state.leaving < waiting {
            let Some(entry) = state.held.last_entry() else {
                return;
            };
            let (least, _) = *entry.key();
            let helps = !full || least.purpose() == need.purpose();
            if least <= need || !least.yields() || !helps {
                return;
            }
            entry.remove().notify_one();
            state.leaving += 1;
        }
    }

    /// Lanes with a watch on them.
    pub fn used(&self) -> usize {
        let state = self.lock();
        let used = |lane: &&Arc<Lane>| lane.taken.load(Relaxed) > 0;
        state.lanes.iter().filter(used).count()
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn first_waiting(&self, need: Need) -> Option<(Need, u64)> {
        let mut those = self.waiting.range((need, 0)..=(need, u64::MAX));
        those.next().map(|(key, _)| *key)
    }

    /// Takes a tenant that was not told to leave off the list.
    fn release(&mut self, number: u64) -> Option<Arc<Notify>> {
        Need::ALL
            .into_iter()
            .find_map(|need| self.held.remove(&(need, number)))
    }
}

impl Lane {
    fn new(client: &Client, purpose: Purpose) -> Self {
        Self {
            connections: client.lane(),
            purpose,
            taken: AtomicUsize::new(0),
            room: AtomicUsize::new(SHARED_BY),
            opening: Turn::new(()),
        }
    }

    fn has_room(&self, multiplexed: bool) -> bool {
        let room = match multiplexed {
            true => self.room.load(Relaxed),
            false => 1,
        };
        self.taken.load(Relaxed) < room
    }
}

impl Place {
    /// Who has it.
    pub fn tenant(&self) -> Tenant {
        self.tenant.clone()
    }

    /// The connection to use, for the one who opens a watch on it next.
    pub(super) async fn turn(&self) -> (tokio::sync::MutexGuard<'_, ()>, &Connections) {
        (self.lane.opening.lock().await, &self.lane.connections)
    }

    /// Notes that the server left a watch waiting although the lane works: it takes no more.
    pub(super) fn is_one_too_many(&self) {
        let others = self.lane.taken.load(Relaxed).saturating_sub(1);
        if others > 0 {
            self.lane.room.fetch_min(others, Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(lanes) = self.lanes.upgrade() else {
            return;
        };
        lanes.change(|state| {
            if state.release(self.tenant.number).is_none() {
                state.leaving = state.leaving.saturating_sub(1);
            }
            if self.lane.taken.fetch_sub(1, Relaxed) == 1 {
                // An empty lane is forgotten, and its connection closed.
                state.lanes.retain(|lane| lane.taken.load(Relaxed) > 0);
            }
        });
    }
}
