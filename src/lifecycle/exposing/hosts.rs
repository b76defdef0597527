//! Since when the host of a job is gone.

use std::{collections::BTreeMap, time::Duration};

use crate::provider::switchboard::{JobId, Knowledge, Moment};

/// Jobs whose hosts are said not to be alive, each since it was first said. A start begins to count
/// anew.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<JobId, Moment>);

impl Hosts {
    /// Takes note of what is known now.
    pub fn follow(&mut self, knowledge: &Knowledge, now: Moment) {
        let gone = |job: &JobId| {
            let job = knowledge.jobs.get(job);
            job.is_some_and(|job| job.host_live == Some(false))
        };
        self.0.retain(|job, _| gone(job));
        let jobs = knowledge.jobs.values();
        for job in jobs.filter(|job| job.host_live == Some(false)) {
            if !self.0.contains_key(&job.id) {
                self.0.insert(job.id.clone(), now);
            }
        }
    }

    /// Whether the host of `job` is gone for longer than allowed, if that is limited.
    pub fn is_gone(&self, job: &JobId, allowed: Option<Duration>, now: Moment) -> bool {
        let since = allowed.zip(self.0.get(job));
        since.is_some_and(|(allowed, since)| now.since(*since) >= allowed)
    }

    /// When the next one will be.
    pub fn next(&self, allowed: Option<Duration>, now: Moment) -> Option<Moment> {
        let due = self
            .0
            .values()
            .map(|since| since.after(allowed.unwrap_or_default()));
        due.filter(|due| allowed.is_some() && *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::provider::switchboard::{Job, JobState};

    fn knowledge(live: Option<bool>) -> (JobId, Knowledge) {
        let id = JobId::parse("00000001-0000-4000-8000-000000000000").expect("an id");
        let job = Job {
            id: id.clone(),
            state: JobState::Ready,
            address: None,
            services: Vec::new(),
            host_live: live,
        };
        let jobs = [(id.clone(), Arc::new(job))].into();
        let complete = None;
        (id, Knowledge { jobs, complete })
    }

    #[test]
    fn a_host_is_gone_when_it_was_for_long_enough_and_not_before_somebody_says_so() {
        let at = |seconds: u64| Moment::from_millis(seconds * 1000);
        let allowed = Some(Duration::from_secs(10));
        let mut hosts = Hosts::default();
        let (job, unknown) = knowledge(None);
        hosts.follow(&unknown, at(0));
        assert!(!hosts.is_gone(&job, allowed, at(100)));
        let (_, gone) = knowledge(Some(false));
        hosts.follow(&gone, at(100));
        hosts.follow(&gone, at(105));
        assert_eq!(hosts.next(allowed, at(105)), Some(at(110)));
        assert!(!hosts.is_gone(&job, allowed, at(109)));
        assert!(hosts.is_gone(&job, allowed, at(110)));
        assert!(!hosts.is_gone(&job, None, at(110)), "it may be kept");
        let (_, back) = knowledge(Some(true));
        hosts.follow(&back, at(111));
        assert!(!hosts.is_gone(&job, allowed, at(112)));
    }
}
