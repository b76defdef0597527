//! The listening sockets that systemd keeps for the next process (`FileDescriptorStoreMax=`).
//!
//! They stay open when this process ends, whatever the reason: a client that comes then waits in the
//! queue until the next process takes the socket back. systemd closes them when the unit is stopped and
//! not started again. Where it keeps nothing, or there are more listeners than it has room for, those
//! are closed with the process.
//!
//! systemd is told by a task, one message after the other: it may be busy, and compares each descriptor
//! with all that it has.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::systemd;
use crate::{listen::listens_at, os_error::in_words, socket, table::ListenAddr};

/// What the names of listeners begin with.
const PREFIX: &str = "listen/";

/// How long an upgrade waits for systemd, which may be busy. What it has not been told then is closed by
/// the next restart.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The sockets that systemd keeps, as far as it was told.
#[derive(Debug, Default)]
pub(super) struct Store {
    kept: HashSet<ListenAddr>,
    most: usize,
    tell: Option<mpsc::UnboundedSender<Change>>,
    /// Whether it was said that there are more listeners than room.
    said_full: bool,
}

#[derive(Debug)]
enum Change {
    Keep(String, Arc<OwnedFd>),
    Forget(String),
    /// Dropped when all before it is done.
    Told(oneshot::Sender<Infallible>),
}

impl Store {
    /// The store of the unit, as it is.
    pub fn open() -> Self {
        let most = systemd::store_size();
        let tell = (most > 0).then(|| {
            let (tell, told) = mpsc::unbounded_channel();
            tokio::spawn(tell_systemd(told));
            tell
        });
        Self {
            most,
            tell,
            ..Self::default()
        }
    }

    /// The same for an image of the program that goes on with what another one had kept.
    pub fn with(kept: HashSet<ListenAddr>) -> Self {
        Self {
            kept,
            ..Self::open()
        }
    }

    /// The listeners that systemd keeps, or will once it has been told.
    pub fn kept(&self) -> &HashSet<ListenAddr> {
        &self.kept
    }

    /// Waits until systemd has been told everything there was to tell, but not for long.
    pub async fn told(&self) {
        let (told, heard) = oneshot::channel();
        self.tell(Change::Told(told));
        // Nothing is sent; it ends when it is its turn.
        let _ = timeout(TOLD_WITHIN, heard).await;
    }

    /// Takes the listening sockets back that an earlier process left, as far as they are `wanted`. The
    /// others are closed.
    pub fn take(
        &mut self,
        wanted: &dyn Fn(&ListenAddr) -> bool,
    ) -> HashMap<ListenAddr, Arc<OwnedFd>> {
        let mut taken = HashMap::new();
        for (name, socket) in systemd::take_stored() {
            let Some(addr) = addr_of(&name) else {
                tracing::warn!(
                    name,
                    "systemd has kept what is not known here; it is closed"
                );
                self.tell(Change::Forget(name));
                continue;
            };
            if wanted(&addr) && listens_at(&socket, &addr) && !taken.contains_key(&addr) {
                taken.insert(addr, Arc::new(socket));
                self.kept.insert(addr);
                continue;
            }
            tracing::info!(listen = %addr, "a listener of the last process is not wanted any more");
            // systemd lets go of it as well: by its name it would lose one that is wanted.
            close(&addr, &socket);
        }
        taken
    }

    /// Has systemd keep the socket of a listener, if there is room.
    pub fn keep(&mut self, addr: ListenAddr, socket: &Arc<OwnedFd>) {
        if self.tell.is_none() || self.kept.contains(&addr) {
            return;
        }
        if self.kept.len() >= self.most {
            if !self.said_full {
                self.said_full = true;
                tracing::info!(
                    kept = self.most,
                    "systemd keeps no more listeners: a restart closes the others \
                     (FileDescriptorStoreMax= and FDSTORE in the unit)"
                );
            }
            return;
        }
        self.kept.insert(addr);
        self.tell(Change::Keep(name_of(&addr), Arc::clone(socket)));
    }

    /// Has systemd let go of the socket of a listener.
    pub fn forget(&mut self, addr: &ListenAddr) {
        if self.kept.remove(addr) {
            self.tell(Change::Forget(name_of(addr)));
        }
    }

    fn tell(&self, change: Change) {
        if let Some(tell) = &self.tell {
            // It ends with the process.
            let _ = tell.send(change);
        }
    }
}

/// Closes a listener, whoever else has it.
pub(super) fn close(addr: &ListenAddr, socket: &OwnedFd) {
    if let Err(errno) = socket::close_listener(socket) {
        let errno = in_words(&errno.into());
        tracing::debug!(listen = %addr, errno, "a listener is closed already");
    }
}

async fn tell_systemd(mut told: mpsc::UnboundedReceiver<Change>) {
    let mut said = false;
    while let Some(change) = told.recv().await {
        if let Err(error) = tell(change).await
            && !said
        {
            said = true;
            let error = in_words(&error);
            tracing::warn!(error, "systemd cannot be told which listeners to keep");
        }
    }
}

async fn tell(change: Change) -> io::Result<()> {
    match change {
        Change::Keep(name, socket) => systemd::store(&name, socket.as_fd()).await,
        Change::Forget(name) => systemd::unstore(&name).await,
        Change::Told(told) => {
            drop(told);
            Ok(())
        }
    }
}

/// What systemd knows a listener by. There may be no colon in it (sd_pid_notify_with_fds(3)), and no
/// address has a hyphen.
fn name_of(addr: &ListenAddr) -> String {
    format!("{PREFIX}{addr}").replace(':', "-")
}

fn addr_of(name: &str) -> Option<ListenAddr> {
    let addr = name.strip_prefix(PREFIX)?.replace('-', ":");
    ListenAddr::parse(&addr).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_a_name_of_its_own_that_systemd_takes_and_that_says_which_it_is() {
        let longest = "[fd9d:773b:e6f8:cafe:1014:ffff:ffff:ffff]:65535";
        let addrs = [
            "*:22",
            "127.0.0.1:22",
            "0.0.0.0:22",
            "[::]:22",
            "[::1]:22",
            longest,
        ];
        let mut names = HashSet::new();
        for text in addrs {
            let addr = ListenAddr::parse(text).expect("an address");
            let name = name_of(&addr);
            assert!(name.len() <= 255 && !name.contains(|c: char| c.is_control() || c == ':'));
            assert_eq!(addr_of(&name), Some(addr), "{name}");
            assert!(names.insert(name));
        }
        for unknown in ["", "stored", "tml-proxy.socket", "listen/", "listen/22-x"] {
            assert_eq!(addr_of(unknown), None, "{unknown}");
        }
    }
}
