//! Programs a test starts, and what /proc says of them.

use std::{
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::LazyLock,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use super::{DEADLINE, wait_within};

/// A program that does not outlive its test.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => panic!("{command:?}: {error}"),
        }
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.id()), signal).expect("a child not waited for yet can be signalled");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("own child").is_some()
    }

    /// Waits until it ends.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(DEADLINE)
    }

    /// Waits until it ends, which may take longer than most things.
    #[track_caller]
    pub fn wait_within(&mut self, deadline: Duration) -> ExitStatus {
        wait_within(deadline, "a program to end", || {
            self.0.try_wait().expect("own child")
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either has no effect on a child that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end and gives what it wrote.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running::start(command);
    let stdout = collect(running.child().stdout.take());
    let stderr = collect(running.child().stderr.take());
    let status = running.wait_within(4 * DEADLINE);
    Output {
        status,
        stdout: stdout.join().expect("reading does not panic"),
        stderr: stderr.join().expect("reading does not panic"),
    }
}

/// Runs a program that has to succeed and gives its standard output.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    let mut pipe = pipe.expect("asked for");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came until an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Lets this test and what it starts open as many files as the hard limit allows; returns that.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < most) {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised).expect("a soft limit may be raised to the hard one");
    }
    most
}

/// Names this run of this test file. Unlike a process id it never comes again, so that what a run that was
/// killed has left behind is in nobody's way.
pub fn run_id() -> &'static str {
    static ID: LazyLock<String> = LazyLock::new(|| {
        let random = RandomState::new().hash_one(std::process::id());
        format!("{:08x}", random & u64::from(u32::MAX))
    });
    &ID
}

/// The id of a user who has nothing, so that its limits are not shared with anybody.
pub fn lone_user() -> u32 {
    100_000 + std::process::id() % 100_000
}

/// A process, its children, theirs and so on.
pub fn with_descendants(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("proc(5) is mounted");
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            // One that has just ended has no parent any more.
            Some((pid, stat(pid)?.get(1)?.parse().ok()?))
        })
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        family.extend(children.map(|(child, _)| *child));
        next += 1;
    }
    family
}

/// Ends a process that may have ended already, without a chance to say anything.
pub fn kill(pid: u32) {
    _ = kill_process(self::pid(pid), Signal::KILL);
}

fn pid(number: u32) -> Pid {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    pid.expect("ids of processes are positive")
}

/// Resident memory in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .expect("VmRSS is a number of KiB")
}

/// How many descriptors are open, netlink sockets aside: a worker opens one when it first asks the kernel
/// about a connection, which may be at any time, and keeps it.
pub fn descriptors(pid: u32) -> usize {
    let netlink = fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap_or_default();
    let netlink: Vec<_> = netlink
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    names_of_descriptors(pid)
        .filter(|name| !netlink.contains(name))
        .count()
}

/// How many descriptors are open and count against its limit.
pub fn all_descriptors(pid: u32) -> usize {
    names_of_descriptors(pid).count()
}

fn names_of_descriptors(pid: u32) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a running process of the same user")
        // One that is closed meanwhile has no name any more.
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
}

/// Whether a process has a thread of that name.
pub fn has_thread(pid: u32, name: &str) -> bool {
    threads_named(pid, name).next().is_some()
}

/// How many threads of that name a process has that wait for something.
pub fn threads_waiting(pid: u32, name: &str) -> usize {
    let waits = |task: &PathBuf| state(task).is_some_and(|state| state == 'S' || state == 'D');
    threads_named(pid, name).filter(waits).count()
}

fn threads_named(pid: u32, name: &str) -> impl Iterator<Item = PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| task.path()).filter(move |task| {
        let found = fs::read_to_string(task.join("comm"));
        found.is_ok_and(|found| found.trim() == name)
    })
}

/// What a thread does, as a letter (proc_pid_stat(5)).
fn state(task: &Path) -> Option<char> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    // It stands behind the name, which may have anything in it.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// How many threads there are.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task"))
        .expect("a running process")
        .count()
}

/// The number the next descriptor will get.
pub fn lowest_free_descriptor(pid: u32) -> u64 {
    (0..)
        .find(|number| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_err())
        .expect("some number is free")
}

/// Processor time used so far, in clock ticks.
pub fn cpu_ticks(pid: u32) -> u64 {
    let fields = stat(pid).expect("a running process");
    // Fields 14 and 15 of proc(5), user and system time; the first two are gone.
    let number = |at: usize| fields[at].parse::<u64>().expect("a number of ticks");
    number(11) + number(12)
}

/// The fields of proc_pid_stat(5) behind the name, which may have anything in it.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// Whether every thread waits in a system call without a time limit.
pub fn waits_for_ever(pid: u32) -> bool {
    let waits = |thread: &std::path::Path| {
        let call = fs::read_to_string(thread.join("syscall")).unwrap_or_default();
        // The number and six arguments (proc(5)); "running" outside of any call. Of epoll_wait(2),
        // epoll_pwait2(2) and futex(2) the fourth argument is the limit: -1 or no pointer is none.
        let limit = call.split_whitespace().nth(4);
        matches!(limit, Some("0x0" | "0xffffffff" | "0xffffffffffffffff"))
    };
    fs::read_dir(format!("/proc/{pid}/task"))
        .expect("a running process of the same user")
        .all(|thread| thread.is_ok_and(|thread| waits(&thread.path())))
}

/// Whether one of the descriptors is the socket of that inode.
pub fn holds_socket(pid: u32, inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a running process of the same user")
        .filter_map(Result::ok)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == &*name))
}

/// The inodes of the sockets of `pid`'s network namespace that listen on `port`.
pub fn listening_inodes(pid: u32, port: u16) -> Vec<u64> {
    let mut inodes = Vec::new();
    for table in ["tcp", "tcp6"] {
        let Ok(file) = File::open(format!("/proc/{pid}/net/{table}")) else {
            continue;
        };
        for line in BufReader::new(file).lines().skip(1) {
            let line = line.expect("the kernel writes text");
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Listening sockets come first, and there may be very many others.
            if fields[3] != "0A" {
                break;
            }
            if fields[1].ends_with(&format!(":{port:04X}")) {
                inodes.push(fields[9].parse().expect("a number"));
            }
        }
    }
    // The kernel's table may move while it is read, and then shows a socket twice.
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}

/// Connections of `pid`'s network namespace that were begun by the other side and not completed.
pub fn half_open(pid: u32) -> usize {
    const SYN_RECV: &str = "03";
    let sockets = tcp_sockets(pid);
    sockets
        .iter()
        .filter(|fields| fields[3] == SYN_RECV)
        .count()
}

/// Connections of `pid`'s network namespace with bytes that the other side has not acknowledged.
pub fn unacknowledged(pid: u32) -> usize {
    const ESTABLISHED: &str = "01";
    let sockets = tcp_sockets(pid);
    sockets
        .iter()
        .filter(|fields| fields[3] == ESTABLISHED && !fields[4].starts_with("00000000:"))
        .count()
}

/// How long the kernel waits at most before it tries once more to send to a peer that took nothing the
/// last time, over the connections of `pid`'s network namespace from or to that port.
pub fn longest_wait_to_resend(pid: u32, port: u16) -> Duration {
    const RESEND: &str = "01";
    const PROBE_WINDOW: &str = "04";
    let port = format!(":{port:04X}");
    let waits = tcp_sockets(pid).into_iter().filter_map(|fields| {
        let (timer, left) = fields[5].split_once(':')?;
        let concerned = fields[1].ends_with(&port) || fields[2].ends_with(&port);
        let hundredths = u64::from_str_radix(left, 16).ok()?;
        (concerned && [RESEND, PROBE_WINDOW].contains(&timer))
            .then(|| Duration::from_millis(10 * hundredths))
    });
    waits.max().unwrap_or_default()
}

/// Bytes that sockets of `pid`'s network namespace hold for that port and its peers, because none of
/// these has acknowledged them.
pub fn not_acknowledged(pid: u32, port: u16) -> u64 {
    let port = format!(":{port:04X}");
    let sockets = tcp_sockets(pid);
    let concerned = sockets
        .iter()
        .filter(|fields| fields[1].ends_with(&port) || fields[2].ends_with(&port));
    let held = concerned.filter_map(|fields| fields[4].split_once(':'));
    held.map(|(sent, _)| u64::from_str_radix(sent, 16).expect("a number"))
        .sum()
}

/// Keepalive probes without an answer so far, of the connection of `pid`'s network namespace that has
/// most of them.
pub fn unanswered_probes(pid: u32) -> u32 {
    const KEEPALIVE: &str = "02";
    let sockets = tcp_sockets(pid);
    let probed = sockets
        .iter()
        .filter(|fields| fields[5].starts_with(KEEPALIVE));
    let probes = probed.filter_map(|fields| fields[8].parse().ok());
    probes.max().unwrap_or_default()
}

/// Connections that `pid` itself has to that port of other hosts or of its own.
pub fn connections_to(pid: u32, port: u16) -> usize {
    let port = format!(":{port:04X}");
    let sockets = tcp_sockets(pid);
    let inodes = sockets
        .iter()
        .filter(|fields| fields[2].ends_with(&port))
        .map(|fields| fields[9].parse().expect("a number"));
    inodes.filter(|&inode| holds_socket(pid, inode)).count()
}

/// The fields of every TCP socket of `pid`'s network namespace (proc_pid_net(5)).
fn tcp_sockets(pid: u32) -> Vec<Vec<String>> {
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok())
        .flat_map(|text| {
            let lines = text.lines().skip(1);
            let fields = lines.map(|line| line.split_whitespace().map(str::to_owned).collect());
            fields.collect::<Vec<_>>()
        })
        .collect()
}

/// Whether all of its threads have been stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    tasks
        .map(|task| state(&task.expect("a thread").path()))
        .all(|state| state == Some('T'))
}
