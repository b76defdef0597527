//! A bounded queue between threads that must not wait and a thread that may.
//!
//! Workers push the records of ended sessions; one thread writes them. When the writer cannot keep
//! up, records are counted as dropped and the workers go on.

use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// How long the writer lets records gather once there is one: waking it for each would cost more
/// than writing it.
const GATHER: Duration = Duration::from_millis(20);

/// The queue.
#[derive(Debug)]
pub struct LogQueue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    capacity: usize,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State<T> {
    records: VecDeque<T>,
    closed: bool,
}

impl<T> LogQueue<T> {
    /// A queue of at most `capacity` records.
    pub fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                records: VecDeque::new(),
                closed: false,
            }),
            filled: Condvar::new(),
            capacity,
            dropped: AtomicU64::new(0),
        }
    }

    /// Adds a record, or counts it as dropped.
    pub fn push(&self, record: T) {
        let mut state = self.lock();
        if state.records.len() >= self.capacity {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let was_empty = state.records.is_empty();
        state.records.push_back(record);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Hands every record to `write` until the queue is closed and empty.
    pub fn write_all(&self, mut write: impl FnMut(T)) {
        loop {
            let mut state = self.lock();
            while state.records.is_empty() && !state.closed {
                state = self
                    .filled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let closed = state.closed;
            drop(state);
            if !closed {
                thread::sleep(GATHER);
            }
            let records = std::mem::take(&mut self.lock().records);
            if records.is_empty() && closed {
                return;
            }
            records.into_iter().for_each(&mut write);
        }
    }

    /// Lets the writer finish once the queue is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Records dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    // A record is pushed or taken whole, so a panic elsewhere cannot leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::LogQueue;

    #[test]
    fn what_does_not_fit_is_counted_and_the_rest_is_written_in_order() {
        let queue = LogQueue::new(2);
        for record in 1..=3 {
            queue.push(record);
        }
        queue.close();
        let mut written = Vec::new();
        queue.write_all(|record| written.push(record));
        assert_eq!(written, [1, 2]);
        assert_eq!(queue.dropped(), 1);
    }
}
