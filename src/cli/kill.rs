//! `tml-proxy kill`: end live sessions.

use std::process::ExitCode;

use super::{client::Client, output};
use crate::admin::api::model::{Kill, Killed};

/// End live sessions of the running proxy.
///
/// Both sides see a reset; the session log says "killed".
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub struct KillArgs {
    #[command(flatten)]
    client: Client,
    /// The session with this number.
    #[arg(value_name = "SESSION", group = "which")]
    session: Option<u64>,
    /// Those of this mapping.
    #[arg(long, value_name = "NAME", group = "which")]
    mapping: Option<String>,
    /// Those whose client has this address or is in this prefix.
    #[arg(long, value_name = "ADDR", group = "which")]
    source: Option<String>,
    /// Every session there is.
    #[arg(long, group = "which", conflicts_with_all = ["session", "mapping", "source"])]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &KillArgs) -> ExitCode {
    let which = Kill {
        session: args.session,
        mapping: args.mapping.clone(),
        source: args.source.clone(),
        all: args.all,
    };
    let killed: Killed = match args.client.post("/api/v1/sessions/kill", &which) {
        Ok(killed) => killed,
        Err(error) => return output::give_up(&error),
    };
    output::print(&match args.json {
        true => output::json(&killed),
        false => format!("{} sessions told to end\n", killed.sessions),
    })
}
