//! Jobs come, change and go.

use std::{fs, time::Duration};

use serde_json::json;
use tml_proxy::provider::switchboard::{
    JobState, client::FailureKind, follow::FollowSettings, stats::Request, watch::Purpose,
};

use crate::{
    board::{Fault, Generation, Kind, Route, Switchboard, job_id},
    follower::{BY_ASKING, BY_WATCHES, Follower, PATIENCE},
    harness::wait_until,
};

#[test]
fn a_job_is_known_with_its_address_and_services() {
    for generation in [Generation::Third, Generation::Fourth] {
        let board = Switchboard::of(Kind {
            generation,
            ..Kind::default()
        });
        board.add_host(1);
        let id = board.add_job(1, 1, "ready");
        board.change(&id, |job| {
            job["job_ip_address"] = json!("fd9d:773b:e6f8:1::5");
            job["services"] = json!([{ "name": "ssh", "label": null, "protocol": "ssh" }]);
        });
        let follower = Follower::start(&board, BY_WATCHES);
        let job = follower.wait_for_job(&id);
        assert_eq!(job.state, JobState::Ready);
        assert_eq!(job.address, "fd9d:773b:e6f8:1::5".parse().ok());
        assert_eq!(
            (&*job.services[0].name, &*job.services[0].protocol),
            ("ssh", "ssh")
        );
        wait_until("the host's health", || {
            follower
                .job(&id)
                .is_some_and(|job| job.host_live == Some(true))
        });
    }
}

#[test]
fn every_captured_job_that_has_not_ended_is_known_and_no_other() {
    let board = Switchboard::start();
    let mut active = Vec::new();
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures/g3/job");
    for number in 1..=12 {
        let body = fs::read(format!("{dir}/{number:02}.json")).expect("a capture");
        let id = board.add_captured(&body);
        if board.job(&id)["state"] != "finalized" {
            active.push(id);
        }
    }
    let follower = Follower::start(&board, BY_WATCHES);
    follower.wait_for_complete();
    wait_until("every job", || {
        follower.knowledge().jobs.len() >= active.len()
    });
    let knowledge = follower.knowledge();
    let known: Vec<_> = knowledge
        .jobs
        .keys()
        .map(|id| id.as_str().to_owned())
        .collect();
    assert_eq!(known, active);
    assert!(!active.is_empty());
}

#[test]
fn a_new_job_is_known_at_once_because_its_host_says_so() {
    let board = Switchboard::start();
    let host = board.add_host(1);
    let follower = Follower::start(&board, BY_WATCHES);
    follower.wait_for_complete();
    wait_until("the host's watch", || board.watches(&host) == 1);
    // It will not look by itself for an hour.
    let id = board.add_job(1, 1, "assigned");
    follower.wait_for_job(&id);
    wait_until("the latency", || {
        follower.stats.new_job_latency.read().count == 1
    });
    assert!(follower.stats.new_job_latency.read().sum < 1.0);
}

#[test]
fn a_new_job_costs_one_page_of_a_listing_of_several() {
    let board = Switchboard::start();
    let host = board.add_host(1);
    for number in 0..120 {
        board.add_job_quietly(number, "queued");
    }
    let how = FollowSettings {
        max_watches: 250,
        ..BY_WATCHES
    };
    let follower = Follower::start(&board, how);
    follower.wait_for_complete();
    // What has no watch would be looked for in the listing.
    wait_until("every watch", || {
        follower.stats.watches_open(Purpose::Job) == 120 && board.watches(&host) == 1
    });
    let (looks, pages) = (follower.stats.polls(), board.requests(&Route::Listing));
    let id = board.add_job(500, 1, "assigned");
    follower.wait_for_job(&id);
    wait_until("the look to end", || follower.stats.polls() > looks);
    assert_eq!(board.requests(&Route::Listing) - pages, 1);
}

#[test]
fn a_job_without_a_hint_is_found_by_looking() {
    let board = Switchboard::start();
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_complete();
    let id = board.add_job_quietly(1, "queued");
    follower.wait_for_job(&id);
}

#[test]
fn a_job_is_followed_through_its_life_by_its_watch() {
    let board = Switchboard::start();
    board.add_host(1);
    let id = board.add_job(1, 1, "assigned");
    let follower = Follower::start(&board, BY_WATCHES);
    follower.wait_for_state(&id, JobState::Assigned);
    wait_until("the job's watch", || board.watches(&id) == 1);
    board.put(&id, "initializing");
    follower.wait_for_state(&id, JobState::Initializing);
    board.change(&id, |job| job["job_ip_address"] = json!("fd00::7"));
    wait_until("the address", || {
        follower.wait_for_job(&id).address.is_some()
    });
    board.put(&id, "ready");
    follower.wait_for_state(&id, JobState::Ready);
    board.put(&id, "terminating");
    follower.wait_for_state(&id, JobState::Terminating);
    board.put(&id, "finalized");
    follower.wait_for_end(&id);
    wait_until("the end of its watch", || board.watches(&id) == 0);
    assert!(follower.stats.change_latency.read().count >= 4);
    assert!(follower.stats.change_latency.read().sum < 5.0);
    assert_eq!(follower.stats.jobs_active(), 0);
}

#[test]
fn a_finalized_job_that_keeps_its_address_is_not_known() {
    let board = Switchboard::start();
    let old = board.add_job_quietly(1, "finalized");
    board.change(&old, |job| job["job_ip_address"] = json!("fd00::7"));
    let new = board.add_job_quietly(2, "ready");
    board.change(&new, |job| job["job_ip_address"] = json!("fd00::7"));
    let follower = Follower::start(&board, BY_ASKING);
    follower.wait_for_job(&new);
    follower.wait_for_complete();
    assert!(!follower.knows(&old));
}

#[test]
fn an_old_job_on_the_last_page_is_known() {
    let board = Switchboard::start();
    let old = board.add_job_quietly(1, "queued");
    for number in 2..700 {
        board.add_job_quietly(number, "finalized");
    }
    let follower = Follower::start(&board, BY_WATCHES);
    follower.wait_for_job(&old);
    follower.wait_for_complete();
    assert_eq!(follower.knowledge().jobs.len(), 1);
    assert!(board.requests(&Route::Listing) >= 4);
}

#[test]
fn a_long_history_costs_one_page_a_look() {
    let board = Switchboard::start();
    for number in 0..1500 {
        board.add_job_quietly(number, "finalized");
    }
    let how = FollowSettings {
        poll: Duration::from_millis(100),
        ..BY_WATCHES
    };
    let follower = Follower::start(&board, how);
    follower.wait_for_complete();
    let (polls, requests) = (follower.stats.polls(), board.requests(&Route::Listing));
    wait_until("more looks", || follower.stats.polls() >= polls + 10);
    let requests = board.requests(&Route::Listing) - requests;
    let looks = usize::try_from(follower.stats.polls() - polls).expect("few");
    assert!(
        requests <= looks + 1,
        "{requests} requests for {looks} looks"
    );
}

/// `cargo test --release --test switchboard a_hundred_thousand -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_hundred_thousand_jobs_of_the_past_are_read_within_seconds() {
    let board = Switchboard::start();
    board.set_history(100_000);
    let running = board.add_job_quietly(1, "ready");
    let begun = std::time::Instant::now();
    let follower = Follower::patient(&board, BY_WATCHES);
    follower.wait_for_job(&running);
    follower.wait_for_complete();
    println!(
        "{:.1} s, {} pages",
        begun.elapsed().as_secs_f64(),
        board.requests(&Route::Listing)
    );
}

#[test]
fn a_long_history_is_read_once_and_new_jobs_are_found_meanwhile() {
    const HISTORY: u32 = 20_000;
    let board = Switchboard::start();
    board.set_history(HISTORY);
    let running = board.add_job_quietly(1, "ready");
    let how = FollowSettings {
        refresh: Duration::from_millis(300),
        poll: Duration::from_millis(100),
        ..BY_WATCHES
    };
    // As over a network: the first walk takes far longer than a look.
    board.misbehave(Route::Listing, Fault::Slow(Duration::from_millis(10)));
    let follower = Follower::patient(&board, how);
    follower.wait_for_job(&running);
    let new = board.add_job_quietly(2, "ready");
    follower.wait_for_job(&new);
    assert_eq!(
        follower.knowledge().complete,
        None,
        "the first walk is still under way"
    );
    follower.wait_for_complete();
    let (walks, polls) = (follower.stats.walks(), follower.stats.polls());
    let asked = board.requests(&Route::Listing);
    assert!(asked >= 100);
    wait_until("more walks", || follower.stats.walks() >= walks + 5);
    let asked = board.requests(&Route::Listing) - asked;
    let polls = usize::try_from(follower.stats.polls() - polls).expect("few");
    assert!(
        asked <= polls + 20,
        "{asked} requests, {polls} of them looks"
    );
    // What changes is found as ever.
    board.put(&running, "finalized");
    follower.wait_for_end(&running);
    let late = board.add_job_quietly(3, "queued");
    follower.wait_for_job(&late);
    assert!(follower.knows(&new));
}

#[test]
fn a_walk_that_breaks_off_goes_on_where_it_was() {
    let board = Switchboard::start();
    board.set_history(10_000);
    board.misbehave(Route::Listing, Fault::Slow(Duration::from_millis(10)));
    let follower = Follower::patient(&board, BY_ASKING);
    wait_until("a part of the listing", || {
        board.requests(&Route::Listing) >= 20
    });
    board.misbehave(Route::Listing, Fault::Status(500));
    wait_until("the break", || {
        follower.stats.failed(Request::Jobs, FailureKind::Server) >= 1
    });
    let (asked, failed) = (
        board.requests(&Route::Listing),
        follower.stats.failed(Request::Jobs, FailureKind::Server),
    );
    let failed = usize::try_from(failed).expect("few");
    board.behave();
    follower.wait_for_complete();
    let polls = usize::try_from(follower.stats.polls()).expect("few");
    let rest = board.requests(&Route::Listing) - asked;
    assert!(
        rest < 50 + polls,
        "{rest} pages after {asked}, {failed} of them failed"
    );
}

#[test]
fn a_walk_whose_place_is_refused_begins_anew() {
    let board = Switchboard::start();
    board.set_history(10_000);
    board.misbehave(Route::Listing, Fault::Slow(Duration::from_millis(10)));
    let follower = Follower::patient(&board, BY_ASKING);
    wait_until("a part of the listing", || {
        board.requests(&Route::Listing) >= 10
    });
    board.refuse_old_cursors();
    wait_until("the refusal", || {
        follower.stats.failed(Request::Jobs, FailureKind::Status) >= 1
    });
    board.behave();
    follower.wait_for_complete();
}

#[test]
fn an_account_that_gets_its_rights_back_finds_old_jobs_below_a_long_history() {
    let board = Switchboard::start();
    let old = board.add_job_quietly(1, "ready");
    for number in 2..1500 {
        let id = board.add_job_quietly(number, "finalized");
        board.grant(&id);
    }
    board.set_admin(false);
    let follower = Follower::patient(&board, BY_ASKING);
    follower.wait_for_complete();
    wait_until("more walks", || follower.stats.walks() >= 3);
    assert!(!follower.knows(&old));
    board.set_admin(true);
    follower.wait_for_job(&old);
}

#[test]
fn hosts_that_the_account_may_not_read_are_no_trouble_unless_they_are_needed() {
    for needs_hosts in [false, true] {
        let board = Switchboard::start();
        board.add_host(1);
        board.misbehave(Route::Hosts, Fault::Status(403));
        let id = board.add_job(1, 1, "ready");
        let how = FollowSettings {
            needs_hosts,
            ..BY_ASKING
        };
        let follower = Follower::start(&board, how);
        follower.wait_for_job(&id);
        wait_until("the hosts to be asked for twice", || {
            follower
                .stats
                .failed(Request::Hosts, FailureKind::Forbidden)
                >= 2
        });
        let open = follower.stats.episodes_open(FailureKind::Forbidden);
        assert_eq!(open, u64::from(needs_hosts));
    }
}

#[test]
fn jobs_that_came_by_the_hundred_between_two_looks_are_all_found() {
    let board = Switchboard::start();
    board.add_job_quietly(1, "ready");
    let follower = Follower::start(
        &board,
        FollowSettings {
            poll: Duration::from_millis(200),
            ..BY_WATCHES
        },
    );
    follower.wait_for_complete();
    // Many that are over already, and one below them that is not.
    let id = board.add_job_quietly(2, "queued");
    for number in 3..200 {
        board.add_job_quietly(number, "finalized");
    }
    follower.wait_for_job(&id);
}

#[test]
fn a_change_that_no_watch_told_of_is_found_by_refresh() {
    let board = Switchboard::start();
    let id = board.add_job_quietly(1, "ready");
    let how = FollowSettings {
        refresh: Duration::from_millis(200),
        ..BY_WATCHES
    };
    let follower = Follower::start(&board, how);
    follower.wait_for_state(&id, JobState::Ready);
    wait_until("the job's watch", || {
        follower.stats.watches_open(Purpose::Job) == 1
    });
    board.change_quietly(&id, |job| job["job_ip_address"] = json!("fd00::9"));
    wait_until("the address", || {
        follower.wait_for_job(&id).address.is_some()
    });
}

#[test]
fn a_job_gone_from_an_active_listing_ends() {
    let board = Switchboard::of(Kind {
        generation: Generation::Fourth,
        ..Kind::default()
    });
    let (gone, forgotten) = (
        board.add_job_quietly(1, "ready"),
        board.add_job_quietly(2, "ready"),
    );
    let stays = board.add_job_quietly(3, "ready");
    let follower = Follower::start(&board, BY_ASKING);
    for id in [&gone, &forgotten, &stays] {
        follower.wait_for_job(id);
    }
    board.change_quietly(&gone, |job| job["state"] = json!("finalized"));
    board.forget(&forgotten);
    follower.wait_for_end(&gone);
    follower.wait_for_end(&forgotten);
    assert!(follower.knows(&stays));
}

#[test]
fn a_dead_host_is_said_of_its_jobs() {
    let board = Switchboard::start();
    board.add_host(1);
    let id = board.add_job(1, 1, "ready");
    let follower = Follower::start(&board, BY_ASKING);
    for live in [true, false, true] {
        board.set_live(1, live);
        wait_until("the host's health", || {
            follower
                .job(&id)
                .is_some_and(|job| job.host_live == Some(live))
        });
    }
}

#[test]
fn what_was_known_before_a_start_stays_through_an_outage() {
    let board = Switchboard::start();
    let (lives, ends) = (
        board.add_job_quietly(1, "ready"),
        board.add_job_quietly(2, "ready"),
    );
    let before = {
        let follower = Follower::start(&board, BY_ASKING);
        follower.wait_for_job(&lives);
        follower.wait_for_job(&ends);
        follower.wait_for_complete();
        tml_proxy::provider::switchboard::KnownJobs::clone(&follower.knowledge())
    };
    board.stop();
    board.change_quietly(&ends, |job| job["state"] = json!("finalized"));
    let follower = Follower::knowing(&board, BY_ASKING, PATIENCE, before);
    wait_until("some tries", || {
        follower.stats.failed(Request::Jobs, FailureKind::Connect) >= 2
            && follower.stats.failed(Request::Job, FailureKind::Connect) >= 2
    });
    assert!(follower.knows(&lives) && follower.knows(&ends));
    assert!(follower.stats.knowledge_age().is_some());
    board.go_on();
    follower.wait_for_end(&ends);
    assert!(follower.knows(&lives));
}

#[test]
fn following_ends_at_once_when_it_is_dropped() {
    let board = Switchboard::start();
    for number in 0..20 {
        board.add_host(number);
        board.add_job(number, number, "ready");
    }
    let follower = Follower::start(&board, BY_WATCHES);
    wait_until("the watches", || {
        let stats = &follower.stats;
        stats.watches_open(Purpose::Job) == 20 && stats.watches_open(Purpose::Host) == 20
    });
    let stats = std::sync::Arc::clone(&follower.stats);
    drop(follower);
    assert_eq!(stats.watches_open(Purpose::Job), 0);
    wait_until("closed connections", || board.connections() == 0);
    assert_eq!(board.watches(&job_id(0)), 0);
}

#[test]
fn one_job_that_gets_no_answer_is_no_outage_while_hundreds_get_one() {
    let board = Switchboard::start();
    let id = board.add_job_quietly(1, "ready");
    board.misbehave(Route::Job(id), Fault::Hang);
    let follower = Follower::start(&board, BY_ASKING);
    wait_until("it to be given up", || {
        follower.stats.failed(Request::Job, FailureKind::Timeout) > 1
    });
    let late = || follower.stats.episodes_open(FailureKind::Timeout) == 1;
    assert!(late() && follower.availability.outage().is_none());
}
