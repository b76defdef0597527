//! What it costs to have a choice of targets: a connection of a plain mapping, of one whose only target
//! is kept track of like several, and of one with four, beside HAProxy with as many servers.

use anyhow::Result;

use crate::{
    Bench, measure,
    peers::{Choice, Job, Peer, Running},
    report::{Results, progress},
    workloads::{Windows, Workload},
};

/// The choices there are: how each is called, and what the mapping has.
const CHOICES: [(&str, Choice); 3] = [
    ("", Choice::Plain),
    (", one of one", Choice::LeastSessions(1)),
    (", one of four", Choice::LeastSessions(4)),
];

/// Measures and prints. Without --peer for tml-proxy, those that were given, and tuned HAProxy.
pub fn run(bench: &mut Bench) -> Result<()> {
    let asked_for = !bench.args.peer.is_empty();
    let wanted = |peer: &&Peer| match asked_for {
        true => peer.is_proxy(),
        false => peer.is_own() || peer.name().starts_with("haproxy-tuned"),
    };
    let peers: Vec<Peer> = bench.peers.iter().filter(wanted).cloned().collect();
    let mut conditions: Vec<(String, Running)> = Vec::new();
    for peer in peers.iter().filter(|peer| peer.has_choices()) {
        for (called, choice) in CHOICES {
            let mut job = Job::new(bench.backend.services(), 0);
            job.choice = choice;
            job.alike = bench.backend.alike().to_vec();
            let running = bench.start_checked(peer, job)?;
            conditions.push((format!("{}{called}", peer.name()), running));
        }
    }
    let windows = bench.args.windows();
    let workload = Workload::Connections;
    let name = format!("{} by targets", workload.name());
    let mut results: Vec<Results> = conditions
        .iter()
        .map(|(label, _)| Results::of(label))
        .collect();
    for round in 0..=bench.args.rounds() {
        for ((label, running), result) in conditions.iter().zip(&mut results) {
            progress(&format!("{label} round {round}"));
            let windows = match round {
                0 => &Windows::WARM_UP,
                _ => &windows,
            };
            let sample = measure::measure(workload, &bench.backend, running, windows)?;
            if round > 0 {
                bench.report.sample(&name, label, round, &sample)?;
                result.rounds.push(sample);
            }
        }
    }
    progress("");
    let title = format!("{}, by the targets there are", workload.title());
    bench.report.workload(&name, &title, &results)
}
