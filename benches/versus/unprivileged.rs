//! 2000 bulk sessions at once through proxies that run as an ordinary user, for whom the kernel
//! grants 64 MiB of pipes and no more. All of them have to finish; who finds no pipe may cost what
//! copying costs, no more.

use std::time::Duration;

use anyhow::Result;

use crate::{
    Bench,
    backend::Service,
    load::bulk,
    measure::{costs, metered},
    peers::{Job, OWN, Overrides, Peer},
    report::{Results, progress},
    sample::{Metric, Sample, Unit},
};

const SESSIONS: usize = 2000;
/// Bytes each session receives.
const EACH: u64 = 2 << 20;
const AT_MOST: Duration = Duration::from_secs(120);

/// Measures and prints.
pub fn run(bench: &mut Bench) -> Result<()> {
    let mut peers: Vec<Peer> = bench
        .peers
        .iter()
        .filter(|peer| peer.is_proxy())
        .cloned()
        .collect();
    if let Some(own) = peers.iter().position(|peer| peer.name() == OWN) {
        let copying = Overrides::one("defaults.relay", "copy");
        peers.insert(own + 1, Peer::own_with("tml-proxy-copying", copying));
    }
    let mut results: Vec<Results> = peers.iter().map(|peer| Results::of(peer.name())).collect();
    for round in 1..=bench.args.rounds() {
        for (peer, result) in peers.iter().zip(&mut results) {
            if !result.failures.is_empty() {
                continue;
            }
            progress(&format!("unprivileged round {round} {}", peer.name()));
            match measure(bench, peer) {
                Ok(sample) => {
                    bench
                        .report
                        .sample("unprivileged", peer.name(), round, &sample)?;
                    result.rounds.push(sample);
                }
                Err(error) => result.failures.push(format!("{error:#}")),
            }
        }
    }
    progress("");
    let title = format!(
        "{SESSIONS} sessions of {} MiB at once, as an ordinary user",
        EACH >> 20
    );
    bench.report.workload("unprivileged", &title, &results)
}

/// A new process each time: how it comes to its pipes is what this is about.
fn measure(bench: &Bench, peer: &Peer) -> Result<Sample> {
    let backend = &bench.backend;
    let mut job = Job::new(backend.services(), 0);
    job.unprivileged = true;
    job.log_sessions = bench.args.log_sessions;
    let running = bench.start_checked(peer, job)?;
    let to = running.service(Service::Bulk);
    let herd = bulk::Herd::open(backend, to, SESSIONS)?;
    let (outcome, cost) = metered(&running, || herd.stampede(EACH, AT_MOST))?;
    let mut sample = costs(&running, Unit::Gigabyte, &cost, outcome.bytes);
    sample.push((
        Metric::Rate(Unit::Gigabyte),
        Unit::Gigabyte.rate(outcome.bytes, outcome.elapsed),
    ));
    Ok(sample)
}
