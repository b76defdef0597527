//! What the log is told: once when something begins, once when it ends, and never a line for each of
//! a thousand.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use crate::provider::switchboard::{
    Exposure, JobId, KnownJobs, Owner, Rule, RuleName, SwitchboardStatus,
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

    /// Tells what has changed of some owners, and why some of what is refused is; `rules` are those in
    /// force.
    pub fn tell(
        &mut self,
        exposure: &Exposure,
        (owners, mut subjects): (&BTreeSet<Owner>, BTreeSet<Subject>),
        status: &SwitchboardStatus,
        known_jobs: &KnownJobs,
        rules: &[Rule],
    ) {
        let mut begun = Limited::new("more jobs exposed");
        let mut ended = Vec::new();
        for owner in owners {
            subjects.insert((owner.job.clone(), Some(owner.rule.clone())));
            let endpoint = exposure.endpoints.get(owner);
            let open = endpoint.filter(|endpoint| endpoint.closed.is_none());
            let open = open.and_then(|endpoint| Some((endpoint.port?, endpoint.target)));
            let Some((port, target)) = open else {
                let before = self.open.remove(owner);
                ended.extend(before.map(|(port, _)| (owner, port)));
                continue;
            };
            match self.open.get(owner).copied() {
                Some(before) if before == (port, target) => continue,
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
            self.open.insert(owner.clone(), (port, target));
        }
        begun.rest();
        let mut lines = Limited::new("more jobs no longer exposed");
        for (owner, port) in ended {
            let closing = closing(owner, exposure, known_jobs, rules);
            status.closed(closing);
            let reason = closing.word();
            lines.line(|| tracing::info!(%owner, port, reason, "job no longer exposed"));
        }
        lines.rest();
        let mut lines = Limited::new("more jobs not exposed");
        for subject in subjects {
            let Some(reason) = why_not(&subject, exposure) else {
                self.refused.remove(&subject);
                continue;
            };
            let (job, rule) = &subject;
            if self.refused.get(&subject) == Some(&reason) {
                continue;
            }
            status.refused(reason);
            if !reason.is_ordinary() {
                lines.line(|| self.line(job, rule.as_ref(), reason, exposure));
            }
            self.refused.insert(subject, reason);
        }
        lines.rest();
        self.causes.clear();
    }

    fn line(&self, job: &JobId, rule: Option<&RuleName>, reason: Reason, exposure: &Exposure) {
        let word = reason.word();
        let rule = rule.map(RuleName::as_str);
        let address = exposure.refused_of(job).find_map(|one| one.address);
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
fn closing(owner: &Owner, exposure: &Exposure, known_jobs: &KnownJobs, rules: &[Rule]) -> Closing {
    let whole = (owner.job.clone(), None);
    let part = (owner.job.clone(), Some(owner.rule.clone()));
    match why_not(&part, exposure).or_else(|| why_not(&whole, exposure)) {
        Some(reason) => Closing::Refused(reason),
        None if rules.iter().all(|rule| rule.name != owner.rule) => Closing::RuleRemoved,
        None if known_jobs.jobs.contains_key(&owner.job) => Closing::RuleUnfit,
        None => Closing::Ended,
    }
}

/// Why something is not exposed, if that is so.
fn why_not(subject: &Subject, exposure: &Exposure) -> Option<Reason> {
    let (job, rule) = subject;
    let endpoint = rule.as_ref().and_then(|rule| {
        let (job, rule) = (job.clone(), rule.clone());
        exposure.endpoints.get(&Owner {
            job,
            rule,
            host: None,
        })
    });
    let closed = endpoint.and_then(|endpoint| endpoint.closed);
    closed.or_else(|| Some(exposure.refused.get(subject)?.reason))
}

/// Everything that is not exposed.
fn refused(exposure: &Exposure) -> BTreeMap<Subject, Reason> {
    let closed = exposure.endpoints.values().filter_map(|endpoint| {
        let Owner { job, rule, .. } = endpoint.owner.clone();
        Some(((job, Some(rule)), endpoint.closed?))
    });
    let refused = exposure.refused.values();
    let refused = refused.map(|one| (one.subject(), one.reason));
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
