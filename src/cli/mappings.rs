//! `tml-proxy mappings`: what is forwarded where, and how much.

use std::process::ExitCode;

use super::{
    client::Client,
    output::{self, Align, Column, Screen, bytes, table},
};
use crate::admin::api::model::{Mapping, Mappings, Target};

/// List the mappings of the running proxy.
#[derive(Debug, Clone, clap::Args)]
pub struct MappingsArgs {
    #[command(flatten)]
    client: Client,
    /// Print their names only, a line each.
    #[arg(long, conflicts_with = "json")]
    names: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &MappingsArgs) -> ExitCode {
    let mappings = args.client.get("/api/v1/mappings");
    if args.names {
        return output::answer(mappings, args.json, |mappings: &Mappings| {
            let names = mappings.mappings.iter();
            names.map(|one| format!("{}\n", one.mapping)).collect()
        });
    }
    output::answer(mappings, args.json, |mappings| {
        text(mappings, &Screen::stdout())
    })
}

const COLUMNS: [Column; 10] = [
    Column::new("MAPPING", Align::Name, 0),
    Column::new("STATE", Align::Left, 0),
    Column::new("LISTEN", Align::Left, 1),
    Column::new("TARGET", Align::Left, 2),
    Column::new("SESSIONS", Align::Right, 0),
    Column::new("OPENED", Align::Right, 5),
    Column::new("REFUSED", Align::Right, 6),
    Column::new("FAILED", Align::Right, 4),
    Column::new("UP", Align::Right, 3),
    Column::new("DOWN", Align::Right, 3),
];

fn text(mappings: &Mappings, screen: &Screen) -> String {
    table(&COLUMNS, mappings.mappings.iter().map(row), screen) + &down(mappings)
}

/// A line for each target that is down.
fn down(mappings: &Mappings) -> String {
    /// As many as anybody wants to read.
    const LINES: usize = 20;
    let of = |mapping: &'_ Mapping| {
        let down = mapping
            .targets
            .iter()
            .filter(|target| target.state == "down");
        let line = |target: &Target| {
            let since = target.state_since.as_deref();
            let since = since.map_or_else(String::new, |at| format!(" since {at}"));
            let why = target.check_failure.as_ref();
            let why = why.map_or_else(String::new, |failure| format!(": {}", failure.error));
            format!(
                "{}: {} is down{since}{why}\n",
                mapping.mapping, target.target
            )
        };
        down.map(line).collect::<Vec<_>>()
    };
    let mut lines: Vec<_> = mappings.mappings.iter().flat_map(of).collect();
    if let Some(more @ 1..) = lines.len().checked_sub(LINES) {
        lines.truncate(LINES);
        lines.push(format!("targets that are down besides: {more}\n"));
    }
    match lines.is_empty() {
        true => String::new(),
        false => format!("\n{}", lines.concat()),
    }
}

fn row(mapping: &Mapping) -> [String; 10] {
    [
        mapping.mapping.clone(),
        mapping.state.clone(),
        mapping.listen(),
        mapping.target(),
        mapping.sessions.to_string(),
        mapping.opened.to_string(),
        mapping.refused().to_string(),
        mapping.failed().to_string(),
        bytes(mapping.bytes_up),
        bytes(mapping.bytes_down),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::model::Route;

    fn shown(name: &str, width: usize) -> String {
        let mapping = Mapping {
            mapping: name.to_owned(),
            state: "accepting".to_owned(),
            routes: vec![Route {
                listen: "127.0.0.1:40001".to_owned(),
                target: "127.0.0.1:22".to_owned(),
            }],
            ..Mapping::default()
        };
        let mappings = Mappings {
            mappings: vec![mapping],
        };
        text(&mappings, &Screen::plain(width))
    }

    #[test]
    fn the_name_of_a_job_leaves_room_for_what_is_forwarded_where() {
        let name = "job/00000001-0000-4000-8000-000000000000/ssh";
        let text = shown(name, 80);
        assert!(text.contains("  127.0.0.1:40001  127.0.0.1:22  "), "{text}");
        let long = "a".repeat(54);
        let text = shown(&long, 40);
        for part in ["STATE", "SESSIONS", "accepting", "…"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
    }

    #[test]
    fn counts_take_the_room_that_an_address_does_not_fit_in() {
        let text = shown("m", 40);
        assert!(
            text.starts_with("MAPPING  STATE      SESSIONS  UP  DOWN\n"),
            "{text}"
        );
    }
}
