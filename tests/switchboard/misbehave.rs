//! A switchboard that misbehaves takes nothing away.

use std::time::Duration;

use serde_json::json;
use tml_proxy::provider::switchboard::{
    JobState, client::FailureKind, follow::FollowSettings, read::Rights, stats::Request,
};

use crate::{
    board::{Fault, Generation, Kind, Route, Switchboard},
    follower::{BY_ASKING, Follower},
    harness::wait_until,
};

/// Every way in which a whole answer can be none, and as what it is counted.
fn faults() -> Vec<(Fault, FailureKind)> {
    vec![
        (Fault::Status(401), FailureKind::Unauthorized),
        (Fault::Status(403), FailureKind::Forbidden),
        (Fault::Status(404), FailureKind::NotFound),
        (Fault::Status(500), FailureKind::Server),
        (Fault::Status(503), FailureKind::Server),
        (Fault::Status(204), FailureKind::Invalid),
        (Fault::Status(429), FailureKind::Status),
        (
            Fault::Redirect("/elsewhere".to_owned()),
            FailureKind::Status,
        ),
        (Fault::Hang, FailureKind::Timeout),
        (Fault::Half, FailureKind::Cut),
        (Fault::Slam, FailureKind::Cut),
        (Fault::Huge, FailureKind::TooLarge),
        (Fault::Body("{\"jobs\":["), FailureKind::Invalid),
        (Fault::Body("{}"), FailureKind::Invalid),
        (
            Fault::Body("<html>maintenance</html>"),
            FailureKind::Invalid,
        ),
        (Fault::Body(""), FailureKind::Invalid),
    ]
}

/// Two known jobs, of which one ends unnoticed while `route` has `fault`.
#[track_caller]
fn keeps_what_it_knows(route: Route, request: Request, fault: Fault, kind: FailureKind) {
    let board = Switchboard::of(Kind {
        generation: Generation::Fourth,
        ..Kind::default()
    });
    board.add_host(1);
    let (lives, ends) = (board.add_job(1, 1, "ready"), board.add_job(2, 1, "ready"));
    board.change(&lives, |job| job["job_ip_address"] = json!("fd00::1"));
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_complete();
    wait_until("the address", || {
        follower.wait_for_job(&lives).address.is_some()
    });
    follower.wait_for_job(&ends);

    board.misbehave(route.clone(), fault.clone());
    wait_until("the fault to be met three times", || {
        follower.stats.failed(request, kind) >= 3
    });
    assert!(
        follower.knows(&lives) && follower.knows(&ends),
        "{route:?} {fault:?}"
    );
    assert!(follower.wait_for_job(&lives).address.is_some());
    assert_eq!(follower.stats.episodes_open(kind), 1, "{route:?} {fault:?}");

    board.behave();
    board.put(&ends, "finalized");
    follower.wait_for_end(&ends);
    assert!(follower.knows(&lives));
    wait_until("the end of the episode", || {
        follower.stats.episodes_open(kind) == 0
    });
}

/// What `follower` could not read or found to be too much.
fn left_out(follower: &Follower, what: &str) -> f64 {
    follower.counted(&format!(
        "tml_proxy_switchboard_left_out_total{{what=\"{what}\"}}"
    ))
}

#[test]
fn a_broken_listing_takes_no_job_away() {
    for (fault, kind) in faults() {
        keeps_what_it_knows(Route::Listing, Request::Jobs, fault, kind);
    }
}

#[test]
fn a_broken_detail_takes_no_job_away() {
    for (fault, kind) in faults() {
        keeps_what_it_knows(Route::Detail, Request::Job, fault, kind);
    }
}

#[test]
fn a_body_without_end_is_left_where_it_is() {
    for (route, request) in [
        (Route::Listing, Request::Jobs),
        (Route::Detail, Request::Job),
        (Route::Hosts, Request::Hosts),
    ] {
        let board = Switchboard::start();
        let id = board.add_job_quietly(1, "ready");
        let follower = Follower::start(&board, BY_ASKING);
        follower.wait_for_job(&id);
        board.misbehave(route, Fault::Endless);
        let failures = || {
            follower.stats.failed(request, FailureKind::TooLarge)
                + follower.stats.failed(request, FailureKind::Timeout)
        };
        wait_until("it to be met", || failures() >= 1);
        assert!(follower.knows(&id));
    }
}

#[test]
fn broken_hosts_leave_jobs_and_their_health_as_they_were() {
    for (fault, kind) in faults() {
        let board = Switchboard::start();
        board.add_host(1);
        let id = board.add_job(1, 1, "ready");
        let follower = Follower::start(&board, BY_ASKING);
        wait_until("the host's health", || {
            follower
                .job(&id)
                .is_some_and(|job| job.host_live == Some(true))
        });
        board.misbehave(Route::Hosts, fault);
        wait_until("the fault to be met", || {
            follower.stats.failed(Request::Hosts, kind) >= 2
        });
        assert_eq!(follower.wait_for_job(&id).host_live, Some(true));
    }
}

#[test]
fn one_job_that_cannot_be_read_is_no_trouble_to_others() {
    for fault in [
        Fault::Status(500),
        Fault::Hang,
        Fault::Huge,
        Fault::Status(403),
    ] {
        let board = Switchboard::start();
        let (bad, good) = (
            board.add_job_quietly(1, "ready"),
            board.add_job_quietly(2, "ready"),
        );
        let follower = Follower::start(&board, BY_ASKING);
        follower.wait_for_job(&bad);
        board.misbehave(Route::Job(bad.clone()), fault);
        board.put(&good, "terminating");
        follower.wait_for_state(&good, JobState::Terminating);
        let walks = follower.stats.walks();
        wait_until("more complete listings", || {
            follower.stats.walks() >= walks + 3
        });
        // It is listed, so it is there.
        assert!(follower.knows(&bad));
        board.put(&bad, "finalized");
        follower.wait_for_end(&bad);
    }
}

#[test]
fn a_job_listed_but_forbidden_is_not_known() {
    let board = Switchboard::start();
    let (secret, open) = (
        board.add_job_quietly(1, "ready"),
        board.add_job_quietly(2, "ready"),
    );
    board.misbehave(Route::Job(secret.clone()), Fault::Status(403));
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_job(&open);
    wait_until("more complete listings", || follower.stats.walks() >= 3);
    assert!(!follower.knows(&secret));
    assert_eq!(follower.stats.episodes(FailureKind::Forbidden), 1);
    board.behave();
    follower.wait_for_job(&secret);
}

#[test]
fn an_account_that_lost_its_rights_takes_no_job_away() {
    for generation in [Generation::Third, Generation::Fourth] {
        let board = Switchboard::of(Kind {
            generation,
            ..Kind::default()
        });
        // A job of its own that has ended, which it may list whatever other rights it has.
        let own = board.add_job_quietly(1, "finalized");
        board.grant(&own);
        let ids = [2, 3, 4].map(|number| board.add_job_quietly(number, "ready"));
        let follower = Follower::start(&board, BY_ASKING);
        for id in &ids {
            follower.wait_for_job(id);
        }
        wait_until("its rights to be known", || {
            follower.stats.rights() == Rights::All
        });
        board.set_admin(false);
        wait_until("their loss to be noticed", || {
            follower.stats.rights() == Rights::Some
        });
        let walks = follower.stats.walks();
        wait_until("more complete listings", || {
            follower.stats.walks() >= walks + 5
        });
        assert!(ids.iter().all(|id| follower.knows(id)));
        // One of them ends meanwhile, and another comes.
        board.put(&ids[0], "finalized");
        let new = board.add_job_quietly(5, "ready");
        board.set_admin(true);
        follower.wait_for_end(&ids[0]);
        follower.wait_for_job(&new);
        assert!(follower.knows(&ids[1]) && follower.knows(&ids[2]));
    }
}

#[test]
fn an_account_that_is_refused_every_job_and_lists_none_takes_none_away() {
    let board = Switchboard::of(Kind {
        generation: Generation::Fourth,
        ..Kind::default()
    });
    let id = board.add_job_quietly(1, "ready");
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_job(&id);
    board.misbehave(Route::Detail, Fault::Status(403));
    board.misbehave(Route::Listing, Fault::Nothing);
    let walks = follower.stats.walks();
    wait_until("more complete listings", || {
        follower.stats.walks() >= walks + 5
    });
    assert!(follower.knows(&id));
}

/// Nine jobs that are known, and a listing each second.
fn nine_jobs(board: &Switchboard) -> (Vec<String>, Follower) {
    let ids: Vec<_> = (1..=9)
        .map(|number| board.add_job_quietly(number, "ready"))
        .collect();
    let how = FollowSettings {
        refresh: Duration::from_secs(1),
        ..BY_ASKING
    };
    let follower = Follower::start(board, how);
    for id in &ids {
        follower.wait_for_job(id);
    }
    (ids, follower)
}

#[test]
fn many_jobs_that_disappear_at_once_are_kept_until_a_second_listing_says_so() {
    let board = Switchboard::start();
    let (ids, follower) = nine_jobs(&board);
    let (gone, stays) = ids.split_at(6);
    gone.iter().for_each(|id| board.forget(id));
    wait_until("the alarm", || follower.stats.held() == 6);
    assert!(ids.iter().all(|id| follower.knows(id)));
    for id in gone {
        follower.wait_for_end(id);
    }
    wait_until("the end of the alarm", || follower.stats.held() == 0);
    assert!(stays.iter().all(|id| follower.knows(id)));
}

#[test]
fn many_jobs_that_disappear_and_come_back_were_never_gone() {
    let board = Switchboard::start();
    let (ids, follower) = nine_jobs(&board);
    board.misbehave(Route::Detail, Fault::Status(404));
    board.misbehave(Route::Listing, Fault::Nothing);
    wait_until("the alarm", || follower.stats.held() == 9);
    board.behave();
    wait_until("the end of the alarm", || follower.stats.held() == 0);
    assert!(ids.iter().all(|id| follower.knows(id)));
}

#[test]
fn a_job_that_was_taken_for_gone_and_is_listed_again_is_known_again() {
    let board = Switchboard::start();
    let id = board.add_job_quietly(1, "ready");
    let body = board.job(&id);
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_job(&id);
    board.forget(&id);
    follower.wait_for_end(&id);
    board.add_captured(body.to_string().as_bytes());
    follower.wait_for_job(&id);
}

#[test]
fn a_listing_with_a_row_of_nobody_ends_nothing() {
    let board = Switchboard::of(Kind {
        generation: Generation::Fourth,
        ..Kind::default()
    });
    let (lives, gone) = (
        board.add_job_quietly(1, "ready"),
        board.add_job_quietly(2, "ready"),
    );
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_job(&gone);
    follower.wait_for_job(&lives);
    board.misbehave(Route::Listing, Fault::LostRow);
    wait_until("an incomplete listing", || {
        left_out(&follower, "rows") >= 1.0
    });
    let walks = follower.stats.walks();
    board.forget(&gone);
    // What is new is found all the same.
    let new = board.add_job_quietly(3, "ready");
    follower.wait_for_job(&new);
    assert!(follower.knows(&gone));
    assert_eq!(follower.stats.walks(), walks);
    board.behave();
    follower.wait_for_end(&gone);
}

#[test]
fn a_job_whose_row_is_spoilt_is_there() {
    let board = Switchboard::start();
    let id = board.add_job_quietly(1, "ready");
    board.misbehave(Route::Listing, Fault::SpoiltRow(id.clone()));
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_job(&id);
    wait_until("more complete listings", || follower.stats.walks() >= 3);
    assert!(follower.knows(&id));
    assert!(left_out(&follower, "rows") >= 3.0);
}

#[test]
fn a_listing_that_goes_round_in_circles_is_left() {
    let board = Switchboard::start();
    board.misbehave(Route::Listing, Fault::Circle);
    let id = board.add_job_quietly(1, "ready");
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_job(&id);
    wait_until("the circle to be noticed", || {
        follower.stats.episodes_open(FailureKind::Invalid) == 1
    });
    assert_eq!(follower.knowledge().complete, None);
}

#[test]
fn a_listing_too_large_is_read_in_smaller_pages() {
    let board = Switchboard::start();
    let ids: Vec<_> = (0..60)
        .map(|number| board.add_job_quietly(number, "ready"))
        .collect();
    board.misbehave(Route::Listing, Fault::LargeAbove(30));
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_complete();
    for id in &ids {
        follower.wait_for_job(id);
    }
}

#[test]
fn a_job_full_of_nonsense_spoils_itself_only() {
    let board = Switchboard::start();
    let (bad, good) = (
        board.add_job_quietly(1, "ready"),
        board.add_job_quietly(2, "ready"),
    );
    let service = json!({ "name": "x\u{0}\u{202e}\n", "label": null, "protocol": "\u{1b}[2J" });
    board.change(&bad, |job| {
        job["job_ip_address"] = json!("fd00::1%eth0\n");
        job["services"] = json!(vec![service; 1000]);
        job["label"] = json!("x".repeat(100_000));
    });
    let follower = Follower::start(&board, BY_ASKING);
    let job = follower.wait_for_job(&bad);
    follower.wait_for_job(&good);
    assert_eq!((job.address, job.services.len()), (None, 64));
    assert!(left_out(&follower, "particulars") > 900.0);
}
