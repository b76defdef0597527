//! `tml-proxy completions` and `tml-proxy man`: from the one description of the command line.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::CommandFactory;

use super::{Cli, code, output};
use crate::os_error::in_words;

/// Print the completions of a shell.
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Write the man pages into a directory.
#[derive(Debug, Clone, clap::Args)]
pub struct ManArgs {
    /// The directory, which has to exist.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints completions.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(args.shell, &mut command, "tml-proxy", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// Writes man pages, one for the program and one for each of its commands.
pub fn man(args: &ManArgs) -> ExitCode {
    match fs::metadata(&args.directory)
        .and_then(|_| clap_mangen::generate_to(Cli::command(), &args.directory))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = in_words(&error);
            output::complain(&format_args!("{}: {why}", args.directory.display()));
            ExitCode::from(code::FAILED)
        }
    }
}
