//! The command line: what may be asked for, one small file a command.

pub mod check;
pub mod run;

use clap::{Parser, Subcommand};

/// Forward TCP ports, reload without dropping a session.
#[derive(Debug, Parser)]
#[command(
    name = "tml-proxy",
    version,
    after_help = "Exit codes: 0 done, 1 the configuration is not valid, 2 wrong usage, \
                  3 could not start, 4 failed while running."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Forward until told to stop.
    Run(run::RunArgs),
    /// Read a configuration and print what it comes to.
    Check(check::CheckArgs),
}
