//! What a scrape has after something happened.

use tml_proxy::{
    admin::api::model::{Mappings, Status},
    telemetry::metric::ALL,
};

use crate::{
    desk::Desk,
    harness::{Peer, Target, ports, wait_until},
};

#[test]
fn every_exported_series_is_described() {
    let desk = Desk::new("", "");
    drop(desk.scene.pair());
    desk.scene.proxy.settles();
    let page = desk.ask_tcp("GET", "/metrics", "");
    assert!(
        page.head.contains("text/plain; version=0.0.4"),
        "{}",
        page.head
    );
    let mut described = 0;
    for line in page.body.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let plain = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        let known = ALL
            .iter()
            .any(|series| series.name == plain || series.name == name);
        assert!(known, "{line}");
        described += 1;
    }
    assert!(described > 40, "{}", page.body);
    desk.scene.finish();
}

#[test]
fn a_range_is_one_mapping_unless_each_port_is_asked_for() {
    let target = Target::bind();
    let first = ports::range(2);
    let range = |more: &str| {
        format!(
            "[[mapping]]\nname = \"lab\"\nlisten = [{first}, {}]\ntarget = \"{}\"\n{more}",
            first + 1,
            target.addr()
        )
    };
    let desk = Desk::new(&range(""), "");
    let of = |mapping: &str| {
        let labels = [("mapping", mapping)];
        let metrics = desk.scene.proxy.metrics();
        metrics.sum("tml_proxy_sessions_open", &labels)
    };
    let mut kept = Peer::connect(first + 1);
    let mut at_target = target.accept();
    assert_eq!((of("lab"), of("lab+0")), (1, 0));

    let apart = desk
        .config("")
        .replace(&range(""), &range("each_port = true\n"));
    desk.scene.proxy.reload(&apart);
    let second = format!("lab+{}", first + 1);
    wait_until("the session to change its mapping", || {
        (of("lab"), of(&second)) == (0, 1)
    });
    kept.exchange(&mut at_target, b"under another name");
    let killed = desk.succeed(&["kill", "--mapping", &second]);
    assert_eq!(killed, "1 session told to end\n");
}

#[test]
fn a_session_is_in_both_histograms() {
    let desk = Desk::new("", "");
    drop(desk.scene.pair());
    let proxy = &desk.scene.proxy;
    proxy.wait_until(
        "tml_proxy_session_length_seconds_count",
        &[("mapping", "m")],
        1,
    );
    let metrics = proxy.metrics();
    let in_bucket = [("mapping", "m"), ("le", "+Inf")];
    assert_eq!(
        metrics.sum("tml_proxy_connect_latency_seconds_bucket", &in_bucket),
        1
    );
    desk.scene.finish();
}

#[test]
fn series_of_a_mapping_go_with_it() {
    let desk = Desk::new("", "");
    drop(desk.scene.pair());
    desk.scene.proxy.settles();
    assert!(
        desk.scene
            .proxy
            .metrics()
            .has("tml_proxy_bytes_total", &[("mapping", "m")])
    );
    let renamed = desk.config("").replace("name = \"m\"", "name = \"n\"");
    desk.scene.proxy.reload(&renamed);
    let page = desk.ask_tcp("GET", "/metrics", "").body;
    assert!(
        !page.contains("mapping=\"m\"") && page.contains("mapping=\"n\""),
        "{page}"
    );
}

#[test]
fn the_status_forgets_no_session_when_its_mapping_goes() {
    let desk = Desk::new("", "");
    let (mut client, mut server) = desk.scene.pair();
    client.exchange(&mut server, b"before");
    drop((client, server));
    let (mut client, mut server) = desk.scene.pair();
    let renamed = desk.config("").replace("name = \"m\"", "name = \"n\"");
    desk.scene.proxy.reload(&renamed);
    client.exchange(&mut server, b"behind");
    drop((client, server));
    desk.scene.proxy.settles();
    let (mut client, mut server) = desk.scene.pair();
    client.exchange(&mut server, b"after");
    drop((client, server));
    desk.scene.proxy.settles();
    desk.scene.proxy.reload(&desk.config(""));
    let status: Status = desk.get("/api/v1/status");
    assert_eq!(status.sessions_opened, 3);
    assert_eq!((status.bytes_up, status.bytes_down), (17, 17));
}

#[test]
fn the_way_to_the_target_is_sampled_on_live_sessions() {
    let desk = Desk::new("", "");
    let (mut client, mut server): (Peer, Peer) = desk.scene.pair();
    client.exchange(&mut server, b"a round trip");
    let mapping = [("mapping", "m")];
    let proxy = &desk.scene.proxy;
    proxy.wait_until("tml_proxy_target_sampled_sessions", &mapping, 1);
    assert!(
        proxy
            .metrics()
            .has("tml_proxy_target_rtt_seconds", &mapping)
    );
    assert!(
        proxy
            .metrics()
            .has("tml_proxy_target_rtt_min_seconds", &mapping)
    );
    let mappings: Mappings = desk.get("/api/v1/mappings");
    let path = mappings.mappings[0].path.as_ref().expect("it was sampled");
    let least = path.rtt_min_ms.expect("a round trip was seen");
    assert!(least > 0.0 && least <= path.rtt_ms, "{path:?}");
    drop((client, server));
    desk.scene.finish();
}
