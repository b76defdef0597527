//! Which process it is: the same before and after an upgrade, another after a restart.

use std::fs;

/// The process, as no other is called on any machine.
pub(super) fn own() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The name of the program, which may have anything in it, is in brackets before these.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    const STARTED: usize = 19;
    let started = fields.split_ascii_whitespace().nth(STARTED);
    let boot = read("/proc/sys/kernel/random/boot_id");
    let (boot, started) = (boot.trim(), started.unwrap_or_default());
    format!("{boot}/{}/{started}", std::process::id())
}
