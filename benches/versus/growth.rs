//! How cost grows: with the number of mappings, with the number of open sessions, and what a
//! reload and a start with 10 000 mappings take. Without --peer only for tml-proxy.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::{
    Bench,
    backend::{SERVICES, Service},
    load::{bulk::Direction, idle::Idle},
    measure,
    net::PATIENCE,
    peers::{Job, Peer, Route, Running},
    report::{Results, progress},
    sample::{Metric, Sample},
    workloads::{Windows, Workload},
};

const MAPPINGS: [usize; 3] = [SERVICES, 1000, MANY];
const SESSIONS: [usize; 3] = [1, 1000, 9000];
const MANY: usize = 10_000;
const MEASURED: [Workload; 2] = [Workload::Connections, Workload::Bulk(Direction::Down, 8)];

/// How much a peer has to carry.
struct Size {
    named: usize,
    mappings: usize,
    sessions: usize,
}

impl Size {
    fn of_mappings(mappings: usize) -> Self {
        Self {
            named: mappings,
            mappings,
            sessions: 0,
        }
    }

    fn of_sessions(sessions: usize) -> Self {
        Self {
            named: sessions,
            mappings: SERVICES,
            sessions,
        }
    }
}

/// A peer in one of the conditions compared.
struct Condition<'a> {
    label: String,
    peer: Running,
    /// Sessions held open beside the load.
    _idle: Idle<'a>,
}

/// Measures and prints.
pub fn run(bench: &mut Bench) -> Result<()> {
    let asked_for = !bench.args.peer.is_empty();
    let peers: Vec<Peer> = bench
        .peers
        .iter()
        .filter(|peer| {
            if asked_for {
                peer.is_proxy()
            } else {
                peer.is_own()
            }
        })
        .cloned()
        .collect();
    for peer in &peers {
        by_size(bench, peer, "mappings", MAPPINGS.map(Size::of_mappings))?;
        by_size(
            bench,
            peer,
            "open sessions",
            SESSIONS.map(Size::of_sessions),
        )?;
        starts(bench, peer)?;
        if peer.is_own() {
            reloads(bench, peer)?;
        }
    }
    Ok(())
}

/// Compares how the same load does at several sizes, all of them up at once, in interleaved rounds.
fn by_size(bench: &mut Bench, peer: &Peer, what: &str, sizes: [Size; 3]) -> Result<()> {
    let backend = &bench.backend;
    let mut conditions = Vec::new();
    for size in sizes {
        let label = format!("{}, {} {what}", peer.name(), size.named);
        let job = Job::new(backend.services(), size.mappings - SERVICES);
        let running = bench
            .start_checked(peer, job)
            .with_context(|| label.clone())?;
        let idle = Idle::open(backend, running.service(Service::Echo), size.sessions)?;
        conditions.push(Condition {
            label,
            peer: running,
            _idle: idle,
        });
    }
    let windows = bench.args.windows();
    for workload in MEASURED {
        let name = format!("{} by {what}", workload.name());
        let mut results: Vec<Results> = conditions
            .iter()
            .map(|condition| Results::of(&condition.label))
            .collect();
        for round in 0..=bench.args.rounds() {
            for (condition, result) in conditions.iter().zip(&mut results) {
                progress(&format!("{} round {round}", condition.label));
                let windows = if round == 0 {
                    &Windows::WARM_UP
                } else {
                    &windows
                };
                let sample = measure::measure(workload, backend, &condition.peer, windows)?;
                if round > 0 {
                    bench
                        .report
                        .sample(&name, &condition.label, round, &sample)?;
                    result.rounds.push(sample);
                }
            }
        }
        progress("");
        bench
            .report
            .workload(&name, &format!("{}, by {what}", workload.title()), &results)?;
    }
    Ok(())
}

fn starts(bench: &mut Bench, peer: &Peer) -> Result<()> {
    let mut result = Results::of(peer.name());
    for round in 1..=bench.args.rounds() {
        let job = Job::new(bench.backend.services(), MANY - SERVICES);
        let running = peer.start(bench.workspace.path(), job)?;
        let sample = Sample::from([(Metric::Start, running.started_in.as_secs_f64() * 1e3)]);
        bench.report.sample("start", peer.name(), round, &sample)?;
        result.rounds.push(sample);
    }
    bench
        .report
        .workload("start", &format!("Start with {MANY} mappings"), &[result])
}

/// One reload a second, each with one mapping changed.
fn reloads(bench: &mut Bench, peer: &Peer) -> Result<()> {
    let job = Job::new(bench.backend.services(), MANY - SERVICES);
    let running = peer.start(bench.workspace.path(), job)?;
    let mut result = Results::of(peer.name());
    for round in 0..=bench.args.rounds() {
        let sample = reload(peer, &running, round)?;
        // The first has yet to page in the code.
        if round > 0 {
            bench.report.sample("reload", peer.name(), round, &sample)?;
            result.rounds.push(sample);
        }
    }
    let title = format!("Reload of {MANY} mappings, one changed");
    bench.report.workload("reload", &title, &[result])
}

fn reload(peer: &Peer, running: &Running, round: u32) -> Result<Sample> {
    let done = |log: &str| {
        log.lines()
            .filter(|line| line.contains("reload done"))
            .count()
    };
    let failed = |log: &str| log.contains("reload failed");

    let mut job = running.job.clone();
    let [one, other] =
        [Service::Echo, Service::Verify].map(|s| running.job.routes[s as usize].target);
    let changed: &mut Route = job.routes.last_mut().context("no mapping to change")?;
    changed.target = if round.is_multiple_of(2) { one } else { other };
    peer.reconfigure(running, &job)?;
    let already = done(&running.log());

    let before = running.meter().read()?;
    let started = Instant::now();
    running
        .process()
        .context("not a process")?
        .signal(Signal::HUP)?;
    while done(&running.log()) == already {
        ensure!(
            !failed(&running.log()),
            "the reload failed: {}",
            running.log()
        );
        ensure!(
            started.elapsed() < PATIENCE,
            "no line said that the reload was done"
        );
        thread::sleep(Duration::from_micros(200));
    }
    let took = started.elapsed();
    let period = Duration::from_secs(1);
    thread::sleep(period.saturating_sub(took));
    let cost = running.meter().since(&before)?;
    Ok(vec![
        (Metric::Reload, took.as_secs_f64() * 1e3),
        (
            Metric::ReloadCpu,
            cost.proxy.as_secs_f64() / period.as_secs_f64() * 100.0,
        ),
    ])
}
