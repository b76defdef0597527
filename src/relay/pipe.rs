//! Pipes and the pools they are borrowed from.
//!
//! Pipe memory is budgeted by the kernel per user (pipe(7), `pipe-user-pages-soft`): past it a new
//! pipe has two slots and cannot be enlarged. So pipes are few, belong to whoever has bytes in
//! flight at the moment, and a session that gets none copies. One [`PipeBudget`] bounds the process;
//! each worker keeps its free pipes in a [`PipePool`] of its own.
//!
//! There are two sizes. Half of the memory goes to large pipes, which move most in a call; sinks
//! that do not keep up hold on to theirs, and when those have taken that half, the rest is divided
//! into many small ones.

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
    /// Bytes it counts for in the kernel's budget, and the most to ask of a splice into it.
    pub(super) size: usize,
}

impl Level for Pipe {
    fn level(&self) -> usize {
        self.level
    }
}

/// How many pipes the process may have, of what size, and how many it has.
#[derive(Debug)]
pub struct PipeBudget {
    limit: AtomicUsize,
    memory: AtomicUsize,
    size: AtomicUsize,
    /// Bytes of the pipes there are.
    spent: AtomicUsize,
    in_use: AtomicUsize,
    free: AtomicUsize,
    denied: AtomicU64,
}

/// The size of a small pipe, in bytes: below, splicing costs more than copying.
pub const SMALL_PIPE: usize = 64 * 1024;

impl PipeBudget {
    /// A budget of `limit` pipes with `memory` bytes in all, the large ones having `size` bytes.
    pub fn new(limit: usize, memory: usize, size: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            memory: AtomicUsize::new(memory),
            size: AtomicUsize::new(size),
            spent: AtomicUsize::new(0),
            in_use: AtomicUsize::new(0),
            free: AtomicUsize::new(0),
            denied: AtomicU64::new(0),
        }
    }

    /// Goes on counting after so many times that a session got none.
    pub fn after(self, denied: u64) -> Self {
        let denied = denied.into();
        Self { denied, ..self }
    }

    /// Has another budget count for the pipes made from now on. Those there are stay as long as they
    /// would have.
    pub fn set(&self, limit: usize, memory: usize, size: usize) {
        self.limit.store(limit, Relaxed);
        self.memory.store(memory, Relaxed);
        self.size.store(size, Relaxed);
    }

    /// The size the next pipe may have. Two workers may ask at once and exceed the budget by a pipe
    /// each; the kernel's own is the hard one.
    fn next_size(&self) -> Option<usize> {
        let spent = self.spent.load(Relaxed);
        let (size, memory) = (self.size.load(Relaxed), self.memory.load(Relaxed));
        let small = size.min(SMALL_PIPE);
        if self.in_use() + self.free() >= self.limit() || spent + small > memory {
            None
        } else if spent + size <= memory / 2 {
            Some(size)
        } else {
            Some(small)
        }
    }

    /// Counts a pipe that was handed over with bytes in it, though there may be too many then.
    pub(super) fn take_up(&self, pipe: Pipe) -> Pipe {
        self.spent.fetch_add(pipe.size, Relaxed);
        self.in_use.fetch_add(1, Relaxed);
        pipe
    }

    /// The most pipes there may be.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
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
    /// Free pipes, the largest last.
    free: Vec<Pipe>,
    /// Requests still to be declined without asking the kernel, after it said no.
    embargo: u32,
}

/// Free pipes a pool keeps; beyond, they are closed. Lent for a turn, one does for all the sessions
/// whose sinks keep up.
const KEEP: usize = 16;

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
        if pipe.level > 0 || self.free.len() >= KEEP {
            self.budget.spent.fetch_sub(pipe.size, Relaxed);
            return;
        }
        debug_assert_eq!(rustix::io::ioctl_fionread(&pipe.read), Ok(0));
        self.budget.free.fetch_add(1, Relaxed);
        let place = self.free.partition_point(|other| other.size < pipe.size);
        self.free.insert(place, pipe);
    }

    fn make(&mut self) -> Option<Pipe> {
        let size = self.budget.next_size()?;
        if self.embargo > 0 {
            self.embargo -= 1;
            return None;
        }
        let pipe = Self::open(size);
        match &pipe {
            Some(pipe) => _ = self.budget.spent.fetch_add(pipe.size, Relaxed),
            None => self.embargo = EMBARGO,
        }
        pipe
    }

    fn open(size: usize) -> Option<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Resizing fails once the user's budget is spent; a pipe of the default size still pays.
        let size = match fcntl_setpipe_size(&write, size) {
            Ok(size) => size,
            Err(_) => fcntl_getpipe_size(&write)
                .ok()
                .filter(|&got| got >= size.min(SMALL_PIPE))?,
        };
        Some(Pipe {
            read,
            write,
            level: 0,
            size,
        })
    }
}

impl Drop for PipePool {
    fn drop(&mut self) {
        let bytes: usize = self.free.iter().map(|pipe| pipe.size).sum();
        self.budget.spent.fetch_sub(bytes, Relaxed);
        self.budget.free.fetch_sub(self.free.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{ioctl_fionread, write};

    #[test]
    fn a_pipe_with_bytes_in_it_goes_to_nobody_else() {
        let budget = Arc::new(PipeBudget::new(4, 1 << 20, SMALL_PIPE));
        let mut pool = PipePool::new(Arc::clone(&budget));
        let mut left_behind = pool.take().expect("the first pipe");
        left_behind.level = write(&left_behind.write, b"somebody's").expect("an empty pipe");
        pool.give(left_behind);
        assert_eq!((budget.free(), budget.in_use()), (0, 0));
        let next = pool.take().expect("another pipe");
        assert_eq!(ioctl_fionread(&next.read), Ok(0));
        pool.give(next);
        assert_eq!((budget.free(), budget.in_use()), (1, 0));
    }
}
