//! Up to when everything that has arrived was looked at.
//!
//! A process that stood still finds its deadlines passed before it has seen what arrived meanwhile. So
//! the silence of a peer is believed only up to a time after which epoll was asked and had nothing more
//! to report.

use std::time::{Duration, Instant};

/// The time by which a worker acts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: Instant,
    /// What had arrived by then has been looked at; not later than `now`.
    pub(super) reported: Instant,
}

/// How far back silence can be believed.
#[derive(Debug)]
pub(super) struct Reported {
    until: Instant,
    /// Several waits in a row that filled their room.
    full: Option<Full>,
}

/// Waits in a row that filled their room.
#[derive(Debug, Clone, Copy)]
struct Full {
    began: Instant,
    /// What may have been ready then.
    watched: usize,
    reported: usize,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) began: Instant,
    /// How long it was to take at most.
    pub(super) patience: Option<Duration>,
    pub(super) events: usize,
    /// What it could have reported at most.
    pub(super) room: usize,
    /// Sockets it could report on. What it reported has some of them closed.
    pub(super) watched: usize,
}

impl Reported {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            until: now,
            full: None,
        }
    }

    /// Takes in a wait whose events have been served.
    pub(super) fn note(&mut self, wait: Wait) {
        let until = match (wait.events, wait.patience) {
            // Epoll looks once more when its time is over.
            (0, Some(patience)) => wait.began + patience,
            (events, _) if events < wait.room => wait.began,
            (events, _) => {
                // What is ready is reported in turn: all that was at the first wait has been reported
                // when as much has been as there are sockets.
                let mut full = self.full.unwrap_or(Full {
                    began: wait.began,
                    watched: wait.watched,
                    reported: 0,
                });
                full.reported += events;
                if full.reported < full.watched {
                    self.full = Some(full);
                    return;
                }
                full.began
            }
        };
        self.full = None;
        self.until = self.until.max(until);
    }

    /// What had arrived by then has been looked at.
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(began: Instant, events: usize) -> Wait {
        Wait {
            began,
            patience: None,
            events,
            room: 256,
            watched: 600,
        }
    }

    #[test]
    fn a_wait_tells_of_what_came_before_it_began_unless_it_ran_out() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reported = Reported::new(start);
        reported.note(wait(at(1), 3));
        assert_eq!(reported.until(), at(1));
        reported.note(Wait {
            patience: Some(Duration::from_secs(5)),
            ..wait(at(2), 0)
        });
        assert_eq!(reported.until(), at(7));
        // It was woken before its time.
        reported.note(Wait {
            patience: Some(Duration::from_secs(5)),
            ..wait(at(8), 1)
        });
        assert_eq!(reported.until(), at(8));
    }

    #[test]
    fn more_that_is_ready_than_fits_is_waited_for_and_not_for_ever() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reported = Reported::new(start);
        for second in [1, 2] {
            reported.note(wait(at(second), 256));
            assert_eq!(reported.until(), start);
        }
        reported.note(wait(at(3), 256));
        assert_eq!(reported.until(), at(1));
        reported.note(wait(at(4), 256));
        reported.note(wait(at(5), 10));
        assert_eq!(reported.until(), at(5));
    }

    #[test]
    fn sessions_that_end_do_not_have_those_judged_that_nobody_has_looked_at() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reported = Reported::new(start);
        for (second, watched) in [(1, 600), (2, 300)] {
            let wait = Wait {
                watched,
                ..wait(at(second), 256)
            };
            reported.note(wait);
            assert_eq!(reported.until(), start);
        }
        reported.note(wait(at(3), 88));
        assert_eq!(reported.until(), at(3));
    }
}
