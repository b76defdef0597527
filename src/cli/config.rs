//! `tml-proxy config`: what a configuration may have in it.

use std::process::ExitCode;

use super::output;
use crate::config::SCHEMA;

/// Say what a configuration may have in it.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Print the JSON schema of the configuration, with which editors complete and check it.
    Schema,
}

/// Runs the command.
pub fn run(args: &ConfigArgs) -> ExitCode {
    match args.what {
        What::Schema => output::print(SCHEMA),
    }
}
