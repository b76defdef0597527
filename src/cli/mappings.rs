//! `tml-proxy mappings`: what is forwarded where, and how much.

use std::process::ExitCode;

use super::{
    client::Client,
    output::{self, Align, Column, Screen, bytes, table},
};
use crate::admin::api::model::{Mapping, Mappings, Route};

/// List the mappings of the running proxy.
#[derive(Debug, Clone, clap::Args)]
pub struct MappingsArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &MappingsArgs) -> ExitCode {
    let mappings: Mappings = match args.client.get("/api/v1/mappings") {
        Ok(mappings) => mappings,
        Err(error) => return output::give_up(&error),
    };
    output::print(&match args.json {
        true => output::json(&mappings),
        false => text(&mappings, &Screen::stdout()),
    })
}

const COLUMNS: [Column; 10] = [
    left("MAPPING", 0),
    left("STATE", 0),
    left("LISTEN", 2),
    left("TARGET", 3),
    right("SESSIONS", 0),
    right("OPENED", 4),
    right("REFUSED", 5),
    right("FAILED", 1),
    right("UP", 1),
    right("DOWN", 1),
];

const fn left(head: &'static str, spare: u8) -> Column {
    Column {
        head,
        align: Align::Left,
        spare,
    }
}

const fn right(head: &'static str, spare: u8) -> Column {
    Column {
        head,
        align: Align::Right,
        spare,
    }
}

fn text(mappings: &Mappings, screen: &Screen) -> String {
    let rows: Vec<_> = mappings.mappings.iter().map(row).collect();
    table(&COLUMNS, &rows, screen)
}

fn row(mapping: &Mapping) -> [String; 10] {
    let several = |part: fn(&Route) -> &str| match &mapping.routes[..] {
        [] => String::new(),
        [only] => part(only).to_owned(),
        [first, rest @ ..] => format!("{} +{}", part(first), rest.len()),
    };
    [
        mapping.mapping.clone(),
        mapping.state.clone(),
        several(|route| &route.listen),
        several(|route| &route.target),
        mapping.sessions.to_string(),
        mapping.opened.to_string(),
        mapping.refused().to_string(),
        mapping.failed().to_string(),
        bytes(mapping.bytes_up),
        bytes(mapping.bytes_down),
    ]
}
