//! Control's end of a worker: starting it, telling it something, waiting for its end.

use std::{
    convert::Infallible,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
    process::{Pid, setpriority_process},
    thread::gettid,
};

use super::{Command, OrderNumber, WorkerContext, event_loop::EventLoop};
use crate::{os_error::in_words, text::of_panic};

/// Which of a pair a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerRole {
    /// It accepts, and serves all sessions that do not move bulk.
    Interactive,
    /// It serves those that do.
    Bulk,
}

/// A way to reach a worker.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    role: WorkerRole,
    pair: usize,
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    sessions: Arc<AtomicUsize>,
    beats: Arc<AtomicU64>,
    /// Its thread, once that has begun.
    thread: Arc<OnceLock<Pid>>,
    confirmed: Arc<AtomicU32>,
}

impl WorkerHandle {
    pub fn role(&self) -> WorkerRole {
        self.role
    }

    /// What the worker is called in metrics: its thread's name without `worker-`.
    pub fn label(&self) -> String {
        match self.role {
            WorkerRole::Interactive => self.pair.to_string(),
            WorkerRole::Bulk => format!("{}-bulk", self.pair),
        }
    }

    /// Puts a command into the worker's queue. A worker that has ended ignores it.
    pub fn send(&self, command: Command) {
        let _ = self.commands.send(command);
        self.wake();
    }

    /// Has the worker look at its queue.
    pub(super) fn wake(&self) {
        // An eventfd refuses only when its counter is full, and then the worker wakes anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    /// How often the worker has answered [`Command::Beat`].
    pub fn beats(&self) -> u64 {
        self.beats.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn eventfd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.wake)
    }

    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    /// The last order the worker has carried out. What it had sent before then is in the queues.
    pub(super) fn confirmed(&self) -> OrderNumber {
        OrderNumber(self.confirmed.load(SeqCst))
    }

    pub(super) fn confirm(&self, OrderNumber(number): OrderNumber) {
        // Of two workers that confirm at once, one has to see what the other did.
        self.confirmed.store(number, SeqCst);
    }

    pub fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    pub(super) fn publish_sessions(&self, sessions: usize) {
        self.sessions.store(sessions, Relaxed);
    }
}

/// Puts the workers for bulk at a nice value (see nice(2)). To raise it needs no privilege, to lower
/// it does.
///
/// # Errors
///
/// The kernel's refusal, or that of the sandbox around the process. Nothing has changed then.
pub fn set_bulk_nice(workers: &[WorkerHandle], bulk_nice: u8) -> Result<(), Errno> {
    workers
        .iter()
        .filter(|worker| worker.role == WorkerRole::Bulk)
        .filter_map(|worker| worker.thread.get())
        // Of one thread only, as Linux has it.
        .try_for_each(|thread| setpriority_process(Some(*thread), bulk_nice.into()))
}

/// The ways to reach `count` pairs of workers, the front ones first, and their queues.
pub(super) fn prepare(
    count: usize,
) -> std::io::Result<(Vec<WorkerHandle>, Vec<mpsc::Receiver<Command>>)> {
    let mut handles = Vec::with_capacity(2 * count);
    let mut queues = Vec::with_capacity(2 * count);
    for role in [WorkerRole::Interactive, WorkerRole::Bulk] {
        for pair in 0..count {
            let (commands, queue) = mpsc::channel();
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            handles.push(WorkerHandle {
                role,
                pair,
                commands,
                wake: Arc::new(wake),
                sessions: Arc::default(),
                beats: Arc::default(),
                confirmed: Arc::default(),
                thread: Arc::default(),
            });
            queues.push(queue);
        }
    }
    Ok((handles, queues))
}

/// Workers that have not begun; they begin when this is dropped. What they were sent before then is
/// what each does first, before any of them can give another one a session.
#[derive(Debug, Default)]
pub struct NotBegun(Vec<mpsc::Sender<Infallible>>);

/// Starts `count` pairs of workers, the front ones first. `on_end` is called on each one's thread as
/// the last thing it does, with the error or the panic that ended it.
///
/// # Errors
///
/// What the kernel refused: a thread, an epoll instance or an eventfd.
pub fn spawn(
    count: usize,
    context: &Arc<WorkerContext>,
    on_end: impl Fn(Result<(), String>) + Clone + Send + 'static,
) -> std::io::Result<(Vec<WorkerHandle>, NotBegun)> {
    let (handles, queues) = prepare(count)?;
    let mut not_begun = NotBegun::default();
    let (known, all_known) = mpsc::channel::<Infallible>();
    for (number, queue) in queues.into_iter().enumerate() {
        let event_loop = EventLoop::new(
            number,
            handles.clone(),
            queue,
            Arc::clone(&handles[number].wake),
            Arc::clone(context),
        )?;
        let on_end = on_end.clone();
        let (thread, known) = (Arc::clone(&handles[number].thread), known.clone());
        let (begin, begins) = mpsc::channel();
        not_begun.0.push(begin);
        let all = handles.clone();
        thread::Builder::new()
            .name(format!("worker-{}", handles[number].label()))
            .spawn(move || {
                thread.get_or_init(gettid);
                drop(known);
                // Nothing is sent: it ends when the worker may begin.
                while begins.recv().is_ok() {}
                // The loop is gone afterwards, so nobody sees what a panic left half done.
                let result = match catch_unwind(AssertUnwindSafe(|| event_loop.run())) {
                    Ok(result) => result.map_err(|error| in_words(&error)),
                    Err(panic) => Err(format!("it panicked: {}", of_panic(&*panic))),
                };
                // Nobody has to wait for it any more, while others may have sessions yet.
                all[number].beats.store(u64::MAX, Relaxed);
                all[number].confirm(OrderNumber::ALL);
                all.iter().for_each(WorkerHandle::wake);
                on_end(result);
            })?;
    }
    drop(known);
    // Nothing is sent: it ends when the last thread has said which it is.
    while all_known.recv().is_ok() {}
    Ok((handles, not_begun))
}
