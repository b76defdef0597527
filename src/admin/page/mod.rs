//! The status page: everything at a glance, for people with a browser.
//!
//! One document without any other file. It works without scripts, the search included; where they
//! run, a few lines fetch it again every five seconds. Every text that could have come from outside is
//! [`Shown`], and a policy in the header lets the browser run nothing but those few lines.

mod chart;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{Html, IntoResponse},
};
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};
use rustix::system::uname;
use serde::Deserialize;

use super::{
    Sources,
    api::{
        fleet,
        model::{
            Event, FleetMembership, Mapping, Problem, Session, Severity, Sort, Standing,
            Switchboard,
        },
        read, view,
    },
    health::problems,
};
use crate::{
    handover::version,
    session::SessionFilter,
    telemetry::Totals,
    units::{bytes, count, duration_ms, millis},
};
use tables::ROWS;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("refresh.js");

/// What the browser may do with the page: show it, and run the one script with this hash.
const POLICY: &str = concat!(
    "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; ",
    "form-action 'self'; frame-ancestors 'none'; script-src '",
    include_str!("refresh.js.sha256"),
    "'"
);

/// What of it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// Only rows with this text in them.
    q: String,
}

/// Answers with the page.
pub(super) async fn serve(
    State(sources): State<Arc<Sources>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> impl IntoResponse {
    let Asked { q } = asked.map(|Query(asked)| asked).unwrap_or_default();
    let mut sessions = Vec::new();
    let all = SessionFilter::default();
    (sources.workers)
        .list_sessions(&all, |session| sessions.push(session))
        .await;
    read::sort(&mut sessions, Sort::Bytes);
    let upgrades = &sources.shared.upgrade_marks;
    // Whoever searches does not look for the busiest.
    let wanted = if q.is_empty() { ROWS } else { sessions.len() };
    let busiest = sessions.iter().take(wanted);
    let busiest: Vec<Session> = busiest
        .map(|session| view::session(session, upgrades))
        .collect();
    let events = sources.events.after(0);
    let content = Content {
        search: q,
        host: uname().nodename().to_string_lossy().into_owned(),
        uptime_ms: millis(sources.started.0.elapsed()),
        sessions_limit: sources.shared.gate.max_sessions().into(),
        problems: problems(&sources),
        switchboard: view::switchboard(&sources),
        fleet: fleet::membership(&sources),
        history: sources.history.read(),
        mappings: view::mappings(&sources, None),
        total: sessions.len(),
        sessions: busiest,
        events: events.into_iter().rev().map(view::event).collect(),
    };
    let policy = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (policy, Html(content.page().into_string()))
}

/// What the page shows.
#[derive(Debug, Default)]
struct Content {
    search: String,
    host: String,
    uptime_ms: u64,
    sessions_limit: u64,
    problems: Vec<Problem>,
    switchboard: Option<Switchboard>,
    fleet: Option<FleetMembership>,
    history: Vec<Totals>,
    mappings: Vec<Mapping>,
    total: usize,
    /// The busiest of them, or all if there is a search.
    sessions: Vec<Session>,
    /// The latest first.
    events: Vec<Event>,
}

impl Content {
    fn page(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.headline()) " – tml-proxy on " (Shown(&self.host)) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        div { h1 { "tml-proxy" } " " span { (version()) " on " (Shown(&self.host)) } }
                        form role="search" {
                            input
                                type="search"
                                name="q"
                                value=(Shown(&self.search))
                                placeholder="Search names, addresses, states"
                                aria-label="Search";
                        }
                        nav { a href="metrics" { "metrics" } " " a href="api/v1/config" { "configuration" } }
                    }
                    main {
                        (self.problems())
                        (self.charts())
                        (self.mappings())
                        @if let Some(targets) = self.targets() {
                            (targets)
                        }
                        (self.sessions())
                        (self.events())
                    }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        }
    }

    fn headline(&self) -> &'static str {
        match self.problems.first().map(|problem| problem.severity) {
            Some(Severity::Error) => "Something is wrong",
            Some(Severity::Warning) => "Worth a look",
            Some(Severity::Note) | None => "All is well",
        }
    }

    /// The whole in a line.
    fn about(&self) -> String {
        let mut about = format!(
            "Up {}, {} of {} sessions, {}",
            duration_ms(self.uptime_ms),
            self.total,
            self.sessions_limit,
            count(self.mappings.len() as u64, "mapping")
        );
        let standing =
            |is: fn(&Mapping) -> bool| self.mappings.iter().filter(|one| is(one)).count();
        for (count, word) in [
            (
                standing(|one| one.standing() == Standing::Failing),
                "failing",
            ),
            (standing(|one| one.state == "paused"), "paused"),
            (standing(|one| one.state == "drained"), "drained"),
        ] {
            if count > 0 {
                about.push_str(&format!(", {count} {word}"));
            }
        }
        about
    }

    fn problems(&self) -> Markup {
        html! {
            section aria-labelledby="now" {
                h2 id="now" { (self.headline()) }
                p class="about" { (self.about()) }
                @if !self.problems.is_empty() {
                    ul class="problems" {
                        @for Problem { severity, text } in &self.problems {
                            li class=(severity.word()) {
                                b { (severity.word()) } " " (Shown(text))
                            }
                        }
                    }
                }
                @if let Some(switchboard) = &self.switchboard {
                    p {
                        "Switchboard: " (Shown(&switchboard.in_words()))
                        "; token: " (Shown(&switchboard.token_in_words()))
                        "; ports: " (switchboard.ports.in_words())
                    }
                }
                @if let Some(fleet) = &self.fleet {
                    p { "Fleet: " (Shown(&fleet.in_words())) }
                }
            }
        }
    }

    fn charts(&self) -> Markup {
        let rate = |total: fn(&Totals) -> u64| chart::rates(&self.history, total);
        let open = self.history.iter().map(|totals| totals.open as f64);
        let count = |value: f64| format!("{value:.0}");
        let few = |value: f64| format!("{value:.1}/s");
        let traffic = |value: f64| format!("{}/s", bytes(value as u64));
        html! {
            section class="lately" aria-labelledby="lately" {
                h2 id="lately" { "The last ten minutes" }
                div class="charts" {
                    (chart::line("Sessions open", &open.collect::<Vec<_>>(), count))
                    (chart::line("New sessions", &rate(|totals| totals.opened), few))
                    (chart::line("To targets", &rate(|totals| totals.bytes_up), traffic))
                    (chart::line("To clients", &rate(|totals| totals.bytes_down), traffic))
                    (chart::line("Refused", &rate(|totals| totals.refused), few))
                    (chart::line(
                        "Failed connections",
                        &rate(|totals| totals.connect_failures),
                        few,
                    ))
                }
            }
        }
    }
}

/// Text that could have come from outside: nothing in it is markup, hides or turns around.
struct Shown<'a>(&'a str);

impl Render for Shown<'_> {
    fn render_to(&self, page: &mut String) {
        let shown = |c: char| match c {
            // An error of several lines is shown as such.
            '\n' => c,
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        };
        let text: String = self.0.chars().map(shown).collect();
        text.render_to(page);
    }
}
