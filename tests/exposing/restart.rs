//! What outlives the process, and what a crash cannot do.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    board::{Fault, Route},
    harness::{
        Peer, Proxy, Setup, config,
        process::listening_inodes,
        proxy::with_kept_listeners,
        require::{Need, require},
        wait_for, wait_until,
    },
    stage::{HOST, Stage, closes, endpoints, opens, refuses, status},
};

fn killed(mut proxy: Proxy) {
    proxy.signal(Signal::KILL);
    proxy.wait();
}

#[test]
fn a_restart_without_the_switchboard_opens_what_was_open() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let ids = [
        stage.ready(1, "fdb0:7e57::1"),
        stage.ready(2, "fdb0:7e57::2"),
    ];
    let ports = ids.each_ref().map(|id| opens(&proxy, id));
    stage.board.stop();
    killed(proxy);
    let proxy = stage.proxy("");
    for (id, port) in ids.iter().zip(ports) {
        assert_eq!(opens(&proxy, id), port);
        assert_eq!(listening_inodes(proxy.id(), port).len(), 1);
    }
    assert_eq!(status(&proxy)["unconfirmed"], 2);
    assert_eq!(status(&proxy)["state"], "away");
    // One of them has ended meanwhile.
    stage
        .board
        .change_quietly(&ids[0], |job| job["state"] = json!("finalized"));
    stage.board.go_on();
    closes(&proxy, &ids[0]);
    proxy.stops_listening(ports[0]);
    assert_eq!(opens(&proxy, &ids[1]), ports[1]);
    wait_until("all to be confirmed", || status(&proxy)["unconfirmed"] == 0);
}

#[test]
fn a_port_opened_for_want_of_an_answer_stays_open_when_the_first_one_is_about_something_else() {
    let stage = Stage::new(40);
    let proxy = stage.proxy("");
    // More than are asked about at once.
    let ids: Vec<_> = (1..=12)
        .map(|number| stage.ready(number, &format!("fdb0:7e57::{number}")))
        .collect();
    let ports: Vec<_> = ids.iter().map(|id| opens(&proxy, id)).collect();
    killed(proxy);
    for route in [
        Route::Listing,
        Route::Detail,
        Route::Account,
        Route::Tokens,
        Route::JobWatch,
        Route::HostWatch,
    ] {
        stage.board.misbehave(route, Fault::Hang);
    }
    stage.board.misbehave(Route::Hosts, Fault::Status(503));
    let proxy = stage.proxy("");
    for (id, port) in ids.iter().zip(&ports) {
        assert_eq!(opens(&proxy, id), *port);
    }
    stage.board.set_live(HOST, false);
    stage
        .board
        .misbehave(Route::Hosts, Fault::Slow(Duration::ZERO));
    wait_until("an answer about hosts", || {
        status(&proxy)["heard_ms"].is_u64()
    });
    // Has everything judged again, as any news does.
    proxy.reload(&config([
        stage.section("host_gone = \"1h\"\nmax_per_job = 4")
    ]));
    wait_until("another answer", || {
        status(&proxy)["heard_ms"].as_u64() < Some(1000)
    });
    proxy.reload(&config([
        stage.section("host_gone = \"1h\"\nmax_per_job = 5")
    ]));
    for (id, port) in ids.iter().zip(&ports) {
        assert_eq!(endpoints(&proxy, id)[0]["port"], *port);
    }
    let closed = proxy.said(|line| line.message() == "job no longer exposed");
    assert!(closed.is_empty(), "{closed:#?}");
    stage.board.behave();
}

#[test]
fn a_restart_opens_nothing_for_a_job_that_has_ended_meanwhile() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let ended = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &ended);
    killed(proxy);
    stage.finalize(&ended);
    let next = stage.ready(2, "fdb0:7e57::1");
    let proxy = stage.proxy("");
    assert_ne!(opens(&proxy, &next), port);
    let opened = proxy.said(|line| line.message() == "job exposed");
    let owners: Vec<_> = opened.iter().map(|line| line.text("owner")).collect();
    assert_eq!(
        owners,
        [format!("{next}/ssh")],
        "the old one was never open"
    );
}

#[test]
fn nobody_gets_the_address_of_a_job_from_before_a_restart_until_that_is_known_to_be_gone() {
    let stage = Stage::new(20);
    stage.board.add_host(HOST + 1);
    let proxy = stage.proxy("");
    let first = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &first);
    killed(proxy);
    let other = stage.ready_on(HOST + 1, 2, "fdb0:7e57::1");
    let route = Route::Job(first.clone());
    stage.board.misbehave(route, Fault::Status(500));
    let proxy = stage.proxy("");
    refuses(&proxy, &other, "shared_address");
    // Each is another decision.
    for number in 3..6 {
        let id = stage.ready(number, &format!("fdb0:7e57::{number}"));
        opens(&proxy, &id);
    }
    refuses(&proxy, &other, "shared_address");
    stage.board.behave();
    assert_eq!(opens(&proxy, &first), port);
    let of_other = |line: &super::harness::Line| {
        line.message() == "job exposed" && line.text("owner").starts_with(&other)
    };
    assert!(proxy.said(of_other).is_empty());
    stage.finalize(&first);
    opens(&proxy, &other);
}

#[test]
fn a_port_of_a_job_that_ended_meanwhile_stays_closed_however_long_the_listing_takes() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let ended = stage.ready(1, "fdb0:7e57::1");
    let lives = stage.ready(2, "fdb0:7e57::2");
    let port = opens(&proxy, &lives);
    opens(&proxy, &ended);
    killed(proxy);
    stage.finalize(&ended);
    // Its row is the last of all, and the first walk takes longer than any start waits.
    stage.board.change_quietly(&ended, |job| {
        job["queued_at"] = json!("2025-01-01T00:00:00Z");
    });
    stage.board.set_history(20_000);
    let slow = Fault::Slow(Duration::from_millis(100));
    stage.board.misbehave(Route::Listing, slow);
    let proxy = stage.proxy("");
    assert_eq!(opens(&proxy, &lives), port);
    let new = stage.ready(3, "fdb0:7e57::1");
    opens(&proxy, &new);
    assert!(
        status(&proxy)["complete"].is_null(),
        "the first walk is still under way"
    );
    wait_until("a complete listing", || {
        !status(&proxy)["complete"].is_null()
    });
    let opened = proxy.said(|line| line.message() == "job exposed");
    let owners: Vec<_> = opened.iter().map(|line| line.text("owner")).collect();
    assert_eq!(owners, [format!("{lives}/ssh"), format!("{new}/ssh")]);
}

#[test]
fn ports_and_cool_downs_outlive_a_restart() {
    let stage = Stage::new(2);
    let proxy = stage.proxy("");
    let [first, second] = [
        stage.ready(1, "fdb0:7e57::1"),
        stage.ready(2, "fdb0:7e57::2"),
    ];
    let ports = [opens(&proxy, &first), opens(&proxy, &second)];
    stage.finalize(&first);
    closes(&proxy, &first);
    assert!(proxy.stop().success());
    let proxy = stage.proxy("");
    assert_eq!(opens(&proxy, &second), ports[1]);
    let third = stage.ready(3, "fdb0:7e57::3");
    refuses(&proxy, &third, "no_port");
    assert_eq!(status(&proxy)["ports"]["cooling"], 1);
    assert!(listening_inodes(proxy.id(), ports[0]).is_empty());
}

#[test]
fn a_damaged_state_is_put_aside_and_the_jobs_get_their_ports_again() {
    let stage = Stage::new(1000);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    killed(proxy);
    let file = stage.state_dir().join("ports.state");
    let mut bytes = fs::read(&file).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("own file");
    let proxy = stage.proxy("");
    assert_eq!(
        opens(&proxy, &id),
        port,
        "where it is free, it depends on the names alone"
    );
    let aside = stage.state_dir().join("ports.state.damaged-1");
    assert!(aside.exists());
    let said = |line: &super::harness::Line| line.text("level") == "ERROR";
    assert_eq!(proxy.said(said).len(), 1);
}

#[test]
fn a_state_that_cannot_be_kept_opens_no_port_and_closes_as_ever() {
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let first = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &first);
    // Directories in the place of the files that are written.
    let steps = stage.state_dir().join("ports.steps");
    let new = stage.state_dir().join("ports.state.new");
    // There may have been none yet.
    let _ = fs::remove_file(&steps);
    for file in [&steps, &new] {
        fs::create_dir_all(file.join("x")).expect("own directory");
    }
    let second = stage.ready(2, "fdb0:7e57::2");
    refuses(&proxy, &second, "not_kept");
    assert_eq!(opens(&proxy, &first), port);
    assert!(!status(&proxy)["not_kept"].is_null());
    stage.finalize(&first);
    closes(&proxy, &first);
    proxy.stops_listening(port);
    fs::remove_dir_all(new).expect("own directory");
    opens(&proxy, &second);
}

#[test]
fn no_crash_makes_the_state_unreadable_or_gives_a_cooling_port_away() {
    const COOLDOWN: Duration = Duration::from_secs(3);
    let stage = Stage::new(6);
    // Who was seen to have a port, and when last.
    let mut seen: BTreeMap<u16, (String, Instant)> = BTreeMap::new();
    let mut number = 0;
    let mut live: Vec<String> = Vec::new();
    for round in 0_u64..12 {
        let proxy = stage.proxy(&format!("cooldown = \"{}s\"", COOLDOWN.as_secs()));
        // Somewhere between the decision, the file and the socket.
        let end = Instant::now() + Duration::from_millis(40 + round * 37 % 300);
        // In every other round the switchboard is gone as well, and back only for the next proxy.
        let last_words = end - Duration::from_millis(20 + round * 53 % 200);
        let mut away = false;
        while Instant::now() < end {
            if round % 2 == 1 && !away && Instant::now() >= last_words {
                stage.board.stop();
                away = true;
            }
            number += 1;
            live.push(stage.ready(number, &format!("fdb0:7e57::{number:x}")));
            if live.len() > 3 {
                stage.finalize(&live.remove(0));
            }
            let (_, body) = proxy.page("/api/v1/endpoints");
            let found: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            for endpoint in found["endpoints"].as_array().expect("a list") {
                if endpoint["state"] != "open" {
                    continue;
                }
                let port = endpoint["port"].as_u64().expect("open");
                let job = endpoint["job"].as_str().expect("an id").to_owned();
                let port = u16::try_from(port).expect("a port");
                if let Some((before, last)) = seen.get(&port)
                    && *before != job
                {
                    assert!(
                        last.elapsed() >= COOLDOWN,
                        "{port} went from {before} to {job}"
                    );
                }
                seen.insert(port, (job, Instant::now()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        assert!(proxy.said(|line| line.text("level") == "ERROR").is_empty());
        killed(proxy);
        if away {
            stage.board.go_on();
        }
    }
    let proxy = stage.proxy("");
    assert!(!stage.state_dir().join("ports.state.damaged-1").exists());
    wait_until("the last job to be known", || {
        live.iter().all(|id| !endpoints(&proxy, id).is_empty())
    });
}

#[test]
fn two_proxies_do_not_share_a_state_directory() {
    let stage = Stage::new(10);
    let _proxy = stage.proxy("");
    let dir = super::harness::TempDir::new();
    let file = dir.write("proxy.toml", super::harness::config([stage.section("")]));
    let mut command = std::process::Command::new(super::harness::proxy::PROGRAM);
    command
        .args(["run", "--admin", "off", "--config"])
        .arg(file);
    let output = super::harness::process::output(&mut command);
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("another process uses this state directory"),
        "{error}"
    );
}

#[test]
fn a_listener_that_systemd_kept_waits_for_its_job_and_goes_where_there_is_none() {
    if !require(&[Need::Tool("systemd-socket-activate")]) {
        return;
    }
    let stage = Stage::new(10);
    let proxy = stage.proxy("");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    killed(proxy);
    let of_nobody = (stage.first..)
        .find(|other| *other != port)
        .expect("a port");
    let setup = Setup {
        through: with_kept_listeners(&[port, of_nobody]),
        ..Setup::default()
    };
    let early = thread::spawn(move || {
        let addr = SocketAddr::from(([127, 0, 0, 1], of_nobody));
        wait_for("a listener", || Peer::try_connect_to(addr).ok())
    });
    let proxy = stage.proxy_with(&setup, "");
    let kept = listening_inodes(proxy.id(), port);
    assert_eq!(opens(&proxy, &id), port);
    assert_eq!(listening_inodes(proxy.id(), port), kept);
    proxy.wait_for_line(
        0,
        "no job has claimed a listener of the last process; it is closed",
    );
    early.join().expect("it connected").expect_reset();
    proxy.stops_listening(of_nobody);
    assert_eq!(listening_inodes(proxy.id(), port), kept);
    stage.finalize(&id);
    proxy.stops_listening(port);
}
