//! Endpoints are written back where that is wanted.

use std::sync::Arc;

use serde_json::json;
use tml_proxy::provider::switchboard::{
    JobId,
    client::FailureKind,
    publish::{AnnotationKey, Publisher},
    stats::{FollowStats, Request},
};

use crate::{
    board::{Fault, Generation, Kind, Route, Switchboard},
    follower::ask,
};

fn fourth() -> Switchboard {
    Switchboard::of(Kind {
        generation: Generation::Fourth,
        ..Kind::default()
    })
}

/// Has `script` say what is to be written, until `done`.
fn write(
    board: &Switchboard,
    script: impl FnOnce(&Publisher),
    done: impl Fn(&FollowStats) -> bool,
) -> Arc<FollowStats> {
    ask(board, async |client| {
        let stats = Arc::<FollowStats>::default();
        let key = AnnotationKey::parse("proxy.example/endpoints").expect("a key");
        let publisher = Publisher::new(client, key, "proxy.example", Arc::clone(&stats));
        script(&publisher);
        let finished = async {
            let mut ticks = tokio::time::interval(std::time::Duration::from_millis(2));
            while !done(&stats) {
                ticks.tick().await;
            }
        };
        tokio::select! {
            () = Arc::clone(&publisher).run() => {}
            () = finished => {}
            () = tokio::time::sleep(crate::harness::DEADLINE) => panic!("gave up: {stats:?}"),
        }
        stats
    })
}

fn written(count: u64) -> impl Fn(&FollowStats) -> bool {
    move |stats| stats.succeeded(Request::Annotate) >= count
}

#[test]
fn an_endpoint_is_written_beside_other_annotations_and_removed_again() {
    let board = fourth();
    let id = board.add_job_quietly(1, "ready");
    let job = JobId::parse(&id).expect("an id");
    board.change(&id, |job| job["annotations"] = json!({ "mine": "stays" }));
    let endpoint = "proxy.example:40001";
    write(
        &board,
        |to| to.set(job.clone(), Some(endpoint.to_owned())),
        written(1),
    );
    let expected = json!({ "mine": "stays", "proxy.example/endpoints": endpoint });
    assert_eq!(board.job(&id)["annotations"], expected);
    write(&board, |to| to.set(job.clone(), None), written(1));
    assert_eq!(board.job(&id)["annotations"], json!({ "mine": "stays" }));
}

#[test]
fn a_conflict_is_tried_again_with_the_newer_version() {
    let board = fourth();
    let id = board.add_job_quietly(1, "ready");
    let job = JobId::parse(&id).expect("an id");
    board.misbehave(Route::Patch, Fault::Status(412));
    let conflicts = |stats: &FollowStats| stats.failed(Request::Annotate, FailureKind::Outdated);
    let stats = write(
        &board,
        |to| to.set(job, Some("proxy.example:40001".to_owned())),
        |stats| {
            if conflicts(stats) == 1 {
                board.behave();
            }
            stats.succeeded(Request::Annotate) == 1
        },
    );
    assert_eq!(conflicts(&stats), 1);
    let annotations = &board.job(&id)["annotations"];
    assert_eq!(
        annotations["proxy.example/endpoints"],
        "proxy.example:40001"
    );
}

#[test]
fn only_the_last_word_about_a_job_is_written() {
    let board = fourth();
    let id = board.add_job_quietly(1, "ready");
    let job = JobId::parse(&id).expect("an id");
    write(
        &board,
        |to| {
            for port in 40_000..40_100 {
                to.set(job.clone(), Some(format!("proxy.example:{port}")));
            }
        },
        written(1),
    );
    assert_eq!(board.requests(&Route::Patch), 1);
    let annotations = &board.job(&id)["annotations"];
    assert_eq!(
        annotations["proxy.example/endpoints"],
        "proxy.example:40099"
    );
}

#[test]
fn a_switchboard_without_annotations_is_left_alone() {
    let board = Switchboard::start();
    let id = board.add_job_quietly(1, "ready");
    let job = JobId::parse(&id).expect("an id");
    let refused = |stats: &FollowStats| stats.failed(Request::Annotate, FailureKind::Invalid) == 1;
    write(&board, |to| to.set(job, Some("x:1".to_owned())), refused);
    assert_eq!(board.requests(&Route::Patch), 0);
}
