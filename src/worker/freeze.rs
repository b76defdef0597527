//! Standing still so that all can be handed over: what control and the workers have in common then.
//!
//! A worker that is told to freeze finishes its turn and stops; when all have stopped, nobody sends
//! anything any more. So what is on its way from one to another is in a queue by then: each empties its
//! own, hands over what it has, and waits to be thawed. It then goes on as if nothing had happened:
//! what sockets reported meanwhile is still with epoll.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::handover::Sink;

/// What all have in common while workers are being frozen, and are.
pub struct Freeze {
    workers: usize,
    sink: Arc<dyn Sink>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Workers that send nothing any more.
    stopped: usize,
    /// Those that have handed over all they have, and how many sessions that were.
    saved: usize,
    sessions: usize,
    /// Why one could not.
    failed: Option<String>,
    thawed: bool,
}

impl fmt::Debug for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, state, .. } = self;
        let freeze = &mut f.debug_struct("Freeze");
        freeze.field("workers", workers).field("state", state);
        freeze.finish_non_exhaustive()
    }
}

impl Freeze {
    pub(super) fn new(workers: usize, sink: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(Self {
            workers,
            sink,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Stops a worker, and has it hand over what it has when all have stopped; returns when it may go
    /// on.
    pub(super) fn stand_still(&self, save: impl FnOnce(&dyn Sink) -> Result<usize, String>) {
        let mut state = self.state();
        state.stopped += 1;
        self.changed.notify_all();
        while state.stopped < self.workers && !state.thawed {
            state = self.wait(state);
        }
        if state.thawed {
            return;
        }
        drop(state);
        let saved = save(&*self.sink);
        let mut state = self.state();
        match saved {
            Ok(sessions) => {
                state.saved += 1;
                state.sessions += sessions;
            }
            Err(why) => _ = state.failed.get_or_insert(why),
        }
        self.changed.notify_all();
        while !state.thawed {
            state = self.wait(state);
        }
    }

    /// Waits until every worker has handed over what it has.
    fn saved(&self, within: Duration) -> Result<usize, String> {
        let deadline = Instant::now() + within;
        let mut state = self.state();
        while state.saved < self.workers {
            if let Some(why) = &state.failed {
                return Err(why.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let late = self.workers - state.stopped.min(self.workers);
                return Err(match late {
                    0 => format!("not every worker has handed over its sessions within {within:?}"),
                    late => format!("{late} of {} workers are busy", self.workers),
                });
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.sessions)
    }

    fn thaw(&self) {
        self.state().thawed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is made whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Workers that stand still. They go on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    freeze: Arc<Freeze>,
    sessions: usize,
}

impl Frozen {
    /// Waits until all workers stand still and have handed over what they have.
    pub(super) fn begin(freeze: Arc<Freeze>, within: Duration) -> Result<Self, String> {
        let mut frozen = Self {
            freeze,
            sessions: 0,
        };
        frozen.sessions = frozen.freeze.saved(within)?;
        Ok(frozen)
    }

    /// How many sessions were handed over, those among them whose header is awaited.
    pub fn sessions(&self) -> usize {
        self.sessions
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.freeze.thaw();
    }
}
