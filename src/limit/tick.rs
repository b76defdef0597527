//! Time as one number, so that it fits an atomic.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since a moment early in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub u64);

impl Tick {
    pub fn after(self, span: Duration) -> Self {
        self.after_nanos(nanos(span))
    }

    pub(super) fn after_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// The same time as the clock has it.
    pub fn instant(self) -> Instant {
        *ORIGIN + Duration::from_nanos(self.0)
    }
}

impl From<Instant> for Tick {
    fn from(at: Instant) -> Self {
        Self(nanos(at.saturating_duration_since(*ORIGIN)))
    }
}

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
