//! The set of open listening sockets, and its change from one table to the next.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};

use super::{
    ListenError, bind,
    bind::{adjust, take_on},
};
use crate::{
    os_error::in_words,
    table::{ListenAddr, Route},
};

#[derive(Debug, Default)]
pub struct Listeners {
    open: HashMap<ListenAddr, Arc<OwnedFd>>,
    /// Sockets that an earlier process listened on and no route has claimed yet. Clients may wait in
    /// their queues.
    unclaimed: HashMap<ListenAddr, Arc<OwnedFd>>,
}

/// A listening socket that was opened for a table not yet in force. Dropping it undoes that.
#[derive(Debug)]
pub struct Opened {
    pub route: Arc<Route>,
    pub socket: Arc<OwnedFd>,
}

impl Listeners {
    /// None is open; `unclaimed` listen already, for the routes that will ask for their addresses.
    pub fn with(unclaimed: HashMap<ListenAddr, Arc<OwnedFd>>) -> Self {
        Self {
            open: HashMap::new(),
            unclaimed,
        }
    }

    /// The sockets that no route has claimed.
    pub fn unclaimed(&self) -> impl Iterator<Item = (&ListenAddr, &Arc<OwnedFd>)> {
        self.unclaimed.iter()
    }

    /// Lets go of the sockets that no route has claimed.
    pub fn take_unclaimed(&mut self) -> HashMap<ListenAddr, Arc<OwnedFd>> {
        std::mem::take(&mut self.unclaimed)
    }

    /// Opens a socket for each of `routes`, unless one waits to be claimed. Sockets of `leaving`, which are to be removed once the
    /// change is in force, do not stand in the way.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened; those that could are closed again.
    pub fn prepare<'r>(
        &self,
        routes: impl IntoIterator<Item = &'r Arc<Route>>,
        leaving: &[Arc<Route>],
    ) -> Result<Vec<Opened>, Vec<ListenError>> {
        let mut opened = Vec::new();
        let mut errors = Vec::new();
        let mut by_port: HashMap<u16, Vec<ListenAddr>> = HashMap::new();
        for Route { listen, .. } in leaving.iter().map(Arc::as_ref) {
            by_port.entry(listen.port()).or_default().push(*listen);
        }
        for route in routes {
            let on_port = by_port.get(&route.listen.port()).into_iter().flatten();
            let overlapped: Vec<&OwnedFd> = on_port
                .filter(|listen| listen.overlaps(&route.listen))
                .filter_map(|listen| self.open.get(listen).map(Arc::as_ref))
                .collect();
            let socket = match self.unclaimed.get(&route.listen) {
                Some(socket) => take_on(route, socket).map(|()| Arc::clone(socket)),
                None => bind(route, &overlapped).map(Arc::new),
            };
            match socket {
                Ok(socket) => opened.push(Opened {
                    route: Arc::clone(route),
                    socket,
                }),
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(opened),
            false => Err(errors),
        }
    }

    /// Takes sockets in that were opened.
    pub fn commit(&mut self, opened: &[Opened]) {
        for Opened { route, socket } in opened {
            self.unclaimed.remove(&route.listen);
            self.open.insert(route.listen, Arc::clone(socket));
        }
    }

    /// Takes a socket in that an earlier image of the program has opened.
    pub fn adopt(&mut self, addr: ListenAddr, socket: Arc<OwnedFd>) {
        self.open.insert(addr, socket);
    }

    /// Every socket with its address, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&ListenAddr, &Arc<OwnedFd>)> {
        self.open.iter()
    }

    /// Lets go of a socket; it is closed once its worker has let go of it too.
    pub fn remove(&mut self, addr: &ListenAddr) -> Option<Arc<OwnedFd>> {
        self.open.remove(addr)
    }

    /// Has the socket of a route, if it is open, take on the policy the route has now.
    pub fn adjust(&self, route: &Route) {
        if let Some(socket) = self.open.get(&route.listen)
            && let Err(error) = adjust(socket, &route.mapping.policy)
        {
            let error = in_words(&error.into());
            tracing::warn!(listen = %route.listen, error, "listener keeps its old socket options");
        }
    }

    /// Whether that is the socket of an address.
    pub fn is(&self, addr: &ListenAddr, socket: &Arc<OwnedFd>) -> bool {
        let open = self.open.get(addr);
        open.is_some_and(|open| Arc::ptr_eq(open, socket))
    }

    pub fn contains(&self, addr: &ListenAddr) -> bool {
        self.open.contains_key(addr)
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }
}
