//! What operators hear of a switchboard that does not answer, and how soon all is well after it.

use serde_json::json;

use super::{
    board::{Fault, Kind, Route, Switchboard},
    harness::{Line, Proxy, config, ports, wait_until},
    stage::{Stage, opens, status},
};

/// Every route on which a switchboard without its database fails.
const ROUTES: [Route; 5] = [
    Route::Listing,
    Route::Detail,
    Route::Hosts,
    Route::JobWatch,
    Route::HostWatch,
];

fn is(wanted: &str) -> impl Fn(&Line) -> bool {
    move |line| line.message().starts_with(wanted)
}

/// Waits until the switchboard is away, and says why.
#[track_caller]
fn why_away(proxy: &Proxy) -> String {
    wait_until("it to be noticed", || status(proxy)["state"] == "away");
    let error = status(proxy)["error"].clone();
    error.as_str().expect("a reason").to_owned()
}

/// Waits until the switchboard is away for that reason. What it was asked in the moment in which it went
/// may have been cut off, which is then said first.
#[track_caller]
fn expect_away(proxy: &Proxy, reason: &str) {
    wait_until("it to be noticed, and why", || {
        let status = status(proxy);
        status["state"] == "away" && status["error"] == reason
    });
}

#[track_caller]
fn assert_one_line_each(proxy: &Proxy) {
    let lines = proxy.said(|line| !line.message().starts_with("reload"));
    let of = |wanted: &dyn Fn(&Line) -> bool| lines.iter().filter(|line| wanted(line)).count();
    assert_eq!(of(&is("the switchboard does not answer:")), 1, "{lines:#?}");
    assert_eq!(of(&|line| line.text("level") == "WARN"), 1, "{lines:#?}");
    let after = lines
        .iter()
        .find(|line| is("the switchboard answers again")(line));
    assert!(after.expect("a line").has("duration_ms"), "{lines:#?}");
    assert_eq!(
        of(&is("the switchboard no longer fails so")),
        0,
        "{lines:#?}"
    );
}

#[test]
fn an_outage_is_one_line_at_its_beginning_and_one_after_it() {
    let stage = Stage::new(20);
    let proxy = stage.proxy("");
    let jobs: Vec<_> = (1..=5)
        .map(|number| stage.ready(number, &format!("fdb0:7e57::{number}")))
        .collect();
    jobs.iter().for_each(|id| _ = opens(&proxy, id));
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    stage.board.stop();
    expect_away(&proxy, "connection refused");
    stage.board.go_on();
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    assert_one_line_each(&proxy);
}

#[test]
fn a_switchboard_that_fails_at_everything_is_one_line_too() {
    let stage = Stage::new(20);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    for route in ROUTES {
        stage.board.misbehave(route, Fault::Status(500));
    }
    wait_until("it to be noticed", || status(&proxy)["state"] == "troubled");
    let asked = stage.board.requests(&Route::Listing);
    wait_until("it to be asked on and on", || {
        stage.board.requests(&Route::Listing) > asked + 3
    });
    stage.board.behave();
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    assert_one_line_each(&proxy);
}

#[test]
fn a_switchboard_that_was_away_for_long_is_noticed_at_once_when_it_is_back() {
    let stage = Stage::new(20);
    let proxy = stage.proxy("");
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    for route in ROUTES {
        stage.board.misbehave(route, Fault::Status(503));
    }
    let id = stage.ready(1, "fdb0:7e57::1");
    // Waits that double would soon be longer than this test may take.
    let asked = stage.board.requests(&Route::Listing);
    wait_until("it to be asked on and on", || {
        stage.board.requests(&Route::Listing) > asked + 14
    });
    stage.board.behave();
    opens(&proxy, &id);
}

#[test]
fn an_account_that_is_locked_during_an_outage_is_not_taken_for_its_going_on() {
    let stage = Stage::new(20);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    stage.board.stop();
    expect_away(&proxy, "connection refused");
    for route in ROUTES.into_iter().chain([Route::Account, Route::Tokens]) {
        stage.board.misbehave(route, Fault::Status(403));
    }
    stage.board.go_on();
    wait_until("the refusal to be named", || {
        let status = status(&proxy);
        status["state"] == "troubled" && status["error"] == "forbidden"
    });
    assert_eq!(opens(&proxy, &id), port);
    stage.board.behave();
    wait_until("all to be well", || status(&proxy)["state"] == "following");
}

#[test]
fn whoever_is_away_is_said_to_be_for_what_it_is() {
    let secure = || {
        Switchboard::of(Kind {
            secure: true,
            ..Kind::default()
        })
    };
    let stage = Stage::with(secure(), 10);
    let away = |section: String| why_away(&Proxy::start(&config([section])));
    let strange = secure();
    let ca_file = |board: &Switchboard| board.ca_file().expect("it has one").display().to_string();
    let section = stage.section("");
    let untrusted = section.replace(&ca_file(&stage.board), &ca_file(&strange));
    assert_eq!(away(untrusted), "its certificate is not trusted");
    let unknown = section.replace("https://localhost", "https://switchboard.invalid");
    assert_eq!(away(unknown), "its name cannot be looked up");
    let nobody = section.replace(&stage.board.port().to_string(), &ports::free().to_string());
    assert_eq!(away(nobody), "connection refused");
    stage.board.accept_only("another");
    assert!(away(section).starts_with("401: "));
}

#[test]
fn the_age_of_what_is_known_is_that_of_the_last_answer() {
    let stage = Stage::new(10);
    let section = stage.section("").replace("\"1s\"", "\"1h\"");
    let proxy = Proxy::start(&config([section]));
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    wait_until("the last walk to be long ago", || {
        status(&proxy)["age_ms"].as_u64() > Some(1500)
    });
    wait_until("an answer to be younger", || {
        let status = status(&proxy);
        status["heard_ms"].as_u64().expect("an age") + 1000
            < status["age_ms"].as_u64().expect("one")
    });
    assert_eq!(status(&proxy)["outage_ms"], json!(null));
}
