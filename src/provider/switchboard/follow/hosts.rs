//! What is known of the hosts that jobs run on: their names, for how long each has been said not to be
//! alive, and which have a job.
//!
//! Of silence, only time between two successful readings counts, and only if both say so: while nobody
//! answers, nothing is known of any host, and the first answer afterwards may be older than the hosts'
//! next sign of life.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::provider::switchboard::{
    job::{HostId, Job, JobId},
    read::Hosts,
};

#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    /// As they were last read.
    read: Option<Hosts>,
    /// When that was, if no reading has failed since.
    read_at: Option<Instant>,
    /// Hosts that the last reading called not alive, and for how long readings have.
    silent: HashMap<HostId, Duration>,
    /// The jobs on each host that has any.
    jobs: HashMap<HostId, BTreeSet<JobId>>,
    /// Hosts that got their first job or lost their last.
    turned: Vec<HostId>,
}

impl KnownHosts {
    /// Takes in a reading had at `now`, of those that are at most `apart` from one another. Says
    /// whether any host is or was silent.
    pub(super) fn reading(&mut self, hosts: Hosts, now: Instant, apart: Duration) -> bool {
        let since = |last| now.saturating_duration_since(last).min(apart);
        let passed = self.read_at.replace(now).map_or(Duration::ZERO, since);
        let silent = hosts.ids().filter(|id| hosts.live(id) == Some(false));
        let counted = silent.map(|id| {
            let before = self.silent.get(id).map(|before| *before + passed);
            (id.clone(), before.unwrap_or_default())
        });
        let counted: HashMap<_, _> = counted.collect();
        let news = !counted.is_empty() || !self.silent.is_empty();
        self.silent = counted;
        self.read = Some(hosts);
        news
    }

    /// Takes in for how long a host was said not to be alive before the first reading.
    pub(super) fn was_silent(&mut self, host: &HostId, silent: Duration) {
        self.silent.insert(host.clone(), silent);
    }

    pub(super) fn reading_failed(&mut self) {
        self.read_at = None;
    }

    /// For how long `host` is said not to be alive, if it is.
    pub(super) fn silent_for(&self, host: &HostId) -> Option<Duration> {
        self.silent.get(host).copied()
    }

    /// The same of the host that `job` is on.
    pub(super) fn silent_for_job(&self, job: &Job) -> Option<Duration> {
        self.silent_for(job.host.as_ref()?)
    }

    /// Completes `job` by what the last reading says of its host. A reading without the host, or
    /// without its name, takes the name from nobody: an address may hang on it.
    pub(super) fn describe(&self, job: &mut Job) {
        let (Some(hosts), Some(host)) = (&self.read, &job.host) else {
            return;
        };
        job.host_live = hosts.live(host);
        if let Some(name) = hosts.name(host) {
            job.host_name = Some(Arc::clone(name));
        }
    }

    /// Whether there is a job on `host`.
    pub(super) fn is_in_use(&self, host: &HostId) -> bool {
        self.jobs.contains_key(host)
    }

    /// Hosts of which that may have changed since the last call.
    pub(super) fn turned(&mut self) -> Vec<HostId> {
        std::mem::take(&mut self.turned)
    }

    /// The jobs on `host`.
    pub(super) fn jobs_on(&self, host: &HostId) -> impl Iterator<Item = &JobId> {
        self.jobs.get(host).into_iter().flatten()
    }

    /// Takes in that a job was on one host and is on another.
    pub(super) fn job_moved(&mut self, job: &JobId, from: Option<HostId>, to: Option<HostId>) {
        if from == to {
            return;
        }
        if let Some(from) = from
            && let Some(jobs) = self.jobs.get_mut(&from)
        {
            jobs.remove(job);
            if jobs.is_empty() {
                self.jobs.remove(&from);
                self.turned.push(from);
            }
        }
        if let Some(to) = to {
            let jobs = self.jobs.entry(to.clone()).or_default();
            jobs.insert(job.clone());
            if jobs.len() == 1 {
                self.turned.push(to);
            }
        }
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
        let mut hosts = KnownHosts::default();
        let counted = |hosts: &KnownHosts| hosts.silent_for(&host).map(|counted| counted.as_secs());
        hosts.reading(reading(false), at(0), apart);
        assert_eq!(counted(&hosts), Some(0));
        hosts.reading(reading(false), at(10), apart);
        assert_eq!(counted(&hosts), Some(10));
        hosts.reading_failed();
        hosts.reading(reading(false), at(60), apart);
        assert_eq!(counted(&hosts), Some(10), "nobody said so meanwhile");
        hosts.reading(reading(false), at(1000), apart);
        assert_eq!(counted(&hosts), Some(25), "this process may have slept");
        hosts.reading(reading(true), at(1010), apart);
        assert_eq!(counted(&hosts), None);
        hosts.reading(reading(false), at(1020), apart);
        assert_eq!(counted(&hosts), Some(0));
    }
}
