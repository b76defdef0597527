//! What a mapping does lately, found out by looking at its counters from time to time: the data path
//! has no part in it.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::mutex::lock;

/// What had been counted at one look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Sessions opened.
    pub opened: u64,
    /// Bytes delivered to the target.
    pub bytes_up: u64,
    /// Bytes delivered to clients.
    pub bytes_down: u64,
    /// What grows with each connection to the target that comes about.
    pub answered: u64,
    /// Connections to the target that failed.
    pub failed: u64,
}

/// What was counted per second between the last two looks, and how the last connections went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lately {
    /// Sessions opened.
    pub opened: f64,
    /// Bytes delivered to the target.
    pub bytes_up: f64,
    /// Bytes delivered to clients.
    pub bytes_down: f64,
    /// When a connection to the target last failed.
    pub failed: Option<Instant>,
    /// Whether none has come about since.
    pub is_failing: bool,
}

/// Where a mapping keeps it.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<(Option<Instant>, Counted, Lately)>);

impl Looks {
    /// Goes on after what another image of the program has counted.
    pub fn after(counted: Counted) -> Self {
        Self(Mutex::new((None, counted, Lately::default())))
    }

    /// Looks again.
    pub fn look(&self, now: Instant, counted: Counted) {
        let mut looks = lock(&self.0);
        let (at, before, lately) = *looks;
        let span = at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let rate = |of: fn(&Counted) -> u64| match span.is_zero() {
            true => 0.0,
            // What was taken for delivered may turn out not to be.
            false => of(&counted).saturating_sub(of(&before)) as f64 / span.as_secs_f64(),
        };
        let has_failed = counted.failed > before.failed;
        let has_answered = counted.answered > before.answered;
        let lately = Lately {
            opened: rate(|counted| counted.opened),
            bytes_up: rate(|counted| counted.bytes_up),
            bytes_down: rate(|counted| counted.bytes_down),
            failed: if has_failed { Some(now) } else { lately.failed },
            is_failing: !has_answered && (has_failed || lately.is_failing),
        };
        *looks = (Some(now), counted, lately);
    }

    /// What was found last.
    pub fn read(&self) -> Lately {
        lock(&self.0).2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_fails_from_a_failure_on_until_a_connection_comes_about() {
        let looks = Looks::default();
        let start = Instant::now();
        let mut counted = Counted::default();
        let mut look = |after: u64, change: fn(&mut Counted)| {
            change(&mut counted);
            looks.look(start + Duration::from_secs(after), counted);
            looks.read()
        };
        assert_eq!(look(0, |_| ()), Lately::default());
        let failing = look(5, |counted| counted.failed += 3);
        assert!(failing.is_failing);
        assert_eq!(failing.failed, Some(start + Duration::from_secs(5)));
        assert_eq!(look(10, |_| ()), failing, "nobody has tried since");
        let works = look(15, |counted| counted.answered += 1);
        assert!(!works.is_failing);
        assert_eq!(works.failed, failing.failed);
        let flaps = look(20, |counted| (counted.failed, counted.answered) = (9, 9));
        assert!(!flaps.is_failing && flaps.failed > works.failed);
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let looks = Looks::after(Counted {
            opened: 1000,
            ..Counted::default()
        });
        let start = Instant::now();
        let counted = |opened, bytes_up| Counted {
            opened,
            bytes_up,
            ..Counted::default()
        };
        looks.look(start, counted(1005, 10));
        assert_eq!(looks.read().opened, 0.0, "the time before is not known");
        looks.look(start + Duration::from_secs(5), counted(1015, 5));
        let lately = looks.read();
        assert_eq!((lately.opened, lately.bytes_up), (2.0, 0.0));
    }
}
