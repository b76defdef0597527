//! A kill -9 at each step of an upgrade. While it meets the child alone the process goes on, see
//! `broken.rs`; once it meets the process, that is gone as a whole: no session is continued with a hole,
//! and whoever is started next finds every port free.

use std::{
    io::{ErrorKind, Read},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    harness::{
        Peer,
        process::Running,
        proxy::PROGRAM,
        require::{Need, require},
        strace::tamper,
        wait::wait_until,
    },
    stage::Stage,
};

/// A stage whose proxy is killed by an upgrade to the binary.
#[track_caller]
fn dies_of_an_upgrade_to(mut stage: Stage, binary: &Path) {
    let (mut client, mut server) = stage.scene.pair();
    client.exchange(&mut server, b"before");
    let mut command = Command::new(PROGRAM);
    let socket = stage.dir.join("admin.sock");
    command.arg("upgrade").arg("--binary").arg(binary);
    // It would wait for the process to come back.
    let _asking = quietly(command.arg("--socket").arg(socket));
    let status = stage.scene.proxy.wait();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
    nothing_more_comes(&client);
    nothing_more_comes(&server);
    the_next_one_serves(&stage);
}

/// Neither a byte that was not sent, nor a session that hangs.
#[track_caller]
fn nothing_more_comes(peer: &Peer) {
    match peer.stream().read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

/// As systemd starts it again.
#[track_caller]
fn the_next_one_serves(stage: &Stage) {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--admin", "off", "--config"]);
    let _next = quietly(command.arg(stage.scene.proxy.file()));
    wait_until("the next one to listen", || {
        stage.command(&["status"]).status.success()
    });
    let (mut client, mut server) = stage.scene.pair();
    client.exchange(&mut server, b"afterwards");
    let status = stage.json(&["status"]);
    assert_eq!(status["sessions"], 1);
    assert_eq!(status["upgrade"]["succeeded"], 0);
}

fn quietly(command: &mut Command) -> Running {
    Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

#[test]
fn a_worker_that_hands_over() {
    if !require(&[Need::Root, Need::Tool("strace")]) {
        return;
    }
    let stage = Stage::new("", "");
    let _killing = tamper(&stage.scene.proxy, "worker-0", "memfd_create:signal=KILL");
    dies_of_an_upgrade_to(stage, PROGRAM.as_ref());
}

#[test]
fn the_process_when_all_was_handed_over() {
    if !require(&[Need::Root, Need::Tool("strace")]) {
        return;
    }
    let stage = Stage::new("", "");
    let _killing = tamper(&stage.scene.proxy, "tml-proxy", "execve:signal=KILL");
    dies_of_an_upgrade_to(stage, PROGRAM.as_ref());
}

#[test]
fn the_next_image_before_it_has_taken_anything() {
    let stage = Stage::new("", "");
    let text = format!(
        "for last; do :; done\n[ \"$last\" = --adopt ] && kill -KILL $$\nexec {PROGRAM} \"$@\""
    );
    let binary = stage.script("killed", &text);
    dies_of_an_upgrade_to(stage, &binary);
}

#[test]
fn the_next_image_when_it_serves() {
    let mut stage = Stage::new("", "");
    let (mut client, mut server) = stage.scene.pair();
    stage.upgrade();
    client.exchange(&mut server, b"after");
    stage.scene.proxy.signal(Signal::KILL);
    stage.scene.proxy.wait();
    nothing_more_comes(&client);
    nothing_more_comes(&server);
    the_next_one_serves(&stage);
}
