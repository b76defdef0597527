//! `tml-proxy sessions`: who is connected to what.

use std::process::ExitCode;

use super::{
    client::Client,
    lookup::job_id,
    output::{self, Align, Column, Screen, bytes, duration_ms, table},
};
use crate::{
    admin::api::model::{Session, SessionQuery, Sessions, Sort},
    provider::switchboard::JobId,
};

/// List live sessions of the running proxy.
#[derive(Debug, Clone, clap::Args)]
pub struct SessionsArgs {
    #[command(flatten)]
    client: Client,
    /// Only those of this mapping.
    #[arg(long, value_name = "NAME")]
    mapping: Option<String>,
    /// Only those of the job with this id.
    #[arg(long, value_name = "ID", value_parser = job_id)]
    job: Option<JobId>,
    /// Only those whose client has this address or is in this prefix.
    #[arg(long, value_name = "ADDR")]
    source: Option<String>,
    /// What comes first.
    #[arg(long, value_name = "ORDER", default_value = "age")]
    sort: Sort,
    /// How many to list.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &SessionsArgs) -> ExitCode {
    let query = SessionQuery {
        session: None,
        mapping: args.mapping.clone(),
        job: args.job.as_ref().map(JobId::to_string),
        source: args.source.clone(),
        sort: args.sort,
        limit: Some(args.limit),
    };
    let sessions = args.client.find("/api/v1/sessions", &query);
    output::answer(sessions, args.json, |sessions| {
        text(sessions, &Screen::stdout())
    })
}

const COLUMNS: [Column; 11] = [
    Column::new("SESSION", Align::Right, 0),
    Column::new("MAPPING", Align::Name, 0),
    Column::new("CLIENT", Align::Left, 0),
    Column::new("TARGET", Align::Left, 4),
    Column::new("LOCAL", Align::Left, 5),
    Column::new("STAGE", Align::Left, 3),
    Column::new("AGE", Align::Right, 1),
    Column::new("QUIET", Align::Right, 2),
    Column::new("UP", Align::Right, 1),
    Column::new("DOWN", Align::Right, 1),
    Column::new("UPGRADES", Align::Right, 6),
];

fn text(sessions: &Sessions, screen: &Screen) -> String {
    let mut text = table(&COLUMNS, sessions.sessions.iter().map(row), screen);
    let left = sessions
        .total
        .saturating_sub(sessions.sessions.len() as u64);
    if left > 0 {
        text.push_str(&screen.dim(&format!("and {left} more (--limit)\n")));
    }
    text
}

fn row(session: &Session) -> [String; 11] {
    [
        session.session.to_string(),
        session.mapping.clone(),
        session.client.clone(),
        session.target.clone(),
        session.local.clone().unwrap_or_default(),
        session.stage.clone(),
        duration_ms(session.duration_ms),
        duration_ms(session.quiet_ms),
        bytes(session.bytes_up),
        bytes(session.bytes_down),
        session.upgrades.to_string(),
    ]
}
