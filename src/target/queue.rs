//! Clients that wait until a member has room, in the order in which they came.
//!
//! Only the first may take a place. It is woken when a place is given back, and whoever comes first
//! after it when it leaves, whatever for: so nobody is passed over, and no place stays empty while
//! somebody waits. Waiting costs nothing but the ticket.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    task::Waker,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    mutex::lock,
    setting::{As, Count, KeyTable, Span},
};

/// Whether clients wait when all targets are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct QueueSettings {
    /// Clients that may wait at once.
    #[serde(with = "As::<Count<u32>>")]
    pub max: u32,
    /// How long each may wait.
    #[serde(with = "As::<Span>")]
    pub timeout: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            max: 100,
            timeout: Duration::from_secs(10),
        }
    }
}

impl KeyTable for QueueSettings {
    const EXAMPLE: &'static str = "{ max = 100, timeout = \"10s\" }";
}

#[derive(Debug, Default)]
pub struct Queue {
    line: Mutex<Line>,
    /// How many wait, for who gives a place back and need not look further.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Line {
    /// The number of the next ticket.
    next: u64,
    /// By number, with what to wake.
    tickets: VecDeque<(u64, Option<Waker>)>,
}

impl Line {
    fn place(&self, number: u64) -> Result<usize, usize> {
        self.tickets
            .binary_search_by_key(&number, |(number, _)| *number)
    }

    fn first(&self) -> Option<Waker> {
        self.tickets.front()?.1.clone()
    }
}

/// A place in the queue; dropping it gives it up.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<Queue>,
    number: u64,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// A place behind all others, unless `max` wait already.
    pub fn join(self: &Arc<Self>, max: u32) -> Option<Ticket> {
        let mut line = lock(&self.line);
        if line.tickets.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return None;
        }
        let number = line.next;
        Some(self.admit(&mut line, number))
    }

    /// The place it had before.
    pub fn join_again(self: &Arc<Self>, number: u64) -> Ticket {
        let mut line = lock(&self.line);
        let number = match line.place(number) {
            Ok(_) => line.next,
            Err(_) => number,
        };
        self.admit(&mut line, number)
    }

    fn admit(self: &Arc<Self>, line: &mut Line, number: u64) -> Ticket {
        let place = line.place(number).unwrap_or_else(|place| place);
        line.tickets.insert(place, (number, None));
        line.next = line.next.max(number + 1);
        self.len.store(line.tickets.len(), Relaxed);
        // Whoever joined looks for room after this, and whoever gives room back looks for it.
        fence(SeqCst);
        Ticket {
            queue: Arc::clone(self),
            number,
        }
    }

    /// Wakes the first: there may be room.
    pub fn wake_first(&self) {
        fence(SeqCst);
        if self.len() == 0 {
            return;
        }
        let first = lock(&self.line).first();
        if let Some(first) = first {
            first.wake();
        }
    }
}

impl Ticket {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it is that of a place in this queue.
    pub fn is_of(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }

    pub fn is_first(&self) -> bool {
        let line = lock(&self.queue.line);
        let first = line.tickets.front();
        first.is_some_and(|(number, _)| *number == self.number)
    }

    /// What to wake when it is its turn.
    pub fn wake(&self, waker: Waker) {
        let mut line = lock(&self.queue.line);
        if let Ok(place) = line.place(self.number) {
            line.tickets[place].1 = Some(waker);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = lock(&self.queue.line);
        let Ok(place) = line.place(self.number) else {
            return;
        };
        line.tickets.remove(place);
        self.queue.len.store(line.tickets.len(), Relaxed);
        let next = line.first().filter(|_| place == 0);
        drop(line);
        if let Some(next) = next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering::Relaxed},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn waiting(queue: &Arc<Queue>) -> (Ticket, Arc<Woken>) {
        let (ticket, woken) = (queue.join(100).expect("there is room"), Arc::default());
        ticket.wake(Waker::from(Arc::clone(&woken)));
        (ticket, woken)
    }

    #[test]
    fn only_the_first_is_woken_and_then_the_next() {
        let queue = Arc::new(Queue::default());
        let (first, second, third) = (waiting(&queue), waiting(&queue), waiting(&queue));
        let woken = || [&first.1, &second.1, &third.1].map(|woken| woken.0.load(Relaxed));
        queue.wake_first();
        assert_eq!(woken(), [1, 0, 0]);
        assert!(first.0.is_first() && !second.0.is_first());
        drop(second.0);
        assert_eq!(woken(), [1, 0, 0], "who leaves the middle wakes nobody");
        drop(first.0);
        assert_eq!(
            [&first.1, &third.1].map(|woken| woken.0.load(Relaxed)),
            [1, 1]
        );
        assert!(third.0.is_first());
        drop(third.0);
        assert_eq!(queue.len(), 0);
        queue.wake_first();
    }

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let queue = Arc::new(Queue::default());
        let tickets = [queue.join(2), queue.join(2), queue.join(2)];
        assert_eq!(tickets.map(|ticket| ticket.is_some()), [true, true, false]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn places_are_as_they_were_whoever_takes_them_up_first() {
        let queue = Arc::new(Queue::default());
        let again = [7, 3, 5].map(|number| queue.join_again(number));
        let late = queue.join(100).expect("there is room");
        let [seventh, third, fifth] = again;
        assert!(third.is_first());
        drop(third);
        assert!(fifth.is_first());
        drop(fifth);
        assert!(seventh.is_first());
        drop(seventh);
        assert!(late.is_first());
    }
}
