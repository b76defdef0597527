//! What all TCP sockets of the machine hold while something is done.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(10);

/// Megabytes over all looks.
pub struct Memory {
    /// In the middle.
    pub median: f64,
    /// The most.
    pub most: f64,
}

/// Looks at it until `act` is done.
pub fn during<T>(act: impl FnOnce() -> Result<T>) -> Result<(T, Memory)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let looks = scope.spawn(|| -> Result<Vec<u64>> {
            let mut looks = vec![bytes()?];
            while !done.load(Relaxed) {
                thread::sleep(EVERY);
                looks.push(bytes()?);
            }
            Ok(looks)
        });
        let outcome = act();
        done.store(true, Relaxed);
        let mut looks = looks.join().expect("looking does not panic")?;
        looks.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "no machine has that much")]
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let memory = Memory {
            median: megabytes(looks[looks.len() / 2]),
            most: megabytes(*looks.last().expect("there is one at least")),
        };
        Ok((outcome?, memory))
    })
}

fn bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").context("read /proc/net/sockstat")?;
    let tcp = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = tcp.and_then(|line| line.split_once(" mem ")?.1.trim().parse::<u64>().ok());
    let pages = pages.context("/proc/net/sockstat has no memory of TCP")?;
    Ok(pages * rustix::param::page_size() as u64)
}
