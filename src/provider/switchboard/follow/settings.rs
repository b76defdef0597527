//! How hard a switchboard is followed.

use std::time::Duration;

/// How hard a switchboard is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowSettings {
    /// How often the whole listing is walked and every watched job read, as a repair: a watch can
    /// go on without seeing changes any more.
    pub refresh: Duration,
    /// How often the top of the listing is looked at for new jobs, on top of the hints that hosts
    /// give, and at least between two readings of a job without a watch.
    pub poll: Duration,
    /// The most connections for watches. Over HTTP/1.1 each takes one watch: jobs that are on their
    /// way to an address go first, and those without a watch are read now and then. Over HTTP/2
    /// each takes a hundred.
    pub max_watches: usize,
    /// The most jobs that are read at once.
    pub concurrency: usize,
    /// Whether what the switchboard says of its hosts is needed, so that not to hear it is trouble.
    pub needs_hosts: bool,
}

/// Looks at the top to one look at the hosts: a host counts as alive for 30 s.
const LOOKS_PER_HOSTS: u32 = 3;

impl FollowSettings {
    /// The built-in `refresh`.
    pub const REFRESH: Duration = Duration::from_secs(10 * 60);
    /// The built-in `poll`.
    pub const POLL: Duration = Duration::from_secs(5);
    /// The built-in `max_watches`.
    pub const MAX_WATCHES: usize = 256;
    /// The built-in `concurrency`.
    pub const CONCURRENCY: usize = 8;

    /// The longest time between two looks at the hosts.
    pub fn host_interval(&self) -> Duration {
        Self::host_interval_of(self.poll)
    }

    /// The same for a `poll`.
    pub fn host_interval_of(poll: Duration) -> Duration {
        poll.saturating_mul(LOOKS_PER_HOSTS)
    }
}

impl Default for FollowSettings {
    fn default() -> Self {
        Self {
            refresh: Self::REFRESH,
            poll: Self::POLL,
            max_watches: Self::MAX_WATCHES,
            concurrency: Self::CONCURRENCY,
            needs_hosts: false,
        }
    }
}
