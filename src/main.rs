//! The `tml-proxy` command.

use std::process::ExitCode;

use clap::Parser;
use tml_proxy::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
