//! What a worker hands over to the next image of the program, and how it is taken up there.
//!
//! Each worker has a part of its own: what it has in all, then a record for each session, then one for
//! each connection whose header is awaited, then one for each client that waits for a target. The
//! worker of the same name takes it up, with the epoll instance that reports on all of it, so that
//! nothing has to be asked of a socket. There may be fewer workers afterwards: the sessions of one that
//! is gone are given to the others.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    OrderNumber, WorkerContext,
    poller::Poller,
    session_table::Entry as SessionEntry,
    slots::{Key, Slots, densest},
    waiting_clients::WaitingEntry,
};
use crate::{
    handover::{Descriptor, LoadError, Loader, Records, Values},
    session::{Loading, PendingProxyHeader, QueuedClient, SavedSession, Session, Waiting},
    table::{KnownMappings, SavedRoutes},
};

/// How the names of workers' parts begin.
pub const PART: &str = "worker-";

/// All that a worker has, but for the records that follow.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SavedWorker {
    pub(super) routes: SavedRoutes,
    /// What reports on all of it by their keys. Without one they are watched anew.
    pub(super) poller: Option<Descriptor>,
    pub(super) sessions: SavedSlots,
    /// Connections whose header is awaited.
    pub(super) headers: SavedSlots,
    /// Clients that wait for a target.
    pub(super) queued: SavedSlots,
}

/// Slots whose occupants are records.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SavedSlots {
    pub(super) count: usize,
    generation: u32,
}

impl SavedSlots {
    pub(super) fn of<T>(slots: &Slots<T>) -> Self {
        Self {
            count: slots.len(),
            generation: slots.generation(),
        }
    }
}

/// The occupant of a slot.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedEntry<T> {
    pub(super) key: Key,
    /// Whether it can go on without being told by epoll.
    #[serde(default)]
    pub(super) queued: bool,
    /// Whether epoll reports on it.
    #[serde(default)]
    pub(super) watched: bool,
    pub(super) is: T,
}

/// The sessions that were written before, by their place, and the text of each. Those that are the same
/// need not be written again while all stand still, and most of many are idle. When one has ended, those
/// behind it have other places.
#[derive(Debug, Default)]
pub(super) struct WrittenSessions {
    all: Vec<(SavedEntry<SavedSession>, Box<[u8]>)>,
    /// Whether these are all, so that no more are kept: nothing is to be had from the kernel while all stand
    /// still.
    pub(super) is_complete: bool,
    /// What they were gathered in, since memory that is new has to be had from the kernel.
    pub(super) gathered: Records,
}

impl WrittenSessions {
    /// Adds the record of a session to `records`.
    pub(super) fn write(
        &mut self,
        place: usize,
        session: SavedEntry<SavedSession>,
        records: &mut Records,
    ) -> Result<(), String> {
        match self.all.get(place) {
            Some((known, text)) if *known == session => records.push_again(text),
            _ => {
                let text = records.push(&session)?;
                if !self.is_complete {
                    self.all.push((session, text.into()));
                }
            }
        }
        Ok(())
    }
}

/// What a worker has handed over, taken up and given to no worker yet.
#[derive(Debug)]
pub struct Adopted {
    /// The name of the worker.
    pub(super) label: String,
    pub(super) poller: Option<Poller>,
    pub(super) sessions: Slots<SessionEntry>,
    pub(super) headers: Slots<WaitingEntry<PendingProxyHeader>>,
    pub(super) queued: Slots<WaitingEntry<QueuedClient>>,
}

impl Adopted {
    /// How many sessions there are, those among them that have not begun.
    pub fn sessions(&self) -> usize {
        self.sessions.len() + self.headers.len() + self.queued.len()
    }
}

/// Takes up the part of a worker, and counts what is in it.
///
/// # Errors
///
/// What cannot be.
pub fn load(
    part: &str,
    values: &mut Values,
    loader: &mut Loader,
    known: &mut KnownMappings,
    context: &WorkerContext,
) -> Result<Adopted, LoadError> {
    let SavedWorker {
        routes,
        poller,
        sessions,
        headers,
        queued,
    } = values.record().map_err(unreadable)?;
    let poller = poller.map(|epoll| loader.descriptor(epoll)).transpose()?;
    // One that knows descriptors by other numbers is of no use.
    let poller = poller.filter(|_| loader.is_in_place()).map(Poller::of);
    let keeps_keys = poller.is_some();
    let mut from = Loading {
        loader,
        routes: &routes.load(known)?,
        gate: &context.gate,
        pipes: &context.pipes,
    };
    let sessions = load_slots(sessions, keeps_keys, values, |entry| {
        let SavedEntry::<SavedSession> {
            queued,
            watched,
            is: session,
            ..
        } = entry;
        let session = Session::load(session, &mut from)?;
        context.stats.session_opened();
        Ok(SessionEntry {
            session,
            queued,
            watched,
            seen: OrderNumber::default(),
        })
    })?;
    let headers = load_waiting(headers, keeps_keys, values, &mut from, context)?;
    let queued = load_waiting(queued, keeps_keys, values, &mut from, context)?;
    Ok(Adopted {
        label: part.strip_prefix(PART).unwrap_or(part).to_owned(),
        poller,
        sessions,
        headers,
        queued,
    })
}

/// Takes up clients that have no session yet, and counts them.
fn load_waiting<W: Waiting>(
    slots: SavedSlots,
    keeps_keys: bool,
    values: &mut Values,
    from: &mut Loading<'_>,
    context: &WorkerContext,
) -> Result<Slots<WaitingEntry<W>>, LoadError> {
    load_slots(
        slots,
        keeps_keys,
        values,
        |SavedEntry::<W::Saved> { is, .. }| {
            let client = W::load(is, from)?;
            context.stats.session_opened();
            let seen = OrderNumber::default();
            Ok(WaitingEntry { client, seen })
        },
    )
}

/// Reads the occupants of slots, which keep their keys or come close together.
fn load_slots<S: DeserializeOwned, T>(
    SavedSlots { count, generation }: SavedSlots,
    keeps_keys: bool,
    values: &mut Values,
    mut load: impl FnMut(SavedEntry<S>) -> Result<T, LoadError>,
) -> Result<Slots<T>, LoadError> {
    let mut last = None;
    let entries = (0..count).map(|place| {
        let saved: SavedEntry<S> = values.record().map_err(unreadable)?;
        if !keeps_keys {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            return Ok((Key::from((place, 0)), load(saved)?));
        }
        let key = saved.key;
        if last.replace(key.index()) >= Some(key.index()) || key.index() > densest(count) {
            let why = format!("{} among {count}", key.index());
            return Err(LoadError::value("slot of a session", why));
        }
        Ok((key, load(saved)?))
    });
    Slots::with_keys(generation, entries)
}

fn unreadable(error: serde_json::Error) -> LoadError {
    LoadError::value("worker", error.to_string())
}
