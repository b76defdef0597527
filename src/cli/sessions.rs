//! `tml-proxy sessions`: who is connected to what.

use std::process::ExitCode;

use super::{
    client::Client,
    endpoints::job_id,
    output::{self, Align, Column, Screen, bytes, duration_ms, table},
};
use crate::{
    admin::api::model::{Session, Sessions},
    provider::switchboard::JobId,
    text::in_query,
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

/// An order of sessions.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Sort {
    /// The oldest.
    Age,
    /// Those that moved most bytes.
    Bytes,
    /// Those that have been silent for longest.
    Quiet,
    /// By address of the client.
    Client,
    /// By name of the mapping.
    Mapping,
}

/// Runs the command.
pub fn run(args: &SessionsArgs) -> ExitCode {
    let sessions: Sessions = match args.client.get(&path(args)) {
        Ok(sessions) => sessions,
        Err(error) => return output::give_up(&error),
    };
    output::print(&match args.json {
        true => output::json(&sessions),
        false => text(&sessions, &Screen::stdout()),
    })
}

fn path(args: &SessionsArgs) -> String {
    let sort = match args.sort {
        Sort::Age => "age",
        Sort::Bytes => "bytes",
        Sort::Quiet => "quiet",
        Sort::Client => "client",
        Sort::Mapping => "mapping",
    };
    let mut path = format!("/api/v1/sessions?sort={sort}&limit={}", args.limit);
    let job = args.job.as_ref().map(JobId::as_str);
    for (name, value) in [
        ("mapping", args.mapping.as_deref()),
        ("job", job),
        ("source", args.source.as_deref()),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", in_query(value)));
        }
    }
    path
}

const COLUMNS: [Column; 10] = [
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
];

fn text(sessions: &Sessions, screen: &Screen) -> String {
    let rows: Vec<_> = sessions.sessions.iter().map(row).collect();
    let mut text = table(&COLUMNS, &rows, screen);
    let left = sessions.total.saturating_sub(rows.len() as u64);
    if left > 0 {
        text.push_str(&screen.dim(&format!("and {left} more (--limit)\n")));
    }
    text
}

fn row(session: &Session) -> [String; 10] {
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
    ]
}
