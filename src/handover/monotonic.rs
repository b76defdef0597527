//! An [`Instant`] as nanoseconds on the machine's monotonic clock (clock_gettime(2)), for serde's
//! `with`. The clock goes on while one image of the program takes the place of another, so a deadline
//! stays where it was.
//!
//! ```ignore
//! #[serde(with = "monotonic")] opened: Instant,
//! #[serde(with = "monotonic::option", default)] leave: Option<Instant>,
//! ```

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The same moment on both clocks.
fn anchor() -> (Instant, i64) {
    static ANCHOR: OnceLock<(Instant, i64)> = OnceLock::new();
    *ANCHOR.get_or_init(|| {
        let now = clock_gettime(ClockId::Monotonic);
        (Instant::now(), now.tv_sec * 1_000_000_000 + now.tv_nsec)
    })
}

/// Nanoseconds on the monotonic clock.
pub fn to_nanos(at: Instant) -> i64 {
    let (instant, nanos) = anchor();
    let far = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match at.checked_duration_since(instant) {
        Some(after) => nanos.saturating_add(far(after)),
        None => nanos.saturating_sub(far(instant.duration_since(at))),
    }
}

/// The instant at `nanos`; one that the clock cannot tell is the anchor's.
pub fn from_nanos(nanos: i64) -> Instant {
    let (instant, anchor) = anchor();
    let apart = Duration::from_nanos(nanos.abs_diff(anchor));
    let at = match nanos >= anchor {
        true => instant.checked_add(apart),
        false => instant.checked_sub(apart),
    };
    at.unwrap_or(instant)
}

/// Writes it.
///
/// # Errors
///
/// What the serializer says.
pub fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    to_nanos(*at).serialize(serializer)
}

/// Reads it.
///
/// # Errors
///
/// What the deserializer says.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
    i64::deserialize(deserializer).map(from_nanos)
}

/// The same for an [`Option`].
pub mod option {
    use super::{Deserialize, Deserializer, Instant, Serialize, Serializer, from_nanos, to_nanos};

    /// Writes it.
    ///
    /// # Errors
    ///
    /// What the serializer says.
    pub fn serialize<S: Serializer>(
        at: &Option<Instant>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(to_nanos).serialize(serializer)
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// What the deserializer says.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Instant>, D::Error> {
        Ok(Option::<i64>::deserialize(deserializer)?.map(from_nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_before_and_after_now_comes_back_as_it_was() {
        let now = Instant::now();
        for at in [
            now,
            now + Duration::from_secs(86_400),
            now - Duration::from_millis(1),
        ] {
            assert_eq!(from_nanos(to_nanos(at)), at);
        }
    }

    #[test]
    fn a_time_that_cannot_be_is_no_panic() {
        from_nanos(i64::MIN);
        from_nanos(i64::MAX);
    }
}
