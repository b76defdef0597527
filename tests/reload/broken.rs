//! A file that cannot be put into force changes nothing, and says so until it is mended.

use std::fs;

use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::Signal,
};

use super::{
    counts,
    harness::{
        Peer, Proxy, Scene, Target, config,
        hung::HungDir,
        mapping, ports,
        process::{has_thread, listening_inodes, threads_waiting},
        require::{Need, require},
        wait_until,
    },
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

/// Nobody ever writes to it, and opening it would wait for that.
#[test]
fn a_fifo_in_place_of_the_file_keeps_everything() {
    let spoil = |scene: &Scene| {
        fs::remove_file(scene.proxy.file()).expect("own file");
        mkfifoat(CWD, scene.proxy.file(), Mode::RUSR | Mode::WUSR).expect("own directory");
    };
    keeps_everything(spoil, "found a FIFO, allowed: a regular file");
}

#[test]
fn a_file_without_an_end_keeps_everything() {
    let spoil = |scene: &Scene| {
        let file = fs::File::create(scene.proxy.file()).expect("own file");
        file.set_len(100 << 30).expect("a file with a hole");
    };
    keeps_everything(spoil, "107374182400 bytes, allowed: at most");
}

#[test]
fn a_file_system_that_hangs_holds_up_the_reload_and_nothing_else() {
    if !require(&[Need::Root, Need::Tool("mount")]) {
        return;
    }
    let scene = Scene::new("");
    let (mut client, mut server) = scene.pair();
    let Some(hung) = HungDir::over(scene.proxy.dir().path()) else {
        return;
    };
    let from = scene.proxy.log().len();
    scene.proxy.signal(Signal::HUP);
    wait_until("the file to be read", || {
        has_thread(scene.proxy.id(), "files")
    });
    // Asked for meanwhile: it is the next reload.
    scene.proxy.signal(Signal::HUP);
    client.exchange(&mut server, b"meanwhile");
    leads_to(scene.port, &scene.target);
    let (status, _) = scene.proxy.page("/readyz");
    assert!(status.contains(" 200 "), "{status}");
    let metrics = scene.proxy.metrics();
    let failures = [("result", "failure")];
    assert_eq!(metrics.sum("tml_proxy_config_reloads_total", &failures), 0);

    let failed = |line: &super::Line| line.message().starts_with("reload failed");
    let line = (scene.proxy.log()).wait(from, "the end of the reload", failed);
    let error = line.text("error");
    assert!(
        error.contains("proxy.toml: the file system did not answer within 10s"),
        "{error}"
    );
    client.exchange(&mut server, b"nothing has changed");
    // The thread that read it first still waits, and a new one may not have asked for it yet.
    wait_until("the file to be read once more", || {
        threads_waiting(scene.proxy.id(), "files") == 2
    });
    drop(hung);
    wait_until("the reload after it to fail as well", || {
        let metrics = scene.proxy.metrics();
        metrics.sum("tml_proxy_config_reloads_total", &failures) == 2
    });
    scene.proxy.reload(&scene.config(""));
    client.exchange(&mut server, b"and on");
    drop((client, server));
    scene.finish();
}

#[test]
fn a_stop_does_not_wait_for_a_file_system_that_hangs() {
    if !require(&[Need::Root, Need::Tool("mount")]) {
        return;
    }
    let mut scene = Scene::new("");
    let Some(_hung) = HungDir::over(scene.proxy.dir().path()) else {
        return;
    };
    scene.proxy.signal(Signal::HUP);
    wait_until("the file to be read", || {
        has_thread(scene.proxy.id(), "files")
    });
    scene.proxy.signal(Signal::TERM);
    assert_eq!(scene.proxy.wait().code(), Some(0));
    let log = scene.proxy.log().text();
    assert!(!log.contains("reload failed"), "it waited for the file");
}

/// A script may try again for days before somebody looks.
#[test]
fn a_file_with_thousands_of_mistakes_is_told_in_few_words_however_often() {
    let scene = Scene::new("");
    let mistake = |number| format!("[[mapping]]\nname = \"m{number}\"\ncolour = 1\n");
    let mistakes: String = (0..500).map(mistake).collect();
    scene.proxy.write_config(&config([mistakes]));
    for _ in 0..5 {
        let line = scene.proxy.reload_file_fails();
        let error = line.text("error");
        assert!(error.ends_with("and 1480 more problems"), "{error}");
        assert!(error.len() < 20_000, "{} bytes in one line", error.len());
    }
    let (_, page) = scene.proxy.page("/");
    assert!(page.len() < 100_000, "{} bytes of status page", page.len());
    let (_, events) = scene.proxy.page("/api/v1/events");
    assert!(
        events.len() < 6 * 20_000,
        "{} bytes of events",
        events.len()
    );
    scene.proxy.reload(&scene.config(""));
    scene.finish();
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
