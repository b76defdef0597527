//! System calls that fail or take their time, for one thread of the proxy.

use std::{
    fs,
    process::{Command, Stdio},
};

use super::{Proxy, process::Running, wait_for, wait_until};

/// Has strace(1) tamper with the calls of a thread until the answer is dropped, as its
/// `--inject=RULE` says.
#[track_caller]
pub fn tamper(proxy: &Proxy, thread: &str, rule: &str) -> Running {
    let tasks = format!("/proc/{}/task", proxy.id());
    let of = |task: &str, file: &str| {
        fs::read_to_string(format!("{tasks}/{task}/{file}")).unwrap_or_default()
    };
    let task = wait_for("the thread", || {
        let all = fs::read_dir(&tasks).expect("it runs").flatten();
        let mut names = all.filter_map(|entry| entry.file_name().into_string().ok());
        names.find(|task| of(task, "comm").trim_end() == thread)
    });
    let (call, _) = rule.split_once(':').expect("CALL:WHAT");
    let mut command = Command::new("strace");
    command
        .args(["--attach", &task, "--output=/dev/null"])
        .args([format!("--trace={call}"), format!("--inject={rule}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let strace = Running::start(&mut command);
    wait_until("strace to be there", || {
        let status = of(&task, "status");
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    });
    strace
}
