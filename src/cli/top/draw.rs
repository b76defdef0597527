//! What `top` shows.

use ratatui::{
    Frame, Terminal,
    backend::TestBackend,
    layout::{Constraint, Layout, Rect},
    style::{Style, Stylize},
    text::{Line, Span, Text},
    widgets::{Paragraph, Wrap},
};

use super::{
    state::View,
    tables::{self, Listing},
};
use crate::{
    admin::api::model::Severity,
    cli::output::{bytes, duration_ms, rate, wrapped},
    units::count,
};

/// Between two parts of a line.
const APART: &str = "   ";

/// Puts the view on the screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let trouble = trouble(view);
    let [head, bad, mappings, sessions, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(lines_for(&trouble, frame.area())),
        Constraint::Fill(1),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(view, head.width)), head);
    frame.render_widget(Paragraph::new(trouble).wrap(Wrap { trim: true }), bad);
    draw_table(frame, mappings, &tables::mappings(view));
    draw_table(frame, sessions, &tables::sessions(view));
    let clock = if view.stopped { "go on" } else { "stop" };
    let keys = format!("q quit   s order: {}   p {clock}", view.order.word());
    frame.render_widget(Paragraph::new(keys).dim(), foot);
}

/// The screen as text, for where there is no terminal.
pub(super) fn as_text(view: &View, (width, height): (u16, u16)) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw(frame, view));
    let screen = terminal.backend().buffer();
    let lines = screen.content().chunks(usize::from(width)).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

/// How many lines the trouble takes, a third of the screen at most.
fn lines_for(trouble: &[Line<'_>], area: Rect) -> u16 {
    let broken = |line: &Line<'_>| wrapped(&line.to_string(), area.width.into(), 0);
    let lines: usize = (trouble.iter())
        .map(|line| broken(line).lines().count())
        .sum();
    u16::try_from(lines).map_or(area.height / 3, |lines| lines.min(area.height / 3))
}

fn headline(view: &View, width: u16) -> Text<'static> {
    let Some(status) = view.status() else {
        return Text::raw("waiting for the proxy");
    };
    let total = view.total();
    let memory = status.process.resident_bytes.map_or("?".to_owned(), bytes);
    let first = [
        format!("tml-proxy {}", status.version),
        format!("{} of {} sessions", status.sessions, status.sessions_limit),
        count(status.mappings, "mapping"),
        format!("running for {}", duration_ms(status.uptime_ms)),
    ];
    let second = [
        format!("up {}", rate(total.up)),
        format!("down {}", rate(total.down)),
        format!("{:.1} new/s", total.opened),
        format!("pipes {} of {}", status.pipes.in_use, status.pipes.limit),
        format!("memory {memory}"),
    ];
    Text::from(vec![
        Line::from(whole(&first, width)).bold(),
        Line::from(whole(&second, width)),
    ])
}

/// As many of the parts as fit whole, so that no number is cut.
fn whole(parts: &[String], width: u16) -> String {
    let joined = (1..=parts.len())
        .rev()
        .map(|count| parts[..count].join(APART));
    let mut fitting = joined.filter(|line| line.chars().count() <= usize::from(width));
    fitting.next().unwrap_or_default()
}

fn trouble(view: &View) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(overdue) = view.overdue {
        lines.push(Line::from(format!("no answer for {overdue}s")).red());
    } else if let Some(trouble) = &view.trouble {
        lines.push(Line::from(format!("no answer: {trouble}")).red());
    }
    for problem in view.status().iter().flat_map(|status| &status.problems) {
        let word = match problem.severity {
            Severity::Error => Span::from("error").red(),
            Severity::Warning => Span::from("warning").yellow(),
            Severity::Note => Span::from("note").dim(),
        };
        // A reload's errors may have many lines; the first says where to look.
        let text = problem.text.lines().next().unwrap_or_default();
        lines.push(Line::from(vec![word, Span::from(format!(": {text}"))]));
    }
    lines
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, listing: &Listing) {
    let room = usize::from(area.height).saturating_sub(2);
    let mut lines = listing.lines(room, area.width.into()).into_iter();
    let mut title = vec![Span::from(listing.title).bold()];
    let left = listing.left(room);
    if left > 0 {
        title.push(Span::from(format!("{APART}and {left} more")).dim());
    }
    let mut text = vec![Line::from(title)];
    text.extend(
        lines
            .next()
            .map(|head| Line::from(head).style(Style::new().dim())),
    );
    text.extend(lines.map(Line::from));
    frame.render_widget(Paragraph::new(text), area);
}

#[cfg(test)]
mod tests {
    use super::{
        super::state::tests::{NUMBERS, crowded, view},
        *,
    };

    #[test]
    fn the_screen_shows_the_busiest_first() {
        let screen = as_text(&view(), (96, 16));
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
        for size in [(1, 1), (20, 3), (200, 60)] {
            as_text(&view(), size);
            as_text(&View::default(), size);
        }
    }

    #[test]
    fn a_clients_port_is_whole_on_a_usual_terminal() {
        let screen = as_text(&crowded(), (80, 24));
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
            let screen = as_text(&crowded(), (width, 24));
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
        let screen = as_text(&view, (40, 24));
        assert!(screen.contains("running?"), "{screen}");
    }
}
