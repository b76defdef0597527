//! `tml-proxy check`: is a configuration valid, and what does it come to?
//!
//! Reads the file exactly as `run` does, contradictions between mappings included, and opens none
//! of its sockets.

mod print;

use std::{
    fmt::Display,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use crate::{
    provider::{Overrides, Source},
    table::Table,
};

/// Read a configuration and print what it comes to.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command: exit code 0, or 1 with every problem on standard error.
pub fn run(args: &CheckArgs) -> ExitCode {
    let source = Source::File(args.config.clone());
    let config = match source.load(&Overrides::default(), &Table::default()) {
        Ok((config, _)) => config,
        Err(errors) => {
            complain(&errors);
            return ExitCode::from(1);
        }
    };
    let output = if args.json {
        print::json(&config)
    } else {
        print::text(&config)
    };
    match io::stdout().write_all(output.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format_args!("standard output: {error}"));
            ExitCode::from(4)
        }
    }
}

fn complain(what: &dyn Display) {
    // When that fails too, the exit code still tells.
    let _ = writeln!(io::stderr(), "{what}");
}
