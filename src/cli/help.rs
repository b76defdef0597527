//! `tml-proxy help`: of a command what `--help` says, of a topic its chapter of the manual.

use std::{fmt::Write, process::ExitCode};

use clap::CommandFactory;

use super::{Cli, code, output};
use crate::manual::{self, TOPICS};

/// Show the help of a command, or a chapter of the manual.
#[derive(Debug, Clone, clap::Args)]
pub struct HelpArgs {
    /// A command, or one of the topics that are listed without it.
    #[arg(value_name = "COMMAND|TOPIC")]
    about: Vec<String>,
}

/// Prints help.
pub fn run(args: &HelpArgs) -> ExitCode {
    let mut command = Cli::command();
    command.build();
    let [words @ .., last] = args.about.as_slice() else {
        return output::print(&format!("{}\n{}", command.render_help(), topics()));
    };
    if let (Some(topic), []) = (manual::topic(last), words) {
        return output::print(topic.text);
    }
    let mut found = Some(&mut command);
    for word in &args.about {
        found = found.and_then(|of| of.find_subcommand_mut(word));
    }
    match found {
        Some(command) => output::print(&command.render_long_help().to_string()),
        None => {
            let about = args.about.join(" ");
            output::complain(&format_args!(
                "there is no command and no topic {about:?}\n{}",
                topics()
            ));
            ExitCode::from(code::USAGE)
        }
    }
}

/// What there is to read, a line each.
fn topics() -> String {
    let mut list = String::from("Topics of `tml-proxy help TOPIC`:\n");
    for topic in TOPICS {
        let _ = writeln!(list, "  {:<14} {}", topic.name, topic.about);
    }
    list
}
