//! `tml-proxy completions` and `tml-proxy man`: from the one description of the command line.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory, builder::PossibleValuesParser};
use clap_complete::Shell;
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
    shell: Shell,
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
    let mut command = with_values(Cli::command());
    clap_complete::generate(args.shell, &mut command, "tml-proxy", &mut script);
    let script = String::from_utf8_lossy(&script);
    output::print(&with_mappings(args.shell, script.into_owned()))
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The command line with the values that some of its arguments may have. Those who complete them need
/// not know what is said of others.
fn with_values(command: Command) -> Command {
    let commands = command.get_subcommands();
    // They live as long as the process, which prints and ends.
    let commands = commands.map(|known| -> &'static str { known.get_name().to_owned().leak() });
    let topics = TOPICS.iter().map(|topic| topic.name);
    let about: Vec<&'static str> = commands.chain(topics).collect();
    let values = |command: Command, argument: &'static str, values: PossibleValuesParser| {
        command.mut_arg(argument, |known| known.value_parser(values))
    };
    command
        .mut_subcommand("help", |help| values(help, "about", about.into()))
        .mut_subcommand("run", |run| {
            let run = values(run, "log_format", ["text", "json"].into());
            values(run, "log_level", LEVELS.into())
        })
        .mut_subcommand("log-level", |level| values(level, "level", LEVELS.into()))
}

/// Where the running proxy is asked for the names of its mappings.
const BASH: &str = r#"
_tml-proxy_or_mapping() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} socket=() place
    for ((place = 2; place < COMP_CWORD; place++)); do
        [[ ${COMP_WORDS[place-1]} == --socket ]] && socket=(--socket "${COMP_WORDS[place]}")
    done
    case "${COMP_WORDS[1]} $prev" in
        *' --mapping') ;;
        *' --'[sw]* ) _tml__proxy "$@"; return ;;
        'pause '* | 'drain '* | 'resume '*) ;;
        *) _tml__proxy "$@"; return ;;
    esac
    case "$cur" in
        -*) _tml__proxy "$@" ;;
        *) COMPREPLY=($(compgen -W "$(tml-proxy mappings --names "${socket[@]}" 2>/dev/null)" -- "$cur")) ;;
    esac
}
complete -F _tml-proxy_or_mapping -o bashdefault -o default tml-proxy
"#;

const FISH: &str = r#"
complete -c tml-proxy -n "__fish_seen_subcommand_from pause drain resume" -f -a "(tml-proxy mappings --names 2>/dev/null)"
complete -c tml-proxy -n "__fish_seen_subcommand_from sessions kill" -l mapping -x -a "(tml-proxy mappings --names 2>/dev/null)"
"#;

const ZSH: &str = r#"
_tml_proxy_mappings() {
    local -a names
    names=(${(f)"$(tml-proxy mappings --names 2>/dev/null)"})
    compadd -a names
}
"#;

/// Completions that know the names of mappings as well, for the shells in which that is a few lines.
fn with_mappings(shell: Shell, script: String) -> String {
    match shell {
        // For a name with a hyphen its labels are not what they are compared with
        // (https://github.com/clap-rs/clap/issues/6421): nothing behind a command would be completed.
        Shell::Bash => script.replace("tml__subcmd__proxy", "tml__proxy") + BASH,
        Shell::Fish => script + FISH,
        Shell::Zsh => {
            let is_mapping =
                |line: &str| line.contains(":mapping -- ") || line.contains("'--mapping=");
            let lines = script.lines().map(|line| match is_mapping(line) {
                true => line.replace(":_default'", ":_tml_proxy_mappings'"),
                false => line.to_owned(),
            });
            let mut lines: Vec<String> = lines.collect();
            // The first line says whose completions they are.
            lines.insert(1.min(lines.len()), ZSH.to_owned());
            lines.join("\n") + "\n"
        }
        _ => script,
    }
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
