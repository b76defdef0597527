//! `tml-proxy completions` and `tml-proxy man`: from the one description of the command line.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::CommandFactory;

use clap_mangen::roff::{Roff, bold, roman};
use serde_json::Value;

use super::{Cli, code, output};
use crate::{
    config::SCHEMA,
    manual::{TOPICS, Topic, to_roff},
    os_error::in_words,
};

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

/// Writes man pages: one for the program, one for each of its commands and of the manual's topics.
pub fn man(args: &ManArgs) -> ExitCode {
    match fs::metadata(&args.directory)
        .and_then(|_| clap_mangen::generate_to(Cli::command(), &args.directory))
        .and_then(|()| write_topics(&args.directory))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = in_words(&error);
            output::complain(&format_args!("{}: {why}", args.directory.display()));
            ExitCode::from(code::FAILED)
        }
    }
}

/// The manual's topics: that of the configuration in section 5, with every key, the others in 7.
fn write_topics(directory: &Path) -> io::Result<()> {
    for Topic { name, about, text } in TOPICS {
        let (file, page) = match *name {
            "configuration" => {
                let name = "tml-proxy.toml";
                let page = to_roff(name, 5, "the configuration of tml-proxy(1)", text);
                (format!("{name}.5"), page + &keys_of_the_configuration())
            }
            _ => {
                let name = format!("tml-proxy-{name}");
                (format!("{name}.7"), to_roff(&name, 7, about, text))
            }
        };
        fs::write(directory.join(file), page)?;
    }
    Ok(())
}

/// Every key with its default and what it does.
fn keys_of_the_configuration() -> String {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
    let mut page = Roff::new();
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
