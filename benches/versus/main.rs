//! `cargo bench --bench versus`: the proxy and every peer that is installed, side by side.
//!
//! All peers forward to one backend process and get the same load from this one, in interleaved
//! rounds (A B C A B C …), on the loopback interface. The main figure is the processor time of the
//! proxy itself, because client and backend share the machine with it; medians are printed with
//! their range. Before anything is measured, every peer has to pass checked content both ways, and
//! in every round each byte sent has to arrive.
//!
//! On the loopback interface there are no packets to pay for, and no distance; `--network` has others.

#![forbid(unsafe_code)]

mod args;
mod backend;
mod compare;
mod growth;
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod load;
mod local_ports;
mod measure;
mod memory;
mod meter;
mod net;
mod network;
mod peers;
mod process;
mod report;
mod sample;
mod scrapes;
mod svg;
mod syscalls;
mod targets;
mod unprivileged;
mod upgrade;
mod workloads;

use anyhow::{Context, Result};
use clap::Parser;

use crate::{
    args::Args,
    backend::{Backend, Service},
    harness::process::raise_descriptor_limit,
    network::Network,
    peers::{Job, Peer, Running},
    process::Workspace,
    report::Report,
    workloads::Workload,
};

/// What every mode needs.
struct Bench {
    args: Args,
    workspace: Workspace,
    backend: Backend,
    network: Network,
    peers: Vec<Peer>,
    report: Report,
}

impl Bench {
    /// Starts a peer and checks that it passes content unchanged.
    fn start_checked(&self, peer: &Peer, job: Job) -> Result<Running> {
        const SESSIONS: u64 = 4;
        let each = self.args.network.checked_bytes();
        let running = peer.start(self.workspace.path(), job)?;
        backend::verify(running.service(Service::Verify), SESSIONS, each)
            .with_context(|| format!("content through {}", peer.name()))?;
        Ok(running)
    }
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(backend::ROLE) {
        let address = std::env::args().nth(2).context("an address")?;
        return backend::serve(address.parse()?);
    }
    let args = Args::parse();
    if !args.bench {
        println!("this is a benchmark: run it with `cargo bench --bench versus`");
        return Ok(());
    }
    let peers = Peer::find(&args);
    if args.list {
        list(&peers);
        return Ok(());
    }
    let workloads = args.workloads()?;
    network::enter(&args)?;

    raise_descriptor_limit();
    process::clean_up_on_signal()?;
    let network = Network::new(args.network)?;
    let mut bench = Bench {
        report: Report::new(args.json.as_deref())?,
        workspace: Workspace::new(),
        backend: Backend::start(&network)?,
        network,
        peers,
        args,
    };
    bench.report.run(&bench.peers)?;
    if bench.args.compares() {
        compare::run(&mut bench, &workloads)?;
    }
    if bench.args.growth {
        growth::run(&mut bench)?;
    }
    if bench.args.scrapes {
        scrapes::run(&mut bench)?;
    }
    if bench.args.local_ports {
        local_ports::run(&mut bench)?;
    }
    if bench.args.unprivileged {
        unprivileged::run(&mut bench)?;
    }
    if bench.args.upgrade {
        upgrade::run(&mut bench)?;
    }
    if bench.args.targets {
        targets::run(&mut bench)?;
    }
    if bench.args.syscalls {
        syscalls::run(&mut bench)?;
    }
    Ok(())
}

fn list(peers: &[Peer]) {
    println!("workloads:");
    for workload in Workload::all(false) {
        println!("  {:24} {}", workload.name(), workload.title());
    }
    println!("peers:");
    for peer in peers {
        println!("  {:24} {}", peer.name(), peer.describe());
    }
}
