//! The main mode: every workload through every peer, in interleaved rounds.

use anyhow::{Context, Result};

use crate::{
    Bench, measure,
    peers::{Job, Peer, Running},
    report::{Results, progress},
    sample::Sample,
    svg,
    workloads::{Windows, Workload},
};

/// Measures, prints and draws.
pub fn run(bench: &mut Bench, workloads: &[Workload]) -> Result<()> {
    let mut running = start_all(bench)?;
    let windows = bench.args.windows().times(bench.args.network.patience());
    let mut all = Vec::new();
    for workload in workloads {
        let mut results: Vec<Results> = running
            .iter()
            .map(|(peer, _)| Results::of(peer.name()))
            .collect();
        // The first round warms up; there is nothing to warm up in a process that ends again.
        let first = u32::from(workload.wants_fresh_start());
        for round in first..=workload.rounds(bench.args.rounds()) {
            for ((peer, running), result) in running.iter_mut().zip(&mut results) {
                if !(peer.is_proxy() || workload.suits_direct()) || !result.failures.is_empty() {
                    continue;
                }
                progress(&format!(
                    "{} round {round} {}",
                    workload.name(),
                    peer.name()
                ));
                let windows = if round == 0 {
                    &Windows::WARM_UP
                } else {
                    &windows
                };
                match sample(bench, *workload, peer, running, windows) {
                    Ok(_) if round == 0 => {}
                    Ok(sample) => {
                        bench
                            .report
                            .sample(&workload.name(), peer.name(), round, &sample)?;
                        result.rounds.push(sample);
                    }
                    Err(error) => {
                        result.failures.push(format!("{error:#}"));
                        // What is left of it must not disturb the others. If it does not start
                        // again, the next workload says so.
                        if let Ok(again) = job(bench).and_then(|job| bench.start_checked(peer, job))
                        {
                            *running = again;
                        }
                    }
                }
            }
        }
        progress("");
        results.retain(|result| !result.rounds.is_empty() || !result.failures.is_empty());
        bench
            .report
            .workload(&workload.name(), &workload.title(), &results)?;
        all.push((*workload, results));
    }
    if let Some(path) = &bench.args.svg {
        std::fs::write(path, svg::draw(&all))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn sample(
    bench: &Bench,
    workload: Workload,
    peer: &Peer,
    running: &mut Running,
    windows: &Windows,
) -> Result<Sample> {
    if workload.wants_fresh_start() {
        let fresh = peer.start(bench.workspace.path(), job(bench)?)?;
        return measure::measure(workload, &bench.backend, &fresh, windows);
    }
    running.ensure_alive()?;
    measure::measure(workload, &bench.backend, running, windows)
}

/// Starts every peer; those that do not start, or change what they pass on, are left out, with the
/// reason.
fn start_all(bench: &mut Bench) -> Result<Vec<(Peer, Running)>> {
    let mut running = Vec::new();
    for peer in bench.peers.clone() {
        let up = job(bench).and_then(|job| bench.start_checked(&peer, job));
        match up {
            Ok(up) => running.push((peer, up)),
            Err(error) => {
                println!("\nleft out: {}: {error:#}", peer.name());
                bench.report.line(serde_json::json!({
                    "kind": "left out", "peer": peer.name(), "error": format!("{error:#}"),
                }))?;
            }
        }
    }
    Ok(running)
}

fn job(bench: &Bench) -> Result<Job> {
    let mut job = Job::new(bench.backend.services(), 0).within(&bench.network);
    job.log_sessions = bench.args.log_sessions;
    Ok(job)
}
