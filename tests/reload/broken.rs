//! A file that cannot be put into force changes nothing, and says so until it is mended.

use std::fs;

use super::{
    counts,
    harness::{Peer, Proxy, Scene, Target, config, mapping, ports, process::listening_inodes},
    leads_to,
};

/// Checks that a reload that fails is told, shown, and without any effect on the one mapping and on
/// a session; and that the next good file clears it.
#[track_caller]
fn keeps_everything(spoil: impl FnOnce(&Scene), telling: &str) {
    let scene = Scene::new("");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"before");
    assert_success(&scene.proxy, 1);

    spoil(&scene);
    let line = scene.proxy.reload_file_fails();
    assert_eq!(line.text("level"), "ERROR");
    let log = scene.proxy.log().text();
    assert!(log.contains(telling), "nothing about {telling:?}");
    assert_success(&scene.proxy, 0);
    let metrics = scene.proxy.metrics();
    let failures = [("result", "failure")];
    assert_eq!(metrics.sum("tml_proxy_config_reloads_total", &failures), 1);
    assert_eq!(metrics.sum("tml_proxy_mappings", &[]), 1);
    client.exchange(&mut server, b"after");
    leads_to(scene.port, &scene.target);

    let file = scene.proxy.file();
    if file.is_dir() {
        fs::remove_dir(&file).expect("an empty directory");
    }
    let line = scene.proxy.reload(&scene.config(""));
    assert_eq!(counts(&line), [0, 0, 0, 0, 1]);
    assert_success(&scene.proxy, 1);
    client.exchange(&mut server, b"and on");
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 17, 17);
    scene.finish();
}

#[track_caller]
fn assert_success(proxy: &Proxy, expected: u64) {
    let success = proxy.metrics().sum("tml_proxy_config_reload_success", &[]);
    assert_eq!(success, expected);
}

#[test]
fn a_file_with_a_mistake_keeps_everything() {
    let spoil = |scene: &Scene| scene.proxy.write_config(&scene.config("colour = \"blue\""));
    keeps_everything(spoil, "colour");
}

#[test]
fn a_file_cut_off_in_the_middle_keeps_everything() {
    let spoil = |scene: &Scene| {
        let whole = fs::read(scene.proxy.file()).expect("own file");
        fs::write(scene.proxy.file(), &whole[..whole.len() - 30]).expect("own file");
    };
    keeps_everything(spoil, "proxy.toml");
}

#[test]
fn an_empty_file_keeps_everything() {
    let spoil = |scene: &Scene| fs::write(scene.proxy.file(), "").expect("own file");
    keeps_everything(spoil, "version");
}

#[test]
fn a_file_that_is_gone_keeps_everything() {
    let spoil = |scene: &Scene| fs::remove_file(scene.proxy.file()).expect("own file");
    keeps_everything(spoil, "proxy.toml");
}

#[test]
fn a_directory_in_place_of_the_file_keeps_everything() {
    let spoil = |scene: &Scene| {
        fs::remove_file(scene.proxy.file()).expect("own file");
        fs::create_dir(scene.proxy.file()).expect("own directory");
    };
    keeps_everything(spoil, "proxy.toml");
}

#[test]
fn two_mappings_on_one_port_keep_everything() {
    let spoil = |scene: &Scene| {
        let twice = mapping("again", scene.port, scene.target.addr(), "");
        scene.proxy.write_config(&(scene.config("") + &twice));
    };
    keeps_everything(spoil, "again");
}

/// All or nothing: what the same file would have removed, added and retargeted stays as it was.
#[test]
fn a_port_in_use_keeps_everything() {
    let targets = [Target::bind(), Target::bind()];
    let [stays, goes, comes, moves] = [0; 4].map(|_| ports::free());
    let occupied = Target::bind_to(([0, 0, 0, 0], ports::free()).into());
    let [first, second] = [targets[0].addr(), targets[1].addr()];
    let proxy = Proxy::start(&config([
        mapping("stays", stays, first, ""),
        mapping("goes", goes, first, "on_remove = \"kill\""),
        mapping("moves", moves, first, "on_retarget = \"kill\""),
    ]));
    let mut session = Peer::connect(goes);
    let mut session_end = targets[0].accept();
    let mut other = Peer::connect(moves);
    let mut other_end = targets[0].accept();
    let inodes = [stays, goes, moves].map(|port| listening_inodes(proxy.id(), port));
    let with_fault = |fault: &str| {
        config([
            &mapping("stays", stays, first, ""),
            &mapping("comes", comes, first, ""),
            &mapping("moves", moves, second, "on_retarget = \"kill\""),
            fault,
        ])
    };

    proxy.reload_fails(&with_fault(&mapping("taken", occupied.port(), first, "")));
    let log = proxy.log().text();
    assert!(log.contains(&occupied.port().to_string()) && log.contains("taken"));
    assert_eq!(proxy.metrics().sum("tml_proxy_mappings", &[]), 3);
    assert_eq!(proxy.metrics().sum("tml_proxy_listeners", &[]), 3);
    proxy.stops_listening(comes);
    leads_to(goes, &targets[0]);
    leads_to(moves, &targets[0]);
    session.exchange(&mut session_end, b"still here");
    other.exchange(&mut other_end, b"still here");
    assert_eq!(
        inodes,
        [stays, goes, moves].map(|port| listening_inodes(proxy.id(), port))
    );

    let line = proxy.reload(&with_fault(""));
    assert_eq!(counts(&line), [1, 1, 1, 0, 1]);
    proxy.stops_listening(goes);
    leads_to(comes, &targets[0]);
    leads_to(moves, &targets[1]);
    session.expect_reset();
    other.expect_reset();
    proxy.settles();
}
