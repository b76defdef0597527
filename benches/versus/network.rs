//! The network a run takes place in: one of its own, where nothing but the run changes how TCP behaves.
//!
//! What matters is congestion control. One that paces (bbr) sends in bursts with timers between them, on
//! the loopback interface too. In a virtual machine bulk then takes up to nine times the processor
//! time, and up to five times as much in one round as in another, whichever proxy it goes through.
//! Proxies run on systems that ship with one that does not pace.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::args::Args;

/// Set in a process that is where it should be.
const INSIDE: &str = "TML_PROXY_VERSUS_NETWORK";

const CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Its first argument is [`CONTROL`]. What Debian and NixOS ship comes first; a namespace may be refused
/// it, but never the last.
const ENTER: &str = "
    ip link set lo up || exit
    for control in cubic reno; do
        echo $control 2>/dev/null >\"$0\" && break
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
    let error = unshare(&["sh", "-c", ENTER, CONTROL])
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

/// From now on connections come from these ports, in a network of the run's own.
pub fn set_local_ports(first: u16, last: u16) -> Result<()> {
    ensure!(
        std::env::var_os(INSIDE).is_some(),
        "without a network of its own the run leaves the machine's local ports alone"
    );
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(range, format!("{first} {last}")).context("set the local ports")
}
