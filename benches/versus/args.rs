//! The command line of the side-by-side run.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::{
    network::Kind,
    peers::Overrides,
    workloads::{Windows, Workload},
};

/// Runs the proxy and every peer that is installed side by side.
///
/// It measures the workloads, unless only --growth, --scrapes, --local-ports, --unprivileged, --upgrade,
/// --targets or --syscalls is asked for.
#[derive(Debug, Parser)]
#[command(name = "versus", bin_name = "cargo bench --bench versus --")]
pub struct Args {
    /// Short windows, one round, no 9000 sessions: a look in under a minute
    #[arg(long)]
    pub quick: bool,

    /// Rounds per workload; every peer has its turn in each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,

    /// Only these workloads, by name or by the beginning of it (--list shows them)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub workload: Vec<String>,

    /// Only these peers, by name or by the beginning of it
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub peer: Vec<String>,

    /// Write every sample and every summary as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw the proxies' CPU as bars
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Compare with another tml-proxy binary
    #[arg(long, value_name = "NAME=PATH", value_parser = parse_extra_binary)]
    pub extra_binary: Vec<Extra>,

    /// Compare with another configuration: dotted keys of the configuration file; without PATH
    /// the binary is the one just built
    #[arg(long, value_name = "NAME=[PATH]:KEY=VALUE[,KEY=VALUE]", value_parser = parse_extra_config)]
    pub extra_config: Vec<Extra>,

    /// Let every peer write a line per session, as an operator would
    #[arg(long)]
    pub log_sessions: bool,

    /// What is between the client, the proxy and the target
    #[arg(long, value_enum, default_value_t, conflicts_with_all = [
        "this_network", "growth", "scrapes", "local_ports", "unprivileged", "upgrade", "targets", "syscalls",
    ])]
    pub network: Kind,

    /// Stay in this machine's network, with whatever congestion control it has
    #[arg(long)]
    pub this_network: bool,

    /// How cost grows with mappings and open sessions; reload and start with 10 000 mappings
    #[arg(long)]
    pub growth: bool,

    /// What scrapes with 10 000 mappings take, and whether keystrokes are slower beside them
    #[arg(long)]
    pub scrapes: bool,

    /// What a session costs when most local ports are taken, with and without an address to call from
    #[arg(long, conflicts_with = "this_network")]
    pub local_ports: bool,

    /// 2000 bulk sessions at once through proxies without privileges, where the pipe budget binds
    #[arg(long)]
    pub unprivileged: bool,

    /// What live sessions notice while the program is replaced under them
    #[arg(long)]
    pub upgrade: bool,

    /// What a connection costs with one target and with four to choose from
    #[arg(long)]
    pub targets: bool,

    /// System calls per connection and per round trip, counted by strace
    #[arg(long)]
    pub syscalls: bool,

    /// Show the workloads and the peers found, and stop
    #[arg(long)]
    pub list: bool,

    /// Given by cargo bench
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// A further tml-proxy to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// What it is called in the tables.
    pub name: String,
    /// Its binary, or the one just built.
    pub binary: Option<PathBuf>,
    /// What its configuration has beyond the common one.
    pub overrides: Overrides,
}

impl Args {
    /// Rounds per workload.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// How long things are measured.
    pub fn windows(&self) -> Windows {
        if self.quick {
            Windows::QUICK
        } else {
            Windows::FULL
        }
    }

    /// Whether the workloads are to be measured.
    pub fn compares(&self) -> bool {
        let other = self.growth
            || self.scrapes
            || self.local_ports
            || self.unprivileged
            || self.upgrade
            || self.targets
            || self.syscalls;
        !self.workload.is_empty() || !other
    }

    /// Whether a peer was asked for.
    pub fn wants_peer(&self, name: &str) -> bool {
        self.peer.is_empty() || self.peer.iter().any(|wanted| name.starts_with(wanted))
    }

    /// The workloads asked for.
    ///
    /// # Errors
    ///
    /// A name that fits none.
    pub fn workloads(&self) -> Result<Vec<Workload>> {
        let all = Workload::all(self.quick && self.workload.is_empty());
        if self.workload.is_empty() {
            return Ok(all);
        }
        for wanted in &self.workload {
            ensure!(
                all.iter().any(|known| known.name().starts_with(wanted)),
                "no workload is called {wanted:?}; --list shows them"
            );
        }
        let is_name = |text: &String| all.iter().any(|known| known.name() == *text);
        let wanted = |known: &Workload| {
            // A full name means itself only: "keystrokes" is also the beginning of another.
            let fits = |text: &String| match is_name(text) {
                true => known.name() == *text,
                false => known.name().starts_with(text),
            };
            self.workload.iter().any(fits)
        };
        Ok(all.iter().copied().filter(wanted).collect())
    }
}

fn parse_extra_binary(text: &str) -> Result<Extra> {
    let (name, path) = split_name(text)?;
    ensure!(!path.is_empty(), "expected a path after {name}=");
    Ok(Extra {
        name: name.to_owned(),
        binary: Some(path.into()),
        overrides: Overrides::default(),
    })
}

fn parse_extra_config(text: &str) -> Result<Extra> {
    let (name, rest) = split_name(text)?;
    let (path, settings) = rest
        .split_once(':')
        .context("expected a colon before KEY=VALUE")?;
    let mut overrides = Overrides::default();
    for setting in settings.split(',') {
        let (key, value) = setting.split_once('=').context("expected KEY=VALUE")?;
        overrides.set(key.trim(), value.trim());
    }
    Ok(Extra {
        name: name.to_owned(),
        binary: (!path.is_empty()).then(|| path.into()),
        overrides,
    })
}

/// A name before an equals sign; it also names a directory.
fn split_name(text: &str) -> Result<(&str, &str)> {
    let (name, rest) = text.split_once('=').context("expected NAME=…")?;
    ensure!(
        !name.is_empty() && !name.contains('/'),
        "{name:?} is not fit for a name"
    );
    Ok((name, rest))
}
