//! What is wrong right now, in words for whoever has to do something about it.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Sources,
    api::{
        model::{Problem, Severity},
        view::nowhere,
    },
};
use crate::{
    config::AutoOr,
    fleet::Contact,
    provider::switchboard::{
        self, SwitchboardStatus, expose::Reason, read::Rights, region::Role, token_file::SOON,
    },
    table::{DrainEnds, Mapping, MappingName, MappingOverrides, Table},
    target::{Member, MemberState},
    telemetry::{Failures, HISTORY_STEP, Task, Totals, Usage},
    text::enumerated,
    units::{self, duration_ms, millis},
    worker::ClosedListener,
};

/// "Lately" in what follows.
pub(super) const LATELY: Duration = Duration::from_secs(60);

/// A task that failed is worth a warning for so long.
const RECENTLY: Duration = Duration::from_secs(60 * 60);

/// From this share of a limit on it is worth a warning.
const NEARLY_FULL: f64 = 0.9;

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, severity: Severity, text: impl Into<String>) {
        let text = text.into();
        self.0.push(Problem { severity, text });
    }

    fn error(&mut self, text: impl Into<String>) {
        self.add(Severity::Error, text);
    }

    fn warning(&mut self, text: impl Into<String>) {
        self.add(Severity::Warning, text);
    }

    fn note(&mut self, text: impl Into<String>) {
        self.add(Severity::Note, text);
    }
}

/// Everything that is wrong, worst first.
pub(super) fn problems(sources: &Sources) -> Vec<Problem> {
    let mut found = Found::default();
    if sources.is_stopping() {
        found.error("The proxy is stopping and takes no new sessions.");
    }
    if let Some(error) = sources.reloads.read().last_error {
        found.error(format!(
            "The last reload failed; what was in force before still is. {error}"
        ));
    }
    if let Some(last) = sources.upgrades.read().last
        && let Some(error) = last.error
    {
        let from = last.from;
        found.warning(format!(
            "The last upgrade failed; version {from} goes on. {error}"
        ));
    }
    for &task in Task::ALL {
        failed_task(task, &sources.failures.of(task), &mut found);
    }
    let shared = &sources.shared;
    closed_listeners(&shared.closed.load(), &mut found);
    let (open, limit) = (shared.stats.sessions_open(), shared.gate.max_sessions());
    if open >= limit {
        let raise = match sources.config.load().limits.max_sessions {
            AutoOr::Value(max) if max.get() == limit => "limits.max_sessions",
            _ => "the limit on open files",
        };
        found.error(format!(
            "All {limit} sessions there may be are open, new clients are refused. Raise {raise}."
        ));
    } else if f64::from(open) >= f64::from(limit) * NEARLY_FULL {
        found.warning(format!("{open} of {limit} sessions there may be are open."));
    }
    if let AutoOr::Value(max) = sources.config.load().limits.max_sessions
        && max.get() > limit
    {
        found.warning(format!(
            "limits.max_sessions is {max}, and the limit on open files leaves {limit} beside the \
                 listeners. Raise LimitNOFILE= in the unit (ulimit -n)."
        ));
    }
    let usage = Usage::read();
    if let (Some(open), Some(limit)) = (usage.descriptors, usage.descriptor_limit)
        && open as f64 >= limit as f64 * NEARLY_FULL
    {
        found.warning(format!("{open} of {limit} file descriptors are open."));
    }
    switchboard(sources, &mut found);
    fleet(sources, &mut found);
    names(sources, &mut found);
    targets(&shared.table.load(), &mut found);
    for mapping in shared.table.load().mappings() {
        if let Some(max) = mapping.policy.max_sessions
            && mapping.stats.open() >= max
        {
            found.error(format!(
                "Mapping {} has all {max} sessions it may have; new clients are refused.",
                mapping.name
            ));
        }
    }
    held(
        &shared.overrides.load(),
        &shared.drain_ends.load(),
        &mut found,
    );
    lately(&sources.history.read(), &shared.table.load(), &mut found);
    found.0.sort_by_key(|problem| Reverse(problem.severity));
    found.0
}

fn failed_task(task: Task, failures: &Failures, found: &mut Found) {
    let Some((at, why)) = &failures.last else {
        return;
    };
    let (name, times) = (task.word(), units::count(failures.count, "time"));
    if failures.is_down {
        found.error(format!(
            "The task {name} of the control plane has failed {times} and is about to be started \
                 again: {why}."
        ));
    } else if at.elapsed() < RECENTLY {
        found.warning(format!(
            "The task {name} of the control plane has failed {times} and runs again: {why}."
        ));
    }
}

/// Names and mappings that a line is given; of the others only the number is told.
const NAMES: usize = 10;

fn names(sources: &Sources, found: &mut Found) {
    let nowhere = nowhere(sources);
    for (mapping, why) in nowhere.iter().take(NAMES) {
        found.error(format!(
            "Mapping {mapping} has no target, its clients are refused. {why}."
        ));
    }
    if let Some(more @ 1..) = nowhere.len().checked_sub(NAMES) {
        found.error(format!("Mappings without a target besides: {more}."));
    }
    let all = sources.names.all();
    let failing = all
        .iter()
        .filter(|(_, known)| known.error.is_some() && !known.addresses.is_empty());
    for (name, known) in failing.take(NAMES) {
        let error = known.error.as_deref().unwrap_or_default();
        found.warning(format!(
            "The name {} cannot be looked up, what is known of it stays: {error}.",
            name.name
        ));
    }
    let left_out = all
        .iter()
        .filter(|(_, known)| (1..known.addresses.len()).contains(&known.left_out.len()));
    for (name, known) in left_out.take(NAMES) {
        if let Some((address, why)) = known.left_out.first() {
            let count = known.left_out.len();
            found.warning(format!(
                "Addresses of {} that are no targets: {count}. {address}: {why}.",
                name.name
            ));
        }
    }
}

/// Targets that checks have found down.
fn targets(table: &Table, found: &mut Found) {
    let mut of: BTreeMap<&MappingName, Down> = BTreeMap::new();
    for (mapping, group) in table.groups() {
        let members = group.members();
        let is_down = |member: &&Arc<Member>| member.state() == MemberState::Down;
        let down = members.iter().filter(is_down).count();
        let Some(first) = members.iter().find(is_down) else {
            continue;
        };
        let of = of.entry(&mapping.name).or_insert_with(|| Down {
            first: Arc::clone(first),
            count: 0,
            members: 0,
            is_all: false,
        });
        of.count += down;
        of.members += members.len();
        of.is_all |= down == members.len();
    }
    for (mapping, down) in of.iter().take(NAMES) {
        let Down {
            first,
            count,
            members,
            is_all,
        } = down;
        let why = first.check_failure();
        let why = why.map_or_else(String::new, |failure| format!(": {}", failure.error));
        let which = format!("{count} of {members}, of which {}{why}", first.address);
        match is_all {
            true => found.error(format!(
                "Mapping {mapping} has no target that is up, its clients are refused. Down: {which}."
            )),
            // It may be meant to be so, where one of several is the primary.
            false => found.note(format!("Targets of mapping {mapping} that are down: {which}.")),
        }
    }
    if let Some(more @ 1..) = of.len().checked_sub(NAMES) {
        found.warning(format!(
            "Mappings with targets that are down besides: {more}."
        ));
    }
}

/// What checks have found of a mapping.
struct Down {
    /// The first that is.
    first: Arc<Member>,
    count: usize,
    /// How many there are.
    members: usize,
    /// Whether one of its ports has no other.
    is_all: bool,
}

fn closed_listeners(closed: &[ClosedListener], found: &mut Found) {
    if let Some(first) = closed.first() {
        let count = units::count(closed.len() as u64, "listener");
        found.error(format!(
            "Lost and not open again yet: {count}, of which {} ({}). They are tried again by \
                 themselves, and by a reload.",
            first.addr, first.why
        ));
    }
}

fn switchboard(sources: &Sources, found: &mut Found) {
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
    let contact = board.contact();
    match &contact {
        switchboard::Contact::Away(why) => {
            found.error(format!("The switchboard cannot be asked ({why}): {known}."))
        }
        switchboard::Contact::Troubled(why) => found.warning(format!(
            "Some answers of the switchboard are of no use ({why}): {known}."
        )),
        switchboard::Contact::Starting
        | switchboard::Contact::Following
        | switchboard::Contact::Elsewhere(_) => {}
    }
    if let Some(region) = &exposure.region {
        if region.role == Role::Serving && region.leader.is_none() {
            found.warning(
                "Nobody leads the region: no job gets a port, and none is closed that has ended. It takes a \
                 proxy with a [switchboard] whose fleet.follow is true.",
            );
        }
        shared_ports(region.role, exposure.open(), found);
    }
    if !matches!(contact, switchboard::Contact::Elsewhere(_)) {
        following(board, found);
    }
    if let Some(why) = &exposure.not_kept {
        let what = match exposure.region {
            None => "so that no further port is opened",
            Some(_) => "other than in the fleet's database",
        };
        found.error(format!(
            "Allocations of ports cannot be kept, {what}. {why}"
        ));
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
            found.add(severity, format!("{words}: {count}."));
        }
    }
}

/// What is said of a switchboard while it is followed here.
fn following(board: &SwitchboardStatus, found: &mut Found) {
    let held = board.stats.held();
    if held > 0 {
        found.error(format!(
            "Jobs missing from the listing, too many at once to be believed: {held}. They stay \
                 open until another listing says the same. Is the database as it should be?"
        ));
    }
    if board.stats.rights() == Rights::Some {
        found.note(
            "The account of the switchboard's token may not read all jobs: only those it may read \
             are exposed, and what it may no longer read stays open until it ends.",
        );
    }
    let token = board.token.known();
    if let Some(error) = token.unreadable {
        found.warning(format!(
            "No token for the switchboard can be read, the one in use stays: {error}."
        ));
    }
    let left = token.expires.map(|at| at.duration_since(SystemTime::now()));
    if let Some(Ok(left)) = left
        && left < SOON
    {
        let left = duration_ms(millis(left));
        found.warning(format!(
            "The token for the switchboard expires in {left}. Put a new one into \
                 switchboard.token_file; it is read when the file changes."
        ));
    }
}

/// What a role means for the ports of jobs, where that is not what it is to be.
fn shared_ports(role: Role, open: usize, found: &mut Found) {
    match role {
        Role::Serving | Role::Leading { .. } => {}
        Role::Unknown => found.warning(format!(
            "The ports of the region are not known yet: nothing is opened or closed. Endpoints that \
             are open as before: {open}."
        )),
        Role::Alone { .. } => found.error(format!(
            "The fleet's database is not heard of, so that no job gets a port but one that this proxy has \
             beforehand (fleet.reserve). Endpoints that are open: {open}."
        )),
        Role::Expired => found.error(
            "The ports of jobs are closed: the fleet's database was not heard of for longer than \
             fleet.lease, or has removed this proxy, and others may have them.",
        ),
    }
}

fn fleet(sources: &Sources, found: &mut Found) {
    let Some(view) = sources.fleet.read() else {
        return;
    };
    let known = match view.heard {
        Some(heard) => {
            let age = duration_ms(millis(heard.elapsed()));
            format!("what is known of other proxies is {age} old")
        }
        None => "nothing is known of other proxies yet".to_owned(),
    };
    match &view.contact {
        Contact::Refused(why) => found.error(format!("No part in the fleet, {known}: {why}.")),
        Contact::Away(why) => found.warning(format!(
            "The fleet's database cannot be asked, {known}: {why}."
        )),
        Contact::Starting | Contact::Connected => {}
    }
    for proxy in view
        .proxies
        .iter()
        .filter(|one| one.state() == "silent")
        .take(NAMES)
    {
        let age = duration_ms(millis(proxy.seen.elapsed()));
        found.note(format!(
            "The proxy {} of the fleet was last heard of {age} ago. If it is gone for good: \
                 `tml-proxy fleet remove {}`.",
            proxy.name, proxy.name
        ));
    }
}

fn held(overrides: &MappingOverrides, drain_ends: &DrainEnds, found: &mut Found) {
    for (name, state) in overrides.iter().take(NAMES) {
        let word = state.word();
        let left = drain_ends.get(name).map(|end| end.left());
        found.note(match left.filter(|left| !left.is_zero()) {
            Some(left) => {
                let left = duration_ms(millis(left));
                format!("Mapping {name} is {word} by an operator; its sessions end in {left}.")
            }
            None => format!("Mapping {name} is {word} by an operator."),
        });
    }
    if let Some(more @ 1..) = overrides.len().checked_sub(NAMES) {
        found.note(format!("Mappings paused or drained besides: {more}."));
    }
}

/// What was counted in the last minute.
fn lately(history: &[Totals], table: &Table, found: &mut Found) {
    let steps = LATELY.as_secs() / HISTORY_STEP.as_secs();
    let steps = usize::try_from(steps).expect("a minute has few steps");
    let Some(last) = history.last() else {
        return;
    };
    // Before that nothing was counted.
    let first = history.len().checked_sub(steps + 1);
    let first = first.map_or_else(Totals::default, |place| history[place]);
    let counted = |total: fn(&Totals) -> u64| total(last).saturating_sub(total(&first));
    if counted(|totals| totals.accept_pauses) > 0 {
        found.error(
            "Listeners paused in the last minute because accepting failed: descriptors or memory \
             ran out, or something forbids it; the log says what.",
        );
    }
    let failures = counted(|totals| totals.connect_failures);
    if failures > 0 {
        let connections = units::count(failures, "connection");
        let has_failed = |mapping: &&Arc<Mapping>| {
            let failed = mapping.stats.lately().failed;
            failed.is_some_and(|at| at.elapsed() <= LATELY)
        };
        let names = table.mappings().filter(has_failed);
        let names: Vec<&MappingName> = names.map(|mapping| &mapping.name).collect();
        let of = match names.len() {
            0 => String::new(),
            count => format!(
                ", of {}: {}",
                units::count(count as u64, "mapping"),
                enumerated(names.iter(), count)
            ),
        };
        found.warning(format!(
            "{connections} to targets failed in the last minute{of}."
        ));
    }
    if counted(|totals| totals.pipes_denied) > 0 {
        found.note(
            "Bulk was copied for want of pipes in the last minute; `pipes` in [process] says how \
             many there may be.",
        );
    }
    let dropped = counted(|totals| totals.log_dropped);
    if dropped > 0 {
        let lost = units::count(dropped, "line");
        found.warning(format!(
            "The log lost {lost} in the last minute: whoever reads it is too slow, or the disk is \
             full."
        ));
    }
}
