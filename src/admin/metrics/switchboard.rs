//! The series of the switchboard and its jobs; none if there is no switchboard.

use std::time::UNIX_EPOCH;

use super::{Sources, page::Page};
use crate::{
    provider::switchboard::{
        Contact, client::FailureKind, expose::Reason, read::Rights, region::Role, watch::Purpose,
    },
    telemetry::metric,
};

/// Tells the scrape\'s recorder how things are.
pub(super) fn record(sources: &Sources) {
    let board = &sources.switchboard;
    let Some(exposure) = board.read() else {
        return;
    };
    let contact = board.contact();
    let word = contact.word();
    for &state in Contact::WORDS {
        metric::SWITCHBOARD_CONTACT.set(&[state], u8::from(state == word));
    }
    if !matches!(contact, Contact::Elsewhere(_)) {
        following(sources);
    }
    if let Some(region) = &exposure.region {
        let word = region.role.word();
        for &role in Role::WORDS {
            metric::FLEET_ROLE.set(&[role], u8::from(role == word));
        }
        metric::FLEET_LED.set(&[], u8::from(region.leader.is_some()));
        metric::FLEET_GENERATION.set(&["known"], region.generation as f64);
        metric::FLEET_GENERATION.set(&["applied"], region.applied as f64);
    }
    for (metric, value) in [
        (&metric::SWITCHBOARD_JOBS, exposure.jobs),
        (&metric::SWITCHBOARD_ENDPOINTS, exposure.open()),
        (&metric::SWITCHBOARD_UNCONFIRMED, exposure.unconfirmed),
        (
            &metric::SWITCHBOARD_WAITING,
            exposure.closed(Reason::NoPort),
        ),
    ] {
        metric.set(&[], value as f64);
    }
    for reason in Reason::ALL.iter().copied() {
        match exposure.closed(reason) {
            0 => {}
            count => metric::SWITCHBOARD_NOT_EXPOSED.set(&[reason.word()], count as f64),
        }
    }
    for (state, count) in [
        ("used", exposure.ports.used),
        ("free", exposure.ports.free),
        ("cooling", exposure.ports.cooling),
        ("blocked", exposure.ports.blocked),
        ("reserved", exposure.ports.reserved),
    ] {
        metric::SWITCHBOARD_PORTS.set(&[state], count as f64);
    }
}

fn following(sources: &Sources) {
    let stats = &sources.switchboard.stats;
    if let Some(age) = sources.switchboard.availability.heard_ago() {
        metric::SWITCHBOARD_HEARD.set(&[], age);
    }
    if let Some(age) = stats.knowledge_age() {
        metric::SWITCHBOARD_AGE.set(&[], age);
    }
    for rights in Rights::ALL.iter().copied() {
        metric::SWITCHBOARD_RIGHTS.set(&[rights.word()], u8::from(stats.rights() == rights));
    }
    metric::SWITCHBOARD_HELD_BACK.set(&[], stats.held() as f64);
    let expires = sources.switchboard.token.known().expires;
    if let Some(at) = expires.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
        metric::SWITCHBOARD_TOKEN.set(&[], at.as_secs() as f64);
    }
    for (request, result, count) in stats.requests() {
        metric::SWITCHBOARD_REQUESTS.set_total(&[request.word(), result], count);
    }
    for kind in FailureKind::ALL.iter().copied() {
        match stats.episodes_open(kind) {
            0 => {}
            count => metric::SWITCHBOARD_FAILING.set(&[kind.word()], count as f64),
        }
    }
    for (word, purpose) in [("job", Purpose::Job), ("host", Purpose::Host)] {
        metric::SWITCHBOARD_WATCHES.set(&[word], stats.watches_open(purpose) as f64);
    }
    metric::SWITCHBOARD_WATCH_CONNECTIONS.set(&[], stats.watch_connections() as f64);
}

/// Writes how long it took until something was known.
pub(super) fn write(page: &mut Page, sources: &Sources) {
    if sources.switchboard.read().is_some() {
        let stats = &sources.switchboard.stats;
        page.family(&metric::SWITCHBOARD_NEW_JOB)
            .histogram(&[], &stats.new_job_latency.read());
        page.family(&metric::SWITCHBOARD_CHANGE)
            .histogram(&[], &stats.change_latency.read());
        page.family(&metric::SWITCHBOARD_REACHABLE)
            .histogram(&[], &sources.switchboard.reachable.read());
    }
}
