//! `tml-proxy log-level`: how much a running proxy writes to its log.

use std::process::ExitCode;

use http::Method;

use super::{client::Client, output};
use crate::{
    admin::api::model::Level,
    config::{LogLevel, word},
};

/// Set the log level of the running proxy until it restarts.
#[derive(Debug, Clone, clap::Args)]
pub struct LogLevelArgs {
    #[command(flatten)]
    client: Client,
    /// The least important lines to write: error, warn, info, debug or trace.
    #[arg(value_name = "LEVEL", value_parser = word::<LogLevel>)]
    level: LogLevel,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &LogLevelArgs) -> ExitCode {
    let level = args.level.to_string();
    let set = args
        .client
        .send_idempotent(&Method::PUT, "/api/v1/log/level", &Level { level });
    output::answer(set, args.json, |set: &Level| {
        format!("log level is {}\n", set.level)
    })
}
