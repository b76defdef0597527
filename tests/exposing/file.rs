//! Mappings of the file and of jobs beside each other.

use super::{
    harness::{Proxy, config, mapping, ports, process::listening_inodes, wait_until},
    stage::{Stage, closes, endpoints, opens},
};

#[test]
fn a_reload_touches_no_job_that_it_does_not_change() {
    let stage = Stage::new(10);
    let own = ports::free();
    let section = stage.section("");
    let file = |target: u16| mapping("board", own, format!("[fdb0:7e57::9]:{target}"), "");
    let proxy = Proxy::start(&config([file(22), section.clone()]));
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    let socket = listening_inodes(proxy.id(), port);
    let line = proxy.reload(&config([file(23), section.clone()]));
    assert_eq!(
        (line.number("retargeted"), line.number("unchanged")),
        (1, 1)
    );
    let line = proxy.reload(&config([section.as_str()]));
    assert_eq!((line.number("removed"), line.number("unchanged")), (1, 1));
    assert_eq!(listening_inodes(proxy.id(), port), socket);
    assert_eq!(opens(&proxy, &id), port);
}

#[test]
fn jobs_that_come_and_go_touch_no_mapping_of_the_file() {
    let stage = Stage::new(10);
    let own = ports::free();
    let board = mapping("board", own, "[fdb0:7e57::9]:22", "");
    let proxy = Proxy::start(&config([board, stage.section("")]));
    let socket = listening_inodes(proxy.id(), own);
    for number in 1..5 {
        let id = stage.ready(number, "fdb0:7e57::1");
        opens(&proxy, &id);
        stage.finalize(&id);
        closes(&proxy, &id);
    }
    assert_eq!(listening_inodes(proxy.id(), own), socket);
}

#[test]
fn a_reload_that_fails_leaves_the_jobs_alone() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    let taken = std::net::TcpListener::bind("[::]:0").expect("a port");
    let taken = taken.local_addr().expect("bound").port();
    let held = std::net::TcpListener::bind(("::", taken));
    let blocked = mapping("blocked", taken, "[fdb0:7e57::9]:22", "");
    let _held = held;
    if _held.is_ok() {
        proxy.reload_fails(&config([blocked, stage.section("")]));
    }
    proxy.reload_fails(&config([stage.section("cooldown = 5")]));
    let overlap = mapping("overlap", stage.first, "[fdb0:7e57::9]:22", "");
    let line = proxy.reload_fails(&config([overlap, stage.section("")]));
    assert!(line.text("error").contains("switchboard.ports"), "{line:?}");
    assert_eq!(endpoints(&proxy, &id)[0]["port"], port);
    assert_eq!(listening_inodes(proxy.id(), port).len(), 1);
}

#[test]
fn other_ports_move_only_what_must_move() {
    let stage = Stage::new(40);
    let proxy = stage.proxy("");
    let jobs: Vec<_> = (1..=10)
        .map(|number| stage.ready(number, &format!("fdb0:7e57::{number}")))
        .collect();
    let before: Vec<_> = jobs.iter().map(|id| opens(&proxy, id)).collect();
    let sockets: Vec<_> = before
        .iter()
        .map(|port| listening_inodes(proxy.id(), *port))
        .collect();
    let last = stage.first + 19;
    let narrow = stage.section(&format!("ports = \"{}-{last}\"", stage.first));
    proxy.reload(&config([narrow]));
    for ((id, port), socket) in jobs.iter().zip(before).zip(sockets) {
        let moved = port > last;
        wait_until("the job to be where it belongs", || {
            let now = opens(&proxy, id);
            now <= last && (now != port) == moved
        });
        if !moved {
            assert_eq!(listening_inodes(proxy.id(), port), socket);
        }
    }
}

#[test]
fn a_rule_more_or_less_is_a_port_more_or_less() {
    let stage = Stage::new(20);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    let socket = listening_inodes(proxy.id(), port);
    let two = "[[switchboard.expose]]\nname = \"web\"\nport = 80\n\
               [[switchboard.expose]]\nname = \"ssh\"\nport = 22\n";
    proxy.reload(&config([stage.section_with("", two)]));
    wait_until("both rules", || {
        let found = endpoints(&proxy, &id);
        found.len() == 2 && found.iter().all(|one| one["state"] == "open")
    });
    proxy.reload(&config([stage.section("")]));
    wait_until("one rule", || endpoints(&proxy, &id).len() == 1);
    assert_eq!(opens(&proxy, &id), port);
    assert_eq!(listening_inodes(proxy.id(), port), socket);
}

#[test]
fn a_section_that_goes_takes_its_jobs_along_and_one_that_comes_brings_them() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    let line = proxy.reload(&config([""]));
    assert_eq!(line.number("removed"), 1);
    assert!(listening_inodes(proxy.id(), port).is_empty());
    assert!(endpoints(&proxy, &id).is_empty());
    proxy.reload(&config([stage.section("")]));
    assert_eq!(opens(&proxy, &id), port);
}
