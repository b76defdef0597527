//! Until when ports of jobs may be used, where they are shared with other proxies.
//!
//! A process that slept past that time, with its machine or stopped by a signal, finds clients in the queues of
//! its listeners who may have come for whoever has the port by now. So workers look here before they
//! accept, and not only whoever closes ports, who may wake up later than they do.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::Route;

/// The time since the machine booted, sleep included, at which it is over, in milliseconds.
#[derive(Debug)]
pub struct JobLease(AtomicU64);

impl Default for JobLease {
    /// One that is never over.
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl JobLease {
    /// Has it end at that time since the machine booted, or never.
    pub fn ends_at(&self, since_boot: Option<Duration>) {
        let millis = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.0.store(since_boot.map_or(u64::MAX, millis), Relaxed);
    }

    /// When it ends, in the time since the machine booted; none if never.
    pub fn end(&self) -> Option<Duration> {
        let end = self.0.load(Relaxed);
        (end != u64::MAX).then(|| Duration::from_millis(end))
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        let end = self.0.load(Relaxed);
        end != u64::MAX && {
            let now = clock_gettime(ClockId::Boottime);
            let millis = now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000;
            millis >= end
        }
    }

    /// Whether a route may not be used any more.
    pub fn forbids(&self, route: &Route) -> bool {
        route.mapping.name.job().is_some() && self.is_over()
    }
}
