//! The set of open listening sockets, and its change from one table to the next.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};

use super::{ListenError, bind, bind::adjust};
use crate::table::{Diff, ListenAddr, Route};

/// Every listening socket in force.
#[derive(Debug, Default)]
pub struct Listeners {
    open: HashMap<ListenAddr, Arc<OwnedFd>>,
}

/// A listening socket that was opened for a table not yet in force.
#[derive(Debug)]
pub struct Opened {
    /// The route it serves.
    pub route: Arc<Route>,
    /// The socket.
    pub socket: Arc<OwnedFd>,
}

/// A prepared change: every new socket is open, nothing has been closed. Dropping it undoes it.
#[derive(Debug)]
pub struct Change {
    opened: Vec<Opened>,
}

impl Listeners {
    /// Opens every socket that `diff` adds.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened; those that could are closed again.
    pub fn prepare(&self, diff: &Diff) -> Result<Change, Vec<ListenError>> {
        let mut opened = Vec::with_capacity(diff.added.len());
        let mut errors = Vec::new();
        for route in &diff.added {
            match bind(route) {
                Ok(socket) => opened.push(Opened {
                    route: Arc::clone(route),
                    socket: Arc::new(socket),
                }),
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(Change { opened }),
            false => Err(errors),
        }
    }

    /// Puts a prepared change into force and returns the sockets that came and the routes whose
    /// sockets went. Sockets of changed routes stay open and take on the new policy.
    pub fn commit(&mut self, change: Change, diff: &Diff) -> Vec<Opened> {
        for route in &diff.removed {
            self.open.remove(&route.listen);
        }
        for change in &diff.changed {
            if let Some(socket) = self.open.get(&change.new.listen)
                && let Err(error) = adjust(socket, &change.new.mapping.policy)
            {
                tracing::warn!(listen = %change.new.listen, %error, "listener keeps its old socket options");
            }
        }
        for opened in &change.opened {
            self.open
                .insert(opened.route.listen, Arc::clone(&opened.socket));
        }
        change.opened
    }

    /// How many sockets are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no socket is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
