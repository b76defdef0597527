//! Why a port of a job is closed or moves, as the log and the metrics say it.

use serde_json::json;

use super::{
    harness::{Line, Proxy, config, wait_until},
    stage::{Stage, closes, endpoints, opens},
};

const BOTH: &str = "[[switchboard.expose]]\nname = \"web\"\nport = 80\nservice = \"web\"\n\
                    [[switchboard.expose]]\nname = \"ssh\"\nport = 22\n";

/// Why the port of `owner` was closed, as the log has it after its first `from` lines, and the metric
/// as well.
#[track_caller]
fn why(proxy: &Proxy, from: usize, owner: &str) -> String {
    let closed =
        |line: &Line| line.message() == "job no longer exposed" && line.text("owner") == owner;
    let line = proxy.log().wait(from, "the end", closed);
    let reason = line.text("reason").to_owned();
    proxy.wait_until_metrics("the metric to say so", |metrics| {
        metrics.sum(
            "tml_proxy_switchboard_closings_total",
            &[("reason", &reason)],
        ) == 1
    });
    reason
}

#[test]
fn only_a_job_that_has_ended_is_said_to_have_ended() {
    let stage = Stage::new(20);
    let proxy = Proxy::start(&config([stage.section_with("", BOTH)]));
    let id = stage.ready(1, "fdb0:7e57::1");
    stage.board.change(&id, |job| {
        job["services"] = json!([{ "name": "web", "label": null, "protocol": "http" }]);
    });
    let both_open = || {
        let found = endpoints(&proxy, &id);
        found.len() == 2 && found.iter().all(|one| one["state"] == "open")
    };
    wait_until("both rules", both_open);
    let (web, ssh) = (format!("{id}/web"), format!("{id}/ssh"));
    let from = proxy.log().len();
    stage.board.change(&id, |job| job["services"] = json!([]));
    assert_eq!(why(&proxy, from, &web), "rule_unfit");
    stage.board.change(&id, |job| {
        job["services"] = json!([{ "name": "web", "label": null, "protocol": "http" }]);
    });
    wait_until("both rules", both_open);
    let from = proxy.log().len();
    proxy.reload(&config([stage.section("")]));
    assert_eq!(why(&proxy, from, &web), "rule_removed");
    let from = proxy.log().len();
    stage.board.put(&id, "terminating");
    assert_eq!(why(&proxy, from, &ssh), "state");
    stage.board.put(&id, "ready");
    opens(&proxy, &id);
    let from = proxy.log().len();
    stage.finalize(&id);
    closes(&proxy, &id);
    assert_eq!(why(&proxy, from, &ssh), "ended");
}

#[test]
fn a_job_that_moves_is_named_with_both_its_ports() {
    let stage = Stage::new(20);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let before = opens(&proxy, &id);
    let (first, last) = (stage.first, stage.first + stage.count - 1);
    let without = format!(
        "ports = [\"{first}-{}\", \"{}-{last}\"]",
        before - 1,
        before + 1
    );
    let without = without.replace(&format!("\"{first}-{}\", ", first - 1), "");
    let without = without.replace(&format!(", \"{}-{last}\"", last + 1), "");
    let from = proxy.log().len();
    proxy.reload(&config([stage.section(&without)]));
    let moved = proxy.wait_for_line(from, "exposed job has moved");
    assert_eq!(moved.number("port_before"), u64::from(before));
    assert_ne!(moved.number("port"), u64::from(before));
    assert_eq!(opens(&proxy, &id), moved.number("port") as u16);
}
