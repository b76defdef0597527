//! Time as one number, so that it fits an atomic.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::handover::monotonic;

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

/// A tick is handed over as nanoseconds on the machine's monotonic clock: the next image begins to
/// count at another moment. 0 is before all others, wherever counting begins.
impl Serialize for Tick {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let nanos = match self.0 {
            0 => 0,
            nanos => monotonic::to_nanos(*ORIGIN).saturating_add_unsigned(nanos),
        };
        nanos.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Tick {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let nanos = i64::deserialize(from)?.saturating_sub(monotonic::to_nanos(*ORIGIN));
        Ok(Self(u64::try_from(nanos).unwrap_or(0)))
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
