//! A thousand jobs on few connections.

use std::time::{Duration, Instant};

use serde_json::json;
use tml_proxy::provider::switchboard::{KnownJobs, follow::FollowSettings, watch::Purpose};

use crate::{
    board::{Kind, Route, Switchboard, job_id},
    follower::{BY_WATCHES, Follower, NEVER, PATIENT},
    harness::wait_until,
};

fn crowd(board: &Switchboard, jobs: u32) {
    for host in 0..10 {
        board.add_host(host);
    }
    for job in 0..jobs {
        board.add_job(job, job % 10, "ready");
    }
}

#[test]
fn a_thousand_jobs_share_a_dozen_connections_over_http2() {
    let board = Switchboard::of(Kind {
        secure: true,
        ..Kind::default()
    });
    crowd(&board, 1000);
    let follower = Follower::patient(&board, BY_WATCHES);
    wait_until("every watch", || {
        let stats = &follower.stats;
        stats.watches_open(Purpose::Job) == 1000 && stats.watches_open(Purpose::Host) == 10
    });
    wait_until("every job", || follower.knowledge().jobs.len() == 1000);
    assert_eq!(follower.stats.watch_connections(), 11);
    // Ten for jobs, one for hosts, and those for reading.
    assert!(
        board.connections() <= 16,
        "{} connections",
        board.connections()
    );
    assert!(
        board.connections_at_most() <= 24,
        "{}",
        board.connections_at_most()
    );
    board.put(&job_id(500), "finalized");
    follower.wait_for_end(&job_id(500));
}

#[test]
fn jobs_known_before_a_start_share_connections_from_the_first() {
    let board = Switchboard::of(Kind {
        secure: true,
        ..Kind::default()
    });
    crowd(&board, 150);
    let before = {
        let follower = Follower::patient(&board, BY_WATCHES);
        wait_until("every job", || follower.knowledge().jobs.len() == 150);
        KnownJobs::clone(&follower.knowledge())
    };
    wait_until("closed connections", || board.connections() == 0);
    let follower = Follower::knowing(&board, BY_WATCHES, PATIENT, before);
    wait_until("every watch", || {
        follower.stats.watches_open(Purpose::Job) == 150
    });
    assert_eq!(follower.stats.watch_connections(), 3);
    assert!(
        board.connections() <= 8,
        "{} connections",
        board.connections()
    );
}

#[test]
fn jobs_without_a_place_for_a_watch_are_asked_about() {
    let board = Switchboard::start();
    crowd(&board, 100);
    let how = FollowSettings {
        poll: Duration::from_millis(200),
        refresh: NEVER,
        max_watches: 20,
        concurrency: 8,
        needs_hosts: false,
    };
    let follower = Follower::patient(&board, how);
    wait_until("every place to be taken", || {
        follower.stats.watch_connections() == 20
    });
    wait_until("every job", || follower.knowledge().jobs.len() == 100);
    assert!(
        board.connections() <= 20 + 12,
        "{} connections",
        board.connections()
    );
    for job in 0..100 {
        board.change_quietly(&job_id(job), |job| job["job_ip_address"] = json!("fd00::1"));
    }
    wait_until(
        "every change but those that only a watch would tell",
        || {
            let knowledge = follower.knowledge();
            let changed = knowledge.jobs.values().filter(|job| job.address.is_some());
            changed.count() >= 80
        },
    );
}

#[test]
fn with_more_jobs_and_hosts_than_watches_nothing_is_opened_and_little_read_again_and_again() {
    const JOBS: u32 = 150;
    const WATCHES: usize = 32;
    let board = Switchboard::start();
    for host in 0..JOBS + 4 {
        board.add_host(host);
    }
    for job in 0..JOBS {
        let id = board.add_job(job, job, "ready");
        board.change_quietly(&id, |job| job["job_ip_address"] = json!("fd00::1"));
    }
    let how = FollowSettings {
        poll: Duration::from_millis(500),
        max_watches: WATCHES,
        ..BY_WATCHES
    };
    let follower = Follower::patient(&board, how);
    let stats = &follower.stats;
    let watches = |purpose| stats.watches_open(purpose);
    wait_until("every job", || {
        follower.knowledge().jobs.len() == JOBS as usize
    });
    // Hosts that could get a job, and of the jobs as many as there is room for.
    wait_until("the watches to settle", || {
        watches(Purpose::Host) == 4 && watches(Purpose::Job) == WATCHES as u64 - 4
    });
    let asked = |route: &[Route]| -> usize { route.iter().map(|at| board.requests(at)).sum() };
    let opened = || asked(&[Route::JobWatch, Route::HostWatch]);
    let (watched, read, polls) = (opened(), asked(&[Route::Detail]), stats.polls());
    let since = Instant::now();
    wait_until("many looks", || stats.polls() >= polls + 20);
    assert!(
        opened() - watched <= 2,
        "{} watches opened",
        opened() - watched
    );
    let read = asked(&[Route::Detail]) - read;
    let took = since.elapsed();
    // Those without a watch are read every so often, however long a look takes.
    let most = 160.0 * (took.as_secs_f64() / 10.0).max(1.0);
    assert!(read as f64 <= most, "{read} jobs read in {took:?}");
    // A job comes to a free host: its watch says so, whoever looks how seldom.
    let new = board.add_job(1000, JOBS, "assigned");
    follower.wait_for_job(&new);
    wait_until("the watch of a job that starts", || {
        board.watches(&new) == 1
    });
    // A job without a watch ends.
    let unwatched = (0..JOBS).map(job_id).find(|id| board.watches(id) == 0);
    let unwatched = unwatched.expect("more jobs than watches");
    board.put(&unwatched, "finalized");
    follower.wait_for_end(&unwatched);
}

#[test]
fn a_job_that_starts_gets_the_watch_of_one_that_runs() {
    let board = Switchboard::start();
    board.add_host(0);
    for job in 0..30 {
        let id = board.add_job_quietly(job, "ready");
        board.change(&id, |job| job["job_ip_address"] = json!("fd00::1"));
    }
    let how = FollowSettings {
        max_watches: 10,
        ..BY_WATCHES
    };
    let follower = Follower::start(&board, how);
    follower.wait_for_complete();
    wait_until("every place to be taken", || {
        follower.stats.watch_connections() == 10
    });
    wait_until("every job", || follower.knowledge().jobs.len() == 30);
    let new = board.add_job(100, 0, "initializing");
    wait_until("its watch", || board.watches(&new) == 1);
    board.change(&new, |job| job["job_ip_address"] = json!("fd00::2"));
    wait_until("its address", || {
        follower.wait_for_job(&new).address.is_some()
    });
    assert_eq!(follower.stats.watch_connections(), 10);
}

#[test]
fn a_server_that_takes_fewer_streams_gets_more_connections() {
    let board = Switchboard::of(Kind {
        secure: true,
        streams: Some(5),
        ..Kind::default()
    });
    for job in 0..30 {
        board.add_job_quietly(job, "ready");
    }
    let follower = Follower::start(&board, BY_WATCHES);
    wait_until("every watch", || {
        follower.stats.watches_open(Purpose::Job) == 30
    });
}
