//! `tml-proxy pause`, `drain` and `resume`: keep a mapping from taking new sessions for a while.

use std::process::ExitCode;

use http::Method;

use super::{client::Client, output};
use crate::admin::api::model::{MappingChange, MappingState};

/// A mapping of a running proxy.
#[derive(Debug, Clone, clap::Args)]
pub struct MappingArgs {
    #[command(flatten)]
    client: Client,
    /// The mapping.
    #[arg(value_name = "MAPPING")]
    mapping: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Close a mapping's ports and let its sessions end.
///
/// New clients are refused. The mapping stays drained through reloads that keep its name, until it
/// is resumed or the proxy restarts. Resuming it lifts the time its sessions have left, draining it
/// again sets it anew.
#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    mapping: MappingArgs,
    /// End the sessions that are left after this time, such as 30s.
    #[arg(long, value_name = "TIME")]
    within: Option<String>,
}

pub fn pause(args: &MappingArgs) -> ExitCode {
    run(args, "pause", None)
}

pub fn drain(args: &DrainArgs) -> ExitCode {
    run(&args.mapping, "drain", args.within.clone())
}

pub fn resume(args: &MappingArgs) -> ExitCode {
    run(args, "resume", None)
}

fn run(args: &MappingArgs, what: &str, within: Option<String>) -> ExitCode {
    let which = MappingChange {
        mapping: args.mapping.clone(),
        within,
    };
    let path = format!("/api/v1/mappings/{what}");
    let changed = args.client.send(&Method::POST, &path, &which);
    output::answer(changed, args.json, |changed: &MappingState| {
        format!("{} is {}\n", changed.mapping, changed.state)
    })
}
