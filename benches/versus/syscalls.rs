//! System calls per connection, per round trip and per keystroke, counted by strace.
//!
//! A traced proxy is slow and handles more at each wake-up than it would by itself, so that the
//! waiting calls are the ones to read with care.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    Bench,
    backend::Service,
    load::{
        exchange::{self, Until},
        keystrokes, ping_pong,
    },
    net::PATIENCE,
    peers::{Job, Running},
    process::Process,
    report::{Table, progress},
};

/// Sessions, round trips and keystrokes counted over.
const COUNT: u64 = 1000;

/// Calls by name.
type Calls = BTreeMap<String, u64>;

/// Counts and prints.
pub fn run(bench: &mut Bench) -> Result<()> {
    let mut per_unit = Table::new(["peer", "per connection", "per round trip", "per keystroke"]);
    let mut by_name = Table::new(["peer", "per connection, by name"]);
    for peer in bench.peers.clone().iter().filter(|peer| peer.is_proxy()) {
        progress(&format!("system calls of {}", peer.name()));
        let counted = count(bench, peer);
        progress("");
        let [connection, round_trip, keystroke] = match counted {
            Ok(calls) => calls,
            Err(error) => {
                println!("\nleft out: {}: {error:#}", peer.name());
                continue;
            }
        };
        let totals = [&connection, &round_trip, &keystroke].map(|calls| each(calls.values().sum()));
        bench.report.line(json!({
            "kind": "system calls", "peer": peer.name(), "count": COUNT,
            "connections": connection, "round_trips": round_trip, "keystrokes": keystroke,
        }))?;
        let name = std::iter::once(peer.name().to_owned());
        per_unit.rows.push(name.clone().chain(totals).collect());
        by_name
            .rows
            .push(name.chain([listed(&connection)]).collect());
    }
    println!("\n### System calls (`--syscalls`)\n");
    per_unit.print();
    println!();
    by_name.print();
    Ok(())
}

fn count(bench: &Bench, peer: &crate::peers::Peer) -> Result<[Calls; 3]> {
    let backend = &bench.backend;
    let mut job = Job::new(backend.services(), 0);
    job.log_sessions = bench.args.log_sessions;
    let peer = bench.start_checked(peer, job)?;
    let output = bench.workspace.path().join("strace");
    let [echo, exchange] = [Service::Echo, Service::Exchange].map(|s| peer.service(s));
    // What happens once in a process is not to be counted.
    exchange::run(backend, &[exchange], 64, Until::Sessions(100))?;
    let connections = traced(&peer, &output, || {
        exchange::run(backend, &[exchange], 64, Until::Sessions(COUNT)).map(drop)
    })?;
    let round_trips = traced(&peer, &output, || {
        ping_pong::run(backend, echo, 1, Until::Sessions(COUNT)).map(drop)
    })?;
    let keystrokes = traced(&peer, &output, || {
        let pace = Duration::from_millis(1);
        let window = pace * u32::try_from(COUNT)?;
        keystrokes::run(backend, echo, 16, pace, window).map(drop)
    })?;
    Ok([connections, round_trips, keystrokes])
}

/// Every call of a proxy during a load.
fn traced(peer: &Running, output: &Path, load: impl FnOnce() -> Result<()>) -> Result<Calls> {
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-qq", "-o"]).arg(output);
    for pid in peer.meter().pids() {
        command.arg("-p").arg(pid.to_string());
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut strace = Process::spawn(&mut command).context("is strace installed?")?;
    let started = Instant::now();
    while !peer.meter().is_traced()? {
        ensure!(
            strace.ended().is_none(),
            "strace ended; it may not be allowed to trace"
        );
        ensure!(started.elapsed() < PATIENCE, "strace did not attach");
        thread::sleep(Duration::from_millis(5));
    }
    let outcome = load();
    strace.signal(Signal::INT)?;
    ensure!(strace.wait(PATIENCE), "strace does not end");
    outcome?;
    let text = fs::read_to_string(output).context("read what strace counted")?;
    Ok(text.lines().filter_map(parse_line).collect())
}

/// A line of strace's summary: share, seconds, µs per call, calls, errors if any, name.
fn parse_line(line: &str) -> Option<(String, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let name = words.last().filter(|name| **name != "total")?;
    let calls = words.get(3)?.parse().ok()?;
    Some(((*name).to_owned(), calls))
}

/// A count per unit, as text.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn each(calls: u64) -> String {
    format!("{:.1}", calls as f64 / COUNT as f64)
}

/// The calls that matter, most frequent first.
fn listed(calls: &Calls) -> String {
    let mut calls: Vec<(&String, &u64)> = calls.iter().collect();
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let frequent = calls.iter().filter(|(_, count)| **count * 20 >= COUNT);
    let texts: Vec<String> = frequent
        .map(|(name, count)| format!("{name} {}", each(**count)))
        .collect();
    texts.join(", ")
}
