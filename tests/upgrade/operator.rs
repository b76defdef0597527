//! What operators see of an upgrade: what they said holds, what was counted goes on, and the
//! configuration in force stays in force.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use crate::{
    harness::{Peer, Target, mapping, metrics, ports, wait_until},
    stage::Stage,
};

/// Every series of `/metrics` that only goes up.
fn counted(stage: &Stage) -> BTreeMap<String, f64> {
    let (_, page) = stage.scene.proxy.page("/metrics");
    let mut rises = false;
    let mut series = BTreeMap::new();
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            rises = kind.ends_with(" counter") || kind.ends_with(" histogram");
        } else if rises && !line.starts_with('#') && !line.is_empty() {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            series.insert(name.to_owned(), value.parse().expect("a number"));
        }
    }
    series
}

fn from(stage: &Stage, source: [u8; 4]) -> Peer {
    Peer::connect_from(IpAddr::V4(Ipv4Addr::from(source)), stage.scene.port)
}

/// The numbers and messages of the events that are kept.
fn events(stage: &Stage) -> Vec<(u64, String)> {
    let events = stage.json(&["events"]);
    let events = events["events"].as_array().expect("a list").iter();
    events
        .map(|event| {
            let message = event["message"].as_str().expect("text");
            (
                event["number"].as_u64().expect("a number"),
                message.to_owned(),
            )
        })
        .collect()
}

/// Its configuration with something else in it.
fn changed(stage: &Stage, change: impl FnOnce(String) -> String) -> String {
    change(fs::read_to_string(stage.scene.proxy.file()).expect("its file"))
}

#[test]
fn no_counter_ever_goes_back() {
    let gone = Target::bind();
    let refused = mapping("gone", ports::free(), gone.addr(), "");
    let port = refused.split('"').nth(3).expect("its port").parse();
    let port: u16 = port.expect("a number");
    let limits = "[limits]\nban = { after = 2, within = \"10m\", lasts = \"10m\" }\n";
    let stage = Stage::new(
        &format!("{limits}{refused}"),
        "max_sessions_per_source = 1\ndeny = [\"127.0.0.8\"]",
    );
    drop(gone);
    let proxy = &stage.scene.proxy;
    let (mut client, mut server) = stage.scene.pair();
    client.exchange(&mut server, b"up");
    server.exchange(&mut client, b"and down");
    for _ in 0..3 {
        from(&stage, [127, 0, 0, 1]).expect_reset();
    }
    from(&stage, [127, 0, 0, 8]).expect_reset();
    Peer::connect_from(IpAddr::from([127, 0, 0, 5]), port).expect_reset();
    let mut ended = from(&stage, [127, 0, 0, 2]);
    let mut its_server = stage.scene.target.accept();
    ended.exchange(&mut its_server, b"bytes");
    drop((ended, its_server));
    proxy.wait_until("tml_proxy_sessions_open", &[], 1);
    proxy.reload(&changed(&stage, |text| text + "# changed\n"));
    proxy.reload_fails(&changed(&stage, |text| text + "nonsense\n"));
    proxy.write_config(&changed(&stage, |text| text.replace("nonsense\n", "")));
    for round in 1..=3 {
        let before = counted(&stage);
        stage.upgrade();
        let after = counted(&stage);
        for (series, count) in &before {
            let now = after
                .get(series)
                .unwrap_or_else(|| panic!("{series} is gone"));
            assert!(now >= count, "{series} went from {count} back to {now}");
        }
        let metrics = proxy.metrics();
        let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
        assert_eq!(sum("tml_proxy_sessions_open", &[]), 1);
        assert_eq!(
            sum("tml_proxy_sessions_opened_total", &[("mapping", "m")]),
            2
        );
        assert_eq!(sum("tml_proxy_bytes_total", &[("direction", "down")]), 15);
        assert_eq!(sum("tml_proxy_clients_banned_total", &[]), 1);
        assert_eq!(sum("tml_proxy_connect_failures_total", &[]), 1);
        assert_eq!(sum("tml_proxy_connect_latency_seconds_count", &[]), 2);
        assert_eq!(sum("tml_proxy_config_reloads_total", &[]), 2);
        assert_eq!(sum("tml_proxy_config_reload_success", &[]), 0);
        assert_eq!(
            sum("tml_proxy_upgrades_total", &[("result", "success")]),
            round
        );
        // The ban holds, and is no other one.
        from(&stage, [127, 0, 0, 1]).expect_reset();
    }
    let address = client.addr();
    drop((client, server));
    let line = stage.scene.ends(address, "closed", 10, 10);
    assert_eq!(line.number("session"), 1);
    // The next session has the next number.
    let mut next = from(&stage, [127, 0, 0, 3]);
    let mut its_server = stage.scene.target.accept();
    next.exchange(&mut its_server, b"hello");
    let address = next.addr();
    drop((next, its_server));
    let number = stage.scene.proxy.ended_session(address).number("session");
    assert!(number > 2, "{number}");
    stage.scene.finish();
}

#[test]
fn a_paused_mapping_keeps_its_clients_waiting_until_it_is_resumed() {
    let stage = Stage::new("", "");
    let (mut before, mut server) = stage.scene.pair();
    stage.json(&["pause", "m"]);
    // The worker hears of it before it can hear of the next client.
    stage.json(&["sessions"]);
    let mut waiting = Peer::connect(stage.scene.port);
    waiting.send(b"patience");
    stage.upgrade();
    before.exchange(&mut server, b"still here");
    let mut late = Peer::connect(stage.scene.port);
    late.send(b"so late");
    assert!(!stage.scene.target.is_called(Duration::from_millis(200)));
    let metrics = stage.scene.proxy.metrics();
    assert_eq!(
        metrics.sum("tml_proxy_mapping_held", &[("state", "paused")]),
        1
    );
    stage.json(&["resume", "m"]);
    let mut first = stage.scene.target.accept();
    let mut second = stage.scene.target.accept();
    first.expect(b"patience");
    second.expect(b"so late");
    drop((before, server, waiting, late, first, second));
    stage.scene.finish();
}

#[test]
fn a_drained_mapping_stays_closed_and_its_sessions_have_the_time_they_had() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    stage.json(&["drain", "m", "--within", "3s"]);
    let addr = SocketAddr::from(([127, 0, 0, 1], stage.scene.port));
    let is_closed = || {
        let refused = Peer::try_connect_to(addr).map_err(|error| error.kind());
        refused.is_err_and(|kind| kind == ErrorKind::ConnectionRefused)
    };
    wait_until("the port to be closed", is_closed);
    stage.upgrade();
    assert!(is_closed());
    let left = stage.json(&["mappings"])["mappings"][0]["sessions_end_in_ms"].as_u64();
    assert!(left.is_some_and(|left| left <= 3000), "{left:?}");
    client.exchange(&mut server, b"not yet");
    client.expect_reset();
    stage.scene.ended(client.addr(), "drain_deadline");
    stage.json(&["resume", "m"]);
    drop(stage.scene.pair());
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn the_level_of_the_log_and_the_numbers_of_events_go_on() {
    let stage = Stage::new("", "");
    stage.json(&["log-level", "debug"]);
    stage.scene.proxy.reload_file();
    let before = events(&stage);
    let started = stage.json(&["status"])["started"].clone();
    stage.upgrade();
    let after = events(&stage);
    assert_eq!(after[..before.len()], before);
    let numbers: Vec<u64> = after.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(after.iter().any(|(_, message)| message == "upgraded"));
    assert_eq!(stage.json(&["status"])["started"], started);
    let from = stage.scene.proxy.log().len();
    stage.scene.proxy.reload_file();
    let line = stage
        .scene
        .proxy
        .log()
        .wait(from, "a line of that level", |line| {
            line.text("level") == "DEBUG"
        });
    assert!(line.has("took_us"));
    stage.scene.finish();
}

#[test]
fn a_reload_after_an_upgrade_changes_what_it_has_to_and_nothing_else() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    stage.upgrade();
    let proxy = &stage.scene.proxy;
    let line = proxy.reload_file();
    assert_eq!(
        (line.number("unchanged"), line.number("repolicied")),
        (1, 0)
    );
    let port = ports::free();
    let other = Target::bind();
    let more = mapping("n", port, other.addr(), "");
    let line = proxy.reload(&changed(&stage, |text| text + &more));
    assert_eq!((line.number("added"), line.number("unchanged")), (1, 1));
    let (mut second, mut its_server) = (Peer::connect(port), other.accept());
    second.exchange(&mut its_server, b"new");
    stage.upgrade();
    second.exchange(&mut its_server, b"still new");
    let line = proxy.reload(&changed(&stage, |text| text.replace(&more, "")));
    assert_eq!((line.number("removed"), line.number("unchanged")), (1, 1));
    // It has left the table with a session, and goes on through another upgrade.
    stage.upgrade();
    second.exchange(&mut its_server, b"without a mapping");
    client.exchange(&mut server, b"as ever");
    let metrics = proxy.metrics();
    let open = |name| metrics.sum("tml_proxy_sessions_open", &[("mapping", name)]);
    assert_eq!((open("m"), open("n")), (1, 1));
    drop((client, server, second, its_server));
    stage.scene.finish();
}

#[test]
fn a_configuration_that_has_changed_comes_into_force_with_a_reload_and_not_with_an_upgrade() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    let port = ports::free();
    let more = mapping("n", port, stage.scene.target.addr(), "");
    let proxy = &stage.scene.proxy;
    proxy.write_config(&changed(&stage, |text| text + &more));
    stage.upgrade();
    client.exchange(&mut server, b"as before");
    let config = stage.json(&["status"]);
    assert_eq!(config["mappings"], 1, "{config}");
    let line = proxy.reload_file();
    assert_eq!((line.number("added"), line.number("unchanged")), (1, 1));
    drop((Peer::connect(port), stage.scene.target.accept()));
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn whoever_asks_the_admin_endpoint_meanwhile_is_answered_afterwards() {
    let stage = Stage::new("", "");
    let socket = stage.dir.join("admin.sock");
    let inode = || fs::metadata(&socket).expect("the socket").ino();
    let (before, admin) = (inode(), stage.scene.proxy.admin());
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            for _ in 0..5 {
                stage.upgrade();
            }
        });
        while !asked.is_finished() {
            // A connection that was accepted may be ended; one that was not waits.
            let _ = metrics::get(admin, "/livez");
            assert!(Peer::try_connect_to(admin).is_ok(), "refused");
        }
    });
    assert_eq!(inode(), before, "it is the same socket");
    let (status, _) = metrics::get(admin, "/livez").expect("an answer");
    assert!(status.contains(" 200 "), "{status}");
    // Another process cannot have it, and it is removed at the end.
    let second = stage.command(&["status"]);
    assert!(second.status.success());
    let lock = stage.dir.join("admin.sock.lock");
    assert!(lock.exists());
    stage.scene.finish();
    assert!(!socket.exists() && !lock.exists());
}

#[test]
fn what_holds_for_each_source_holds_across_an_upgrade() {
    let stage = Stage::new("", "max_sessions_per_source = 2\nmax_sessions = 3");
    let (mut client, mut server) = stage.scene.pair();
    let second = stage.scene.pair();
    stage.upgrade();
    from(&stage, [127, 0, 0, 1]).expect_reset();
    let other = from(&stage, [127, 0, 0, 2]);
    let its_server = stage.scene.target.accept();
    from(&stage, [127, 0, 0, 3]).expect_reset();
    let metrics = stage.scene.proxy.metrics();
    let refused = |cause| metrics.sum("tml_proxy_refusals_total", &[("cause", cause)]);
    assert_eq!((refused("source_full"), refused("mapping_full")), (1, 1));
    client.exchange(&mut server, b"as ever");
    drop(second);
    stage
        .scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[], 2);
    let third = stage.scene.pair();
    drop((client, server, other, its_server, third));
    stage.scene.finish();
}
