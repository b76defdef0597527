//! `tml-proxy check`: is a configuration valid, and what does it come to?
//!
//! Reads the file exactly as `run` does, contradictions between mappings included, and opens none
//! of its sockets.

mod print;

use std::{path::PathBuf, process::ExitCode};

use super::{code, names, output};
use crate::{
    config::{Overrides, Source, notes},
    table::Table,
};

/// Read a configuration and print what it comes to.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Look names up as well: each must lead to a target.
    #[arg(long)]
    pub resolve: bool,
    /// Print every setting, not only those that are not as they are when left out.
    #[arg(long)]
    pub all: bool,
    /// Print JSON, which has every setting.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command: exit code 0, or 1 with every problem on standard error.
pub fn run(args: &CheckArgs) -> ExitCode {
    let source = Source::File(args.config.clone());
    let (config, table) = match source.load(&Overrides::default(), &Table::default()) {
        Ok(loaded) => loaded,
        Err(errors) => return output::refuse(&errors, args.json, code::REFUSED),
    };
    for outdated in &config.outdated {
        output::complain(&format_args!("warning: {outdated}"));
    }
    for note in notes(&config) {
        output::complain(&format_args!("note: {note}"));
    }
    if args.resolve {
        let mut nowhere = Vec::new();
        for (name, outcome) in names::look_up(&config, &table) {
            match outcome {
                Ok(addresses) => output::complain(&format_args!("note: {name}: {addresses}")),
                Err(why) => nowhere.push(why),
            }
        }
        if !nowhere.is_empty() {
            return output::refuse(&nowhere.join("\n"), args.json, code::REFUSED);
        }
    }
    let text = if args.json {
        print::json(&config)
    } else {
        let file = args.config.display();
        format!("{file} is valid\n\n{}", print::text(&config, args.all))
    };
    output::print(&text)
}
