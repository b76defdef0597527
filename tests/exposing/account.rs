//! What the account of the token may read, may read no longer and need not read.

use super::{
    board::{Fault, Generation, Kind, Route, Switchboard},
    harness::{Proxy, config, wait_until},
    stage::{Stage, closes, endpoints, opens, status},
};

#[test]
fn an_account_that_loses_its_rights_closes_nothing_and_catches_up_when_they_are_back() {
    let stage = Stage::new(20);
    // A job of its own that has ended, so that its listing is never empty.
    let own = stage.board.add_job_quietly(100, "finalized");
    stage.board.grant(&own);
    let proxy = stage.proxy("");
    let ids: Vec<_> = (1..=8)
        .map(|number| stage.ready(number, &format!("fdb0:7e57::{number}")))
        .collect();
    let ports: Vec<_> = ids.iter().map(|id| opens(&proxy, id)).collect();
    wait_until("its rights to be known", || {
        status(&proxy)["rights"] == "all"
    });
    stage.board.set_admin(false);
    wait_until("their loss to be noticed", || {
        status(&proxy)["rights"] == "some"
    });
    let asked = stage.board.requests(&Route::Listing);
    wait_until("more walks and looks", || {
        stage.board.requests(&Route::Listing) >= asked + 20
    });
    for (id, port) in ids.iter().zip(&ports) {
        assert_eq!(endpoints(&proxy, id)[0]["port"], *port);
    }
    proxy.wait_until_metrics("the metric to say so", |metrics| {
        metrics.sum("tml_proxy_switchboard_rights", &[("jobs", "some")]) == 1
    });
    // What happens meanwhile shows when the rights are back.
    stage.finalize(&ids[0]);
    let new = stage.ready(9, "fdb0:7e57::9");
    stage.board.set_admin(true);
    closes(&proxy, &ids[0]);
    opens(&proxy, &new);
    for (id, port) in ids.iter().zip(&ports).skip(1) {
        assert_eq!(opens(&proxy, id), *port);
    }
    let closed = proxy.said(|line| line.message() == "job no longer exposed");
    assert_eq!(closed.len(), 1, "only the one that ended");
}

#[test]
fn a_restart_of_an_account_without_rights_opens_what_was_open() {
    let stage = Stage::new(20);
    let own = stage.board.add_job_quietly(100, "finalized");
    stage.board.grant(&own);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    stage.board.set_admin(false);
    assert!(proxy.stop().success());
    let proxy = stage.proxy("");
    wait_until("a complete listing", || {
        !status(&proxy)["complete"].is_null()
    });
    assert_eq!(opens(&proxy, &id), port);
    stage.board.set_admin(true);
    stage.finalize(&id);
    closes(&proxy, &id);
}

#[test]
fn an_account_that_may_read_jobs_but_not_hosts_is_no_trouble() {
    let stage = Stage::new(10);
    stage.board.misbehave(Route::Hosts, Fault::Status(403));
    stage.board.misbehave(Route::HostWatch, Fault::Status(403));
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    let asked = stage.board.requests(&Route::Hosts);
    wait_until("the hosts to be refused again", || {
        stage.board.requests(&Route::Hosts) > asked
    });
    assert_eq!(status(&proxy)["state"], "following");
}

#[test]
fn jobs_that_disappear_all_at_once_stay_open_until_it_is_confirmed() {
    let stage = Stage::with(
        Switchboard::of(Kind {
            generation: Generation::Fourth,
            ..Kind::default()
        }),
        20,
    );
    let section = stage
        .section("")
        .replace("refresh = \"1s\"", "refresh = \"3s\"");
    let proxy = Proxy::start(&config([section]));
    let ids: Vec<_> = (1..=8)
        .map(|number| stage.ready(number, &format!("fdb0:7e57::{number}")))
        .collect();
    let ports: Vec<_> = ids.iter().map(|id| opens(&proxy, id)).collect();
    // A database that was set up anew.
    ids.iter().for_each(|id| stage.board.forget(id));
    wait_until("the alarm", || status(&proxy)["held_back"] == 8);
    for (id, port) in ids.iter().zip(&ports) {
        assert_eq!(endpoints(&proxy, id)[0]["port"], *port);
    }
    let alarm = |line: &super::harness::Line| {
        line.text("level") == "WARN" && line.message().starts_with("many jobs are missing")
    };
    assert_eq!(proxy.said(alarm).len(), 1);
    let (_, page) = proxy.page("/");
    assert!(page.contains("too many at once to be believed"), "{page}");
    ids.iter().for_each(|id| closes(&proxy, id));
    wait_until("the end of the alarm", || status(&proxy)["held_back"] == 0);
}
