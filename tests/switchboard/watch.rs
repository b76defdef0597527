//! Watches end, break, fall silent and are refused.

use std::time::Duration;

use serde_json::json;
use tml_proxy::provider::switchboard::{
    JobState, KnownJobs,
    client::{FailureKind, Patience},
    follow::FollowSettings,
    stats::Request,
    watch::Purpose,
};

use crate::{
    board::{Fault, Route, Switchboard},
    follower::{BY_WATCHES, Follower, PATIENCE},
    harness::wait_until,
};

/// A job with an open watch and somebody who follows it.
fn watched(board: &Switchboard) -> (Follower, String) {
    board.add_host(1);
    let id = board.add_job(1, 1, "initializing");
    let follower = Follower::start(board, BY_WATCHES);
    follower.wait_for_state(&id, JobState::Initializing);
    wait_until("the job's watch", || board.watches(&id) == 1);
    (follower, id)
}

/// Watches of `follower` that ended in a way.
fn ends(follower: &Follower, cause: &str) -> f64 {
    let series = format!("tml_proxy_switchboard_watch_ends_total{{cause=\"{cause}\"}}");
    follower.counted(&series)
}

#[test]
fn a_watch_that_ends_is_opened_again_and_misses_nothing() {
    let board = Switchboard::start();
    let (follower, id) = watched(&board);
    board.end_watches();
    board.change_quietly(&id, |job| job["state"] = json!("ready"));
    follower.wait_for_state(&id, JobState::Ready);
    wait_until("another watch", || board.watches(&id) == 1);
    assert!(ends(&follower, "ended") >= 1.0);
    // The end of a stream is no error.
    for kind in FailureKind::ALL.iter().copied() {
        assert_eq!(follower.stats.episodes(kind), 0, "{}", kind.word());
    }
}

#[test]
fn a_watch_that_breaks_is_opened_again_and_misses_nothing() {
    let board = Switchboard::start();
    let (follower, id) = watched(&board);
    board.cut_watches();
    board.change_quietly(&id, |job| job["state"] = json!("ready"));
    follower.wait_for_state(&id, JobState::Ready);
    wait_until("another watch", || board.watches(&id) == 1);
    assert!(ends(&follower, "lost") >= 1.0);
}

#[test]
fn a_silent_watch_is_taken_for_dead_and_one_that_lives_is_not() {
    let board = Switchboard::start();
    let id = board.add_job_quietly(1, "ready");
    let patience = Patience {
        silence: Duration::from_millis(300),
        ..PATIENCE
    };
    let follower = Follower::knowing(&board, BY_WATCHES, patience, KnownJobs::default());
    wait_until("the job's watch", || board.watches(&id) == 1);
    let start = std::time::Instant::now();
    wait_until("several times as long as silence may last", || {
        board.keep_alive();
        start.elapsed() > Duration::from_secs(1)
    });
    assert_eq!(ends(&follower, "silent"), 0.0);
    wait_until("the end of the silent watch", || {
        ends(&follower, "silent") >= 1.0
    });
    wait_until("another watch", || board.watches(&id) == 1);
}

#[test]
fn a_job_whose_watch_is_refused_is_asked_about_instead() {
    for status in [403, 404] {
        let board = Switchboard::start();
        board.misbehave(Route::JobWatch, Fault::Status(status));
        let id = board.add_job_quietly(1, "initializing");
        let how = FollowSettings {
            poll: Duration::from_millis(50),
            ..BY_WATCHES
        };
        let follower = Follower::start(&board, how);
        follower.wait_for_state(&id, JobState::Initializing);
        board.put(&id, "ready");
        follower.wait_for_state(&id, JobState::Ready);
        board.put(&id, "finalized");
        follower.wait_for_end(&id);
        // Refused for good, so not asked for again and again.
        assert_eq!(board.requests(&Route::JobWatch), 1);
    }
}

#[test]
fn a_job_that_loses_its_watch_is_asked_about_meanwhile() {
    let board = Switchboard::start();
    let id = board.add_job_quietly(1, "initializing");
    let how = FollowSettings {
        poll: Duration::from_millis(50),
        ..BY_WATCHES
    };
    let follower = Follower::start(&board, how);
    wait_until("the job's watch", || board.watches(&id) == 1);
    wait_until("the readings it asks for", || {
        follower.stats.succeeded(Request::Job) >= 2
    });
    board.misbehave(Route::JobWatch, Fault::Status(403));
    board.end_watches();
    wait_until("its loss", || {
        follower.stats.watches_open(Purpose::Job) == 0
    });
    // Nothing that a listing would show.
    for address in ["fd00::1", "fd00::2"] {
        board.change_quietly(&id, |job| job["job_ip_address"] = json!(address));
        wait_until("the address", || {
            follower.wait_for_job(&id).address == address.parse().ok()
        });
    }
}

#[test]
fn refused_host_watches_leave_looking_now_and_then() {
    let board = Switchboard::start();
    board.misbehave(Route::HostWatch, Fault::Status(403));
    board.add_host(1);
    let how = FollowSettings {
        poll: Duration::from_millis(50),
        ..BY_WATCHES
    };
    let follower = Follower::start(&board, how);
    follower.wait_for_complete();
    let id = board.add_job(1, 1, "assigned");
    follower.wait_for_job(&id);
    assert_eq!(follower.stats.watches_open(Purpose::Host), 0);
}

#[test]
fn something_that_is_no_stream_is_no_watch() {
    let board = Switchboard::start();
    board.misbehave(Route::JobWatch, Fault::Body("{}"));
    let id = board.add_job_quietly(1, "ready");
    let follower = Follower::start(&board, BY_WATCHES);
    wait_until("a refusal", || {
        follower.stats.failed(Request::Watch, FailureKind::Invalid) >= 1
    });
    board.behave();
    wait_until("a watch", || board.watches(&id) == 1);
}

#[test]
fn a_storm_of_notices_is_one_reading_after_the_other() {
    let board = Switchboard::start();
    let (follower, id) = watched(&board);
    wait_until("readings to settle", || {
        follower.stats.succeeded(Request::Job) >= 2
    });
    let before = board.requests(&Route::Detail);
    let start = std::time::Instant::now();
    for _ in 0..5000 {
        board.wake(&id);
    }
    board.put(&id, "ready");
    follower.wait_for_state(&id, JobState::Ready);
    let readings = board.requests(&Route::Detail) - before;
    let fair = start.elapsed().as_millis() / 100 + 2;
    assert!(
        readings as u128 <= fair,
        "{readings} readings, {fair} are fair"
    );
}

#[test]
fn a_switchboard_that_restarts_is_caught_up_with() {
    let board = Switchboard::start();
    let (follower, id) = watched(&board);
    board.stop();
    wait_until("it to be missed", || {
        follower.stats.watches_open(Purpose::Job) == 0
    });
    assert!(follower.knows(&id));
    board.change_quietly(&id, |job| job["state"] = json!("ready"));
    board.go_on();
    follower.wait_for_state(&id, JobState::Ready);
    wait_until("both watches", || {
        let stats = &follower.stats;
        stats.watches_open(Purpose::Job) == 1 && stats.watches_open(Purpose::Host) == 1
    });
    let new = board.add_job(2, 1, "assigned");
    follower.wait_for_job(&new);
}
