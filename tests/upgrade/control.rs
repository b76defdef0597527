//! What operators and programs see of an upgrade.

use std::{fs, process::Command, thread};

use rustix::process::Signal;

use crate::{
    harness::{
        Peer, Setup, process,
        proxy::as_user,
        require::{Need, require},
        wait_until,
    },
    stage::Stage,
};

/// A build that takes its time over the rehearsal, and says in a file that it has begun.
fn slow(stage: &Stage, then: &str) -> std::path::PathBuf {
    let program = crate::harness::proxy::PROGRAM;
    let begun = stage.dir.join("begun");
    let go = stage.dir.join("go");
    stage.script(
        "slow",
        &format!(
            "for last; do :; done\n[ \"$last\" = --rehearse ] || exec {program} \"$@\"\n\
             touch {}\nwhile ! [ -e {} ]; do sleep 0.05; done\n{then} exec {program} \"$@\"",
            begun.display(),
            go.display()
        ),
    )
}

#[test]
fn an_update_that_changed_nothing_moves_no_session() {
    let stage = Stage::new("", "");
    let asked = |binary: &std::path::Path| {
        let binary = binary.display().to_string();
        stage.json(&["upgrade", "--if-changed", "--binary", &binary])
    };
    let program = std::path::Path::new(crate::harness::proxy::PROGRAM);
    let unchanged = stage.json(&["upgrade", "--if-changed"]);
    assert_eq!(unchanged["binary"], program.display().to_string());
    assert_eq!(asked(program), unchanged);
    assert_eq!(stage.json(&["status"])["upgrade"]["succeeded"], 0);

    let other = stage.executable("other", fs::read(program).expect("it was built"));
    assert_eq!(asked(&other)["upgrade"], 1);
    assert_eq!(asked(&other)["binary"], other.display().to_string());
    assert_eq!(stage.json(&["status"])["upgrade"]["succeeded"], 1);
}

#[test]
fn what_an_operator_did_and_what_was_counted_goes_on() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    client.exchange(&mut server, b"counted");
    drop((client, server));
    stage
        .scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[], 0);
    stage.json(&["log-level", "debug"]);
    assert!(stage.command(&["pause", "m"]).status.success());
    let before = stage.scene.proxy.metrics();
    let events = stage.json(&["events"]);
    stage.upgrade();
    let after = stage.scene.proxy.metrics();
    for name in [
        "tml_proxy_sessions_opened_total",
        "tml_proxy_sessions_ended_total",
        "tml_proxy_bytes_total",
        "tml_proxy_connect_duration_seconds_count",
        "tml_proxy_copied_bytes_total",
        "tml_proxy_mapping_held",
    ] {
        assert_eq!(after.sum(name, &[]), before.sum(name, &[]), "{name}");
    }
    let status = stage.json(&["status"]);
    assert_eq!(status["log_level"], "debug");
    let events_after = stage.json(&["events"]);
    let (old, new) = (&events["events"], &events_after["events"]);
    let (old, new) = (old.as_array(), new.as_array());
    let (old, new) = (old.expect("a list"), new.expect("a list"));
    assert_eq!(old[..], new[..old.len()]);
    assert!(new.len() > old.len());

    let mut waiting = Peer::connect(stage.scene.port);
    waiting.send(b"paused");
    assert!(
        !stage
            .scene
            .target
            .is_called(std::time::Duration::from_millis(200))
    );
    stage.upgrade();
    assert!(stage.command(&["resume", "m"]).status.success());
    let mut server = stage.scene.target.accept();
    server.expect(b"paused");
    drop((waiting, server));
    stage.scene.finish();
}

#[test]
fn a_reload_that_is_asked_for_meanwhile_comes_after_the_upgrade() {
    let stage = Stage::new("", "");
    let slow = slow(&stage, "");
    let upgraded = thread::scope(|scope| {
        let upgrading = scope.spawn(|| stage.upgrade_to(&slow));
        wait_until("the rehearsal", || stage.dir.join("begun").exists());
        stage.scene.proxy.signal(Signal::HUP);
        let refused = stage.command(&["upgrade"]);
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("an upgrade is under way"), "{said}");
        stage.dir.write("go", "");
        upgrading.join().expect("it was upgraded")
    });
    assert_eq!(upgraded["upgrade"], 1);
    stage.scene.proxy.wait_for_line(0, "reload done");
    stage.scene.finish();
}

#[test]
fn a_reload_that_an_upgrade_cuts_off_says_what_came_of_it() {
    let stage = Stage::new("", "");
    let slow = slow(&stage, "");
    let proxy = &stage.scene.proxy;
    thread::scope(|scope| {
        let upgrading = scope.spawn(|| stage.upgrade_to(&slow));
        wait_until("the rehearsal", || stage.dir.join("begun").exists());
        let reloading = scope.spawn(|| stage.command(&["reload"]));
        proxy.wait_for_line(0, "reload asked for by an operator");
        stage.dir.write("go", "");
        upgrading.join().expect("it was upgraded");
        let reloaded = reloading.join().expect("it was run");
        assert!(reloaded.status.success(), "{reloaded:?}");
    });
    stage.scene.finish();
}

#[test]
fn a_stop_during_a_rehearsal_stops() {
    let stage = Stage::new("", "");
    let slow = slow(&stage, "");
    thread::scope(|scope| {
        let upgrading =
            scope.spawn(|| stage.command(&["upgrade", "--binary", &slow.display().to_string()]));
        wait_until("the rehearsal", || stage.dir.join("begun").exists());
        stage.scene.proxy.signal(Signal::TERM);
        let refused = upgrading.join().expect("it says no");
        assert_ne!(refused.status.code(), Some(0));
    });
    stage.dir.write("go", "");
    let mut proxy = stage.scene.proxy;
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_binary_that_is_replaced_after_its_rehearsal_is_not_trusted() {
    let stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    let path = stage.dir.join("slow");
    let then = format!("cp {0} {0}.new; mv {0}.new {0};", path.display());
    let slow = slow(&stage, &then);
    stage.dir.write("go", "");
    let said = stage.upgrade_fails(&slow);
    assert!(said.contains("another file has taken its place"), "{said}");
    client.exchange(&mut server, b"after");
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn a_configuration_that_the_next_start_would_refuse_is_said_before() {
    let stage = Stage::new("", "");
    stage
        .scene
        .proxy
        .write_config("version = 1\nnonsense = 1\n");
    let said = stage.upgrade_fails(crate::harness::proxy::PROGRAM.as_ref());
    assert!(said.contains("nonsense"), "{said}");
    stage.scene.finish();
}

#[test]
fn a_limit_on_descriptors_that_leaves_no_room_changes_nothing() {
    let setup = Setup::default();
    let stage = Stage::with(&setup, "", "");
    let (mut client, mut server) = stage.scene.pair();
    let pid = stage.scene.proxy.id();
    // One for the command, one for a socket that the proxy keeps for its questions to the kernel.
    let limit = process::all_descriptors(pid) + 3;
    let limit_to = |limit: usize| {
        let mut command = Command::new("prlimit");
        let limit = format!("--nofile={limit}:");
        process::succeed(command.args(["--pid", &pid.to_string(), &limit]));
    };
    let before = process::descriptors(pid);
    limit_to(limit);
    let output = stage.command(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("open files"), "{said}");
    client.exchange(&mut server, b"after");
    wait_until("nothing to be left open", || {
        process::descriptors(pid) <= before
    });
    limit_to(4096);
    stage.upgrade();
    client.exchange(&mut server, b"and after an upgrade");
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn an_ordinary_user_upgrades_in_place() {
    if !require(&[Need::Root, Need::Tool("setpriv")]) {
        return;
    }
    let setup = Setup {
        through: as_user(process::lone_user()),
        ..Setup::default()
    };
    let stage = Stage::for_everybody(&setup);
    let (mut client, mut server) = stage.scene.pair();
    for _ in 0..3 {
        assert_eq!(stage.upgrade()["sessions"], 1);
        client.exchange(&mut server, b"still here");
    }
    drop((client, server));
    stage.scene.finish();
}

#[test]
fn the_process_looks_as_it_did() {
    let stage = Stage::new("", "");
    let pid = stage.scene.proxy.id();
    let words = || fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
    let (before, called) = (words(), name());
    for _ in 0..3 {
        stage.upgrade();
        assert_eq!(words(), format!("{before}--adopt\0"));
        assert_eq!(name(), called);
    }
    stage.scene.finish();
}
