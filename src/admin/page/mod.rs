//! The status page: everything at a glance, for people with a browser.
//!
//! One document without any other file. It works without scripts; where they run, a few lines
//! fetch it again every five seconds. Every text that could have come from outside is escaped where
//! it is written ([`html`]), and a policy in the header lets the browser run nothing but those few
//! lines.

mod chart;
mod html;

use std::{fmt::Write, sync::Arc};

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse},
};

use super::{Sources, api::view, health::problems};
use crate::{
    admin::api::model::{Event, Mapping, Problem, Session, Severity, Switchboard},
    session::SessionFilter,
    telemetry::Totals,
    units::{bytes, duration_ms},
};
use chart::Chart;
use html::escaped;

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
    sessions.sort_by_key(|session| std::cmp::Reverse(session.bytes_up + session.bytes_down));
    let busiest: Vec<Session> = sessions.iter().take(ROWS).map(view::session).collect();
    let events = sources.events.after(0);
    let content = Content {
        problems: problems(&sources),
        switchboard: view::switchboard(&sources),
        history: sources.history.read(),
        mappings: view::mappings(&sources),
        total: sessions.len(),
        sessions: busiest,
        kept: events.len(),
        events: (events.into_iter().rev().take(ROWS))
            .map(view::event)
            .collect(),
    };
    let policy = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (policy, Html(content.page()))
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
    fn page(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{} – tml-proxy</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header><h1>tml-proxy</h1> <span>{version}</span></header>\n<main>\n",
            self.headline()
        );
        // Writing to a string cannot fail, here and below.
        let _ = self.write(&mut page);
        page.push_str("</main>\n<script>");
        page.push_str(SCRIPT);
        page.push_str("</script>\n</body>\n</html>\n");
        page
    }

    fn headline(&self) -> &'static str {
        match self.problems.first().map(|problem| problem.severity) {
            Some(Severity::Error) => "Something is wrong",
            Some(Severity::Warning) => "Worth a look",
            Some(Severity::Note) | None => "All is well",
        }
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        self.problems(page)?;
        self.charts(page)?;
        self.mappings(page)?;
        self.sessions(page)?;
        self.events(page)
    }

    fn problems(&self, page: &mut String) -> std::fmt::Result {
        let headline = self.headline();
        write!(
            page,
            "<section aria-labelledby=\"now\">\n<h2 id=\"now\">{headline}</h2>\n"
        )?;
        if !self.problems.is_empty() {
            page.push_str("<ul class=\"problems\">\n");
            for problem in &self.problems {
                let word = match problem.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                    Severity::Note => "note",
                };
                let text = escaped(&problem.text);
                writeln!(page, "<li class=\"{word}\"><b>{word}</b> {text}</li>")?;
            }
            page.push_str("</ul>\n");
        }
        if let Some(switchboard) = &self.switchboard {
            let line = escaped(&switchboard.in_words());
            let token = escaped(&switchboard.token_in_words());
            let ports = switchboard.ports.in_words();
            writeln!(
                page,
                "<p>Switchboard: {line}; token: {token}; ports: {ports}</p>"
            )?;
        }
        page.push_str("</section>\n");
        Ok(())
    }

    fn charts(&self, page: &mut String) -> std::fmt::Result {
        page.push_str(
            "<section aria-labelledby=\"lately\">\n<h2 id=\"lately\">The last ten minutes</h2>\n\
             <div class=\"charts\">\n",
        );
        let rate = |total: fn(&Totals) -> u64| chart::rates(&self.history, total);
        let per_second = |value: f64| format!("{}/s", bytes(value as u64));
        let number = |value: f64| format!("{value:.0}");
        let small = |value: f64| format!("{value:.1}/s");
        let open = self
            .history
            .iter()
            .map(|totals| totals.open as f64)
            .collect();
        for chart in [
            Chart::new("Sessions open", open, &number),
            Chart::new("New sessions", rate(|totals| totals.opened), &small),
            Chart::new("To targets", rate(|totals| totals.bytes_up), &per_second),
            Chart::new("To clients", rate(|totals| totals.bytes_down), &per_second),
            Chart::new("Refused", rate(|totals| totals.refused), &small),
            Chart::new(
                "Failed connections",
                rate(|totals| totals.connect_failures),
                &small,
            ),
        ] {
            chart.write(page)?;
        }
        page.push_str("</div>\n</section>\n");
        Ok(())
    }

    fn mappings(&self, page: &mut String) -> std::fmt::Result {
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
        busiest.sort_by_key(|mapping| std::cmp::Reverse(mapping.sessions));
        let rows = busiest.iter().take(ROWS).map(|mapping| {
            let route = mapping.routes.first();
            let more = match mapping.routes.len() {
                0 | 1 => String::new(),
                count => format!(" +{}", count - 1),
            };
            let part = |text: Option<&String>| format!("{}{more}", text.map_or("", |text| text));
            vec![
                mapping.mapping.clone(),
                mapping.state.clone(),
                part(route.map(|route| &route.listen)),
                part(route.map(|route| &route.target)),
                mapping.sessions.to_string(),
                mapping.opened.to_string(),
                mapping.refused().to_string(),
                mapping.failed().to_string(),
                bytes(mapping.bytes_up),
                bytes(mapping.bytes_down),
            ]
        });
        html::table(page, "Mappings", self.mappings.len(), &heads, rows)
    }

    fn sessions(&self, page: &mut String) -> std::fmt::Result {
        let heads = [
            "#Session", "Mapping", "Client", "Target", "Stage", "#Age", "#Quiet", "#Up", "#Down",
        ];
        let rows = self.sessions.iter().map(|session| {
            vec![
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
        html::table(page, "Live sessions", self.total, &heads, rows)
    }

    fn events(&self, page: &mut String) -> std::fmt::Result {
        let rows = self.events.iter().map(|event| {
            let fields = event
                .fields
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            vec![
                event.at.clone(),
                event.level.clone(),
                event.message.clone(),
                fields.collect::<Vec<_>>().join(" "),
            ]
        });
        html::table(
            page,
            "Events",
            self.kept,
            &["Time", "Level", "Event", "Particulars"],
            rows,
        )
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
        let page = content(EVIL).page();
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(
            page.matches("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;")
                .count()
                >= 8
        );
    }

    #[test]
    fn the_page_needs_no_other_file() {
        let page = content("m").page();
        for reference in ["src=", "href=", "url(", "@import"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn trouble_is_in_the_title_and_at_the_top() {
        let page = content("A reload failed.").page();
        assert!(page.contains("<title>Something is wrong"), "{page}");
        let place = |text: &str| page.find(text).expect("it is there");
        assert!(place("A reload failed.") < place("The last ten minutes"));
    }

    #[test]
    fn a_screen_reader_finds_each_table_once_and_the_name_of_each_row() {
        let page = content("board-14").page();
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
        let page = many.page();
        assert!(page.contains("Events <small>256</small>"), "{page}");
        assert!(page.contains("And 206 more"), "{page}");
    }
}
