//! What `top` shows.

use super::state::{Rated, View};
use crate::{
    cli::output::{
        Align, Column, Paint, Screen, bytes, duration_ms, rate, severity, table, wrapped,
    },
    units::count,
};

/// Between two parts of a line.
const APART: &str = "   ";

const COLUMNS: usize = 8;

const MAPPINGS: [Column; COLUMNS] = [
    Column::new("MAPPING", Align::Name, 0),
    Column::new("STATE", Align::Left, 3),
    Column::new("SESSIONS", Align::Right, 0),
    Column::new("NEW/s", Align::Right, 4),
    Column::new("REFUSED", Align::Right, 5),
    Column::new("FAILED", Align::Right, 2),
    Column::new("UP", Align::Right, 1),
    Column::new("DOWN", Align::Right, 1),
];

const SESSIONS: [Column; COLUMNS] = [
    Column::new("MAPPING", Align::Name, 0),
    Column::new("CLIENT", Align::Left, 0),
    Column::new("SESSION", Align::Right, 2),
    Column::new("AGE", Align::Right, 3),
    Column::new("QUIET", Align::Right, 5),
    Column::new("BYTES", Align::Right, 4),
    Column::new("UP", Align::Right, 1),
    Column::new("DOWN", Align::Right, 1),
];

/// The lines of the whole screen.
pub(super) fn lines(view: &View, screen: &Screen, height: usize) -> Vec<String> {
    let mut lines = headline(view, screen);
    lines.extend(trouble(view, screen).into_iter().take(height / 3));
    let room = height.saturating_sub(lines.len() + 1);
    lines.extend(mappings(view, screen, room / 3));
    lines.extend(sessions(view, screen, room - room / 3));
    let clock = if view.stopped { "go on" } else { "stop" };
    let keys = format!("q quit   s order: {}   p {clock}", view.order.word());
    lines.truncate(height.saturating_sub(1));
    lines.push(screen.dim(&keys));
    lines
}

/// The screen as text, for where there is no terminal.
pub(super) fn as_text(view: &View, width: usize, height: usize) -> String {
    let lines = lines(view, &Screen::plain(width), height).into_iter();
    let cut = lines.map(|line| line.chars().take(width).chain(['\n']).collect::<String>());
    cut.collect()
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

/// A title, and a table of as many rows as there is room for.
fn listing(
    screen: &Screen,
    height: usize,
    (title, total): (&str, usize),
    columns: &[Column; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> Vec<String> {
    let shown = height.saturating_sub(2).min(rows.len());
    let mut title = screen.paint(Paint::Strong, title);
    if shown < total {
        let left = format!("{APART}and {} more", total - shown);
        title.push_str(&screen.dim(&left));
    }
    let table = table(columns, &rows[..shown], screen);
    let mut lines = vec![title];
    lines.extend(table.lines().map(str::to_owned));
    lines.resize(height, String::new());
    lines
}

fn mappings(view: &View, screen: &Screen, height: usize) -> Vec<String> {
    let all = view.round.iter().flat_map(|round| &round.mappings);
    let rows = all.map(|Rated { of: mapping, rates }| {
        [
            mapping.mapping.clone(),
            mapping.state.clone(),
            mapping.sessions.to_string(),
            format!("{:.1}", rates.opened.unwrap_or_default()),
            mapping.refused().to_string(),
            mapping.failed().to_string(),
            steady(rates.up),
            steady(rates.down),
        ]
    });
    let rows: Vec<_> = rows.collect();
    listing(screen, height, ("Mappings", rows.len()), &MAPPINGS, &rows)
}

fn sessions(view: &View, screen: &Screen, height: usize) -> Vec<String> {
    let all = view.round.iter().flat_map(|round| &round.sessions);
    let rows = all.map(|Rated { of: session, rates }| {
        [
            session.mapping.clone(),
            session.client.clone(),
            session.session.to_string(),
            duration_ms(session.duration_ms),
            duration_ms(session.quiet_ms),
            bytes(session.bytes_up + session.bytes_down),
            steady(rates.up),
            steady(rates.down),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let total = view.round.as_ref().map_or(0, |round| round.sessions_total);
    let total = usize::try_from(total).map_or(usize::MAX, |total| total.max(rows.len()));
    listing(screen, height, ("Sessions", total), &SESSIONS, &rows)
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
            ["board-14", "203.0.113.2:50000", "2"],
            "{screen}"
        );
        assert_eq!(&row[row.len() - 2..], ["10K/s", "0/s"], "{screen}");
        assert!(
            lines.last().is_some_and(|line| line.starts_with("q quit")),
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
        assert!(screen.contains("and 28 more"), "{screen}");
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
