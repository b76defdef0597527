//! What `top` shows.

use super::{
    keys::Mode,
    state::{Focus, Rated, View},
};
use crate::{
    admin::api::model::{Mapping, Session, Standing},
    cli::output::{
        Align, Column, Paint, Screen, bytes, duration_ms, rate, severity, table, wrapped,
    },
    units::count,
};

/// Between two parts of a line.
const APART: &str = "   ";

const COLUMNS: usize = 10;

const MAPPINGS: [Column; COLUMNS] = [
    Column::new("MAPPING", Align::Name, 0),
    Column::new("STATE", Align::Left, 1),
    Column::new("LISTEN", Align::Left, 5),
    Column::new("TARGET", Align::Name, 4),
    Column::new("SESSIONS", Align::Right, 0),
    Column::new("NEW/s", Align::Right, 7),
    Column::new("REFUSED", Align::Right, 8),
    Column::new("FAILED", Align::Right, 6),
    Column::new("UP", Align::Right, 2),
    Column::new("DOWN", Align::Right, 2),
];

const SESSIONS: [Column; COLUMNS] = [
    Column::new("MAPPING", Align::Name, 0),
    Column::new("CLIENT", Align::Left, 0),
    Column::new("LISTEN", Align::Left, 8),
    Column::new("TARGET", Align::Name, 3),
    Column::new("SESSION", Align::Right, 4),
    Column::new("AGE", Align::Right, 5),
    Column::new("QUIET", Align::Right, 7),
    Column::new("BYTES", Align::Right, 6),
    Column::new("UP", Align::Right, 1),
    Column::new("DOWN", Align::Right, 1),
];

/// The lines of the whole screen.
pub(super) fn lines(view: &View, screen: &Screen, height: usize) -> Vec<String> {
    let mut lines = headline(view, screen);
    lines.extend(trouble(view, screen).into_iter().take(height / 4));
    let room = height.saturating_sub(lines.len() + 2);
    let of_mappings = match view.focus {
        Focus::Mappings => room - room / 3,
        Focus::Sessions => room / 3,
    };
    lines.extend(mappings(view, screen, of_mappings));
    lines.extend(sessions(view, screen, room - of_mappings));
    lines.truncate(height.saturating_sub(2));
    lines.push(screen.dim(&detail(view)));
    lines.push(last_line(view, screen));
    lines.split_off(lines.len().saturating_sub(height))
}

/// The screen as text, for where there is no terminal.
pub(super) fn as_text(view: &View, width: usize, height: usize) -> String {
    let lines = lines(view, &Screen::plain(width), height).into_iter();
    let cut = lines.map(|line| line.chars().take(width).chain(['\n']).collect::<String>());
    cut.collect()
}

/// What is selected, with what has no room in its row.
fn detail(view: &View) -> String {
    let of_mapping = |mapping: &Mapping| {
        let (state, listen, target) =
            (mapping.state_in_words(), mapping.listen(), mapping.target());
        format!("{}: {listen} to {target}, {state}", mapping.mapping)
    };
    let of_session = |session: &Session| {
        let Session {
            session,
            mapping,
            client,
            listen,
            target,
            stage,
            ..
        } = session;
        format!("session {session} of {mapping}: {client} at {listen} to {target}, {stage}")
    };
    let detail = match view.focus {
        Focus::Mappings => view.selected_mapping().map(of_mapping),
        Focus::Sessions => view.selected_session().map(of_session),
    };
    detail.unwrap_or_default()
}

/// A question, what came of the last order, the text of the filter, or what keys do.
fn last_line(view: &View, screen: &Screen) -> String {
    match (&view.mode, &view.said) {
        (Mode::Asking(action), _) => {
            let question = format!("{} y: yes, any other key: no", action.question);
            screen.paint(Paint::Warn, &question)
        }
        (Mode::Filtering, _) => format!("filter: {}_", view.filter),
        (Mode::Watching, Some(said)) => said.clone(),
        (Mode::Watching, None) => {
            let order = match view.focus {
                Focus::Mappings => view.mapping_order.word(),
                Focus::Sessions => view.session_order.word(),
            };
            let clock = if view.stopped { "go on" } else { "stop" };
            let mut keys = format!("q quit  s order: {order}  / filter");
            if !view.filter.is_empty() {
                keys.push_str(&format!(": {}", view.filter));
            }
            keys.push_str("  tab  k kill  p pause  d drain  r resume");
            screen.dim(&format!("{keys}  space {clock}"))
        }
    }
}

fn headline(view: &View, screen: &Screen) -> Vec<String> {
    let Some(round) = &view.round else {
        return vec!["waiting for the proxy".to_owned(), String::new()];
    };
    let (status, rates) = (&round.status.of, &round.status.rates);
    let memory = status.process.resident_bytes.map_or("?".to_owned(), bytes);
    let first = [
        format!("tml-proxy {}", status.version),
        format!("{} of {} sessions", status.sessions, status.sessions_limit),
        count(status.mappings, "mapping"),
        format!("running for {}", duration_ms(status.uptime_ms)),
    ];
    let second = [
        format!("up {}", rate(rates.up)),
        format!("down {}", rate(rates.down)),
        format!("{:.1} new/s", rates.opened.unwrap_or_default()),
        format!("pipes {} of {}", status.pipes.in_use, status.pipes.limit),
        format!("memory {memory}"),
    ];
    let first = screen.paint(Paint::Strong, &whole(&first, screen.width));
    vec![first, whole(&second, screen.width)]
}

/// As many of the parts as fit whole, so that no number is cut.
fn whole(parts: &[String], width: usize) -> String {
    let joined = (1..=parts.len())
        .rev()
        .map(|count| parts[..count].join(APART));
    let mut fitting = joined.filter(|line| line.chars().count() <= width);
    fitting.next().unwrap_or_default()
}

fn trouble(view: &View, screen: &Screen) -> Vec<String> {
    let unanswered = match (view.overdue, &view.trouble) {
        (Some(overdue), _) => format!("no answer for {overdue}s"),
        (None, Some(trouble)) => format!("no answer: {trouble}"),
        (None, None) => String::new(),
    };
    let unanswered = wrapped(&unanswered, screen.width, 0);
    let mut lines: Vec<String> = (unanswered.lines())
        .map(|line| screen.paint(Paint::Bad, line))
        .collect();
    for problem in view
        .round
        .iter()
        .flat_map(|round| &round.status.of.problems)
    {
        // A reload's errors may have many lines; the first says where to look.
        let text = problem.text.lines().next().unwrap_or_default();
        let told = format!("{}: {text}", severity(screen, problem.severity));
        lines.extend(wrapped(&told, screen.width, 0).lines().map(str::to_owned));
    }
    lines
}

/// What is shown of a list: its rows from some place on, with how each looks.
struct Rows {
    /// How many there are, and how many of them are before what is shown.
    total: usize,
    before: usize,
    shown: Vec<([String; COLUMNS], Option<Paint>)>,
}

impl Rows {
    /// As many as there is room for, the selected one among them.
    fn of<'a, T: 'a>(
        all: impl Iterator<Item = &'a Rated<T>>,
        selected: Option<usize>,
        room: usize,
        row: impl Fn(&Rated<T>) -> ([String; COLUMNS], Option<Paint>),
    ) -> Self {
        let all: Vec<_> = all.collect();
        let total = all.len();
        let place = selected.unwrap_or_default();
        let before = place
            .saturating_sub(room / 2)
            .min(total.saturating_sub(room));
        let shown = all.iter().enumerate().skip(before).take(room);
        let shown = shown.map(|(place, one)| match row(one) {
            (cells, _) if selected == Some(place) => (cells, Some(Paint::Selected)),
            row => row,
        });
        Self {
            shown: shown.collect(),
            total,
            before,
        }
    }
}

/// A title, and a table of as many rows as there is room for.
fn listing(
    view: &View,
    screen: &Screen,
    height: usize,
    (focus, title, total): (Focus, &str, usize),
    columns: &[Column; COLUMNS],
    rows: &Rows,
) -> Vec<String> {
    let mark = if view.focus == focus { "> " } else { "  " };
    let mut title = screen.paint(Paint::Strong, &format!("{mark}{title}"));
    let total = if view.filter.is_empty() {
        total
    } else {
        rows.total
    };
    let mut left = Vec::new();
    if rows.before > 0 {
        left.push(format!("{} above", rows.before));
    }
    let below = total.saturating_sub(rows.before + rows.shown.len());
    if below > 0 {
        left.push(format!("and {below} more"));
    }
    if !left.is_empty() {
        title.push_str(&screen.dim(&format!("{APART}{}", left.join(", "))));
    }
    let cells = rows.shown.iter().map(|(cells, _)| cells.clone());
    let table = table(columns, cells, screen);
    let mut table = table.lines();
    let mut lines = vec![title];
    lines.extend(table.next().map(str::to_owned));
    let paints = rows.shown.iter().map(|(_, paint)| *paint);
    lines.extend(table.zip(paints).map(|(line, paint)| match paint {
        Some(Paint::Selected) => {
            let width = screen.width.min(500);
            screen.paint(Paint::Selected, &format!("{line:width$}"))
        }
        Some(paint) => screen.paint(paint, line),
        None => line.to_owned(),
    }));
    lines.resize(height, String::new());
    lines
}

fn mappings(view: &View, screen: &Screen, height: usize) -> Vec<String> {
    let room = height.saturating_sub(2);
    let rows = Rows::of(view.mappings(), view.mapping_place(), room, |one| {
        let Rated { of: mapping, rates } = one;
        let (state, paint) = match mapping.standing() {
            Standing::Failing => ("failing".to_owned(), Some(Paint::Bad)),
            Standing::Impaired => ("impaired".to_owned(), Some(Paint::Warn)),
            Standing::Held => (held(mapping), Some(Paint::Warn)),
            Standing::Serving => (mapping.state.clone(), None),
        };
        let cells = [
            mapping.mapping.clone(),
            state,
            mapping.listen(),
            mapping.target(),
            mapping.sessions.to_string(),
            format!("{:.1}", rates.opened.unwrap_or_default()),
            mapping.refused().to_string(),
            mapping.failed().to_string(),
            steady(rates.up),
            steady(rates.down),
        ];
        (cells, paint)
    });
    let all = view.round.as_ref().map_or(0, |round| round.mappings.len());
    let title = (Focus::Mappings, "Mappings", all);
    listing(view, screen, height, title, &MAPPINGS, &rows)
}

/// What an operator did to a mapping, and for how long its sessions go on.
fn held(mapping: &Mapping) -> String {
    match mapping.sessions_end_in_ms {
        Some(time) if mapping.sessions > 0 => format!("{} {}", mapping.state, duration_ms(time)),
        _ => mapping.state.clone(),
    }
}

fn sessions(view: &View, screen: &Screen, height: usize) -> Vec<String> {
    let room = height.saturating_sub(2);
    let rows = Rows::of(view.sessions(), view.session_place(), room, |one| {
        let Rated { of: session, rates } = one;
        let cells = [
            session.mapping.clone(),
            session.client.clone(),
            session.listen.clone(),
            session.target.clone(),
            session.session.to_string(),
            duration_ms(session.duration_ms),
            duration_ms(session.quiet_ms),
            bytes(session.bytes_up + session.bytes_down),
            steady(rates.up),
            steady(rates.down),
        ];
        (cells, None)
    });
    let total = view.round.as_ref().map_or(0, |round| round.sessions_total);
    let total = usize::try_from(total).map_or(usize::MAX, |total| total.max(rows.total));
    let title = (Focus::Sessions, "Sessions", total);
    listing(view, screen, height, title, &SESSIONS, &rows)
}

/// A rate as wide as any, so that columns stay where they are while it changes.
fn steady(bytes_per_second: f64) -> String {
    format!("{:>6}", rate(bytes_per_second))
}

#[cfg(test)]
mod tests {
    use super::{
        super::state::tests::{NUMBERS, crowded, view},
        *,
    };

    #[test]
    fn the_screen_shows_the_busiest_first() {
        let screen = as_text(&view(), 96, 16);
        let lines: Vec<&str> = screen.lines().collect();
        assert!(lines[0].contains("3 of 100 sessions"), "{screen}");
        assert!(lines[1].starts_with("up 10K/s   down 0/s"), "{screen}");
        let first = lines
            .iter()
            .position(|line| line.contains("CLIENT"))
            .expect("a head")
            + 1;
        let row: Vec<&str> = lines[first].split_whitespace().collect();
        assert_eq!(
            &row[..3],
            ["board-14", "203.0.113.2:50000", "[fd9d::10]:22"],
            "{screen}"
        );
        assert_eq!(&row[row.len() - 2..], ["10K/s", "0/s"], "{screen}");
        assert!(
            lines
                .last()
                .is_some_and(|line| line.starts_with("q quit  s order: trouble")),
            "{screen}"
        );
    }

    #[test]
    fn the_smallest_screen_is_drawn_too() {
        for (width, height) in [(1, 1), (20, 3), (200, 60)] {
            as_text(&view(), width, height);
            as_text(&View::default(), width, height);
        }
    }

    #[test]
    fn a_clients_port_is_whole_on_a_usual_terminal() {
        let screen = as_text(&crowded(), 80, 24);
        assert!(screen.contains("127.200.200.200:50000 "), "{screen}");
        assert!(screen.contains("and 36 more"), "{screen}");
        let mut view = crowded();
        let sessions = view.round.iter_mut().flat_map(|round| &mut round.sessions);
        sessions
            .zip(0..)
            .for_each(|(session, number)| session.of.session = number);
        view.turn();
        view.go(isize::MAX);
        let screen = as_text(&view, 80, 24);
        assert!(screen.contains("> Sessions   28 above\n"), "{screen}");
    }

    #[test]
    fn a_number_is_whole_or_not_there() {
        let known = |cell: &str| {
            let number = cell.trim_end_matches("/s");
            let is_number = number.starts_with(|c: char| c.is_ascii_digit())
                && !number.contains([':', '.', '-']);
            !is_number || NUMBERS.contains(&number)
        };
        for width in 20..120 {
            let screen = as_text(&crowded(), width, 24);
            let rows = screen.lines().filter(|line| line.starts_with("board"));
            for row in rows {
                assert!(row.split_whitespace().all(known), "{width}: {screen}");
            }
            assert!(!screen.contains("ONS /s"), "{width}: {screen}");
        }
    }

    #[test]
    fn a_long_reason_is_read_to_its_end_on_a_narrow_screen() {
        let mut view = view();
        let reason = "/run/tml-proxy/admin.sock: it is not there, is the proxy running?";
        view.trouble = Some(reason.to_owned());
        let screen = as_text(&view, 40, 24);
        assert!(screen.contains("running?"), "{screen}");
    }
}
