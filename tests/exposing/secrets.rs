//! The token is nowhere but where it has to be.

use std::fs;

use super::{
    board::{Fault, Kind, Route, Switchboard},
    harness::{
        Proxy, config,
        process::{output, succeed},
        proxy::PROGRAM,
        wait_until,
    },
    stage::{Stage, opens, status},
};

#[test]
fn the_token_is_in_no_log_page_file_or_list_of_processes() {
    let stage = Stage::with(
        Switchboard::of(Kind {
            secure: true,
            ..Kind::default()
        }),
        10,
    );
    let section = stage.section("");
    let proxy = Proxy::start(&config(["[log]\nlevel = \"trace\"\n", section.as_str()]));
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    for fault in [
        Fault::Status(401),
        Fault::Status(500),
        Fault::Redirect("http://192.0.2.1/".to_owned()),
        Fault::Half,
    ] {
        stage.board.misbehave(Route::Listing, fault);
        let asked = stage.board.requests(&Route::Listing);
        wait_until("it to be asked", || {
            stage.board.requests(&Route::Listing) > asked + 1
        });
        stage.board.behave();
    }
    stage.board.stop();
    wait_until("it to be noticed", || status(&proxy)["state"] == "away");
    let token = stage.board.token();
    let clean = |what: &str, text: &str| {
        assert!(!text.contains(token.trim()), "the token is in {what}");
    };
    for path in [
        "/",
        "/metrics",
        "/api/v1/status",
        "/api/v1/config",
        "/api/v1/events",
        "/api/v1/endpoints",
        "/api/v1/mappings",
    ] {
        clean(path, &proxy.page(path).1);
    }
    for file in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{file}", proxy.id())).expect("it runs");
        clean(file, &String::from_utf8_lossy(&bytes));
    }
    let kept = fs::read_to_string(stage.state_dir().join("ports.state")).expect("kept");
    clean("the state", &kept);
    let mut check = std::process::Command::new(PROGRAM);
    check
        .args(["check", "--json", "--config"])
        .arg(proxy.file());
    clean("check", &succeed(&mut check));
    let mut doctor = std::process::Command::new(PROGRAM);
    doctor
        .args(["doctor", "--no-targets", "--config"])
        .arg(proxy.file());
    let doctor = output(&mut doctor);
    clean("doctor", &String::from_utf8_lossy(&doctor.stdout));
    clean("doctor's errors", &String::from_utf8_lossy(&doctor.stderr));
    clean("the log", &proxy.log().text());
}
