//! The status page: everything at a glance, for people with a browser.
//!
//! One document without any other file. It works without scripts; where they run, a few lines
//! fetch it again every five seconds. Every text that could have come from outside is [`Shown`], and a
//! policy in the header lets the browser run nothing but those few lines.

mod chart;

use std::{cmp::Reverse, sync::Arc};

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse},
};
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

use super::{
    Sources,
    api::{
        model::{Event, Mapping, Problem, Session, Severity, Sort, Switchboard},
        read, view,
    },
    health::problems,
};
use crate::{
    handover::version,
    session::SessionFilter,
    telemetry::Totals,
    units::{bytes, duration_ms},
};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("refresh.js");

/// What the browser may do with the page: show it, and run the one script with this hash.
const POLICY: &str = concat!(
    "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; ",
    "form-action 'none'; frame-ancestors 'none'; script-src '",
    include_str!("refresh.js.sha256"),
    "'"
);

/// Rows of each table; the command line has the rest.
const ROWS: usize = 50;

/// Answers with the page.
pub(super) async fn serve(State(sources): State<Arc<Sources>>) -> impl IntoResponse {
    let mut sessions = Vec::new();
    let all = SessionFilter::default();
    (sources.workers)
        .list_sessions(&all, |session| sessions.push(session))
        .await;
    read::sort(&mut sessions, Sort::Bytes);
    let upgrades = &sources.shared.upgrade_marks;
    let busiest = sessions.iter().take(ROWS);
    let busiest: Vec<Session> = busiest
        .map(|session| view::session(session, upgrades))
        .collect();
    let events = sources.events.after(0);
    let content = Content {
        problems: problems(&sources),
        switchboard: view::switchboard(&sources),
        history: sources.history.read(),
        mappings: view::mappings(&sources, None),
        total: sessions.len(),
        sessions: busiest,
        kept: events.len(),
        events: (events.into_iter().rev().take(ROWS))
            .map(view::event)
            .collect(),
    };
    let policy = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (policy, Html(content.page().into_string()))
}

/// What the page shows.
struct Content {
    problems: Vec<Problem>,
    switchboard: Option<Switchboard>,
    history: Vec<Totals>,
    mappings: Vec<Mapping>,
    total: usize,
    sessions: Vec<Session>,
    /// All events there are, of which `events` are the latest.
    kept: usize,
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
                    title { (self.headline()) " – tml-proxy" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header { h1 { "tml-proxy" } " " span { (version()) } }
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

    fn problems(&self) -> Markup {
        html! {
            section aria-labelledby="now" {
                h2 id="now" { (self.headline()) }
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
            section aria-labelledby="lately" {
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

    fn mappings(&self) -> Markup {
        let heads = [
            "Mapping",
            "State",
            "Listen",
            "Target",
            "#Sessions",
            "#Opened",
            "#Refused",
            "#Failed",
            "#Up",
            "#Down",
        ];
        let mut busiest: Vec<&Mapping> = self.mappings.iter().collect();
        busiest.sort_by_key(|mapping| Reverse(mapping.sessions));
        let rows = busiest.iter().take(ROWS).map(|mapping| {
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
        });
        table("Mappings", self.mappings.len(), heads, rows)
    }

    /// The targets of mappings that have several.
    fn targets(&self) -> Option<Markup> {
        let heads = [
            "Mapping",
            "Target",
            "State",
            "#Weight",
            "#Sessions",
            "#Opened",
            "#Failed",
        ];
        let each = self.mappings.iter().flat_map(|mapping| {
            let targets = mapping.targets.iter();
            targets.map(move |target| (mapping, target))
        });
        let rows = each.clone().take(ROWS).map(|(mapping, target)| {
            let backup = if target.backup { " (backup)" } else { "" };
            [
                mapping.mapping.clone(),
                format!("{}{backup}", target.target),
                target.state.clone(),
                target.weight.to_string(),
                target.sessions.to_string(),
                target.opened.to_string(),
                target.connect_failures.to_string(),
            ]
        });
        let rows: Vec<_> = rows.collect();
        let count = each.count();
        (count > 0).then(|| table("Targets", count, heads, rows.into_iter()))
    }

    fn sessions(&self) -> Markup {
        let heads = [
            "#Session", "Mapping", "Client", "Target", "Stage", "#Age", "#Quiet", "#Up", "#Down",
        ];
        let rows = self.sessions.iter().map(|session| {
            [
                session.session.to_string(),
                session.mapping.clone(),
                session.client.clone(),
                session.target.clone(),
                session.stage.clone(),
                duration_ms(session.duration_ms),
                duration_ms(session.quiet_ms),
                bytes(session.bytes_up),
                bytes(session.bytes_down),
            ]
        });
        table("Live sessions", self.total, heads, rows)
    }

    fn events(&self) -> Markup {
        let rows = self.events.iter().map(|event| {
            let fields = event.fields.iter();
            let fields: Vec<_> = fields
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            [
                event.at.clone(),
                event.level.clone(),
                event.message.clone(),
                fields.join(" "),
            ]
        });
        let heads = ["Time", "Level", "Event", "Particulars"];
        table("Events", self.kept, heads, rows)
    }
}

/// A section with a table. A head that begins with `#` is that of a column of numbers.
fn table<const COLUMNS: usize>(
    title: &str,
    total: usize,
    heads: [&str; COLUMNS],
    rows: impl ExactSizeIterator<Item = [String; COLUMNS]>,
) -> Markup {
    let id = title.to_lowercase().replace(' ', "-");
    let shown = rows.len();
    let class = |head: &str| head.starts_with('#').then_some("number");
    html! {
        // No landmark of its own: the table in it is one, of the same name.
        section {
            h2 id=(id) { (title) " " small { (total) } }
            @if shown == 0 {
                p { "None." }
            } @else {
                // Wide tables scroll by themselves; the keyboard has to reach them for that.
                div class="scroll" tabindex="0" role="region" aria-labelledby=(id) {
                    table {
                        thead {
                            tr {
                                @for head in heads {
                                    th scope="col" class=[class(head)] {
                                        (head.trim_start_matches('#'))
                                    }
                                }
                            }
                        }
                        tbody {
                            @for row in rows {
                                tr {
                                    @for (place, (head, cell)) in heads.iter().zip(&row).enumerate() {
                                        @if place == 0 {
                                            th scope="row" class=[class(head)] { (Shown(cell)) }
                                        } @else {
                                            td class=[class(head)] { (Shown(cell)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                @if shown < total {
                    p { "And " (total - shown) " more: " code { "tml-proxy" } " lists them all." }
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

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "<script>alert(1)</script>\"'&";

    fn content(text: &str) -> Content {
        Content {
            problems: vec![Problem {
                severity: Severity::Error,
                text: text.to_owned(),
            }],
            switchboard: Some(Switchboard {
                state: text.to_owned(),
                ..Switchboard::default()
            }),
            history: vec![Totals::default(); 3],
            mappings: vec![Mapping {
                mapping: text.to_owned(),
                state: text.to_owned(),
                ..Mapping::default()
            }],
            total: 1,
            sessions: vec![Session {
                mapping: text.to_owned(),
                client: text.to_owned(),
                ..Session::default()
            }],
            kept: 1,
            events: vec![Event {
                message: text.to_owned(),
                fields: [(text.to_owned(), text.to_owned())].into(),
                ..Event::default()
            }],
        }
    }

    #[test]
    fn names_from_outside_are_text_wherever_they_appear() {
        let page = content(EVIL).page().into_string();
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(
            page.matches("&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;")
                .count()
                >= 8
        );
    }

    #[test]
    fn the_page_needs_no_other_file() {
        let page = content("m").page().into_string();
        for reference in ["src=", "href=", "url(", "@import"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn trouble_is_in_the_title_and_at_the_top() {
        let page = content("A reload failed.").page().into_string();
        assert!(page.contains("<title>Something is wrong"), "{page}");
        let place = |text: &str| page.find(text).expect("it is there");
        assert!(place("A reload failed.") < place("The last ten minutes"));
    }

    #[test]
    fn a_screen_reader_finds_each_table_once_and_the_name_of_each_row() {
        let page = content("board-14").page().into_string();
        for id in ["mappings", "live-sessions", "events"] {
            let label = format!("aria-labelledby=\"{id}\"");
            assert_eq!(page.matches(&label).count(), 1, "{id}: {page}");
        }
        assert!(page.contains("<th scope=\"row\">board-14</th>"), "{page}");
    }

    #[test]
    fn events_that_are_left_out_are_counted() {
        let many = Content {
            kept: 256,
            events: vec![Event::default(); ROWS],
            ..content("m")
        };
        let page = many.page().into_string();
        assert!(page.contains("Events <small>256</small>"), "{page}");
        assert!(page.contains("And 206 more"), "{page}");
    }

    #[test]
    fn text_that_hides_or_turns_around_is_shown_as_such() {
        let shown = |text: &str| Shown(text).render().into_string();
        for c in ['\0', '\x1b', '\r', '\u{202e}', '\u{2066}', '\u{2069}'] {
            assert_eq!(shown(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
        }
        // An error of several lines keeps them.
        assert_eq!(shown("line 1\n  | ^"), "line 1\n  | ^");
    }
}
