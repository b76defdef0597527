//! What a session costs when local ports become few: the kernel looks for a free one during connect(2)
//! or bind(2), and nobody else is served meanwhile.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    Bench,
    backend::Service,
    load::idle::Idle,
    measure::{costs, metered},
    net, network,
    peers::{Job, Peer},
    report::{Table, progress},
    sample::{Metric, Sample, Unit, ratio, summarise},
};

/// Few enough for every end to have a descriptor for each.
const FIRST: u16 = 32_768;
const PORTS: u16 = 8000;
/// Per cent of the ports that are taken when sessions are measured.
const TAKEN: [u16; 4] = [0, 50, 80, 90];
const MEASURED: u16 = 200;

/// Addresses that nobody else uses: where clients call from, and where proxies do that are told to.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SOURCE: &str = "127.0.0.3";

/// Measures and prints. Without --peer only every tml-proxy.
pub fn run(bench: &mut Bench) -> Result<()> {
    let asked_for = !bench.args.peer.is_empty();
    let mut peers = Vec::new();
    for peer in &bench.peers {
        if peer.is_own() || (asked_for && peer.is_proxy()) {
            peers.push(peer.clone());
        }
        peers.extend(peer.with("defaults.bind", SOURCE));
    }
    let mut rounds: Vec<[Vec<Sample>; TAKEN.len()]> = vec![Default::default(); peers.len()];
    for round in 1..=bench.args.rounds() {
        for (peer, rounds) in peers.iter().zip(&mut rounds) {
            progress(&format!("local ports round {round} {}", peer.name()));
            for ((sample, taken), rounds) in measure(bench, peer)?.iter().zip(TAKEN).zip(rounds) {
                let name = format!("local ports, {taken} % taken");
                bench.report.sample(&name, peer.name(), round, sample)?;
                rounds.push(sample.clone());
            }
        }
    }
    progress("");
    let main = Metric::ProxyCpu(Unit::Connection);
    println!(
        "\n### {} by local ports taken (`--local-ports`)\n",
        main.title()
    );
    let mut table = Table::new(["peer", "0 %", "50 %", "80 %", "90 %", "90 % ÷ 0 %"]);
    for (peer, rounds) in peers.iter().zip(&rounds) {
        let mut row = vec![peer.name().to_owned()];
        for (taken, rounds) in TAKEN.iter().zip(rounds) {
            for summary in summarise(rounds).iter().filter(|s| s.metric == main) {
                row.push(summary.text());
                bench.report.line(json!({
                    "kind": "summary", "workload": format!("local ports, {taken} % taken"),
                    "peer": peer.name(), "metric": main.key(), "median": summary.median,
                    "min": summary.least, "max": summary.most, "rounds": rounds.len(),
                }))?;
            }
        }
        let growth = ratio(&rounds[TAKEN.len() - 1], &rounds[0], main);
        row.push(growth.map_or_else(|| "–".to_owned(), |growth| format!("{growth:.1}")));
        table.rows.push(row);
    }
    table.print();
    Ok(())
}

/// A sample at each share of the ports. The process is a new one each time, and ends with resets, so that
/// no port of the last waits.
fn measure(bench: &Bench, peer: &Peer) -> Result<Vec<Sample>> {
    let backend = &bench.backend;
    network::set_local_ports(FIRST, FIRST + PORTS - 1)?;
    let running = peer.start(bench.workspace.path(), Job::new(backend.services(), 0))?;
    let to = running.service(Service::Echo);
    // Clients take other ports: one that was bound without its target is lost to all who only connect.
    let mut sources = (FIRST + PORTS..).map(|port| SocketAddr::from((CLIENTS, port)));
    let mut sessions = |count: u16| {
        Idle::open_with(backend, count.into(), || {
            let from = sources.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            net::connect_blocking_from(from, to)
        })
    };
    let (mut open, mut count, mut samples) = (Vec::new(), 0, Vec::new());
    for taken in TAKEN {
        let due = PORTS / 100 * taken;
        ensure!(count <= due, "a step takes more ports than lie between two");
        open.push(sessions(due - count)?);
        let (measured, cost) = metered(&running, || sessions(MEASURED))?;
        open.push(measured);
        count = due + MEASURED;
        samples.push(costs(&running, Unit::Connection, &cost, MEASURED.into()));
    }
    drop(running);
    drop(open);
    backend.wait_until_quiet()?;
    Ok(samples)
}
