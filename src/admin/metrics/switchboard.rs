//! The series of the switchboard and its jobs; none if there is no switchboard.

use std::time::UNIX_EPOCH;

use super::{
    Sources,
    exposition::Exposition,
    series::{self, Series},
};
use crate::provider::switchboard::{
    client::FailureKind,
    expose::{Closing, Reason},
    read::Rights,
    stats::{Request, WatchEnd},
    watch::Purpose,
};

pub(super) fn write(page: &mut Exposition, sources: &Sources) {
    let board = &sources.switchboard;
    let Some(exposure) = board.read() else {
        return;
    };
    let contact = board.contact();
    let mut family = page.family(&series::SWITCHBOARD_CONTACT);
    for state in ["starting", "following", "troubled", "away"] {
        family.sample(&[state], contact.word() == state);
    }
    following(page, sources);
    let reachable = board.reachable.read();
    page.family(&series::SWITCHBOARD_REACHABLE)
        .histogram(&[], &reachable);
    let whole: [(&'static Series, usize); 4] = [
        (&series::SWITCHBOARD_JOBS, exposure.jobs),
        (&series::SWITCHBOARD_ENDPOINTS, exposure.open()),
        (&series::SWITCHBOARD_UNCONFIRMED, exposure.unconfirmed),
        (
            &series::SWITCHBOARD_WAITING,
            exposure.closed(Reason::NoPort),
        ),
    ];
    for (series, value) in whole {
        page.family(series).sample(&[], value);
    }
    let mut family = page.family(&series::SWITCHBOARD_NOT_EXPOSED);
    for reason in Reason::ALL {
        match exposure.closed(reason) {
            0 => {}
            count => family.sample(&[reason.word()], count),
        }
    }
    let mut family = page.family(&series::SWITCHBOARD_REFUSALS);
    for reason in Reason::ALL {
        match board.refusals(reason) {
            0 => {}
            count => family.sample(&[reason.word()], count),
        }
    }
    let mut family = page.family(&series::SWITCHBOARD_CLOSINGS);
    for closing in Closing::all() {
        match board.closings(closing) {
            0 => {}
            count => family.sample(&[closing.word()], count),
        }
    }
    let mut family = page.family(&series::SWITCHBOARD_PORTS);
    for (state, count) in [
        ("used", exposure.ports.used),
        ("free", exposure.ports.free),
        ("cooling", exposure.ports.cooling),
        ("blocked", exposure.ports.blocked),
    ] {
        family.sample(&[state], count);
    }
    let (kept, not_kept) = board.attempts_to_keep();
    let mut family = page.family(&series::SWITCHBOARD_KEPT);
    family.sample(&["success"], kept);
    family.sample(&["failure"], not_kept);
}

fn following(page: &mut Exposition, sources: &Sources) {
    let stats = &sources.switchboard.stats;
    if let Some(age) = sources.switchboard.availability.heard_ago() {
        page.family(&series::SWITCHBOARD_HEARD)
            .sample(&[], age.as_secs_f64());
    }
    if let Some(age) = stats.knowledge_age() {
        page.family(&series::SWITCHBOARD_AGE)
            .sample(&[], age.as_secs_f64());
    }
    let mut family = page.family(&series::SWITCHBOARD_RIGHTS);
    for rights in Rights::ALL.iter().copied() {
        family.sample(&[rights.word()], stats.rights() == rights);
    }
    page.family(&series::SWITCHBOARD_HELD_BACK)
        .sample(&[], stats.held());
    let expires = sources.switchboard.token.known().expires;
    if let Some(at) = expires.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
        page.family(&series::SWITCHBOARD_TOKEN)
            .sample(&[], at.as_secs());
    }
    let mut family = page.family(&series::SWITCHBOARD_REQUESTS);
    for request in Request::ALL {
        family.sample(&[request.word(), "success"], stats.succeeded(request));
        for kind in FailureKind::ALL.iter().copied() {
            match stats.failed(request, kind) {
                0 => {}
                count => family.sample(&[request.word(), kind.word()], count),
            }
        }
    }
    let mut family = page.family(&series::SWITCHBOARD_FAILING);
    for kind in FailureKind::ALL.iter().copied() {
        match stats.episodes_open(kind) {
            0 => {}
            count => family.sample(&[kind.word()], count),
        }
    }
    let mut family = page.family(&series::SWITCHBOARD_WATCHES);
    family.sample(&["job"], stats.watches_open(Purpose::Job));
    family.sample(&["host"], stats.watches_open(Purpose::Host));
    page.family(&series::SWITCHBOARD_WATCH_CONNECTIONS)
        .sample(&[], stats.watch_connections());
    let mut family = page.family(&series::SWITCHBOARD_WATCH_ENDS);
    for end in WatchEnd::ALL {
        family.sample(&[end.word()], stats.watch_ends(end));
    }
    page.family(&series::SWITCHBOARD_NOTICES)
        .sample(&[], stats.notices());
    let mut family = page.family(&series::SWITCHBOARD_LEFT_OUT);
    family.sample(&["rows"], stats.rows_unreadable());
    family.sample(&["particulars"], stats.left_out());
    family.sample(&["jobs"], stats.jobs_over_limit());
    page.family(&series::SWITCHBOARD_OVERWRITTEN)
        .sample(&[], stats.annotations_overwritten());
    page.family(&series::SWITCHBOARD_NEW_JOB)
        .histogram(&[], &stats.new_job_latency());
    page.family(&series::SWITCHBOARD_CHANGE)
        .histogram(&[], &stats.change_latency());
}
