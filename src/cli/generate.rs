//! `tml-proxy completions` and `tml-proxy man`: from the one description of the command line.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::CommandFactory;

use clap_mangen::roff::{Roff, bold, roman};
use serde_json::Value;

use super::{Cli, code, output};
use crate::{config::SCHEMA, os_error::in_words};

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

/// Writes man pages: one for the program, one for each of its commands, and one for its configuration.
pub fn man(args: &ManArgs) -> ExitCode {
    match fs::metadata(&args.directory)
        .and_then(|_| clap_mangen::generate_to(Cli::command(), &args.directory))
        .and_then(|()| fs::write(args.directory.join("tml-proxy.toml.5"), configuration()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = in_words(&error);
            output::complain(&format_args!("{}: {why}", args.directory.display()));
            ExitCode::from(code::FAILED)
        }
    }
}

/// The man page of the configuration: every key with its default and what it does.
fn configuration() -> String {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
    let mut page = Roff::new();
    page.control("TH", ["tml-proxy.toml", "5"]);
    page.control("SH", ["NAME"]);
    page.text([roman("tml-proxy.toml - the configuration of tml-proxy(1)")]);
    for (name, section) in keys(&schema) {
        let (head, section) = match &section["items"] {
            Value::Null => (format!("[{name}]"), section),
            item => (format!("[[{name}]]"), item),
        };
        page.control("SH", [head.as_str()]);
        for (key, setting) in keys(section) {
            page.control("TP", []);
            let default = match &setting["default"] {
                Value::Null => String::new(),
                default => format!(" = {default}"),
            };
            page.text([bold(key.as_str()), roman(default)]);
            page.text([roman(setting["description"].as_str().unwrap_or_default())]);
        }
    }
    page.render()
}

/// The keys of a table in a schema.
fn keys(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}
