//! `tml-proxy events`: what happened lately, and what happens now.

use std::process::ExitCode;

use super::{
    client::Client,
    output::{self, Paint, Screen, one_line, wrapped},
};
use crate::admin::api::model::{Event, EventQuery, Events};

/// How long the proxy waits for an event before it answers with none, in seconds.
const WAIT: u64 = 25;

/// Tell what happened lately in the running proxy: reloads, refusals, trouble.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsArgs {
    #[command(flatten)]
    client: Client,
    /// Go on and print events as they happen.
    #[arg(long, short)]
    follow: bool,
    /// Print JSON; with --follow, one event a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &EventsArgs) -> ExitCode {
    let screen = Screen::stdout();
    let mut after = 0;
    // The first answer is what there is, however little.
    let mut wait = 0;
    loop {
        let query = EventQuery { after, wait };
        let events: Events = match args.client.find("/api/v1/events", &query) {
            Ok(events) => events,
            Err(error) => return output::give_up(&error, args.json),
        };
        // Without one the next answer is still to begin with the first there is.
        after = events.events.last().map_or(after, |event| event.number);
        wait = WAIT;
        let enough = output::print_one(&match (args.json, args.follow) {
            (true, false) => output::json(&events),
            (true, true) => lines(&events, output::json_line),
            (false, _) => lines(&events, |event| line(event, &screen) + "\n"),
        });
        if !args.follow || enough.is_some() {
            return enough.unwrap_or(ExitCode::SUCCESS);
        }
    }
}

fn lines(events: &Events, line: impl FnMut(&Event) -> String) -> String {
    events.events.iter().map(line).collect()
}

fn line(event: &Event, screen: &Screen) -> String {
    let paint = match event.level.as_str() {
        "error" => Paint::Bad,
        "warn" => Paint::Warn,
        _ => Paint::Good,
    };
    let level = screen.paint(paint, &format!("{:5}", event.level));
    let fields: String = (event.fields.iter())
        .map(|(name, value)| {
            let name = screen.dim(&format!("{name}="));
            format!(" {name}{}", one_line(value))
        })
        .collect();
    let line = format!("{} {level} {}{fields}", event.at, one_line(&event.message));
    wrapped(&line, screen.width, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_several_lines_is_one_line_for_grep() {
        let event = Event {
            at: "2026-01-01T00:00:00Z".to_owned(),
            level: "error".to_owned(),
            message: "reload failed".to_owned(),
            fields: [("error".to_owned(), "line 1\n  |\n1 | x =".to_owned())].into(),
            ..Event::default()
        };
        let endless = Screen::plain(usize::MAX / 2);
        assert_eq!(
            line(&event, &endless),
            "2026-01-01T00:00:00Z error reload failed error=line 1 | 1 | x ="
        );
        let narrow = line(&event, &Screen::plain(40));
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 40),
            "{narrow}"
        );
    }
}
