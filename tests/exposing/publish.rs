//! Endpoints in annotations of jobs, where users of the switchboard look for them.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    board::{Generation, Kind, Switchboard},
    harness::{Proxy, config, wait_until},
    stage::{HOST, Stage, opens, status},
};

const KEY: &str = "proxy/p.example.org";

fn staged() -> Stage {
    let board = Switchboard::of(Kind {
        generation: Generation::Fourth,
        ..Kind::default()
    });
    Stage::with(board, 20)
}

fn annotation(stage: &Stage, id: &str, key: &str) -> Value {
    stage.board.job(id)["annotations"][key].clone()
}

/// A proxy that publishes, and a job whose endpoint it has published.
fn published(stage: &Stage, keys: &str) -> (Proxy, String) {
    let proxy = stage.proxy(&format!("publish = \"proxy\"\n{keys}"));
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    wait_until("the job to be annotated", || {
        annotation(stage, &id, KEY) == format!("p.example.org:{port}")
    });
    (proxy, id)
}

#[test]
fn two_proxies_that_publish_do_not_write_over_each_other() {
    let stage = staged();
    let (_proxy, id) = published(&stage, "");
    let other = stage
        .section("publish = \"proxy\"")
        .replace("p.example.org", "q.example.org")
        .replace("/state\"", "/other\"");
    let other = Proxy::start(&config([other]));
    let port = opens(&other, &id);
    wait_until("the other's annotation", || {
        annotation(&stage, &id, "proxy/q.example.org") == format!("q.example.org:{port}")
    });
    let own = annotation(&stage, &id, KEY);
    assert!(
        own.as_str().is_some_and(|own| own.starts_with("p.")),
        "{own}"
    );
}

#[test]
fn somebody_else_who_writes_the_annotation_is_noticed_once_and_left_alone() {
    let stage = staged();
    let (proxy, id) = published(&stage, "");
    let theirs = json!("elsewhere.example.org:1");
    let notice = "somebody else changes the annotation";
    let from = proxy.log().len();
    stage
        .board
        .change(&id, |job| job["annotations"][KEY] = theirs.clone());
    let line = proxy
        .log()
        .wait(from, notice, |line| line.message().starts_with(notice));
    assert_eq!((line.text("level"), line.text("job")), ("WARN", &*id));
    proxy.wait_until_metrics("it to be counted", |metrics| {
        metrics.sum("tml_proxy_switchboard_annotations_overwritten_total", &[]) == 1
    });
    assert_eq!(annotation(&stage, &id, KEY), theirs);
    let lines = proxy.said(|line| line.message().starts_with(notice));
    assert_eq!(lines.len(), 1);
}

#[test]
fn a_stop_withdraws_what_was_written_unless_it_is_to_stay() {
    for (keys, stays) in [("", false), ("publish_on_stop = \"keep\"", true)] {
        let stage = staged();
        let (proxy, id) = published(&stage, keys);
        stage
            .board
            .change(&id, |job| job["annotations"]["mine"] = json!("stays"));
        proxy.signal(Signal::TERM);
        proxy.wait_for_line(0, "stopped");
        assert_eq!(annotation(&stage, &id, KEY).is_null(), !stays);
        assert_eq!(annotation(&stage, &id, "mine"), "stays");
    }
}

#[test]
fn no_job_that_is_not_exposed_keeps_an_annotation_of_this_proxy() {
    let stage = staged();
    let left = stage.board.add_job(2, HOST, "initializing");
    stage.board.change(&left, |job| {
        job["annotations"] = json!({ KEY: "p.example.org:40000", "mine": "stays" });
    });
    let foreign = stage.board.add_job(3, HOST, "initializing");
    let theirs = json!("elsewhere.example.org:1");
    stage
        .board
        .change(&foreign, |job| job["annotations"][KEY] = theirs.clone());
    let (proxy, id) = published(&stage, "");
    wait_until("what an earlier run left to go", || {
        // A round that something else brings about.
        stage.board.wake(&left);
        annotation(&stage, &left, KEY).is_null()
    });
    assert_eq!(annotation(&stage, &left, "mine"), "stays");
    assert_eq!(annotation(&stage, &foreign, KEY), theirs);
    stage.finalize(&id);
    wait_until("that of an ended job to go", || {
        annotation(&stage, &id, KEY).is_null()
    });
    assert_eq!(status(&proxy)["state"], "following");
}
