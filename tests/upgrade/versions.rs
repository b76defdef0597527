//! From one version to another and back.

use crate::{
    harness::{Setup, proxy::PROGRAM},
    stage::{Stage, VERSION},
};

#[test]
fn a_session_goes_to_the_next_version_and_back() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    // Of a later format that gets along with this one.
    let next = stage.build("0.9.0", "002 001");
    let pid = stage.scene.proxy.id();
    let mut from = VERSION;
    for (round, (binary, to)) in [(next, "0.9.0"), (PROGRAM.into(), VERSION)]
        .into_iter()
        .cycle()
        .take(4)
        .enumerate()
    {
        client.exchange(&mut server, b"before");
        let upgraded = stage.upgrade_to(&binary);
        assert_eq!(upgraded["from"], from);
        assert_eq!(upgraded["to"], to);
        assert_eq!(upgraded["sessions"], 1);
        assert_eq!(upgraded["upgrade"], round + 1);
        client.exchange(&mut server, b"after");
        let status = stage.json(&["status"]);
        assert_eq!(status["version"], to);
        assert_eq!(status["process"]["pid"], pid);
        assert_eq!(status["upgrade"]["succeeded"], round + 1);
        let sessions = stage.json(&["sessions"]);
        assert_eq!(sessions["sessions"][0]["upgrades"], round + 1);
        let metrics = stage.scene.proxy.metrics();
        assert_eq!(metrics.sum("tml_proxy_build_info", &[("version", to)]), 1);
        let upgrades = metrics.sum("tml_proxy_upgrades_total", &[("result", "success")]);
        assert_eq!(upgrades, round as u64 + 1);
        from = to;
    }
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn the_binary_is_the_one_that_is_now_where_the_running_one_was_started_from() {
    let setup = Setup {
        through: vec!["env".to_owned()],
        ..Setup::default()
    };
    let stage = Stage::with(&setup, "", "");
    let (mut client, mut server) = stage.scene.pair();
    let next = stage.build("0.9.0", "001 001");
    let own = stage.scene.proxy.dir().join("tml-proxy");
    std::fs::rename(next, own).expect("both in temporary directories");
    let upgraded = stage.upgrade();
    assert_eq!(upgraded["to"], "0.9.0");
    client.exchange(&mut server, b"after");
    drop((client, server));
    stage.scene.finish();
}
