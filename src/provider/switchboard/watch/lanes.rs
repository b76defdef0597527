//! The connections that watches are on.
//!
//! A lane is one connection. Over HTTP/1.1 it carries one watch; over HTTP/2 it carries as many as
//! common servers allow at once, so that a thousand watches fit on ten. Watches have lanes of their
//! own because a stream that never ends takes a place from requests that somebody waits for.
//!
//! Where there are too few places, who needs one can ask those who could do without for theirs.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex as Turn, Notify, Semaphore},
    time::timeout,
};

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

/// All lanes.
#[derive(Debug)]
pub struct Lanes {
    client: Client,
    at_most: usize,
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// A permit for each who needs a place, to be taken by one who could do without.
    wanted: Semaphore,
    /// Wakes one who waits for a place, for each given back.
    freed: Notify,
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

/// Somebody's need of a place; what nobody has heeded is withdrawn when it is dropped.
struct Need<'a>(&'a Semaphore);

impl Drop for Need<'_> {
    fn drop(&mut self) {
        if let Ok(need) = self.0.try_acquire() {
            need.forget();
        }
    }
}

/// A place for one watch, given back when dropped.
#[derive(Debug)]
pub struct Place {
    lane: Arc<Lane>,
    lanes: Weak<Lanes>,
}

impl Lanes {
    /// Room for `at_most` connections.
    pub fn new(client: Client, at_most: usize) -> Arc<Self> {
        Arc::new(Self {
            client,
            at_most,
            lanes: Mutex::default(),
            wanted: Semaphore::new(0),
            freed: Notify::new(),
        })
    }

    /// A place, if there is one left.
    pub fn take(self: &Arc<Self>, purpose: Purpose) -> Option<Place> {
        let multiplexed = self.client.is_multiplexed();
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let of_purpose = || lanes.iter().filter(|lane| lane.purpose == purpose);
        let found = of_purpose()
            .find(|lane| lane.has_room(multiplexed))
            .cloned();
        let limit = match purpose {
            Purpose::Host => self.at_most.div_ceil(2),
            Purpose::Job => self.at_most,
        };
        let used = of_purpose().count();
        let lane = match found {
            Some(lane) => lane,
            None if lanes.len() < self.at_most && used < limit => {
                let lane = Arc::new(Lane::new(&self.client, purpose));
                lanes.push(Arc::clone(&lane));
                lane
            }
            None => return None,
        };
        lane.taken.fetch_add(1, Relaxed);
        Some(Place {
            lane,
            lanes: Arc::downgrade(self),
        })
    }

    /// Asks for somebody's place, and waits until one is given back or `at_most` has passed.
    pub async fn want(&self, at_most: Duration) {
        self.wanted.add_permits(1);
        let _need = Need(&self.wanted);
        // Whether there is one now, taking it shows.
        let _ = timeout(at_most, self.freed.notified()).await;
    }

    /// Waits until this one of those who could do without a place is asked for it.
    pub async fn wanted(&self) {
        // Fails only if closed, which nobody does.
        if let Ok(need) = self.wanted.acquire().await {
            need.forget();
        }
    }

    /// Lanes with a watch on them.
    pub fn used(&self) -> usize {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes
            .iter()
            .filter(|lane| lane.taken.load(Relaxed) > 0)
            .count()
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
        let last = self.lane.taken.fetch_sub(1, Relaxed) == 1;
        let Some(lanes) = self.lanes.upgrade() else {
            return;
        };
        if last {
            // An empty lane is forgotten, and its connection closed.
            let mut all = lanes.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|lane| lane.taken.load(Relaxed) > 0);
        }
        lanes.freed.notify_one();
    }
}
