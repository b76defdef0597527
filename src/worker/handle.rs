//! Control's end of a worker: starting it, telling it something, waiting for its end.

use std::{
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc,
    },
    thread,
};

use rustix::event::{EventfdFlags, eventfd};

use super::{Command, Shared, event_loop::EventLoop};
use crate::os_error::in_words;

/// A way to reach a worker.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    sessions: Arc<AtomicUsize>,
    beats: Arc<AtomicU64>,
    draining: Arc<AtomicBool>,
}

impl WorkerHandle {
    /// Puts a command into the worker's queue. A worker that has ended ignores it.
    pub fn send(&self, command: Command) {
        let _ = self.commands.send(command);
        self.wake();
    }

    /// Has the worker look round, whatever it waits for.
    pub(super) fn wake(&self) {
        // An eventfd refuses only when its counter is full, and then the worker wakes anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    /// How often the worker has answered [`Command::Beat`].
    pub fn beats(&self) -> u64 {
        self.beats.load(Relaxed)
    }

    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    /// Sessions the worker has.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    /// Whether the worker hands no connection to others any more.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Acquire)
    }

    /// Says so. What was handed over before is seen by whoever sees this.
    pub(super) fn publish_draining(&self) {
        self.draining.store(true, Release);
    }

    pub(super) fn publish_sessions(&self, sessions: usize) {
        self.sessions.store(sessions, Relaxed);
    }
}

/// Starts `count` workers. `on_end` is called on each one's thread as the last thing it does, with
/// the error or the panic that ended it.
///
/// # Errors
///
/// What the kernel refused: a thread, an epoll instance or an eventfd.
pub fn spawn(
    count: usize,
    shared: &Arc<Shared>,
    on_end: impl Fn(Result<(), String>) + Clone + Send + 'static,
) -> std::io::Result<Vec<WorkerHandle>> {
    let mut handles = Vec::with_capacity(count);
    let mut queues = Vec::with_capacity(count);
    for _ in 0..count {
        let (commands, queue) = mpsc::channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        handles.push(WorkerHandle {
            commands,
            wake: Arc::new(wake),
            sessions: Arc::default(),
            beats: Arc::default(),
            draining: Arc::default(),
        });
        queues.push(queue);
    }
    for (number, queue) in queues.into_iter().enumerate() {
        let event_loop = EventLoop::new(
            number,
            handles.clone(),
            queue,
            Arc::clone(&handles[number].wake),
            Arc::clone(shared),
        )?;
        let on_end = on_end.clone();
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                // The loop is gone afterwards, so nobody sees what a panic left half done.
                on_end(match catch_unwind(AssertUnwindSafe(|| event_loop.run())) {
                    Ok(result) => result.map_err(|error| in_words(&error)),
                    Err(_) => Err("it panicked".to_owned()),
                });
            })?;
    }
    Ok(handles)
}
