//! Listeners, as they are handed over to the next image of the program: none is opened again, and who
//! waits in their queues goes on waiting.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{Control, Placed};
use crate::{
    handover::{Descriptor, LoadError, Loader, Saver, monotonic},
    lifecycle::{lost::Lost, store::Store},
    listen::Listeners,
    table::{ListenAddr, Table},
    worker::{Command, WorkerContext, Workers},
};

/// Listeners, as they are handed over to the next image of the program.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::lifecycle) struct SavedListeners {
    open: Vec<SavedListener>,
    #[serde(default)]
    lost: Lost,
    #[serde(default)]
    looping: HashSet<ListenAddr>,
    /// Those of the last process that nobody has claimed.
    #[serde(default)]
    unclaimed: Vec<(ListenAddr, Descriptor)>,
    #[serde(default, with = "monotonic::option")]
    unclaimed_until: Option<Instant>,
    /// Those that systemd keeps.
    #[serde(default)]
    stored: HashSet<ListenAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedListener {
    addr: ListenAddr,
    socket: Descriptor,
    #[serde(default)]
    worker: usize,
    #[serde(default)]
    paused: bool,
}

/// Listeners that were handed over.
#[derive(Debug, Default)]
pub(in crate::lifecycle) struct LoadedListeners {
    open: Vec<(ListenAddr, Arc<OwnedFd>, Placed)>,
    lost: Lost,
    looping: HashSet<ListenAddr>,
    unclaimed: HashMap<ListenAddr, Arc<OwnedFd>>,
    unclaimed_until: Option<Instant>,
    stored: HashSet<ListenAddr>,
}

impl SavedListeners {
    /// Takes them up.
    ///
    /// # Errors
    ///
    /// Two are on one address, or one is on none of the table.
    pub fn load(self, loader: &mut Loader, table: &Table) -> Result<LoadedListeners, LoadError> {
        let Self {
            open,
            lost,
            looping,
            unclaimed,
            unclaimed_until,
            stored,
        } = self;
        let mut known = HashSet::with_capacity(open.len());
        let load = |saved: SavedListener| {
            let SavedListener {
                addr,
                socket,
                worker,
                paused,
            } = saved;
            if !known.insert(addr) {
                return Err(LoadError::value("listener", format!("{addr} twice")));
            }
            if table.route(&addr).is_none() {
                let why = format!("{addr} is not in the table");
                return Err(LoadError::value("listener", why));
            }
            let socket = Arc::new(loader.descriptor(socket)?);
            Ok((addr, socket, Placed { worker, paused }))
        };
        let open: Result<_, _> = open.into_iter().map(load).collect();
        let open = open?;
        let unclaimed = unclaimed
            .into_iter()
            .map(|(addr, socket)| Ok((addr, Arc::new(loader.descriptor(socket)?))));
        Ok(LoadedListeners {
            open,
            lost,
            looping,
            unclaimed: unclaimed.collect::<Result<_, _>>()?,
            unclaimed_until,
            stored,
        })
    }
}

impl Control {
    /// Control over the workers, who take up the listeners that were handed over. None is opened, and
    /// clients that wait in their queues go on waiting.
    pub fn adopt(shared: Arc<WorkerContext>, workers: Workers, loaded: LoadedListeners) -> Self {
        let LoadedListeners {
            open,
            lost,
            looping,
            unclaimed,
            unclaimed_until,
            stored,
        } = loaded;
        let mut control = Self {
            lost,
            looping,
            listeners: Listeners::with(unclaimed),
            unclaimed_until,
            store: Store::with(stored),
            next_worker: open.len(),
            ..Self::new(shared, workers)
        };
        for (addr, socket, Placed { worker, paused }) in open {
            let worker = worker % control.front;
            control.listeners.adopt(addr, Arc::clone(&socket));
            control.placed.insert(addr, Placed { worker, paused });
            // An earlier version may not have had it kept.
            control.store.keep(addr, &socket);
            control.workers.handles()[worker].send(Command::Listen {
                addr,
                socket,
                paused,
            });
        }
        control.show_closed();
        control
    }

    /// Every listener, and those that are not open but should be.
    pub fn save<'a>(&'a self, saver: &mut Saver<'a>) -> SavedListeners {
        let Self {
            shared: _,
            workers: _,
            front: _,
            listeners,
            store,
            unclaimed_until,
            placed,
            lost,
            looping,
            next_worker: _,
        } = self;
        let save = |(addr, socket): (&ListenAddr, &'a Arc<OwnedFd>)| {
            let Placed { worker, paused } = *placed.get(addr)?;
            Some(SavedListener {
                addr: *addr,
                socket: saver.descriptor(socket.as_fd()),
                worker,
                paused,
            })
        };
        let open = listeners.iter().filter_map(save).collect();
        let unclaimed = listeners.unclaimed();
        let unclaimed = unclaimed.map(|(addr, socket)| (*addr, saver.descriptor(socket.as_fd())));
        SavedListeners {
            open,
            lost: lost.clone(),
            looping: looping.clone(),
            unclaimed: unclaimed.collect(),
            unclaimed_until: *unclaimed_until,
            stored: store.kept().clone(),
        }
    }
}
