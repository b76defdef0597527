//! `tml-proxy kill`: end live sessions.

use std::process::ExitCode;

use http::Method;

use super::{client::Client, lookup::job_id, output};
use crate::{
    admin::api::model::{Kill, Killed},
    provider::switchboard::JobId,
    units::count,
};

/// End live sessions of the running proxy.
///
/// Both sides see a reset; the session log says "killed".
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub struct KillArgs {
    #[command(flatten)]
    client: Client,
    /// The session with this number.
    #[arg(value_name = "SESSION", group = "which")]
    session: Option<u64>,
    /// Those of this mapping.
    #[arg(long, value_name = "NAME", group = "which")]
    mapping: Option<String>,
    /// Those of the job with this id.
    #[arg(long, value_name = "ID", value_parser = job_id, group = "which")]
    job: Option<JobId>,
    /// Those whose client has this address or is in this prefix.
    #[arg(long, value_name = "ADDR", group = "which")]
    source: Option<String>,
    /// Every session there is.
    #[arg(long, group = "which", conflicts_with_all = ["session", "mapping", "job", "source"])]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &KillArgs) -> ExitCode {
    let which = Kill {
        session: args.session,
        mapping: args.mapping.clone(),
        job: args.job.as_ref().map(JobId::to_string),
        source: args.source.clone(),
        all: args.all,
    };
    let killed = args
        .client
        .send(&Method::POST, "/api/v1/sessions/kill", &which);
    output::answer(killed, args.json, |killed: &Killed| {
        format!("{} told to end\n", count(killed.sessions, "session"))
    })
}
