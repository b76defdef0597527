//! The client side of each kind of load. Every function drives one kind from one thread, returns
//! what it saw, and fails if a session breaks, stalls or loses a byte.

pub mod bulk;
pub mod exchange;
pub mod idle;
pub mod keystrokes;
pub mod ping_pong;
pub mod stream;

use std::time::Duration;

use hdrhistogram::Histogram;

/// How long single operations took.
pub struct Latency(Histogram<u64>);

impl Latency {
    /// Nothing yet.
    pub fn new() -> Self {
        let longest = Duration::from_secs(60);
        let in_nanoseconds = u64::try_from(longest.as_nanos()).expect("a minute fits");
        Self(Histogram::new_with_max(in_nanoseconds, 3).expect("the bounds are valid"))
    }

    /// One more.
    pub fn record(&mut self, took: Duration) {
        self.0
            .saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time within which this share was done, in microseconds.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a minute of nanoseconds is exact in a double"
    )]
    pub fn quantile_us(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }
}
