//! The command line: what may be asked for, one small file a command.
//!
//! Help, completions and man pages all come from the descriptions here.

pub mod check;
pub mod client;
pub mod code;
pub mod doctor;
pub mod endpoints;
pub mod events;
pub mod generate;
pub mod hold;
pub mod kill;
pub mod log_level;
pub mod mappings;
pub mod output;
pub mod reload;
pub mod run;
pub mod sessions;
pub mod ssh;
pub mod ssh_config;
pub mod status;
pub mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Forward TCP ports, reload without dropping a session.
#[derive(Debug, Parser)]
#[command(
    name = "tml-proxy",
    version,
    after_help = "Exit codes: 0 done, 1 the configuration is not valid, the proxy refused, doctor \
                  found something to change or a job cannot be reached, 2 wrong usage, 3 could not \
                  start, 4 failed, 5 no proxy answers at the socket."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
///
/// The description of a command stands on its arguments. One here would take the place of all of it,
/// so there is one only where two commands share their arguments.
#[expect(missing_docs, reason = "see above")]
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Status(status::StatusArgs),
    Mappings(mappings::MappingsArgs),
    Endpoints(endpoints::EndpointsArgs),
    Ssh(ssh::SshArgs),
    SshConfig(ssh_config::SshConfigArgs),
    Sessions(sessions::SessionsArgs),
    Kill(kill::KillArgs),
    /// Let new clients of a mapping wait; its sessions go on.
    Pause(hold::MappingArgs),
    Drain(hold::DrainArgs),
    /// Serve a paused or drained mapping again.
    Resume(hold::MappingArgs),
    Reload(reload::ReloadArgs),
    Events(events::EventsArgs),
    Top(top::TopArgs),
    LogLevel(log_level::LogLevelArgs),
    Doctor(doctor::DoctorArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

impl Command {
    /// Does it, and says with which code to leave.
    pub fn run(self) -> ExitCode {
        match self {
            Self::Run(args) => run::run(args),
            Self::Check(args) => check::run(&args),
            Self::Status(args) => status::run(&args),
            Self::Mappings(args) => mappings::run(&args),
            Self::Endpoints(args) => endpoints::run(&args),
            Self::Ssh(args) => ssh::run(&args),
            Self::SshConfig(args) => ssh_config::run(&args),
            Self::Sessions(args) => sessions::run(&args),
            Self::Kill(args) => kill::run(&args),
            Self::Pause(args) => hold::pause(&args),
            Self::Drain(args) => hold::drain(&args),
            Self::Resume(args) => hold::resume(&args),
            Self::Reload(args) => reload::run(&args),
            Self::Events(args) => events::run(&args),
            Self::Top(args) => top::run(&args),
            Self::LogLevel(args) => log_level::run(&args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Completions(args) => generate::completions(&args),
            Self::Man(args) => generate::man(&args),
        }
    }
}
