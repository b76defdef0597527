//! From what the process knows to the documents of the API.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    fleet,
    model::{self, Absence},
};
use crate::{
    admin::{
        Sources,
        health::{LATELY, problems},
    },
    config::{LogLevel, route_ranges},
    end_reason::EndReason,
    handover::version,
    provider::switchboard::{
        Contact, Endpoint, Exposure, JobId,
        client::Outage,
        expose::{Reason, Refused},
        read::Rights,
    },
    resolve::Name,
    session::{SessionView, UpgradeMarks},
    table::{ListenAddr, Mapping, MappingName, MappingOverride, MappingOverrides},
    target::{Member, MemberState, TargetGroup, TargetSpec},
    telemetry::{self, ConnectFailure, Usage},
    units::{duration_ms, millis},
};

pub fn status(sources: &Sources) -> model::Status {
    let shared = &sources.shared;
    let table = shared.table.load();
    let report = sources.reloads.read();
    let tally = shared.tally();
    let usage = Usage::read();
    let (started, started_at) = sources.started;
    model::Status {
        version: version().to_owned(),
        started: time(started_at),
        uptime_ms: millis(started.elapsed()),
        ready: ready(sources),
        problems: problems(sources),
        mappings: table.mappings().len() as u64,
        listeners: report.listeners as u64,
        sessions: shared.stats.sessions_open().into(),
        sessions_limit: shared.gate.max_sessions().into(),
        sessions_opened: tally.opened,
        refused: occurred(
            &mut tally
                .refusals()
                .map(|(reason, count)| (reason.word(), count)),
        ),
        clients_banned: shared.gate.sources().banned(),
        bytes_up: tally.bytes_up,
        bytes_down: tally.bytes_down,
        pipes: model::Pipes {
            in_use: shared.pipes.in_use() as u64,
            free: shared.pipes.free() as u64,
            limit: shared.pipes.limit() as u64,
            denied: shared.pipes.denied(),
        },
        reload: model::Reload {
            succeeded: report.succeeded,
            failed: report.failed,
            last_success: time(report.last_success),
            last_took_ms: millis(report.last_took),
            last_error: report.last_error,
        },
        upgrade: upgrades(sources),
        switchboard: switchboard(sources),
        fleet: fleet::membership(sources),
        process: model::Process {
            pid: std::process::id(),
            resident_bytes: usage.resident,
            descriptors: usage.descriptors,
            descriptors_limit: usage.descriptor_limit,
            cpu_ms: usage.cpu.map(|seconds| (seconds * 1e3) as u64),
        },
        log_level: LogLevel::from(sources.log.level()).to_string(),
    }
}

fn upgrades(sources: &Sources) -> model::Upgrades {
    let report = sources.upgrades.read();
    model::Upgrades {
        succeeded: report.succeeded,
        failed: report.failed,
        last: report.last.map(|last| model::Upgraded {
            upgrade: last.number,
            at: time(last.at),
            from: last.from,
            to: last.to,
            sessions: last.sessions,
            pause_ms: last.pause.as_secs_f64() * 1e3,
            error: last.error,
        }),
        binary: sources.binary.to_string_lossy().into_owned(),
    }
}

/// What there was any of, by name.
fn occurred(counts: &mut dyn Iterator<Item = (&str, u64)>) -> BTreeMap<String, u64> {
    let some = counts.filter(|(_, count)| *count > 0);
    some.map(|(word, count)| (word.to_owned(), count)).collect()
}

/// Closed listeners that are named; of the others only the number is told.
const CLOSED_NAMED: usize = 10;

pub fn ready(sources: &Sources) -> model::Ready {
    let mut reasons = Vec::new();
    if sources.is_stopping() {
        reasons.push("the proxy is stopping".to_owned());
    }
    let closed = sources.shared.closed.load();
    let named = closed.iter().take(CLOSED_NAMED);
    reasons.extend(named.map(|lost| format!("listener {} is closed: {}", lost.addr, lost.why)));
    if let Some(more @ 1..) = closed.len().checked_sub(CLOSED_NAMED) {
        reasons.push(format!("closed listeners besides: {more}"));
    }
    let nowhere = nowhere(sources);
    let named = nowhere.iter().take(CLOSED_NAMED);
    reasons.extend(named.map(|(mapping, why)| format!("mapping {mapping} has no target: {why}")));
    if let Some(more @ 1..) = nowhere.len().checked_sub(CLOSED_NAMED) {
        reasons.push(format!("mappings without a target besides: {more}"));
    }
    model::Ready {
        ready: reasons.is_empty(),
        reasons,
    }
}

/// The mappings whose names lead to no address, and why.
pub fn nowhere(sources: &Sources) -> Vec<(MappingName, String)> {
    let table = sources.shared.table.load();
    let groups = table
        .groups()
        .filter(|(_, group)| group.members().is_empty());
    let nowhere = groups.flat_map(|(mapping, group)| {
        let family = mapping.policy.family;
        let names = group.settings().names().cloned();
        let why = names.filter_map(move |name| sources.names.why_nowhere(&Name { name, family }));
        why.map(|why| (mapping.name.clone(), why))
    });
    let mut nowhere: Vec<_> = nowhere.collect();
    nowhere.sort();
    nowhere
}

/// All mappings, or the one that is asked for.
pub fn mappings(sources: &Sources, only: Option<&MappingName>) -> Vec<model::Mapping> {
    let is_meant = |mapping: &Mapping| only.is_none_or(|only| mapping.name == *only);
    let table = sources.shared.table.load();
    let overrides = sources.shared.overrides.load();
    let mut pairs: HashMap<&MappingName, Vec<(ListenAddr, TargetSpec)>> = HashMap::new();
    let drain_ends = sources.shared.drain_ends.load();
    for route in table.routes().filter(|route| is_meant(&route.mapping)) {
        let pairs = pairs.entry(&route.mapping.name).or_default();
        pairs.push((route.listen, route.target.spec()));
    }
    let mut groups: HashMap<&MappingName, Vec<&TargetGroup>> = HashMap::new();
    for (mapping, group) in table.groups() {
        groups.entry(&mapping.name).or_default().push(group);
    }
    let meant = table.mappings().filter(|mapping| is_meant(mapping));
    let each = meant.map(|mapping| {
        let groups = groups.remove(&mapping.name).unwrap_or_default();
        let mut pairs = pairs.remove(&mapping.name).unwrap_or_default();
        pairs.sort_unstable_by_key(|(listen, _)| *listen);
        let state = overrides
            .get(&mapping.name)
            .copied()
            .map_or("accepting", MappingOverride::word);
        model::Mapping {
            targets: targets(&groups),
            failing: failing(mapping, &groups),
            sessions_end_in_ms: (drain_ends.get(&mapping.name)).map(|end| millis(end.left())),
            queued: groups.iter().map(|group| group.queue().len() as u64).sum(),
            ..self::mapping(mapping, &pairs, state)
        }
    });
    each.collect()
}

/// Why a mapping's clients get no session, as far as is known.
fn failing(mapping: &Mapping, groups: &[&TargetGroup]) -> Option<String> {
    let is_down = |member: &Arc<Member>| member.state() == MemberState::Down;
    for members in groups.iter().map(|group| group.members()) {
        if members.is_empty() {
            return Some("no target has an address".to_owned());
        }
        if members.iter().all(is_down) {
            return Some("no target is up".to_owned());
        }
    }
    let lately = mapping.stats.lately();
    let failed = lately.failed.filter(|_| lately.is_failing)?;
    let error = mapping.stats.connect_error();
    let why = error.as_deref().unwrap_or("no connection");
    Some(match failed.elapsed() {
        ago if ago > LATELY => format!("{why}, {} ago", duration_ms(millis(ago))),
        _ => why.to_owned(),
    })
}

/// What a mapping is after an operator has set it.
pub fn mapping_state(sources: &Sources, name: &MappingName) -> model::MappingState {
    let table = sources.shared.table.load();
    let mut mappings = table.mappings();
    let mapping = mappings.find(|mapping| mapping.name == *name);
    let overrides = sources.shared.overrides.load();
    let state = overrides.get(name).copied();
    let drain_ends = sources.shared.drain_ends.load();
    model::MappingState {
        mapping: name.to_string(),
        state: state.map_or("accepting", MappingOverride::word).to_owned(),
        sessions: mapping.map_or(0, |mapping| mapping.stats.open().into()),
        sessions_end_in_ms: drain_ends.get(name).map(|end| millis(end.left())),
    }
}

/// Targets of a mapping that are told of.
const TARGETS: usize = 256;

fn targets(groups: &[&TargetGroup]) -> Vec<model::Target> {
    let members = groups.iter().flat_map(|group| {
        let members = group.members();
        (0..members.len()).map(move |index| Arc::clone(&members[index]))
    });
    let one = |member: Arc<Member>| model::Target {
        target: member.address.to_string(),
        state: member.state().word().to_owned(),
        backup: member.settings.backup,
        weight: member.settings.weight.into(),
        sessions: member.sessions().into(),
        sessions_limit: member.settings.max_sessions.map(u64::from),
        opened: member.chosen(),
        connect_failures: member.failures(),
        state_since: member.since().map(time_of),
        check_failures: member.check_failures(),
        check_failure: member.check_failure().map(|failure| model::CheckFailure {
            at: time_of(failure.at),
            error: failure.error.clone(),
        }),
    };
    members.take(TARGETS).map(one).collect()
}

fn mapping(mapping: &Mapping, pairs: &[(ListenAddr, TargetSpec)], state: &str) -> model::Mapping {
    let stats = &mapping.stats;
    let mut ended = (EndReason::ALL.iter()).map(|reason| (reason.word(), stats.ended(*reason)));
    let mut failures =
        (ConnectFailure::ALL.iter()).map(|cause| (cause.word(), stats.connect_failures(*cause)));
    let latency = stats.connect_latency.read();
    let lately = stats.lately();
    model::Mapping {
        mapping: mapping.name.to_string(),
        state: state.to_owned(),
        sessions_end_in_ms: None,
        failing: None,
        rates: model::Rates {
            opened_per_second: lately.opened,
            bytes_up_per_second: lately.bytes_up,
            bytes_down_per_second: lately.bytes_down,
        },
        routes: route_ranges(pairs)
            .into_iter()
            .map(|range| model::Route {
                listen: range.listen,
                target: range.target,
            })
            .collect(),
        targets: Vec::new(),
        queued: 0,
        sessions: stats.open().into(),
        sessions_limit: mapping.policy.max_sessions.map(u64::from),
        opened: stats.opened(),
        bytes_up: stats.bytes_up(),
        bytes_down: stats.bytes_down(),
        ended: occurred(&mut ended),
        connect_failures: occurred(&mut failures),
        connect_error: stats.connect_error(),
        connect_mean_ms: (latency.count > 0).then(|| latency.sum / latency.count as f64 * 1e3),
        path: stats
            .path
            .load()
            .filter(|_| stats.open() > 0)
            .map(|path| model::Path {
                sessions: path.connections,
                rtt_ms: path.rtt * 1e3,
                rtt_min_ms: path.min_rtt.map(|rtt| rtt * 1e3),
                retransmit_ratio: path.retransmit_ratio,
                delivery_bytes_per_second: path.delivery_rate,
            }),
    }
}

pub fn switchboard(sources: &Sources) -> Option<model::Switchboard> {
    let exposure = sources.switchboard.read()?;
    let contact = sources.switchboard.contact();
    let availability = &sources.switchboard.availability;
    let outage = availability.outage();
    let token = sources.switchboard.token.known();
    let lasts = |at: SystemTime| at.duration_since(SystemTime::now()).ok();
    let stats = &sources.switchboard.stats;
    let mut not_exposed =
        (Reason::ALL.iter().copied()).map(|reason| (reason.word(), exposure.closed(reason) as u64));
    let age = stats.knowledge_age();
    let mut by_result: BTreeMap<String, u64> = BTreeMap::new();
    for (_, result, count) in stats
        .requests()
        .into_iter()
        .filter(|(.., count)| *count > 0)
    {
        *by_result.entry(result.to_owned()).or_default() += count;
    }
    let ports = exposure.ports;
    Some(model::Switchboard {
        state: contact.word().to_owned(),
        followed_by: match &contact {
            Contact::Elsewhere(leader) => leader.clone(),
            _ => None,
        },
        error: contact.error().map(str::to_owned),
        token_expires: token.expires.map(time),
        token_lasts_ms: token.expires.and_then(lasts).map(millis),
        token_error: token.unreadable,
        outage_ms: outage.map(|outage| millis(outage.since.elapsed())),
        heard_ms: availability.heard_ago().map(millis),
        complete: exposure.complete.map(time),
        age_ms: age.map(millis),
        jobs: exposure.jobs as u64,
        endpoints: exposure.open() as u64,
        unconfirmed: exposure.unconfirmed as u64,
        rights: stats.rights().word().to_owned(),
        held_back: stats.held(),
        not_exposed: occurred(&mut not_exposed),
        ports: model::Ports {
            used: ports.used as u64,
            cooling: ports.cooling as u64,
            blocked: ports.blocked as u64,
            reserved: ports.reserved as u64,
            free: ports.free as u64,
            waiting: exposure.closed(Reason::NoPort) as u64,
        },
        requests: by_result,
        not_kept: exposure.not_kept.clone(),
    })
}

/// Where jobs can be reached, and why not where they cannot, as far as that is news.
pub fn endpoints(sources: &Sources) -> model::Endpoints {
    let own = own_endpoints(sources);
    match sources.fleet.read() {
        None => own,
        Some(view) => model::Endpoints {
            endpoints: fleet::with_others(own.endpoints, &view, None),
        },
    }
}

fn own_endpoints(sources: &Sources) -> model::Endpoints {
    let Some(exposure) = sources.switchboard.read() else {
        return model::Endpoints::default();
    };
    let overrides = sources.shared.overrides.load();
    let open = |one: &Endpoint| endpoint(one, &exposure, &overrides);
    let mut endpoints: Vec<_> = exposure.endpoints.values().map(open).collect();
    let news = |one: &&Refused| !one.reason.is_ordinary();
    let refused = exposure.refused.values().filter(news);
    endpoints.extend(refused.map(|one| self::refused(one, &exposure)));
    model::Endpoints { endpoints }
}

/// Where some jobs can be reached, and why not where they cannot: at least one entry for each.
pub fn endpoints_of(sources: &Sources, jobs: &[JobId]) -> model::Endpoints {
    let own = own_endpoints_of(sources, jobs);
    match sources.fleet.read() {
        None => own,
        Some(view) => model::Endpoints {
            endpoints: fleet::with_others(own.endpoints, &view, Some(jobs)),
        },
    }
}

fn own_endpoints_of(sources: &Sources, jobs: &[JobId]) -> model::Endpoints {
    let Some(exposure) = sources.switchboard.read() else {
        return model::Endpoints::default();
    };
    let overrides = sources.shared.overrides.load();
    let mut endpoints = Vec::new();
    for job in jobs {
        let before = endpoints.len();
        let open = exposure.of_job(job);
        endpoints.extend(open.map(|one| endpoint(one, &exposure, &overrides)));
        let refused = exposure.refused_of(job);
        endpoints.extend(refused.map(|one| self::refused(one, &exposure)));
        if endpoints.len() == before {
            let (absence, note) = absence(job, sources, &exposure);
            endpoints.push(model::Endpoint {
                job: job.to_string(),
                host: exposure.host.to_string(),
                state: "closed".to_owned(),
                reason: Some(absence.word().to_owned()),
                note: Some(note),
                ..model::Endpoint::default()
            });
        }
    }
    model::Endpoints { endpoints }
}

/// Why nothing is known of `job`, of which nothing is exposed or refused, and the same for people.
fn absence(job: &JobId, sources: &Sources, exposure: &Exposure) -> (Absence, String) {
    let board = &sources.switchboard;
    let stats = &board.stats;
    if stats.finished.contains(job) {
        return (Absence::Finished, "job has finished".to_owned());
    }
    if let Contact::Elsewhere(_) = board.contact() {
        let text = "no port of the region belongs to such a job: it waits for one, has finished, or is \
             unknown";
        return (Absence::Unknown, text.to_owned());
    }
    let lasts = |outage: Outage| duration_ms(millis(outage.since.elapsed()));
    let why = match (board.contact(), board.availability.outage().map(lasts)) {
        (Contact::Away(_), Some(lasts)) => {
            format!("the switchboard has not answered for {lasts}")
        }
        (Contact::Away(_), None) => "the switchboard cannot be asked".to_owned(),
        (_, Some(lasts)) => format!("the switchboard has listed no jobs for {lasts}"),
        _ if stats.is_listing_failing() => "the switchboard lists no jobs".to_owned(),
        (Contact::Starting, None) => "the switchboard has not told of all jobs yet".to_owned(),
        _ if exposure.complete.is_none() || stats.jobs_active() > exposure.jobs as u64 => {
            "not all jobs have been asked about yet".to_owned()
        }
        (Contact::Following | Contact::Troubled(_) | Contact::Elsewhere(_), None) => {
            let mut text = "there is no such job, or it has finished long ago".to_owned();
            if stats.rights() == Rights::Some {
                text.push_str(", or the account of this proxy may not read it");
            }
            return (Absence::Unknown, text);
        }
    };
    let text = format!("job has not been heard of: {why}");
    (Absence::NotHeardOf, text)
}

fn refused(one: &Refused, exposure: &Exposure) -> model::Endpoint {
    let state = one.state;
    model::Endpoint {
        job: one.job.to_string(),
        rule: one.rule.as_ref().map(ToString::to_string),
        host: exposure.host.to_string(),
        target: one.address.map(|address| address.to_string()),
        state: "closed".to_owned(),
        reason: Some(one.reason.word().to_owned()),
        note: Some(one.reason.text(state)),
        job_state: state.map(|state| state.word().to_owned()),
        ..model::Endpoint::default()
    }
}

fn endpoint(one: &Endpoint, exposure: &Exposure, overrides: &MappingOverrides) -> model::Endpoint {
    let state = overrides
        .get(&one.owner.mapping())
        .copied()
        .map(MappingOverride::word);
    let state = match one.closed {
        None => state.unwrap_or("open"),
        Some(Reason::NoPort) => "waiting",
        Some(_) => "closed",
    };
    model::Endpoint {
        job: one.owner.job.to_string(),
        rule: Some(one.owner.rule.to_string()),
        host: exposure.host.to_string(),
        port: one.port,
        target: Some(one.target.to_string()),
        state: state.to_owned(),
        reason: one.closed.map(|reason| reason.word().to_owned()),
        note: one.closed.map(|reason| reason.text(None)),
        job_state: None,
        since: one.since.map(time),
        ..model::Endpoint::default()
    }
}

pub fn session(view: &SessionView, upgrades: &UpgradeMarks) -> model::Session {
    model::Session {
        session: view.id.0,
        mapping: view.route.mapping.name.to_string(),
        client: view.client.to_string(),
        front: view.front.map(|front| front.to_string()),
        listen: view.route.listen.to_string(),
        target: view
            .target
            .map_or_else(String::new, |target| target.to_string()),
        attempts: view.attempts.into(),
        local: view.local.map(|local| local.to_string()),
        stage: view.stage.word().to_owned(),
        bytes_up: view.bytes_up,
        bytes_down: view.bytes_down,
        duration_ms: millis(view.age),
        connect_ms: view.connect.map(millis),
        quiet_ms: millis(view.quiet),
        splices: view.splices,
        upgrades: upgrades.since(view.id) as u64,
    }
}

pub fn event(event: telemetry::Event) -> model::Event {
    let fields = event.fields.into_iter();
    model::Event {
        number: event.number,
        at: time(event.at),
        level: LogLevel::from(event.level).to_string(),
        message: event.message,
        fields: fields
            .map(|(name, value)| (name.into_owned(), value))
            .collect(),
    }
}

/// The time of day of a moment that is past.
pub fn time_of(at: Instant) -> String {
    time(SystemTime::now() - at.elapsed())
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
