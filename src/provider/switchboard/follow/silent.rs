//! For how long hosts are said not to be alive.
//!
//! Only time between two successful readings counts, and only if both say so: while nobody answers,
//! nothing is known of any host, and the first answer afterwards may be older than the hosts' next
//! sign of life.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::provider::switchboard::{job::HostId, read::Hosts};

/// Hosts that the last reading called not alive.
#[derive(Debug, Default)]
pub(super) struct Silent {
    hosts: HashMap<HostId, Duration>,
    /// When the last reading was had, if none has failed since.
    last: Option<Instant>,
}

impl Silent {
    /// Takes in a reading had at `now`, of those that are at most `apart` from one another. Says
    /// whether there is anything to tell of it.
    pub(super) fn read(&mut self, hosts: &Hosts, now: Instant, apart: Duration) -> bool {
        let since = |last| now.saturating_duration_since(last).min(apart);
        let passed = self.last.replace(now).map_or(Duration::ZERO, since);
        let silent = hosts.ids().filter(|id| hosts.live(id) == Some(false));
        let counted = silent.map(|id| {
            let before = self.hosts.get(id).map(|before| *before + passed);
            (id.clone(), before.unwrap_or_default())
        });
        let counted: HashMap<_, _> = counted.collect();
        let news = !counted.is_empty() || !self.hosts.is_empty();
        self.hosts = counted;
        news
    }

    /// Notes that a reading failed.
    pub(super) fn failed(&mut self) {
        self.last = None;
    }

    /// For how long `host` is said not to be alive, if it is.
    pub(super) fn of(&self, host: &HostId) -> Option<Duration> {
        self.hosts.get(host).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::switchboard::read;

    const HOST: &str = "40000000-0000-4000-8000-000000000001";

    fn reading(live: bool) -> Hosts {
        let body = format!(r#"[{{"host_id":"{HOST}","live":{live}}}]"#);
        read::hosts(body.as_bytes()).expect("hosts")
    }

    #[test]
    fn one_reading_of_a_silent_host_counts_for_nothing_and_an_outage_for_nothing_more() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let apart = Duration::from_secs(15);
        let host = HostId::parse(HOST).expect("an id");
        let mut silent = Silent::default();
        let counted = |silent: &Silent| silent.of(&host).map(|counted| counted.as_secs());
        silent.read(&reading(false), at(0), apart);
        assert_eq!(counted(&silent), Some(0));
        silent.read(&reading(false), at(10), apart);
        assert_eq!(counted(&silent), Some(10));
        silent.failed();
        silent.read(&reading(false), at(60), apart);
        assert_eq!(counted(&silent), Some(10), "nobody said so meanwhile");
        silent.read(&reading(false), at(1000), apart);
        assert_eq!(counted(&silent), Some(25), "this process may have slept");
        silent.read(&reading(true), at(1010), apart);
        assert_eq!(counted(&silent), None);
        silent.read(&reading(false), at(1020), apart);
        assert_eq!(counted(&silent), Some(0));
    }
}
