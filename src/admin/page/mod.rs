//! The status page: everything at a glance, for people with a browser.
//!
//! One document without any other file. It works without scripts, the search included; where they
//! run, a few lines fetch it again every five seconds. Every text that could have come from outside is
//! [`Shown`], and a policy in the header lets the browser run nothing but those few lines.

mod chart;

use std::{cmp::Reverse, sync::Arc};

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
    units::{bytes, count, duration_ms, millis, rate},
};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("refresh.js");

/// What the browser may do with the page: show it, and run the one script with this hash.
const POLICY: &str = concat!(
    "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; ",
    "form-action 'self'; frame-ancestors 'none'; script-src '",
    include_str!("refresh.js.sha256"),
    "'"
);

/// Rows of each table; the command line has the rest.
const ROWS: usize = 50;

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

/// A row of a table.
struct Row<const COLUMNS: usize> {
    cells: [String; COLUMNS],
    /// Whether something is wrong with it.
    mark: Option<&'static str>,
}

impl<const COLUMNS: usize> Row<COLUMNS> {
    fn plain(cells: [String; COLUMNS]) -> Self {
        Self { cells, mark: None }
    }
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

    /// What needs attention first, then the busiest.
    fn mappings(&self) -> Markup {
        let heads = [
            "~Mapping",
            "~State",
            "+Listen",
            "+Target",
            "#Sessions",
            "#New/s",
            "#Refused",
            "#Failed",
            "#Up/s",
            "#Down/s",
            "#Up",
            "#Down",
        ];
        let mut ordered: Vec<(Standing, &Mapping)> = (self.mappings.iter())
            .map(|mapping| (mapping.standing(), mapping))
            .collect();
        ordered.sort_by_key(|(standing, mapping)| (*standing, Reverse(mapping.sessions)));
        let rows = ordered.into_iter().map(|(standing, mapping)| Row {
            cells: [
                mapping.mapping.clone(),
                mapping.state_in_words(),
                mapping.listen(),
                leads_to(mapping),
                mapping.sessions.to_string(),
                format!("{:.1}", mapping.rates.opened_per_second),
                mapping.refused().to_string(),
                mapping.failed().to_string(),
                rate(mapping.rates.bytes_up_per_second),
                rate(mapping.rates.bytes_down_per_second),
                bytes(mapping.bytes_up),
                bytes(mapping.bytes_down),
            ],
            mark: match standing {
                Standing::Failing => Some("bad"),
                Standing::Impaired | Standing::Held => Some("warn"),
                Standing::Serving => None,
            },
        });
        self.table("Mappings", self.mappings.len(), heads, rows)
    }

    /// The targets of mappings that have several, those first that are down.
    fn targets(&self) -> Option<Markup> {
        let heads = [
            "~Mapping",
            "Target",
            "State",
            "#Weight",
            "#Sessions",
            "#Opened",
            "#Failed",
        ];
        let each = self.mappings.iter().flat_map(|mapping| {
            let targets = mapping.targets.iter();
            targets.map(move |target| (target.state == "down", mapping, target))
        });
        let mut each: Vec<_> = each.collect();
        each.sort_by_key(|(is_down, ..)| Reverse(*is_down));
        let count = each.len();
        let rows = each.into_iter().map(|(is_down, mapping, target)| Row {
            cells: [
                mapping.mapping.clone(),
                match target.backup {
                    true => format!("{} (backup)", target.target),
                    false => target.target.clone(),
                },
                target.state.clone(),
                target.weight.to_string(),
                target.sessions.to_string(),
                target.opened.to_string(),
                target.connect_failures.to_string(),
            ],
            mark: is_down.then_some("bad"),
        });
        (count > 0).then(|| self.table("Targets", count, heads, rows))
    }

    fn sessions(&self) -> Markup {
        let heads = [
            "#Session", "~Mapping", "Client", "Target", "Stage", "#Age", "#Quiet", "#Up", "#Down",
        ];
        let rows = self.sessions.iter().map(|session| {
            Row::plain([
                session.session.to_string(),
                session.mapping.clone(),
                session.client.clone(),
                session.target.clone(),
                session.stage.clone(),
                duration_ms(session.duration_ms),
                duration_ms(session.quiet_ms),
                bytes(session.bytes_up),
                bytes(session.bytes_down),
            ])
        });
        self.table("Live sessions", self.total, heads, rows)
    }

    fn events(&self) -> Markup {
        let rows = self.events.iter().map(|event| {
            let fields = event.fields.iter();
            let fields: Vec<_> = fields
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            Row {
                cells: [
                    event.at.clone(),
                    event.level.clone(),
                    event.message.clone(),
                    fields.join(" "),
                ],
                mark: match event.level.as_str() {
                    "error" => Some("bad"),
                    "warn" => Some("warn"),
                    _ => None,
                },
            }
        });
        let heads = ["Time", "Level", "~Event", "~Particulars"];
        self.table("Events", self.events.len(), heads, rows)
    }

    /// A section with a table of the first rows, or of those searched for. A head that begins with `#`
    /// is that of a column of numbers, with `~` that of text that may have several lines, with `+` that of
    /// addresses, each of which stays whole.
    fn table<const COLUMNS: usize>(
        &self,
        title: &str,
        total: usize,
        heads: [&str; COLUMNS],
        rows: impl Iterator<Item = Row<COLUMNS>>,
    ) -> Markup {
        let id = title.to_lowercase().replace(' ', "-");
        let wanted = self.search.to_lowercase();
        let is_found = |row: &Row<COLUMNS>| {
            let mut cells = row.cells.iter();
            cells.any(|cell| cell.to_lowercase().contains(&wanted))
        };
        let (found, rows): (usize, Vec<_>) = match wanted.is_empty() {
            true => (total, rows.take(ROWS).collect()),
            false => {
                let mut rows: Vec<_> = rows.filter(is_found).collect();
                let found = rows.len();
                rows.truncate(ROWS);
                (found, rows)
            }
        };
        let class = |head: &str| match head.as_bytes().first() {
            Some(b'#') => Some("number"),
            Some(b'~') => Some("text"),
            Some(b'+') => Some("list"),
            _ => None,
        };
        html! {
            // No landmark of its own: the table in it is one, of the same name.
            section {
                h2 id=(id) {
                    (title) " "
                    small {
                        @if !wanted.is_empty() { (found) " of " }
                        (total)
                    }
                }
                @if rows.is_empty() {
                    p { "None." }
                } @else {
                    // Wide tables scroll by themselves; the keyboard has to reach them for that.
                    div class="scroll" tabindex="0" role="region" aria-labelledby=(id) {
                        table {
                            thead {
                                tr {
                                    @for head in heads {
                                        th scope="col" class=[class(head)] {
                                            (head.trim_start_matches(['#', '~', '+']))
                                        }
                                    }
                                }
                            }
                            tbody {
                                @for Row { cells, mark } in &rows {
                                    tr class=[mark] {
                                        @for (place, (head, cell)) in heads.iter().zip(cells).enumerate() {
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
                    @if rows.len() < found {
                        p {
                            "And " (found - rows.len()) " more: search for them, or "
                            code { "tml-proxy" } " lists them all."
                        }
                    }
                }
            }
        }
    }
}

/// Where a mapping leads: of many targets the first, all of them having a table of their own.
fn leads_to(mapping: &Mapping) -> String {
    match &mapping.targets[..] {
        [one, two, three, others @ ..] if !others.is_empty() => {
            let first = [one, two, three].map(|target| target.target.as_str());
            format!("{} and {} more", first.join(", "), others.len())
        }
        _ => mapping.target(),
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
    use crate::admin::api::model::Target;

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
            search: String::new(),
            host: text.to_owned(),
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
            events: vec![Event {
                message: text.to_owned(),
                fields: [(text.to_owned(), text.to_owned())].into(),
                ..Event::default()
            }],
            ..Content::default()
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
        for reference in ["src=", "<link", "url(", "@import"] {
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
        assert!(
            page.contains("<th scope=\"row\" class=\"text\">board-14</th>"),
            "{page}"
        );
    }

    #[test]
    fn events_that_are_left_out_are_counted() {
        let many = Content {
            events: vec![Event::default(); 256],
            ..content("m")
        };
        let page = many.page().into_string();
        assert!(page.contains("Events <small>256</small>"), "{page}");
        assert!(page.contains("And 206 more"), "{page}");
    }

    /// 300 mappings of which 43 are dead, one is paused and one drained, and those have no sessions.
    fn crowd() -> Content {
        let mapping = |number: u64| {
            let serving = Mapping {
                mapping: format!("job/0000{number:04}-0000-4000-8000-000000000000/ssh"),
                state: "accepting".to_owned(),
                sessions: number,
                ..Mapping::default()
            };
            match number % 7 {
                6 => Mapping {
                    mapping: format!("dead-{number:03}"),
                    failing: Some("connection refused, 3s ago".to_owned()),
                    sessions: 0,
                    ..serving
                },
                _ => serving,
            }
        };
        let mut mappings: Vec<_> = (0..301).map(mapping).collect();
        (mappings[0].state, mappings[1].state) = ("paused".to_owned(), "drained".to_owned());
        mappings[1].sessions_end_in_ms = Some(61_000);
        Content {
            mappings,
            ..Content::default()
        }
    }

    #[test]
    fn what_needs_attention_comes_before_what_is_busy() {
        let page = crowd().page().into_string();
        let rows: Vec<&str> = page.split("<tr").collect();
        let marked = |rows: &[&str], mark| rows.iter().filter(|row| row.starts_with(mark)).count();
        assert_eq!(marked(&rows, " class=\"bad\""), 43);
        let first: Vec<&str> = rows.iter().skip(2).take(45).copied().collect();
        assert_eq!(marked(&first, " class=\"bad\""), 43, "{page}");
        assert_eq!(marked(&first, " class=\"warn\""), 2, "{page}");
        for text in [
            "301 mappings, 43 failing, 1 paused, 1 drained",
            "drained, 1 left for 1m 01s",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(page.contains("And 251 more"), "{page}");
        assert!(page.len() < 40_000, "{}", page.len());
    }

    #[test]
    fn a_search_finds_what_is_not_among_the_first_rows() {
        let found = |text: &str| {
            let search = text.to_owned();
            let page = Content { search, ..crowd() }.page().into_string();
            let (_, rows) = page.split_once("<tbody>").unwrap_or_default();
            (page.contains("of 301<"), rows.matches("<tr").count())
        };
        assert_eq!(found("00000002-"), (true, 1));
        assert_eq!(found("Dead-0"), (true, 14));
        assert_eq!(found("paused"), (true, 1));
        assert_eq!(found("<b>"), (true, 0));
    }

    #[test]
    fn a_mapping_with_many_targets_takes_no_more_room_than_others() {
        let target = |number| Target {
            target: format!("192.0.2.{number}:22"),
            ..Target::default()
        };
        let mapping = Mapping {
            targets: (1..=200).map(target).collect(),
            ..Mapping::default()
        };
        let first = "192.0.2.1:22, 192.0.2.2:22, 192.0.2.3:22 and 197 more";
        assert_eq!(leads_to(&mapping), first);
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
