//! `tml-proxy doctor`: is this machine fit for that configuration, and what should change?
//!
//! Every check looks and changes nothing. It may connect to each target and ask the switchboard, which
//! is what the proxy does too.

mod fleet;
mod listeners;
mod machine;
mod process;
mod report;
mod switchboard;
mod targets;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use super::{
    client::{Client, DEFAULT_SOCKET},
    code, names, output,
};
use crate::{
    config::{AutoOr, Config, Overrides, Source},
    table::Table,
};
use report::{Finding, Grade};

/// Check whether this machine is fit for a configuration, and say what to change.
///
/// Run it as the user the proxy runs as: limits and permissions are those of whoever asks.
#[derive(Debug, Clone, clap::Args)]
pub struct DoctorArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The running proxy's unix socket, if it is not the one in the file.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Do not connect to the targets.
    #[arg(long)]
    no_targets: bool,
    /// Where a target echoes, send this many bytes both ways: more than fit in one packet, 64 MiB
    /// at most.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=MOST_PUSHED))]
    push: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command: exit code 0, or 1 if something has to change.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let source = Source::File(args.config.clone());
    let (config, table) = match source.load(&Overrides::default(), &Table::default()) {
        Ok(loaded) => loaded,
        Err(errors) => return output::refuse(&errors, args.json, code::REFUSED),
    };
    let findings = examine(args, &config, &table);
    let printed = output::print(&match args.json {
        true => output::json(&findings),
        false => report::text(&findings, &output::Screen::stdout()),
    });
    match findings.iter().any(|finding| finding.grade == Grade::Bad) {
        true if printed == ExitCode::SUCCESS => ExitCode::from(code::REFUSED),
        _ => printed,
    }
}

fn examine(args: &DoctorArgs, config: &Config, table: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(process::examine(config, table));
    findings.extend(machine::examine(config, table));
    let in_file = || config.admin.socket.clone().value().flatten();
    let socket = args.socket.clone().or_else(in_file);
    let socket = socket.unwrap_or_else(|| DEFAULT_SOCKET.into());
    let client = Client { socket };
    findings.extend(listeners::examine(config, table, &client));
    let named = args.socket.is_some() || config.admin.socket != AutoOr::Value(None);
    findings.push(process::running(&client, named));
    if let Some(switchboard) = &config.switchboard {
        findings.extend(switchboard::examine(switchboard));
    }
    if let Some(fleet) = &config.fleet {
        findings.extend(fleet::examine(fleet));
    }
    findings.extend(names::look_up(config, table).into_iter().map(of_name));
    if !args.no_targets {
        findings.extend(targets::examine(
            table,
            args.push.map(|bytes| bytes as usize),
        ));
    }
    findings.push(Finding::note(
        "sshd behind the proxy",
        "to its sshd every client has the proxy's address: with OpenSSH 9.8 or later one scanner \
         can lock everybody out (PerSourcePenalties), and MaxStartups counts all clients together",
        "where targets are ssh servers, set there: PerSourcePenaltyExemptList PROXY-ADDRESS, and \
         a MaxStartups that fits",
    ));
    findings
}

/// What there is to say of a name.
fn of_name((name, outcome): names::LookedUp) -> Finding {
    let check = format!("name {name}");
    match outcome {
        Ok(addresses) => Finding::good(&check, addresses),
        Err(why) => Finding::poor(
            &check,
            why,
            "its mappings refuse their clients until it leads to a target: is the name right, and does \
             the DNS server answer (resolver.servers, /etc/resolv.conf)?",
        ),
    }
}

/// Bytes to push at most: what shows a way that loses large packets is far less.
const MOST_PUSHED: i64 = 64 << 20;

const PATIENCE: Duration = Duration::from_secs(3);
