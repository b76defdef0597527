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
    after_help = "Exit codes: 0 done, 1 the configuration is not valid or the proxy refused, \
                  2 wrong usage, 3 could not start, 4 failed, 5 no proxy answers at the socket."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Forward until told to stop.
    Run(run::RunArgs),
    /// Read a configuration and print what it comes to.
    Check(check::CheckArgs),
    /// Tell how the running proxy does.
    Status(status::StatusArgs),
    /// List the mappings of the running proxy.
    Mappings(mappings::MappingsArgs),
    /// List where jobs of the switchboard can be reached.
    Endpoints(endpoints::EndpointsArgs),
    /// Connect to a job with ssh.
    Ssh(ssh::SshArgs),
    /// Print how to reach jobs, for ssh's configuration.
    SshConfig(ssh_config::SshConfigArgs),
    /// List live sessions of the running proxy.
    Sessions(sessions::SessionsArgs),
    /// End live sessions of the running proxy.
    Kill(kill::KillArgs),
    /// Let new clients of a mapping wait; its sessions go on.
    Pause(hold::MappingArgs),
    /// Close a mapping's ports and let its sessions end.
    Drain(hold::DrainArgs),
    /// Serve a paused or drained mapping again.
    Resume(hold::MappingArgs),
    /// Have the running proxy read its configuration again.
    Reload(reload::ReloadArgs),
    /// Tell what happened lately in the running proxy.
    Events(events::EventsArgs),
    /// Watch the running proxy in the terminal.
    Top(top::TopArgs),
    /// Set the log level of the running proxy.
    LogLevel(log_level::LogLevelArgs),
    /// Check whether this machine is fit for a configuration, and say what to change.
    Doctor(doctor::DoctorArgs),
    /// Print the completions of a shell.
    Completions(generate::CompletionsArgs),
    /// Write the man pages into a directory.
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
