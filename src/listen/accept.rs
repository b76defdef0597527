//! Taking one connection from a listening socket, and what to do when that fails.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{SocketFlags, acceptfrom_with},
};
use serde::{Deserialize, Serialize};

use crate::proxy_protocol::Endpoints;

#[derive(Debug)]
pub struct Accepted {
    /// Its socket, non-blocking and closed on exec.
    pub socket: OwnedFd,
    /// Who connected; an IPv4 client of a dual-stack socket appears as IPv4.
    pub client: SocketAddr,
    /// Who brought it here, if not the client itself.
    pub front: Option<Box<Front>>,
}

/// A trusted front that passes on the connection of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Its own end of the connection to here.
    pub peer: SocketAddr,
    /// Where the client connected to it.
    pub destination: SocketAddr,
}

impl Accepted {
    /// Notes that the peer has passed on somebody else's connection.
    pub fn speak_for(&mut self, ends: Endpoints) {
        let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        self.front = Some(Box::new(Front {
            peer: self.client,
            destination: plain(ends.destination),
        }));
        self.client = plain(ends.source);
    }
}

/// What an error of accept4(2) asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    Empty,
    /// This connection is lost, the next may be fine.
    Retry(Errno),
    /// Something has run out; trying again at once would spin.
    Pause(Errno),
    /// The socket itself is unusable.
    Fatal(Errno),
}

/// Accepts one connection.
pub fn accept(listener: impl AsFd) -> Result<Accepted, AcceptError> {
    match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok((socket, Some(peer))) => match SocketAddr::try_from(peer) {
            Ok(client) => Ok(Accepted {
                socket,
                client: canonical(client),
                front: None,
            }),
            Err(errno) => Err(AcceptError::Retry(errno)),
        },
        // A connection without a peer address is one that has gone already.
        Ok((_, None)) => Err(AcceptError::Retry(Errno::NOTCONN)),
        Err(errno) => Err(classify(errno)),
    }
}

/// An IPv4 address as such, and a link-local one with its interface.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        IpAddr::V6(_) => addr,
    }
}

fn classify(errno: Errno) -> AcceptError {
    match errno {
        Errno::AGAIN => AcceptError::Empty,
        Errno::BADF | Errno::FAULT | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP => {
            AcceptError::Fatal(errno)
        }
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => AcceptError::Pause(errno),
        // ECONNABORTED, EINTR, EPERM from a firewall, and the network errors Linux passes through
        // from the new connection (accept(2)): all of them concern this connection only.
        _ => AcceptError::Retry(errno),
    }
}

/// Whether nothing can be accepted from a listener any more that has failed like this.
pub fn is_lost(error: &std::io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(classify(errno), AcceptError::Fatal(_)))
}

/// Whether it is descriptors that have run out, of the process or of the machine.
pub fn is_descriptor_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE)
}

/// How long to leave a listener alone: 5 ms at first, doubling up to a second.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Self::LONGEST);
        pause
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_pauses_a_lost_connection_does_not() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(classify(errno), AcceptError::Pause(errno));
        }
        for errno in [
            Errno::CONNABORTED,
            Errno::PERM,
            Errno::INTR,
            Errno::HOSTUNREACH,
        ] {
            assert_eq!(classify(errno), AcceptError::Retry(errno));
        }
        assert_eq!(classify(Errno::BADF), AcceptError::Fatal(Errno::BADF));
        assert_eq!(classify(Errno::AGAIN), AcceptError::Empty);
    }

    #[test]
    fn pauses_grow_to_a_second_and_start_over() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 5);
    }
}
