//! The system calls a relay makes, as a trait: the kernel's, or a model's in tests.

use std::fmt;

use rustix::io;
use serde::{Deserialize, Serialize};

/// One of the two sockets of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The socket that was accepted.
    Client,
    /// The socket that was connected.
    Target,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Target,
            Self::Target => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Target => "target",
        })
    }
}

/// A pipe that knows how many bytes are in it.
pub trait Level {
    /// Bytes in the pipe.
    fn level(&self) -> usize;
}

/// Non-blocking calls on the two sockets of a session, and the pipes between them.
///
/// No call ever blocks or returns `EINTR`.
pub trait Syscalls {
    /// The pipes bytes can be spliced through.
    type Pipe: Level;

    /// Reads bytes; 0 is the end of the stream. See recv(2).
    fn recv(&mut self, from: Side, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes bytes, perhaps not all. See send(2).
    fn send(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize>;

    /// Like [`send`](Self::send), for the last bytes of a stream: if all are taken, they may be held
    /// back until [`shutdown`](Self::shutdown), or the close of the socket, which has to follow at
    /// once.
    fn send_last(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize>;

    /// Moves bytes, so many at most, from a socket into an empty pipe. See splice(2).
    fn fill(&mut self, from: Side, pipe: &mut Self::Pipe, most: usize) -> io::Result<usize>;

    /// Moves bytes from a pipe that has some to a socket. See splice(2).
    fn drain(&mut self, pipe: &mut Self::Pipe, to: Side) -> io::Result<usize>;

    /// Borrows an empty pipe, if one is to be had.
    fn take_pipe(&mut self) -> Option<Self::Pipe>;

    /// Gives a pipe back. One that is not empty is destroyed, never lent again.
    fn give_pipe(&mut self, pipe: Self::Pipe);

    /// Sends the end of the stream. See shutdown(2), `SHUT_WR`.
    fn shutdown(&mut self, to: Side) -> io::Result<()>;
}
