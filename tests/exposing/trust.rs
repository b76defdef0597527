//! Nothing that a switchboard says is taken on trust.

use serde_json::json;

use super::{
    board::{Fault, Route},
    harness::{Proxy, TempDir, config, ports, wait_until},
    stage::{HOST, Stage, endpoints, opens, refuses, status},
};

#[test]
fn an_address_that_is_not_the_jobs_is_refused() {
    let stage = Stage::new(20);
    let proxy = stage.proxy("");
    for (number, address, reason) in [
        (1, "2001:db8::1", "address_not_allowed"),
        (2, "::ffff:10.0.0.1", "mapped_address"),
        (3, "::1", "loopback_address"),
        (4, "127.0.0.1", "loopback_address"),
        (5, "fe80::1", "link_local_address"),
        (6, "ff02::1", "multicast_address"),
        (7, "::", "unspecified_address"),
    ] {
        let id = stage.ready(number, address);
        refuses(&proxy, &id, reason);
    }
    let fit = stage.ready(8, "fdb0:7e57::1");
    opens(&proxy, &fit);
    let lines = proxy.said(|line| line.message() == "job not exposed");
    assert_eq!(
        lines.len(),
        7,
        "one line for each, however often it is heard"
    );
}

#[test]
fn two_live_jobs_with_one_address_on_one_host_are_both_closed_until_one_is_gone() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let first = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &first);
    let second = stage.ready(2, "fdb0:7e57::1");
    refuses(&proxy, &first, "shared_address");
    refuses(&proxy, &second, "shared_address");
    proxy.stops_listening(port);
    let loud = proxy.log().wait(0, "an error", |line| {
        line.message()
            .starts_with("another live job is said to have the same address")
    });
    assert_eq!(loud.text("level"), "ERROR");
    stage.finalize(&second);
    assert_eq!(opens(&proxy, &first), port);
}

/// Any host may say that its job is anywhere: nobody else's job is closed by that.
#[test]
fn a_job_is_not_closed_by_a_job_of_another_host_that_claims_its_address() {
    let stage = Stage::new(10);
    stage.board.add_host(HOST + 1);
    let proxy = stage.proxy("");
    let first = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &first);
    let other = stage.ready_on(HOST + 1, 2, "fdb0:7e57::1");
    refuses(&proxy, &other, "shared_address");
    assert_eq!(endpoints(&proxy, &first)[0]["port"], json!(port));
    assert_eq!(endpoints(&proxy, &first)[0]["state"], json!("open"));
    stage.finalize(&first);
    opens(&proxy, &other);
}

#[test]
fn answers_that_make_no_sense_change_nothing() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    for fault in [
        Fault::Status(500),
        Fault::Status(404),
        Fault::Status(401),
        Fault::Status(403),
        Fault::Slam,
        Fault::Half,
        Fault::Body("{}"),
        Fault::Body("nonsense"),
    ] {
        for route in [Route::Listing, Route::Detail] {
            stage.board.misbehave(route.clone(), fault.clone());
            let asked = stage.board.requests(&route);
            stage.board.wake(&id);
            wait_until("it to be asked for again", || {
                stage.board.requests(&route) > asked + 1
            });
            let found = endpoints(&proxy, &id);
            assert_eq!(found[0]["port"], json!(port), "{route:?} {fault:?}");
            assert_eq!(found[0]["state"], "open", "{route:?} {fault:?}");
            stage.board.behave();
        }
    }
    wait_until("all to be well", || status(&proxy)["state"] == "following");
}

#[test]
fn a_switchboard_that_is_away_is_said_to_be_and_leaves_everything_open() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    stage.board.stop();
    wait_until("it to be noticed", || status(&proxy)["state"] == "away");
    let (_, page) = proxy.page("/");
    assert!(page.contains("The switchboard cannot be asked"), "{page}");
    assert_eq!(endpoints(&proxy, &id)[0]["port"], json!(port));
    proxy.wait_until_metrics("the metric to say so", |metrics| {
        metrics.sum("tml_proxy_switchboard_contact", &[("state", "away")]) == 1
    });
    stage.board.go_on();
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    assert_eq!(endpoints(&proxy, &id)[0]["port"], json!(port));
}

#[test]
fn a_url_that_was_wrong_and_is_mended_is_no_longer_called_away() {
    let stage = Stage::new(10);
    let wrong = format!("http://127.0.0.1:{}", ports::free());
    let section = stage.section("");
    let proxy = Proxy::start(&config([section.replace(&stage.board.url(), &wrong)]));
    wait_until("it to be noticed", || status(&proxy)["state"] == "away");
    let id = stage.ready(1, "fdb0:7e57::1");
    proxy.reload(&config([section]));
    opens(&proxy, &id);
    wait_until("all to be well", || status(&proxy)["state"] == "following");
}

#[test]
fn a_token_file_that_appears_late_is_waited_for() {
    let stage = Stage::new(10);
    let dir = TempDir::new();
    let late = dir.join("token");
    let known = stage.board.token_file().display().to_string();
    let section = stage
        .section("")
        .replace(&known, &late.display().to_string());
    let proxy = Proxy::start(&config([section]));
    let id = stage.ready(1, "fdb0:7e57::1");
    wait_until("it to be said", || status(&proxy)["state"] == "away");
    std::fs::copy(known, late).expect("own file");
    opens(&proxy, &id);
}
