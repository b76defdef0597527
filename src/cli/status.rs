//! `tml-proxy status`: how a running proxy does.

use std::process::ExitCode;

use super::{
    client::Client,
    output::{self, GAP, Paint, Screen, bytes, duration_ms, severity, wrapped},
};
use crate::{
    admin::api::model::{Pipes, Reload, Severity, Status, Upgrades},
    units::count,
};

/// Tell how the running proxy does.
#[derive(Debug, Clone, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &StatusArgs) -> ExitCode {
    let status = args.client.get("/api/v1/status");
    output::answer(status, args.json, |status| text(status, &Screen::stdout()))
}

fn text(status: &Status, screen: &Screen) -> String {
    let mut text = headline(status, screen);
    for problem in &status.problems {
        let severity = severity(screen, problem.severity);
        let problem = format!("{severity}: {}\n", problem.text);
        text.push_str(&wrapped(&problem, screen.width, 2));
    }
    text.push('\n');
    let Status {
        version,
        sessions,
        sessions_limit,
        sessions_opened,
        mappings,
        pipes,
        reload,
        upgrade,
        process,
        ..
    } = status;
    let up = duration_ms(status.uptime_ms);
    let listeners = count(status.listeners, "listener");
    let (to_targets, to_clients) = (bytes(status.bytes_up), bytes(status.bytes_down));
    let Pipes {
        in_use,
        free,
        limit,
        denied,
    } = pipes;
    let Reload {
        succeeded,
        failed,
        last_success,
        ..
    } = reload;
    let known = |number: Option<u64>| number.map_or("unknown".to_owned(), |n| n.to_string());
    let memory = process.resident_bytes.map_or("unknown".to_owned(), bytes);
    let descriptors = known(process.descriptors);
    let most = known(process.descriptors_limit);
    let mut rows = vec![
        ("version", format!("{version}, up {up}")),
        (
            "sessions",
            format!("{sessions} of {sessions_limit} open, {sessions_opened} so far"),
        ),
        ("mappings", format!("{mappings} with {listeners}")),
        ("delivered", format!("{to_targets} up, {to_clients} down")),
        ("refused", refused(status)),
        (
            "pipes",
            format!("{in_use} of {limit} in use, {free} kept, {denied} denied"),
        ),
        (
            "reloads",
            format!("{succeeded} done, {failed} failed, last in force since {last_success}"),
        ),
        ("upgrades", upgrades(upgrade)),
        (
            "process",
            format!(
                "{}, {memory} memory, {descriptors} of {most} descriptors",
                process.pid
            ),
        ),
        ("log level", status.log_level.clone()),
    ];
    if let Some(own) = &status.switchboard {
        rows.insert(3, ("switchboard", own.in_words()));
        rows.insert(4, ("token", own.token_in_words()));
        rows.insert(5, ("job ports", own.ports.in_words()));
    }
    if let Some(own) = &status.fleet {
        rows.insert(3, ("fleet", own.in_words()));
    }
    let widest = rows.iter().map(|(name, _)| name.len()).max();
    let indent = widest.unwrap_or_default() + GAP;
    let lines = rows
        .iter()
        .map(|(name, value)| format!("{name:indent$}{value}\n"));
    text.push_str(&wrapped(&lines.collect::<String>(), screen.width, indent));
    text
}

fn upgrades(upgrade: &Upgrades) -> String {
    let Upgrades {
        succeeded,
        failed,
        last,
        binary: _,
    } = upgrade;
    let mut text = format!("{succeeded} done, {failed} failed");
    if let Some(last) = last {
        let to = last.to.as_deref().unwrap_or("an unknown version");
        text.push_str(&match &last.error {
            None => format!(", last from {} to {to} at {}", last.from, last.at),
            Some(error) => format!(", last to {to} at {}: {error}", last.at),
        });
    }
    text
}

/// Clients that got no session, most frequent reason first.
fn refused(status: &Status) -> String {
    let mut reasons: Vec<_> = status.refused.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let counts = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"));
    let mut text: Vec<String> = counts.collect();
    if status.clients_banned > 0 {
        text.push(format!("{} banned", count(status.clients_banned, "client")));
    }
    match text.is_empty() {
        true => "nobody".to_owned(),
        false => text.join(", "),
    }
}

fn headline(status: &Status, screen: &Screen) -> String {
    let worst = status.problems.iter().map(|problem| problem.severity).max();
    let (paint, words) = match (status.ready.ready, worst) {
        (false, _) => (Paint::Bad, "not ready"),
        (true, Some(Severity::Error)) => (Paint::Bad, "serving, with errors"),
        (true, Some(Severity::Warning)) => (Paint::Warn, "serving, with warnings"),
        (true, Some(Severity::Note) | None) => (Paint::Good, "serving"),
    };
    format!("{}\n", screen.paint(paint, words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::model::{Problem, Ready};

    #[test]
    fn trouble_comes_first() {
        let status = Status {
            version: "1.0.0".to_owned(),
            uptime_ms: 61_000,
            ready: Ready {
                ready: true,
                reasons: Vec::new(),
            },
            problems: vec![Problem {
                severity: Severity::Error,
                text: "The last reload failed.".to_owned(),
            }],
            sessions: 3,
            sessions_limit: 10,
            refused: [("denied", 2), ("source_rate", 30)]
                .map(|(reason, count)| (reason.to_owned(), count))
                .into(),
            clients_banned: 1,
            bytes_up: 2048,
            ..Status::default()
        };
        let text = text(&status, &Screen::plain(80));
        let expected = "serving, with errors\n\
                        error: The last reload failed.\n\
                        \n\
                        version    1.0.0, up 1m 01s\n\
                        sessions   3 of 10 open, 0 so far\n\
                        mappings   0 with 0 listeners\n\
                        delivered  2.0K up, 0 down\n\
                        refused    30 source_rate, 2 denied, 1 client banned\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_narrow_terminal_breaks_no_line_of_the_status_by_itself() {
        let status = Status {
            problems: vec![Problem {
                severity: Severity::Error,
                text: "The last reload failed; what was in force before still is.".to_owned(),
            }],
            ..Status::default()
        };
        let text = text(&status, &Screen::plain(40));
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        assert!(text.contains("\n  in force before"), "{text}");
    }
}
