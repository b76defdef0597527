//! Hosts that report no address, and hosts that stop reporting.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{
    board::{Fault, Route},
    harness::{Proxy, config, wait_until},
    stage::{Stage, endpoints, opens, refuses},
};

#[test]
fn a_board_that_reports_no_address_is_exposed_where_the_table_says() {
    let stage = Stage::new(10);
    stage.board.add_host(2);
    let rules = |address: &str| {
        format!(
            "[[switchboard.expose]]\nname = \"ssh\"\nport = 22\n\
             [switchboard.addresses]\n\"lab-1\" = \"{address}\"\n"
        )
    };
    let proxy = Proxy::start(&config([stage.section_with("", &rules("fdb0:7e57::14"))]));
    let id = stage.board.add_job(1, 1, "ready");
    let port = opens(&proxy, &id);
    assert_eq!(endpoints(&proxy, &id)[0]["target"], "[fdb0:7e57::14]:22");
    let elsewhere = stage.board.add_job(2, 2, "ready");
    refuses(&proxy, &elsewhere, "no_address");
    // The table is read again with the rest of the file.
    proxy.reload(&config([stage.section_with("", &rules("fdb0:7e57::15"))]));
    wait_until("the new address", || {
        endpoints(&proxy, &id)[0]["target"] == "[fdb0:7e57::15]:22"
    });
    // What the job says itself goes before it.
    stage
        .board
        .change(&id, |job| job["job_ip_address"] = json!("fdb0:7e57::1"));
    wait_until("the job's own address", || {
        endpoints(&proxy, &id)[0]["target"] == "[fdb0:7e57::1]:22"
    });
    assert_eq!(opens(&proxy, &id), port);
}

#[test]
fn a_region_serves_the_jobs_of_its_own_hosts_and_says_of_others_why_not() {
    let stage = Stage::new(10);
    stage.board.add_host(2);
    let rules = |hosts: &str| {
        format!("[[switchboard.expose]]\nname = \"ssh\"\nport = 22\nhosts = {hosts}\n")
    };
    let with = |hosts: &str| config([stage.section_with("", &rules(hosts))]);
    let proxy = Proxy::start(&with("[\"fdb0:7e57:1::/48\"]"));
    let ours = stage.ready_on(1, 1, "fdb0:7e57:1::1");
    let theirs = stage.ready_on(2, 2, "fdb0:7e57:2::1");
    let port = opens(&proxy, &ours);
    refuses(&proxy, &theirs, "other_hosts");
    let found = endpoints(&proxy, &theirs);
    assert_eq!(found[0]["note"], "the rule is for jobs on other hosts");
    // That is no news to an operator.
    let warned = proxy.said(|line| line.text("level") == "WARN");
    assert!(warned.is_empty(), "{warned:?}");
    proxy.reload(&with("[\"fdb0:7e57:1::/48\", \"fdb0:7e57:2::/48\"]"));
    opens(&proxy, &theirs);
    assert_eq!(opens(&proxy, &ours), port);
    proxy.reload(&with("[\"fdb0:7e57:2::/48\"]"));
    refuses(&proxy, &ours, "other_hosts");
    proxy.stops_listening(port);
}

#[test]
fn a_board_has_one_port_whoever_uses_it_and_nobody_else_gets_it() {
    const COUNT: u16 = 3;
    let stage = Stage::new(COUNT);
    let rule = "[[switchboard.expose]]\nname = \"ssh\"\nport = 22\nallocate = \"host\"\n";
    let text = config([stage.section_with("cooldown = \"1ms\"", rule)]);
    let mut proxy = Proxy::start(&text);
    let first = stage.ready_on(1, 1, "fdb0:7e57:1::1");
    let port = opens(&proxy, &first);
    stage.finalize(&first);
    proxy.stops_listening(port);
    // As many others as there are ports: the last finds none.
    for host in 2..=u32::from(COUNT) {
        stage.board.add_host(host);
        let other = stage.ready_on(host, 10 + host, &format!("fdb0:7e57:{host}::1"));
        assert_ne!(opens(&proxy, &other), port);
    }
    stage.board.add_host(9);
    let last = stage.ready_on(9, 19, "fdb0:7e57:9::1");
    refuses(&proxy, &last, "no_port");
    let second = stage.ready_on(1, 2, "fdb0:7e57:1::2");
    assert_eq!(opens(&proxy, &second), port);
    // Two at once: the port is one's.
    let third = stage.ready_on(1, 3, "fdb0:7e57:1::3");
    refuses(&proxy, &third, "no_port");
    stage.finalize(&second);
    assert_eq!(opens(&proxy, &third), port);
    stage.finalize(&third);
    proxy.stops_listening(port);
    proxy.signal(Signal::TERM);
    proxy.wait();
    let proxy = Proxy::start(&text);
    refuses(&proxy, &last, "no_port");
    let fourth = stage.ready_on(1, 4, "fdb0:7e57:1::4");
    assert_eq!(opens(&proxy, &fourth), port);
    assert_eq!(endpoints(&proxy, &last)[0]["state"], "waiting");
}

#[test]
fn a_board_stays_open_when_its_host_is_missing_from_a_reading_or_not_read_yet() {
    let stage = Stage::new(10);
    let rules = "[[switchboard.expose]]\nname = \"ssh\"\nport = 22\n\
                 [switchboard.addresses]\n\"lab-1\" = \"fdb0:7e57::14\"\n";
    let proxy = Proxy::start(&config([stage.section_with("", rules)]));
    let id = stage.board.add_job(1, 1, "ready");
    let port = opens(&proxy, &id);
    let seen = || {
        let asked = stage.board.requests(&Route::Hosts);
        wait_until("readings of the hosts", || {
            stage.board.requests(&Route::Hosts) >= asked + 3
        });
    };
    stage.board.misbehave(Route::Hosts, Fault::Body("[]"));
    seen();
    stage.board.misbehave(Route::Hosts, Fault::Hang);
    let details = stage.board.requests(&Route::Detail);
    let section = stage
        .section_with("", rules)
        .replace("\"200ms\"", "\"201ms\"");
    proxy.reload(&config([section]));
    wait_until("the job to be read by another follower", || {
        stage.board.requests(&Route::Detail) >= details + 3
    });
    assert_eq!(endpoints(&proxy, &id)[0]["port"], port);
    let closed = proxy.said(|line| line.message() == "job no longer exposed");
    assert!(closed.is_empty(), "{closed:?}");
    stage.board.behave();
}

#[test]
fn a_host_that_looks_dead_around_an_outage_keeps_its_jobs() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("host_gone = \"2s\"");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    let seen = |what: &str, count: usize| {
        let asked = stage.board.requests(&Route::Hosts);
        wait_until(what, || {
            stage.board.requests(&Route::Hosts) >= asked + count
        });
    };
    stage.board.set_live(1, false);
    seen("a reading that calls it dead", 2);
    stage.board.misbehave(Route::Hosts, Fault::Status(500));
    let since = std::time::Instant::now();
    wait_until("an outage of more than host_gone", || {
        since.elapsed() > Duration::from_secs(3)
    });
    stage.board.set_live(1, true);
    stage.board.behave();
    seen("readings that call it alive", 2);
    assert_eq!(endpoints(&proxy, &id)[0]["port"], port);
    let closed = proxy.said(|line| line.message() == "job no longer exposed");
    assert!(closed.is_empty(), "{closed:?}");
}
