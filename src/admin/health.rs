//! What is wrong right now, in words for whoever has to do something about it.

use std::time::{Duration, SystemTime};

use super::{
    Sources,
    api::model::{Problem, Severity},
};
use crate::{
    config::AutoOr,
    provider::switchboard::{Contact, expose::Reason, read::Rights, token_file::SOON},
    telemetry::{Failures, HISTORY_STEP, Task, Totals, Usage},
    units::{self, duration_ms, millis},
    worker::ClosedListener,
};

/// "Lately" in what follows.
const LATELY: Duration = Duration::from_secs(60);

/// A task that failed is worth a warning for so long.
const RECENTLY: Duration = Duration::from_secs(60 * 60);

/// From this share of a limit on it is worth a warning.
const NEARLY_FULL: f64 = 0.9;

/// Everything that is wrong, worst first.
pub(super) fn problems(sources: &Sources) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |severity, text: String| found.push(Problem { severity, text });
    if sources.is_stopping() {
        add(
            Severity::Error,
            "The proxy is stopping and takes no new sessions.".to_owned(),
        );
    }
    if let Some(error) = sources.reloads.read().last_error {
        add(
            Severity::Error,
            format!("The last reload failed; what was in force before still is. {error}"),
        );
    }
    for task in Task::ALL {
        failed_task(task, &sources.failures.of(task), &mut add);
    }
    let shared = &sources.shared;
    closed_listeners(&shared.closed.load(), &mut add);
    let (open, limit) = (shared.stats.sessions_open(), shared.gate.max_sessions());
    if open >= limit {
        let raise = match sources.config.load().max_sessions {
            AutoOr::Value(max) if max.get() == limit => "limits.max_sessions",
            _ => "the limit on open files",
        };
        add(
            Severity::Error,
            format!(
                "All {limit} sessions there may be are open, new clients are refused. Raise {raise}."
            ),
        );
    } else if f64::from(open) >= f64::from(limit) * NEARLY_FULL {
        add(
            Severity::Warning,
            format!("{open} of {limit} sessions there may be are open."),
        );
    }
    if let AutoOr::Value(max) = sources.config.load().max_sessions
        && max.get() > limit
    {
        add(
            Severity::Warning,
            format!(
                "limits.max_sessions is {max}, and the limit on open files leaves {limit} beside the \
                 listeners. Raise LimitNOFILE= in the unit (ulimit -n)."
            ),
        );
    }
    let usage = Usage::read();
    if let (Some(open), Some(limit)) = (usage.descriptors, usage.descriptor_limit)
        && open as f64 >= limit as f64 * NEARLY_FULL
    {
        add(
            Severity::Warning,
            format!("{open} of {limit} file descriptors are open."),
        );
    }
    switchboard(sources, &mut add);
    for mapping in shared.table.load().mappings() {
        if let Some(max) = mapping.policy.max_sessions
            && mapping.stats.open() >= max
        {
            add(
                Severity::Error,
                format!(
                    "Mapping {} has all {max} sessions it may have; new clients are refused.",
                    mapping.name
                ),
            );
        }
    }
    for (name, hold) in shared.overrides.load().iter() {
        add(
            Severity::Note,
            format!("Mapping {name} is {} by an operator.", hold.word()),
        );
    }
    if let Some(lately) = lately(&sources.history.read()) {
        lately.describe(&mut add);
    }
    found.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    found
}

/// A task of the control plane that failed.
fn failed_task(task: Task, failures: &Failures, add: &mut impl FnMut(Severity, String)) {
    let Some((at, why)) = &failures.last else {
        return;
    };
    let (name, times) = (task.word(), units::count(failures.count, "time"));
    if failures.is_down {
        add(
            Severity::Error,
            format!(
                "The task {name} of the control plane has failed {times} and is about to be started \
                 again: {why}."
            ),
        );
    } else if at.elapsed() < RECENTLY {
        add(
            Severity::Warning,
            format!(
                "The task {name} of the control plane has failed {times} and runs again: {why}."
            ),
        );
    }
}

/// Listeners that were lost.
fn closed_listeners(closed: &[ClosedListener], add: &mut impl FnMut(Severity, String)) {
    if let Some(first) = closed.first() {
        let count = units::count(closed.len() as u64, "listener");
        add(
            Severity::Error,
            format!(
                "Lost and not open again yet: {count}, of which {} ({}). They are tried again by \
                 themselves, and by a reload.",
                first.addr, first.why
            ),
        );
    }
}

/// What is wrong with the switchboard and its jobs.
fn switchboard(sources: &Sources, add: &mut impl FnMut(Severity, String)) {
    let Some(exposure) = sources.switchboard.read() else {
        return;
    };
    let board = &sources.switchboard;
    let heard = board.availability.heard_ago();
    let age = heard.or_else(|| board.stats.knowledge_age());
    let age = age.map(|age| duration_ms(millis(age)));
    let known = match (age, exposure.open()) {
        (Some(age), open) => {
            format!("what is known is {age} old, endpoints that stay open: {open}")
        }
        (None, 0) => "nothing is known of its jobs yet".to_owned(),
        (None, open) => format!("endpoints that are open as before the start: {open}"),
    };
    match sources.switchboard.contact() {
        Contact::Away(why) => add(
            Severity::Error,
            format!("The switchboard cannot be asked ({why}): {known}."),
        ),
        Contact::Troubled(why) => add(
            Severity::Warning,
            format!("Some answers of the switchboard are of no use ({why}): {known}."),
        ),
        Contact::Starting | Contact::Following => {}
    }
    let held = board.stats.held();
    if held > 0 {
        add(
            Severity::Error,
            format!(
                "Jobs missing from the listing, too many at once to be believed: {held}. They stay \
                 open until another listing says the same. Is the database as it should be?"
            ),
        );
    }
    if board.stats.rights() == Rights::Some {
        add(
            Severity::Note,
            "The account of the switchboard's token may not read all jobs: only those it may read \
             are exposed, and what it may no longer read stays open until it ends."
                .to_owned(),
        );
    }
    let token = board.token.known();
    if let Some(error) = token.unreadable {
        add(
            Severity::Warning,
            format!("No token for the switchboard can be read, the one in use stays: {error}."),
        );
    }
    let left = token.expires.map(|at| at.duration_since(SystemTime::now()));
    if let Some(Ok(left)) = left
        && left < SOON
    {
        let left = duration_ms(millis(left));
        add(
            Severity::Warning,
            format!(
                "The token for the switchboard expires in {left}. Put a new one into \
                 switchboard.token_file; it is read when the file changes."
            ),
        );
    }
    if let Some(why) = &exposure.not_kept {
        add(
            Severity::Error,
            format!(
                "Allocations of ports cannot be kept, so that no further port is opened. {why}"
            ),
        );
    }
    for (reason, severity, words) in [
        (
            Reason::SharedAddress,
            Severity::Error,
            "Jobs that are not exposed, because another live job has their address",
        ),
        (
            Reason::NoPort,
            Severity::Error,
            "Endpoints that wait for a port (`ports`, `max_total` and `cooldown` in [switchboard] \
             say how many there are)",
        ),
        (
            Reason::NotOpened,
            Severity::Error,
            "Ports of jobs that could not be opened (the log says why)",
        ),
        (
            Reason::NotAllowed,
            Severity::Warning,
            "Jobs that are not exposed, because their address is outside of switchboard.targets",
        ),
        (
            Reason::Own,
            Severity::Warning,
            "Jobs that are not exposed, because their address is one of this machine",
        ),
    ] {
        let count = exposure.closed(reason);
        if count > 0 {
            add(severity, format!("{words}: {count}."));
        }
    }
}

/// What was counted in the last minute.
struct Lately {
    connect_failures: u64,
    accept_pauses: u64,
    pipes_denied: u64,
    log_dropped: u64,
}

fn lately(history: &[Totals]) -> Option<Lately> {
    let steps = usize::try_from(LATELY.as_secs() / HISTORY_STEP.as_secs()).ok()?;
    let last = history.last()?;
    let first = &history[history.len().saturating_sub(steps + 1)];
    Some(Lately {
        connect_failures: last.connect_failures.saturating_sub(first.connect_failures),
        accept_pauses: last.accept_pauses.saturating_sub(first.accept_pauses),
        pipes_denied: last.pipes_denied.saturating_sub(first.pipes_denied),
        log_dropped: last.log_dropped.saturating_sub(first.log_dropped),
    })
}

impl Lately {
    fn describe(&self, add: &mut impl FnMut(Severity, String)) {
        if self.accept_pauses > 0 {
            add(
                Severity::Error,
                "Listeners paused in the last minute because accepting failed: descriptors or \
                 memory ran out, or something forbids it; the log says what."
                    .to_owned(),
            );
        }
        if self.connect_failures > 0 {
            let connections = units::count(self.connect_failures, "connection");
            add(
                Severity::Warning,
                format!(
                    "{connections} to targets failed in the last minute; `mappings` says to which."
                ),
            );
        }
        if self.pipes_denied > 0 {
            add(
                Severity::Note,
                "Bulk was copied for want of pipes in the last minute; `pipes` in [process] says how many there may be.".to_owned(),
            );
        }
        if self.log_dropped > 0 {
            let lost = units::count(self.log_dropped, "line");
            add(
                Severity::Warning,
                format!(
                    "The log lost {lost} in the last minute: whoever reads it is too slow, or the disk is full."
                ),
            );
        }
    }
}
