//! What the process uses of the machine, as /proc has it.

use std::{collections::BTreeMap, fs, path::Path, sync::OnceLock};

use nix::sys::resource::{Resource, getrlimit};
use rustix::param::{clock_ticks_per_second, page_size};

/// What the process uses. A part that /proc does not tell is `None`.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Processor time of all threads, in seconds.
    pub cpu: Option<f64>,
    /// Memory in use, in bytes.
    pub resident: Option<u64>,
    /// Address space, in bytes.
    pub address_space: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Start of the process in seconds since 1970.
    pub started: Option<f64>,
    /// Descriptors open.
    pub descriptors: Option<u64>,
    /// Descriptors that may be open.
    pub descriptor_limit: Option<u64>,
    /// Each data path thread by its name, with its processor time in seconds, that of the threads
    /// included that had the name in earlier images of the program.
    pub workers: Vec<(String, f64)>,
}

/// The processor time that data path threads of earlier images had.
static EARLIER: OnceLock<BTreeMap<String, f64>> = OnceLock::new();

/// Has the processor time of data path threads go on from what it was in the image before this one,
/// which is said once.
pub fn go_on_from(workers: Vec<(String, f64)>) {
    EARLIER.get_or_init(|| workers.into_iter().collect());
}

impl Usage {
    /// Reads it.
    pub fn read() -> Self {
        let stat = Stat::read(Path::new("/proc/self/stat"));
        let part = |part: fn(&Stat) -> u64| stat.as_ref().map(part);
        Self {
            cpu: stat.as_ref().map(Stat::cpu),
            resident: part(|stat| stat.resident_pages * page_size() as u64),
            address_space: part(|stat| stat.address_space),
            threads: part(|stat| stat.threads),
            started: stat
                .as_ref()
                .and_then(|stat| Some(booted()? + stat.started_ticks as f64 / ticks())),
            descriptors: open_descriptors(),
            descriptor_limit: descriptor_limits()
                .map(|(soft, _)| soft)
                .filter(|soft| *soft != u64::MAX),
            workers: Self::workers(),
        }
    }

    /// The processor time of each data path thread: all that need be known while they stand still.
    pub fn workers() -> Vec<(String, f64)> {
        let Ok(threads) = fs::read_dir("/proc/self/task") else {
            return Vec::new();
        };
        let earlier = |name: &str| EARLIER.get().and_then(|all| all.get(name)).unwrap_or(&0.0);
        let mut workers: Vec<(String, f64)> = threads
            .filter_map(|thread| Stat::read(&thread.ok()?.path().join("stat")))
            .filter_map(|stat| {
                let name = stat.name.strip_prefix("worker-")?;
                Some((name.to_owned(), stat.cpu() + earlier(name)))
            })
            .collect();
        workers.sort_by(|one, other| one.0.cmp(&other.0));
        workers
    }
}

/// The soft and the hard limit on open descriptors, `u64::MAX` being none. A sandbox may keep the
/// question from the kernel; /proc says it too.
pub fn descriptor_limits() -> Option<(u64, u64)> {
    let read = || limits_in(&fs::read_to_string("/proc/self/limits").ok()?);
    getrlimit(Resource::RLIMIT_NOFILE).ok().or_else(read)
}

/// The same out of /proc/PID/limits (proc_pid_limits(5)).
fn limits_in(text: &str) -> Option<(u64, u64)> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let mut limits = line.split_whitespace().map(|limit| match limit {
        "unlimited" => Some(u64::MAX),
        limit => limit.parse().ok(),
    });
    Some((limits.next()??, limits.next()??))
}

/// The fields wanted of /proc/PID/stat (proc_pid_stat(5)).
struct Stat {
    name: String,
    cpu_ticks: u64,
    threads: u64,
    started_ticks: u64,
    address_space: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(path: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may itself contain some.
        let (before, after) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // The manual counts fields from 1; the first one behind the name is number 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            name: before.split_once('(')?.1.to_owned(),
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            address_space: field(23)?,
            resident_pages: field(24)?,
        })
    }

    fn cpu(&self) -> f64 {
        self.cpu_ticks as f64 / ticks()
    }
}

fn ticks() -> f64 {
    clock_ticks_per_second() as f64
}

/// When the machine started, in seconds since 1970.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn open_descriptors() -> Option<u64> {
    let directory = "/proc/self/fd";
    // Since Linux 6.2 the size of the directory is the number of descriptors; listing them takes
    // milliseconds when there are many.
    match fs::metadata(directory).ok()?.len() {
        0 => Some(fs::read_dir(directory).ok()?.count() as u64),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_same_wherever_it_is_read() {
        let text = fs::read_to_string("/proc/self/limits").expect("proc(5) is mounted");
        assert_eq!(limits_in(&text), descriptor_limits());
        let line = "Limit  Soft  Hard  Units\nMax open files            1024   unlimited  files\n";
        assert_eq!(limits_in(line), Some((1024, u64::MAX)));
        assert_eq!(limits_in("Max open files  x\n"), None);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 5 0 900 4096 2 0";
        let stat = Stat::parse(text).expect("a whole line");
        assert_eq!(stat.name, "a) b");
        assert_eq!(stat.cpu_ticks, 42);
        assert_eq!((stat.threads, stat.started_ticks), (5, 900));
        assert_eq!((stat.address_space, stat.resident_pages), (4096, 2));
    }

    #[test]
    fn the_process_can_read_about_itself() {
        let usage = Usage::read();
        assert!(usage.resident.is_some_and(|bytes| bytes > 0));
        assert!(usage.descriptors.is_some_and(|count| count > 2));
        assert!(usage.started.is_some_and(|at| at > 1e9));
    }
}
