//! The relay's system calls as the kernel serves them.

use std::{os::fd::BorrowedFd, sync::Once};

use rustix::{
    io::{self, retry_on_intr},
    net::{RecvFlags, SendFlags, Shutdown},
    pipe::{SpliceFlags, splice},
};

use super::{Pipe, PipePool, Side, Syscalls};
use crate::os_error::in_words;

/// The two sockets of a session and the pool its pipes come from.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// The accepted socket, non-blocking.
    pub client: BorrowedFd<'a>,
    /// The connected socket, non-blocking.
    pub target: BorrowedFd<'a>,
    /// Where pipes are borrowed.
    pub pipes: &'a mut PipePool,
}

impl Kernel<'_> {
    fn socket(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::Client => self.client,
            Side::Target => self.target,
        }
    }
}

/// Says once that a sandbox has no splice(2): all is copied then, which costs several times as much.
fn tell_of_refusal(errno: &io::Errno) {
    static SAID: Once = Once::new();
    if matches!(*errno, io::Errno::PERM | io::Errno::NOSYS) {
        let error = in_words(&(*errno).into());
        SAID.call_once(|| tracing::warn!(error, "splice(2) is refused, bytes are copied"));
    }
}

/// `SPLICE_F_MORE` stays away: it holds small writes back until more comes. The kernel sets it by
/// itself between the buffers of one pipe.
const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Syscalls for Kernel<'_> {
    type Pipe = Pipe;

    fn recv(&mut self, from: Side, buf: &mut [u8]) -> io::Result<usize> {
        retry_on_intr(|| rustix::net::recv(self.socket(from), &mut *buf, RecvFlags::empty()))
            .map(|(n, _)| n)
    }

    fn send(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        retry_on_intr(|| rustix::net::send(self.socket(to), bytes, SendFlags::NOSIGNAL))
    }

    // MSG_MORE: the end then travels in the segment of the bytes, a packet less for each of three
    // hosts.
    fn send_last(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
        retry_on_intr(|| rustix::net::send(self.socket(to), bytes, flags))
    }

    fn fill(&mut self, from: Side, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let len = pipe.size.min(most);
        let n = retry_on_intr(|| splice(self.socket(from), None, &pipe.write, None, len, SPLICE))
            .inspect_err(tell_of_refusal)?;
        pipe.level += n;
        Ok(n)
    }

    // A write to a closed connection raises SIGPIPE here; Rust programs start with it ignored.
    fn drain(&mut self, pipe: &mut Pipe, to: Side) -> io::Result<usize> {
        let n =
            retry_on_intr(|| splice(&pipe.read, None, self.socket(to), None, pipe.level, SPLICE))?;
        if n == 0 {
            // A pipe with bytes in it and an open writer has no end; do not spin on one that
            // claims it.
            return Err(io::Errno::IO);
        }
        pipe.level -= n;
        Ok(n)
    }

    fn take_pipe(&mut self) -> Option<Pipe> {
        self.pipes.take()
    }

    fn give_pipe(&mut self, pipe: Pipe) {
        self.pipes.give(pipe);
    }

    fn shutdown(&mut self, to: Side) -> io::Result<()> {
        rustix::net::shutdown(self.socket(to), Shutdown::Write)
    }
}
