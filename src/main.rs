//! The `tml-proxy` command.

use std::process::ExitCode;

use clap::Parser;
use tml_proxy::cli::{Cli, Command, check, run};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(&args),
    }
}
