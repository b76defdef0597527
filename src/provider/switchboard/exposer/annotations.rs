//! What each job's annotation should say, told when it changes.

use std::{collections::BTreeMap, sync::Arc};

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

    /// Tells what has changed; to another publisher, everything. What an earlier run left on jobs that
    /// are not exposed is removed. `rules` is how many there are.
    pub fn tell(
        &mut self,
        exposure: &Exposure,
        rules: usize,
        known_jobs: &KnownJobs,
        publisher: Arc<Publisher>,
    ) {
        if !self
            .publisher
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &publisher))
        {
            self.told.clear();
        }
        let texts = texts(exposure, rules);
        for (job, text) in &texts {
            if self.told.get(job) != Some(text) {
                publisher.set(job.clone(), Some(text.clone()));
            }
        }
        // Also where a job has ended: its port may be another's soon.
        for job in self.told.keys() {
            if !texts.contains_key(job) {
                publisher.set(job.clone(), None);
            }
        }
        for job in publisher.left_over() {
            match texts.get(&job) {
                Some(text) => publisher.set(job, Some(text.clone())),
                None if known_jobs.jobs.contains_key(&job) => publisher.set(job, None),
                None => {}
            }
        }
        (self.told, self.publisher) = (texts, Some(publisher));
    }
}

/// `host:port` for each job, each with its rule where there is more than one.
fn texts(exposure: &Exposure, rules: usize) -> BTreeMap<JobId, String> {
    let host = publish::before_port(&exposure.host);
    let mut texts: BTreeMap<JobId, String> = BTreeMap::new();
    let open = |endpoint: &&Endpoint| endpoint.closed.is_none();
    for endpoint in exposure.endpoints.iter().filter(open) {
        let Some(port) = endpoint.port else { continue };
        let mut word = format!("{host}{port}");
        if rules > 1 {
            word = format!("{}={word}", endpoint.owner.rule);
        }
        let text = texts.entry(endpoint.owner.job.clone()).or_default();
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&word);
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::switchboard::{Owner, RuleName};

    #[test]
    fn the_text_is_what_one_connects_to() {
        let job = JobId::parse("00000001-0000-4000-8000-000000000000").expect("an id");
        let endpoint = |rule, port| Endpoint {
            owner: Owner {
                job: job.clone(),
                rule: RuleName::parse(rule).expect("a name"),
            },
            port: Some(port),
            target: "[fd00::1]:22".parse().expect("an address"),
            closed: None,
            since: None,
        };
        let mut exposure = Exposure {
            host: "p.example.org".into(),
            endpoints: vec![endpoint("ssh", 40_001)],
            ..Exposure::default()
        };
        assert_eq!(texts(&exposure, 1)[&job], "p.example.org:40001");
        exposure.endpoints.push(endpoint("web", 40_002));
        assert_eq!(
            texts(&exposure, 2)[&job],
            "ssh=p.example.org:40001 web=p.example.org:40002"
        );
    }
}
