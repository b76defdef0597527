//! Waiting for conditions that nobody reports.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a condition may take to come true. Nothing healthy comes near it, on a machine with a
/// tenth of a processor to spare either.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until `look` finds something.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, look)
}

/// Waits until `look` finds something that may take longer than most.
#[track_caller]
pub fn wait_within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `holds` does.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
