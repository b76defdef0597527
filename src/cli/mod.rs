//! The command line: what may be asked for, one small file a command.
//!
//! Help, completions and man pages all come from the descriptions here.

mod check;
mod client;
mod code;
mod config;
mod doctor;
mod endpoints;
mod events;
mod fleet;
mod generate;
mod help;
mod import;
mod kill;
mod log_level;
mod lookup;
mod mapping_state;
mod mappings;
mod names;
mod output;
mod reload;
mod run;
mod sessions;
mod ssh;
mod ssh_config;
mod status;
mod top;
mod upgrade;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Forward TCP ports, reload without dropping a session.
#[derive(Debug, Parser)]
#[command(
    name = "tml-proxy",
    version,
    disable_help_subcommand = true,
    after_help = "`tml-proxy help TOPIC` shows a chapter of the manual, `tml-proxy help` which there are.\n\n\
                  Exit codes: 0 done, 1 the configuration is not valid, the proxy refused, doctor \
                  found something to change or a job cannot be reached, 2 wrong usage, 3 could not \
                  start, 4 failed, 5 no proxy answers at the socket."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

// The description of a command stands on its arguments. One here would take the place of all of it,
// so there is one only where two commands share their arguments.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Config(config::ConfigArgs),
    Import(import::ImportArgs),
    Status(status::StatusArgs),
    Mappings(mappings::MappingsArgs),
    Endpoints(endpoints::EndpointsArgs),
    Ssh(ssh::SshArgs),
    SshConfig(ssh_config::SshConfigArgs),
    Fleet(fleet::FleetArgs),
    Sessions(sessions::SessionsArgs),
    Kill(kill::KillArgs),
    /// Let new clients of a mapping wait; its sessions go on.
    Pause(mapping_state::MappingArgs),
    Drain(mapping_state::DrainArgs),
    /// Serve a paused or drained mapping again.
    Resume(mapping_state::MappingArgs),
    Reload(reload::ReloadArgs),
    Upgrade(upgrade::UpgradeArgs),
    Events(events::EventsArgs),
    Top(top::TopArgs),
    LogLevel(log_level::LogLevelArgs),
    Doctor(doctor::DoctorArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
    Help(help::HelpArgs),
}

/// Does what the command line asks for, and says with which code to leave.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) if error.use_stderr() && wants_json(std::env::args_os()) => {
            let text = error.to_string();
            let why = text.trim().trim_start_matches("error: ");
            output::refuse(&why, true, code::USAGE)
        }
        Err(error) => error.exit(),
    }
}

/// Whether a command line that makes no sense asks for JSON.
fn wants_json(args: impl Iterator<Item = OsString>) -> bool {
    let mut own = args.take_while(|arg| arg != "--");
    own.any(|arg| arg == "--json")
}

impl Cli {
    /// Does what was asked for, and says with which code to leave.
    fn run(self) -> ExitCode {
        match self.command {
            Command::Run(args) => run::run(args),
            Command::Check(args) => check::run(&args),
            Command::Config(args) => config::run(&args),
            Command::Import(args) => import::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Mappings(args) => mappings::run(&args),
            Command::Endpoints(args) => endpoints::run(&args),
            Command::Ssh(args) => ssh::run(&args),
            Command::SshConfig(args) => ssh_config::run(&args),
            Command::Fleet(args) => fleet::run(&args),
            Command::Sessions(args) => sessions::run(&args),
            Command::Kill(args) => kill::run(&args),
            Command::Pause(args) => mapping_state::pause(&args),
            Command::Drain(args) => mapping_state::drain(&args),
            Command::Resume(args) => mapping_state::resume(&args),
            Command::Reload(args) => reload::run(&args),
            Command::Upgrade(args) => upgrade::run(&args),
            Command::Events(args) => events::run(&args),
            Command::Top(args) => top::run(&args),
            Command::LogLevel(args) => log_level::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Completions(args) => generate::completions(&args),
            Command::Man(args) => generate::man(&args),
            Command::Help(args) => help::run(&args),
        }
    }
}
