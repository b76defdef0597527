//! What each job's annotation should say, told when it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Plan;
use crate::provider::switchboard::{
    Endpoint, Exposure, JobId, KnownJobs,
    publish::{self, Publisher},
};

/// What was told last, and to whom.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    told: BTreeMap<JobId, String>,
    publisher: Option<Arc<Publisher>>,
}

impl Annotations {
    /// Goes on from what was open before, whatever it was that jobs were told.
    pub fn after(open: &Plan, publisher: Option<Arc<Publisher>>) -> Self {
        let jobs = open.keys().map(|owner| owner.job.clone());
        Self {
            told: jobs.map(|job| (job, String::new())).collect(),
            publisher,
        }
    }

    /// Tells what has changed of some jobs; to another publisher, everything. What an earlier run left on
    /// jobs that are not exposed is removed. `rules` is how many there are.
    pub fn tell<'a>(
        &mut self,
        exposure: &'a Exposure,
        mut changed: BTreeSet<&'a JobId>,
        rules: usize,
        known_jobs: &KnownJobs,
        publisher: Arc<Publisher>,
    ) {
        let mut known = self.publisher.iter();
        if !known.any(|known| Arc::ptr_eq(known, &publisher)) {
            self.told.clear();
            changed = exposure.endpoints.keys().map(|owner| &owner.job).collect();
        }
        for job in changed {
            let text = text(exposure, job, rules);
            if self.told.get(job) == text.as_ref() {
                continue;
            }
            publisher.set(job.clone(), text.clone());
            match text {
                Some(text) => self.told.insert(job.clone(), text),
                // Also where a job has ended: its port may be another's soon.
                None => self.told.remove(job),
            };
        }
        for job in publisher.left_over() {
            match self.told.get(&job) {
                Some(text) => publisher.set(job, Some(text.clone())),
                None if known_jobs.jobs.contains_key(&job) => publisher.set(job, None),
                None => {}
            }
        }
        self.publisher = Some(publisher);
    }
}

/// Where a job can be reached, each with its rule where there is more than one.
fn text(exposure: &Exposure, job: &JobId, rules: usize) -> Option<String> {
    let host = publish::before_port(&exposure.host);
    let open = |endpoint: &&Endpoint| endpoint.closed.is_none();
    let open = exposure.of_job(job).filter(open);
    let words = open.filter_map(|endpoint| {
        let word = format!("{host}{}", endpoint.port?);
        Some(match rules {
            0 | 1 => word,
            _ => format!("{}={word}", endpoint.owner.rule),
        })
    });
    let words: Vec<_> = words.collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::switchboard::{Endpoints, Owner, RuleName};

    #[test]
    fn the_text_is_what_one_connects_to() {
        let job = JobId::parse("00000001-0000-4000-8000-000000000000").expect("an id");
        let endpoint = |rule, port| Endpoint {
            owner: Owner {
                job: job.clone(),
                rule: RuleName::parse(rule).expect("a name"),
                host: None,
            },
            port: Some(port),
            target: "[fd00::1]:22".parse().expect("an address"),
            closed: None,
            since: None,
        };
        let mut exposure = Exposure {
            host: "p.example.org".into(),
            endpoints: Endpoints::from_iter([endpoint("ssh", 40_001)]),
            ..Exposure::default()
        };
        let said = text(&exposure, &job, 1).expect("it is open");
        assert_eq!(said, "p.example.org:40001");
        let web = endpoint("web", 40_002);
        exposure.endpoints.insert(web.owner.clone(), web);
        let said = text(&exposure, &job, 2).expect("it is open");
        assert_eq!(said, "ssh=p.example.org:40001 web=p.example.org:40002");
        exposure.endpoints = Endpoints::default();
        assert_eq!(text(&exposure, &job, 2), None);
    }
}
