//! `tml-proxy reload`: have the configuration read again, and wait for what comes of it.

use std::process::ExitCode;

use super::{client::Client, output};
use crate::admin::api::model::Reloaded;

/// Have the running proxy read its configuration again.
///
/// It is all or nothing: with anything wrong, nothing changes, and what is wrong is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &ReloadArgs) -> ExitCode {
    let reloaded: Reloaded = match args.client.order("/api/v1/reload") {
        Ok(reloaded) => reloaded,
        Err(error) => return output::give_up(&error),
    };
    output::print(&match args.json {
        true => output::json(&reloaded),
        false => format!(
            "{} added, {} removed, {} retargeted, {} repolicied, {} unchanged\n",
            reloaded.added,
            reloaded.removed,
            reloaded.retargeted,
            reloaded.repolicied,
            reloaded.unchanged
        ),
    })
}
