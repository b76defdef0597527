//! What a proxy and the machine used: processor time, memory, descriptors, wake-ups.
//!
//! Processor time comes from `/proc/PID/task/TID/schedstat`, in nanoseconds; it is exact for a
//! thread that sleeps, so it is read before the load starts and after it has ended. A thread that
//! ended in between is not counted.
//!
//! The machine's is that of all processes of the run and of the kernel's threads that receive packets,
//! so that it does not matter what else runs. What an interrupt takes counts for whom it interrupts.

use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::harness::process::with_descendants;

/// The processes of a proxy and what they have used so far.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    pids: Vec<u32>,
}

/// Processor time at one moment.
pub struct Reading {
    proxy: Threads,
    machine: Threads,
}

/// Nanoseconds on a processor so far, by thread.
type Threads = HashMap<String, u64>;

/// Processor time between two moments.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// User and system time of the proxy, all threads of all its processes.
    pub proxy: Duration,
    /// The client, the proxy, the target and what is between them.
    pub machine: Duration,
}

/// What a proxy holds at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Holdings {
    /// Proportional set size in bytes: user memory, shared pages counted by share.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// How often a thread has gone to sleep so far.
    pub sleeps: u64,
}

impl Meter {
    /// Watches a process and its children, as they are now.
    pub fn of_process(root: u32) -> Self {
        Self {
            pids: with_descendants(root),
        }
    }

    /// The processes watched.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Whether a tracer holds every thread.
    pub fn is_traced(&self) -> Result<bool> {
        for task in tasks(&self.pids)? {
            if field(&fs::read_to_string(format!("{task}/status"))?, "TracerPid:")? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Processor time used so far.
    pub fn read(&self) -> Result<Reading> {
        let mut run = with_descendants(std::process::id());
        run.extend(softirq_threads()?);
        Ok(Reading {
            proxy: on_processors(&self.pids)?,
            machine: on_processors(&run)?,
        })
    }

    /// Processor time used since `before`.
    pub fn since(&self, before: &Reading) -> Result<Cost> {
        let now = self.read()?;
        Ok(Cost {
            proxy: between(&before.proxy, &now.proxy),
            machine: between(&before.machine, &now.machine),
        })
    }

    /// What is held now.
    pub fn holdings(&self) -> Result<Holdings> {
        let mut held = Holdings {
            memory: 0,
            descriptors: 0,
            sleeps: 0,
        };
        for pid in &self.pids {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .with_context(|| format!("read the memory of process {pid}"))?;
            held.memory += field(&rollup, "Pss:")? * 1024;
            held.descriptors += u64::try_from(fs::read_dir(format!("/proc/{pid}/fd"))?.count())?;
        }
        for task in tasks(&self.pids)? {
            let status = fs::read_to_string(format!("{task}/status"))?;
            held.sleeps += field(&status, "voluntary_ctxt_switches:")?;
        }
        Ok(held)
    }
}

fn tasks(pids: &[u32]) -> Result<Vec<String>> {
    let mut tasks = Vec::new();
    for pid in pids {
        let entries = fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("process {pid} is gone"))?;
        for entry in entries {
            tasks.push(entry?.path().display().to_string());
        }
    }
    Ok(tasks)
}

fn on_processors(pids: &[u32]) -> Result<Threads> {
    let mut threads = Threads::new();
    for task in tasks(pids)? {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(format!("{task}/schedstat")) else {
            continue;
        };
        let on_cpu = text.split(' ').next().and_then(|ns| ns.parse().ok());
        threads.insert(
            task,
            on_cpu.context("schedstat has a number of nanoseconds")?,
        );
    }
    Ok(threads)
}

fn between(before: &Threads, now: &Threads) -> Duration {
    let used =
        |(task, ns): (&String, &u64)| ns.saturating_sub(before.get(task).copied().unwrap_or(0));
    Duration::from_nanos(now.iter().map(used).sum())
}

/// The kernel's threads that receive packets when there are too many for whom they interrupt.
fn softirq_threads() -> Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let pid: Option<u32> = name.and_then(|name| name.parse().ok());
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        threads.extend(pid.filter(|_| comm.starts_with("ksoftirqd/")));
    }
    Ok(threads)
}

fn field(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no number after {name}"))
}

/// How many processors somebody uses although nothing is measured yet.
pub fn background() -> Result<f64> {
    let before = Machine::now()?;
    thread::sleep(Duration::from_millis(500));
    let now = Machine::now()?;
    Ok(now.busy_since(&before).as_secs_f64() / (now.at - before.at).as_secs_f64())
}

/// The processors' idle time at one moment.
///
/// What is not idle is busy: the kernel keeps idle time by the clock, and what is used only by
/// looking who runs when it ticks, which misses a machine that wakes up a thousand times a second.
struct Machine {
    at: Instant,
    processors: u32,
    /// Idle, or taken by the host of a virtual machine.
    unused: Duration,
}

impl Machine {
    fn now() -> Result<Self> {
        let at = Instant::now();
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let is_processor = |line: &str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let total = stat.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = total
            .split_whitespace()
            .skip(1)
            .map_while(|n| n.parse().ok())
            .collect();
        let [_, _, _, idle, waiting, _, _, stolen, ..] = ticks[..] else {
            anyhow::bail!("/proc/stat has too few columns: {total:?}");
        };
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
        Ok(Self {
            at,
            processors: u32::try_from(stat.lines().filter(|line| is_processor(line)).count())?,
            unused: Duration::from_secs(idle + waiting + stolen) / per_second,
        })
    }

    fn busy_since(&self, before: &Self) -> Duration {
        let passed = (self.at - before.at) * self.processors;
        passed.saturating_sub(self.unused.saturating_sub(before.unused))
    }
}
