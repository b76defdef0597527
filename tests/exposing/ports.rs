//! Who gets which port, and when.

use std::{net::TcpListener, process::Command};

use super::{
    harness::{
        Proxy, TempDir, config,
        process::{listening_inodes, output, succeed},
        proxy::PROGRAM,
        wait_until,
    },
    stage::{Stage, closes, endpoints, opens, refuses, status},
};

#[test]
fn a_job_has_a_port_while_it_is_ready_and_none_before_or_after() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let id = stage.board.add_job(1, 1, "assigned");
    refuses(&proxy, &id, "state");
    stage.board.put(&id, "ready");
    refuses(&proxy, &id, "no_address");
    stage
        .board
        .change(&id, |job| job["job_ip_address"] = "fdb0:7e57::1".into());
    let port = opens(&proxy, &id);
    assert!((stage.first..stage.first + 10).contains(&port));
    assert_eq!(listening_inodes(proxy.id(), port).len(), 1);
    let line = proxy.wait_for_line(0, "job exposed");
    assert_eq!(line.number("port"), u64::from(port));
    stage.finalize(&id);
    closes(&proxy, &id);
    proxy.stops_listening(port);
}

#[test]
fn the_next_job_with_the_same_address_gets_another_port() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let first = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &first);
    stage.finalize(&first);
    closes(&proxy, &first);
    let second = stage.ready(2, "fdb0:7e57::1");
    assert_ne!(opens(&proxy, &second), port);
    let cooling = status(&proxy)["ports"]["cooling"].clone();
    assert_eq!(cooling, 1);
}

#[test]
fn a_job_that_flaps_keeps_its_port_to_itself() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    for _ in 0..5 {
        stage.board.put(&id, "initializing");
        refuses(&proxy, &id, "state");
        stage.board.put(&id, "ready");
        assert_eq!(opens(&proxy, &id), port);
    }
}

#[test]
fn who_finds_no_port_waits_and_is_served_in_the_order_of_coming() {
    let stage = Stage::new(1);
    let proxy = stage.proxy("cooldown = \"300ms\"");
    let first = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &first);
    let second = stage.ready(9, "fdb0:7e57::2");
    refuses(&proxy, &second, "no_port");
    let third = stage.ready(3, "fdb0:7e57::3");
    refuses(&proxy, &third, "no_port");
    assert_eq!(status(&proxy)["ports"]["waiting"], 2);
    proxy.wait_until("tml_proxy_switchboard_waiting", &[], 2);
    stage.finalize(&first);
    assert_eq!(opens(&proxy, &second), port);
    assert_eq!(endpoints(&proxy, &third)[0]["state"], "waiting");
    stage.finalize(&second);
    assert_eq!(opens(&proxy, &third), port);
}

#[test]
fn a_port_that_somebody_else_has_is_skipped_and_remembered() {
    let stage = Stage::new(3);
    let taken: Vec<TcpListener> = (stage.first..stage.first + 2)
        .map(|port| TcpListener::bind(("::", port)).expect("a free port"))
        .collect();
    let proxy = stage.proxy("");
    let first = stage.ready(1, "fdb0:7e57::1");
    assert_eq!(opens(&proxy, &first), stage.first + 2);
    let second = stage.ready(2, "fdb0:7e57::2");
    refuses(&proxy, &second, "no_port");
    assert_eq!(status(&proxy)["ports"]["blocked"], 2);
    let skipped = proxy.said(|line| line.message() == "port skipped");
    assert_eq!(skipped.len(), 2, "each was tried once");
    drop(taken);
}

#[test]
fn a_rule_with_a_condition_counts_for_those_who_announce_it() {
    let stage = Stage::new(10);
    let rules = "[[switchboard.expose]]\nname = \"web\"\nport = 80\nservice = \"web\"\n\
                 [[switchboard.expose]]\nname = \"raw\"\nport = 90\nprotocol = \"raw\"\n";
    let proxy = Proxy::start(&config([stage.section_with("", rules)]));
    let id = stage.ready(1, "fdb0:7e57::1");
    refuses(&proxy, &id, "no_rule");
    stage.board.change(&id, |job| {
        let service = |name: String, protocol: &str| {
            serde_json::json!({ "name": name, "label": null, "protocol": protocol })
        };
        let mut services: Vec<_> = (0..50).map(|n| service(format!("s{n}"), "x")).collect();
        services.push(service("web".to_owned(), "\u{202e}<script>"));
        services.push(service("a".to_owned(), "raw"));
        job["services"] = services.into();
    });
    wait_until("both rules", || {
        let found = endpoints(&proxy, &id);
        found.len() == 2 && found.iter().all(|one| one["state"] == "open")
    });
}

#[test]
fn a_host_that_is_gone_for_too_long_takes_its_jobs_along_and_back() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("host_gone = \"600ms\"");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    stage.board.set_live(1, false);
    refuses(&proxy, &id, "host_gone");
    proxy.stops_listening(port);
    stage.board.set_live(1, true);
    assert_eq!(opens(&proxy, &id), port);
}

#[test]
fn an_operators_hold_stays_while_its_job_comes_and_goes() {
    let stage = Stage::new(10);
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    let admin = format!("[admin]\nsocket = \"{}\"\n", socket.display());
    let section = stage.section("");
    let proxy = Proxy::start(&config([admin, section]));
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    let name = format!("job/{id}/ssh");
    let order = |word: &str| {
        let mut command = Command::new(PROGRAM);
        command.args([word, &name, "--socket"]).arg(&socket);
        command
    };
    succeed(&mut order("drain"));
    proxy.stops_listening(port);
    assert_eq!(endpoints(&proxy, &id)[0]["state"], "drained");
    stage.board.put(&id, "initializing");
    refuses(&proxy, &id, "state");
    stage.board.put(&id, "ready");
    wait_until("the hold to be back", || {
        endpoints(&proxy, &id)[0]["state"] == "drained"
    });
    assert!(listening_inodes(proxy.id(), port).is_empty());
    succeed(&mut order("resume"));
    assert_eq!(opens(&proxy, &id), port);
    wait_until("the port to be open again", || {
        listening_inodes(proxy.id(), port).len() == 1
    });
    succeed(&mut order("pause"));
    assert_eq!(endpoints(&proxy, &id)[0]["state"], "paused");
    stage.finalize(&id);
    closes(&proxy, &id);
    assert!(!output(&mut order("resume")).status.success());
}
