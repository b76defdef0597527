//! When a name is looked up again.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::Found;
use crate::setting::{Found as Given, Json, Kind, Refusal, Span};

/// What the TTL of an answer counts as at least, and at most.
pub(crate) const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// How long an answer is good for of which nothing says so.
const WITHOUT_TTL: Duration = Duration::from_secs(60);

/// The first wait after a failure, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How a name is followed while the proxy runs. Without it, a name that is known stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refresh {
    /// Looked up so often.
    Every(Duration),
    /// Looked up when what is known is no longer good.
    Ttl,
}

/// How often is from a second to a day.
type Often = Span<1_000, 86_400>;

impl Kind for Refresh {
    type Value = Self;

    fn read(found: Given<'_>) -> Result<Self, Refusal> {
        if found.text() == Some("ttl") {
            return Ok(Self::Ttl);
        }
        let refusal = |refusal: Refusal| refusal.or_first("\"ttl\"");
        Often::read(found).map(Self::Every).map_err(refusal)
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Ttl => "ttl".into(),
            Self::Every(every) => Often::write(every),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::schema::{or, words};
        or(words(&["ttl"]), Often::schema())
    }
}

/// When one name is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    refresh: Option<Refresh>,
    due: Option<Instant>,
    failures: u32,
}

impl Schedule {
    /// Due at once, if the name is `known` when that is no longer good.
    pub fn new(refresh: Option<Refresh>, known: bool, now: Instant) -> Self {
        let wait = match (known, refresh) {
            (false, _) => Some(Duration::ZERO),
            (true, None) => None,
            // Many names are not asked for all at a time.
            (true, Some(refresh)) => Some(jittered(refresh.after(None), 2)),
        };
        Self {
            refresh,
            due: wait.map(|wait| now + wait),
            failures: 0,
        }
    }

    /// When it is due, unless it is being looked up or not to be any more.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is to be looked up now, which it then is.
    pub fn begin(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// It was answered.
    pub fn answered(&mut self, found: &Found, now: Instant) {
        if found.unknown.is_some() {
            self.failed(now);
            return;
        }
        self.failures = 0;
        let wait = self.refresh.map(|refresh| refresh.after(found.ttl));
        self.due = wait.map(|wait| now + jittered(wait, 10));
    }

    /// It was not. Whatever was known stays, and it is looked up again sooner or later.
    pub fn failed(&mut self, now: Instant) {
        let pause = PAUSE.0 * 2_u32.saturating_pow(self.failures.min(16));
        let most = match self.refresh {
            Some(Refresh::Every(every)) => every.clamp(PAUSE.0, PAUSE.1),
            Some(Refresh::Ttl) | None => PAUSE.1,
        };
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + jittered(pause.min(most), 2));
    }
}

impl Refresh {
    fn after(self, ttl: Option<Duration>) -> Duration {
        match self {
            Self::Every(every) => every,
            Self::Ttl => ttl.unwrap_or(WITHOUT_TTL).clamp(TTL.0, TTL.1),
        }
    }
}

/// A wait that is up to one part in `parts` shorter.
fn jittered(wait: Duration, parts: u32) -> Duration {
    let random = RandomState::new().hash_one(0) as u32;
    let share = f64::from(random) / f64::from(u32::MAX) / f64::from(parts);
    wait.mul_f64(1.0 - share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ttl: u64) -> Found {
        Found {
            addresses: vec![[192, 0, 2, 1].into()],
            beyond: 0,
            ttl: Some(Duration::from_secs(ttl)),
            from_server: true,
            unknown: None,
        }
    }

    fn wait_after(schedule: &mut Schedule, ttl: u64) -> Option<f64> {
        let now = Instant::now();
        schedule.answered(&found(ttl), now);
        Some((schedule.due()? - now).as_secs_f64())
    }

    #[test]
    fn a_ttl_of_nothing_or_of_years_is_held_within_limits() {
        let mut schedule = Schedule::new(Some(Refresh::Ttl), false, Instant::now());
        let mut wait = |ttl| wait_after(&mut schedule, ttl).expect("it is followed");
        assert!((4.5..=5.0).contains(&wait(0)));
        assert!((54.0..=60.0).contains(&wait(60)));
        assert!((3240.0..=3600.0).contains(&wait(1 << 30)));
    }

    #[test]
    fn a_name_that_is_not_followed_is_asked_for_until_it_is_known() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None, false, now);
        assert!(schedule.begin(now) && !schedule.begin(now));
        schedule.failed(now);
        assert!(schedule.due().is_some_and(|due| due > now));
        assert_eq!(wait_after(&mut schedule, 1), None);
        assert_eq!(Schedule::new(None, true, now).due(), None);
    }

    #[test]
    fn a_name_that_fails_is_asked_for_less_and_less_often_and_never_given_up() {
        for (refresh, most) in [
            (None, 60.0),
            (Some(Refresh::Ttl), 60.0),
            (Some(Refresh::Every(Duration::from_secs(2))), 2.0),
        ] {
            let now = Instant::now();
            let mut schedule = Schedule::new(refresh, false, now);
            let waits: Vec<f64> = (0..100)
                .map(|_| {
                    schedule.failed(now);
                    (schedule.due().expect("it is asked for") - now).as_secs_f64()
                })
                .collect();
            assert!((0.5..=1.0).contains(&waits[0]), "{}", waits[0]);
            assert!(waits.iter().all(|wait| *wait <= most));
            assert!(waits[99] >= most / 2.0);
        }
    }
}
