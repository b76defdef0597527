//! What is to be logged, between the threads that must not wait and the one that writes.
//!
//! Standard output may be a pipe that nobody reads, or a journal that hangs; only the log's own thread
//! finds out. When it cannot keep up, what does not fit is counted as dropped and everybody else
//! goes on.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use crate::mutex::lock;

/// How long the writer lets records gather once there is one: waking it for each would cost more
/// than writing it. A line is waited for by somebody, and written at once.
const GATHER: Duration = Duration::from_millis(20);

/// How many lines find room beyond the records: a flood of sessions must not hide what was said
/// about it.
const LINES_BEYOND: usize = 1024;

/// The queue.
#[derive(Debug)]
pub struct LogQueue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    finished: Condvar,
    capacity: usize,
    /// Whether anybody wants records.
    wanted: Arc<AtomicBool>,
    dropped: AtomicU64,
}

/// What is to be logged.
#[derive(Debug)]
pub(super) enum Entry<T> {
    /// Something the writer makes a line of, and when it happened.
    Record(SystemTime, T),
    /// A line with its end.
    Line(Vec<u8>),
}

#[derive(Debug)]
struct State<T> {
    entries: VecDeque<Entry<T>>,
    /// Whether there is a line among them.
    urgent: bool,
    /// Whether some have been taken that may not be written yet.
    writing: bool,
    closed: bool,
    finished: bool,
}

impl<T> LogQueue<T> {
    /// A queue of at most `capacity` records, and some lines.
    pub fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                urgent: false,
                writing: false,
                closed: false,
                finished: false,
            }),
            filled: Condvar::new(),
            finished: Condvar::new(),
            capacity,
            wanted: Arc::new(AtomicBool::new(true)),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether records are wanted; those that are not go nowhere.
    pub(super) fn wanted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.wanted)
    }

    /// Adds a record, or counts it as dropped.
    pub fn push(&self, record: T) {
        if !self.wanted.load(Relaxed) {
            return;
        }
        self.add(Entry::Record(SystemTime::now(), record), self.capacity);
    }

    /// Adds a line, or counts it as dropped.
    pub(super) fn push_line(&self, line: Vec<u8>) {
        self.add(Entry::Line(line), self.capacity + LINES_BEYOND);
    }

    fn add(&self, entry: Entry<T>, room: usize) {
        let mut state = lock(&self.state);
        if state.entries.len() >= room {
            drop(state);
            self.count_dropped(1);
            return;
        }
        let urgent = matches!(entry, Entry::Line(_));
        let waited_for = state.entries.is_empty() || (urgent && !state.urgent);
        state.urgent |= urgent;
        state.entries.push_back(entry);
        drop(state);
        if waited_for {
            self.filled.notify_one();
        }
    }

    /// Waits for entries and takes all there are; none when the queue is closed and empty.
    pub(super) fn take(&self) -> Option<VecDeque<Entry<T>>> {
        let mut state = lock(&self.state);
        state.writing = false;
        if state.entries.is_empty() {
            self.finished.notify_all();
        }
        let state = self
            .filled
            .wait_while(state, |state| state.entries.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = self
            .filled
            .wait_timeout_while(state, GATHER, |state| !state.urgent && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.urgent = false;
        let entries = std::mem::take(&mut state.entries);
        state.writing = !entries.is_empty();
        (!entries.is_empty()).then_some(entries)
    }

    /// Says that so many entries have not been written.
    pub(super) fn count_dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Relaxed);
    }

    /// Says that nothing will be taken any more.
    pub(super) fn finish(&self) {
        lock(&self.state).finished = true;
        self.finished.notify_all();
    }

    /// Lets the writer finish once the queue is empty, and waits for it no longer than `within`.
    pub fn close(&self, within: Duration) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.filled.notify_one();
        // What is still not written then never will be: nobody reads it.
        drop(
            self.finished
                .wait_timeout_while(state, within, |state| !state.finished)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Waits until everything is written, no longer than `within`.
    pub fn flush(&self, within: Duration) {
        let mut state = lock(&self.state);
        // Records need not gather any more.
        state.urgent = true;
        self.filled.notify_one();
        let busy = |state: &mut State<T>| state.writing || !state.entries.is_empty();
        drop(
            self.finished
                .wait_timeout_while(state, within, busy)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Goes on counting after so many that were dropped.
    pub fn after(self, dropped: u64) -> Self {
        let dropped = dropped.into();
        Self { dropped, ..self }
    }

    /// Entries dropped so far, and those that would be if nothing were written any more.
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped() + lock(&self.state).entries.len() as u64
    }

    /// Entries dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Entry, LINES_BEYOND, LogQueue};

    #[test]
    fn what_does_not_fit_is_counted_and_the_rest_is_taken_in_order() {
        let queue = LogQueue::new(2);
        queue.push(1);
        queue.push_line(b"line\n".to_vec());
        queue.push(2);
        queue.close(Duration::ZERO);
        let mut taken = queue.take().expect("what was pushed");
        assert!(matches!(taken.pop_front(), Some(Entry::Record(_, 1))));
        assert!(matches!(taken.pop_front(), Some(Entry::Line(line)) if line == b"line\n"));
        assert!(taken.is_empty());
        assert_eq!(queue.dropped(), 1);
        assert!(queue.take().is_none());
    }

    #[test]
    fn what_waits_is_written_before_the_next_image_takes_over() {
        let queue = LogQueue::new(2).after(7);
        queue.push(1);
        assert_eq!((queue.dropped(), queue.dropped_in_all()), (7, 8));
        std::thread::scope(|scope| {
            scope.spawn(|| while queue.take().is_some() {});
            queue.flush(Duration::from_secs(60));
            assert_eq!(queue.dropped_in_all(), 7);
            queue.close(Duration::ZERO);
        });
    }

    #[test]
    fn a_flood_of_records_leaves_room_for_lines() {
        let queue = LogQueue::new(2);
        (1..=3).for_each(|record| queue.push(record));
        for _ in 0..=LINES_BEYOND {
            queue.push_line(Vec::new());
        }
        assert_eq!(queue.dropped(), 2);
    }
}
