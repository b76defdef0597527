//! What the log is told: once when something begins, once when it ends, and never a line for each of
//! a thousand.

use std::collections::BTreeMap;

use super::Plan;
use crate::provider::switchboard::{
    Endpoint, Exposure, JobId, KnownJobs, Owner, Rule, RuleName, SwitchboardStatus,
    expose::{Closing, Reason},
};

/// Lines of one kind in one go; of the rest there is a number.
const LINES: usize = 20;

/// What of which job, or the job as a whole.
type Subject = (JobId, Option<RuleName>);

/// What the log was told last.
#[derive(Debug, Default)]
pub(super) struct ExposureLog {
    open: Plan,
    refused: BTreeMap<Subject, Reason>,
    /// Why something could not be opened, for the line about it.
    causes: BTreeMap<Owner, String>,
}

impl ExposureLog {
    /// Goes on from what was open before, and what was told then.
    pub fn after(open: &Plan, told: Option<&Exposure>) -> Self {
        Self {
            open: open.clone(),
            refused: told.map(refused).unwrap_or_default(),
            causes: BTreeMap::new(),
        }
    }

    /// Remembers why something could not be opened.
    pub fn not_opened(&mut self, owner: &Owner, why: &str) {
        self.causes.insert(owner.clone(), why.to_owned());
    }

    /// Tells what has changed since the last time; `rules` are those in force.
    pub fn tell(
        &mut self,
        exposure: &Exposure,
        status: &SwitchboardStatus,
        known_jobs: &KnownJobs,
        rules: &[Rule],
    ) {
        let refused = refused(exposure);
        let open: Plan = (exposure.endpoints.iter())
            .filter(|endpoint| endpoint.closed.is_none())
            .filter_map(|endpoint: &Endpoint| {
                let to = (endpoint.port?, endpoint.target);
                Some((endpoint.owner.clone(), to))
            })
            .collect();
        let mut begun = Limited::new("more jobs exposed");
        for (owner, (port, target)) in &open {
            match self.open.get(owner) {
                Some(before) if before == &(*port, *target) => {}
                Some((port_before, target_before)) => begun.line(|| {
                    tracing::info!(
                        %owner,
                        port,
                        port_before,
                        %target,
                        %target_before,
                        "exposed job has moved"
                    );
                }),
                None => begun.line(|| tracing::info!(%owner, port, %target, "job exposed")),
            }
        }
        begun.rest();
        let mut ended = Limited::new("more jobs no longer exposed");
        for (owner, (port, _)) in &self.open {
            if open.contains_key(owner) {
                continue;
            }
            let closing = closing(owner, &refused, known_jobs, rules);
            status.closed(closing);
            let reason = closing.word();
            ended.line(|| tracing::info!(%owner, port, reason, "job no longer exposed"));
        }
        ended.rest();
        let mut lines = Limited::new("more jobs not exposed");
        for ((job, rule), reason) in &refused {
            let subject = (job.clone(), rule.clone());
            if self.refused.get(&subject) == Some(reason) {
                continue;
            }
            status.refused(*reason);
            if !reason.is_ordinary() {
                lines.line(|| self.line(job, rule.as_ref(), *reason, exposure));
            }
        }
        lines.rest();
        self.causes.clear();
        (self.open, self.refused) = (open, refused);
    }

    fn line(&self, job: &JobId, rule: Option<&RuleName>, reason: Reason, exposure: &Exposure) {
        let word = reason.word();
        let rule = rule.map(RuleName::as_str);
        let address = exposure.refused.iter().find(|one| one.job == *job);
        let address = address.and_then(|one| one.address);
        let address = address.map(tracing::field::display);
        match reason {
            Reason::SharedAddress => tracing::error!(
                %job,
                rule,
                address,
                reason = word,
                "another live job is said to have the same address"
            ),
            Reason::NotConfirmed => {
                tracing::debug!(%job, rule, reason = word, "job not exposed yet");
            }
            Reason::NotOpened => {
                let owner = |(owner, _): &(&Owner, _)| owner.job == *job;
                let why = self.causes.iter().find(owner).map(|(_, why)| why.as_str());
                tracing::warn!(%job, rule, reason = word, why, "job not exposed");
            }
            _ => tracing::warn!(%job, rule, address, reason = word, "job not exposed"),
        }
    }
}

/// Why something that was open no longer is.
fn closing(
    owner: &Owner,
    refused: &BTreeMap<Subject, Reason>,
    known_jobs: &KnownJobs,
    rules: &[Rule],
) -> Closing {
    let whole = (owner.job.clone(), None);
    let part = (owner.job.clone(), Some(owner.rule.clone()));
    match refused.get(&part).or_else(|| refused.get(&whole)) {
        Some(reason) => Closing::Refused(*reason),
        None if rules.iter().all(|rule| rule.name != owner.rule) => Closing::RuleRemoved,
        None if known_jobs.jobs.contains_key(&owner.job) => Closing::RuleUnfit,
        None => Closing::Ended,
    }
}

fn refused(exposure: &Exposure) -> BTreeMap<Subject, Reason> {
    let closed = exposure.endpoints.iter().filter_map(|endpoint| {
        let subject = (
            endpoint.owner.job.clone(),
            Some(endpoint.owner.rule.clone()),
        );
        Some((subject, endpoint.closed?))
    });
    let refused = exposure.refused.iter();
    let refused = refused.map(|one| ((one.job.clone(), one.rule.clone()), one.reason));
    refused.chain(closed).collect()
}

/// Lines up to a number, and a line with the number of the rest.
struct Limited {
    rest: &'static str,
    count: usize,
}

impl Limited {
    fn new(rest: &'static str) -> Self {
        Self { rest, count: 0 }
    }

    fn line(&mut self, write: impl FnOnce()) {
        self.count += 1;
        if self.count <= LINES {
            write();
        }
    }

    fn rest(self) {
        let count = self.count.saturating_sub(LINES);
        if count > 0 {
            tracing::info!(count, "{}", self.rest);
        }
    }
}
