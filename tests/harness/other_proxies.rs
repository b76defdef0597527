//! Other proxies, run beside the one under test.

use std::process::{Command, Stdio};

use super::{
    TempDir,
    process::{self, Running},
    wait_until,
};

/// Starts one that stays in the foreground, and waits until it listens on a port.
#[track_caller]
pub fn start(command: &mut Command, port: u16) -> Running {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    let other = Running::start(command.stderr(Stdio::null()));
    wait_until("it to listen", || {
        !process::listening_inodes(other.id(), port).is_empty()
    });
    other
}

/// Starts HAProxy with a configuration, one of whose ports that is.
#[track_caller]
pub fn haproxy(dir: &TempDir, text: &str, port: u16) -> Running {
    let file = dir.write("haproxy.cfg", text);
    start(Command::new("haproxy").args(["-db", "-f"]).arg(file), port)
}
