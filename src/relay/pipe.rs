//! Pipes and the pools they are borrowed from.
//!
//! Pipe memory is budgeted by the kernel per user (pipe(7), `pipe-user-pages-soft`): past it a new
//! pipe has two slots and cannot be enlarged. So pipes are few, belong to whoever moves bulk at the
//! moment, and a session that gets none copies. One [`PipeBudget`] bounds the process; each worker
//! keeps its free pipes in a [`PipePool`] of its own.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::Level;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// A pipe, and how many bytes are in it.
///
/// The level is counted from the results of splice(2), not read back: it may exceed the pipe's
/// nominal size, because a slot can hold more than a page.
#[derive(Debug)]
pub struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
    pub(super) level: usize,
}

impl Level for Pipe {
    fn level(&self) -> usize {
        self.level
    }
}

/// How many pipes the process may have, and how many it has.
#[derive(Debug)]
pub struct PipeBudget {
    limit: usize,
    size: usize,
    in_use: AtomicUsize,
    free: AtomicUsize,
    denied: AtomicU64,
}

/// The smallest pipe worth having, in bytes: below, splicing costs more than copying.
const LEAST_SIZE: usize = 64 * 1024;

impl PipeBudget {
    /// A budget of `limit` pipes of `size` bytes.
    pub fn new(limit: usize, size: usize) -> Self {
        Self {
            limit,
            size,
            in_use: AtomicUsize::new(0),
            free: AtomicUsize::new(0),
            denied: AtomicU64::new(0),
        }
    }

    /// The most pipes there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Pipes lent to sessions.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }

    /// Pipes kept for the next borrower.
    pub fn free(&self) -> usize {
        self.free.load(Relaxed)
    }

    /// Times a session asked for a pipe and got none.
    pub fn denied(&self) -> u64 {
        self.denied.load(Relaxed)
    }
}

/// The pipes one worker lends.
#[derive(Debug)]
pub struct PipePool {
    budget: Arc<PipeBudget>,
    free: Vec<Pipe>,
    /// Requests still to be declined without asking the kernel, after it said no.
    embargo: u32,
}

/// Free pipes a pool keeps; beyond, they are closed.
const KEEP: usize = 32;

/// Requests to decline after the kernel said no: finding out again costs five system calls.
const EMBARGO: u32 = 256;

impl PipePool {
    /// An empty pool under `budget`.
    pub fn new(budget: Arc<PipeBudget>) -> Self {
        Self {
            budget,
            free: Vec::new(),
            embargo: 0,
        }
    }

    /// The size asked for when a pipe is made, in bytes.
    pub fn pipe_size(&self) -> usize {
        self.budget.size
    }

    /// Lends an empty pipe, if there is one to lend.
    pub fn take(&mut self) -> Option<Pipe> {
        let pipe = match self.free.pop() {
            Some(pipe) => {
                self.budget.free.fetch_sub(1, Relaxed);
                Some(pipe)
            }
            None => self.make(),
        };
        match pipe {
            Some(_) => self.budget.in_use.fetch_add(1, Relaxed) as u64,
            None => self.budget.denied.fetch_add(1, Relaxed),
        };
        pipe
    }

    /// Takes a pipe back. One with bytes in it is closed: they belong to one session, and the next
    /// borrower must never see them.
    pub fn give(&mut self, pipe: Pipe) {
        self.budget.in_use.fetch_sub(1, Relaxed);
        if pipe.level == 0 && self.free.len() < KEEP {
            debug_assert_eq!(rustix::io::ioctl_fionread(&pipe.read), Ok(0));
            self.budget.free.fetch_add(1, Relaxed);
            self.free.push(pipe);
        }
    }

    fn make(&mut self) -> Option<Pipe> {
        // Two workers may pass this together and exceed the limit by one each; the kernel's own
        // budget is the hard one.
        if self.budget.in_use() + self.budget.free() >= self.budget.limit {
            return None;
        }
        if self.embargo > 0 {
            self.embargo -= 1;
            return None;
        }
        let pipe = Self::open(self.budget.size);
        if pipe.is_none() {
            self.embargo = EMBARGO;
        }
        pipe
    }

    fn open(size: usize) -> Option<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Enlarging fails once the user's budget is spent; a pipe of the default size still pays.
        let usable = fcntl_setpipe_size(&write, size).is_ok()
            || fcntl_getpipe_size(&write).is_ok_and(|got| got >= LEAST_SIZE.min(size));
        usable.then_some(Pipe {
            read,
            write,
            level: 0,
        })
    }
}

impl Drop for PipePool {
    fn drop(&mut self) {
        self.budget.free.fetch_sub(self.free.len(), Relaxed);
    }
}
