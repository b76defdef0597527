//! The network a run takes place in: one of its own, where nothing but the run changes how TCP behaves.
//!
//! What matters is congestion control. A machine whose default paces (bbr) starts a timer for every
//! burst it sends, on the loopback interface too; in a virtual machine that costs more than all a
//! proxy does, and what is left differs from round to round by a factor of five. Proxies run on
//! systems that ship with one that does not pace.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::args::Args;

/// Set in a process that is where it should be.
const INSIDE: &str = "TML_PROXY_VERSUS_NETWORK";

const CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// What Debian and NixOS ship comes first. A namespace may be refused it, but never the last.
const ENTER: &str = "
    ip link set lo up || exit
    for control in cubic reno; do
        echo $control 2>/dev/null >/proc/sys/net/ipv4/tcp_congestion_control && break
    done
    exec \"$@\"
";

/// Goes on as a new process in a network namespace of its own. Without the right to make one, or when
/// told so, the run takes place where it is.
pub fn enter(args: &Args) -> Result<()> {
    let unshare = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.arg("--net").args(command);
        unshare
    };
    let can = || unshare(&["true"]).stderr(Stdio::null()).status();
    let stays = args.this_network || std::env::var_os(INSIDE).is_some();
    if stays || !can().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let error = unshare(&["sh", "-c", ENTER, "sh"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "own")
        .exec();
    Err(error).context("start unshare")
}

/// The congestion control new connections get.
pub fn congestion_control() -> String {
    let name = fs::read_to_string(CONTROL).unwrap_or_default();
    name.trim().to_owned()
}
