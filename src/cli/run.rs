//! `tml-proxy run`: forward until told to stop.

use std::{path::PathBuf, process::ExitCode};

use super::{code, output};
use crate::{
    config::{LogFormat, LogLevel, Overrides, Source, word},
    lifecycle::{self, How, Invocation, RunError},
    table::ListenAddr,
};

/// Forward until told to stop.
///
/// SIGHUP reads the configuration again; SIGUSR2 has the build of the program take over that is now
/// where this one was started from; SIGTERM and SIGINT stop accepting and wait for the
/// sessions, a second one ends at once. Without --config and --map an example runs that
/// forwards 127.0.0.1:7007 to an echo service of its own.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", conflicts_with = "map")]
    pub config: Option<PathBuf>,
    /// Forward LISTEN to TARGET, without a file; may be repeated.
    ///
    /// Both are written as in the file: `--map 22014=[fd00::1]:22`.
    #[arg(long, value_name = "LISTEN=TARGET")]
    pub map: Vec<String>,
    /// Where to serve metrics, or `off`.
    #[arg(long, value_name = "ADDR", value_parser = admin)]
    pub admin: Option<AdminAddr>,
    /// How to write log lines: text or json.
    #[arg(long, value_name = "FORMAT", value_parser = word::<LogFormat>)]
    pub log_format: Option<LogFormat>,
    /// The least important lines to write: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", value_parser = word::<LogLevel>)]
    pub log_level: Option<LogLevel>,
    /// How one image of the program has another one begin.
    #[command(flatten)]
    image: Image,
}

#[derive(Debug, Clone, clap::Args)]
#[group(multiple = false)]
struct Image {
    /// Go on with what is on standard input.
    #[arg(long, hide = true)]
    adopt: bool,
    /// Go on with it after another image could not.
    #[arg(long, hide = true, num_args = 2, value_names = ["VERSION", "REASON"])]
    take_back: Vec<String>,
    /// Show whether one could go on with it.
    #[arg(long, hide = true)]
    rehearse: bool,
}

/// Where to serve metrics, if anywhere.
#[derive(Debug, Clone, Copy)]
pub struct AdminAddr(Option<ListenAddr>);

fn admin(text: &str) -> Result<AdminAddr, String> {
    match text {
        "off" => Ok(AdminAddr(None)),
        _ => ListenAddr::parse(text)
            .map(|addr| AdminAddr(Some(addr)))
            .map_err(|refusal| format!("allowed: {}", refusal.or("off"))),
    }
}

/// Runs the command. Exit codes: 0 after a stop by signal, 1 when the configuration is not valid, 2 when `--map` is not,
/// 3 when the proxy could not start, 4 when it failed later.
pub fn run(args: RunArgs) -> ExitCode {
    let source = match (args.config, args.map) {
        (Some(file), _) => Source::File(file),
        (None, maps) if !maps.is_empty() => Source::Arguments(maps),
        (None, _) => Source::Demo,
    };
    let overrides = Overrides {
        admin: args.admin.map(|AdminAddr(addr)| addr),
        log_format: args.log_format,
        log_level: args.log_level,
    };
    let Image {
        adopt,
        take_back,
        rehearse,
    } = args.image;
    if rehearse {
        let answer = lifecycle::rehearse(&source, &overrides);
        return output::print(&output::json(&answer));
    }
    let how = match <[String; 2]>::try_from(take_back) {
        Ok([version, why]) => How::TakeBack { version, why },
        Err(_) if adopt => How::Adopt,
        Err(_) => How::Start,
    };
    match lifecycle::run(&source, &overrides, Invocation::of_process(how)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format_args!("tml-proxy: {error}"));
            // The mappings of the command line are the command line.
            ExitCode::from(match (&error, &source) {
                (RunError::Config(_), Source::Arguments(_)) => code::USAGE,
                _ => code_of(&error),
            })
        }
    }
}

fn code_of(error: &RunError) -> u8 {
    match error {
        RunError::Config(_) => code::REFUSED,
        RunError::Start(_) => code::NO_START,
        RunError::Worker(_) | RunError::Control(_) | RunError::Adopt(_) => code::FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_while_it_runs_means_exit_code_4() {
        for failed in [RunError::Worker, RunError::Control] {
            assert_eq!(code_of(&failed("a bad day".to_owned())), 4);
        }
        assert_eq!(code_of(&RunError::Start("no port".to_owned())), 3);
    }
}
