//! What `top` shows.

use ratatui::{
    Frame, Terminal,
    backend::TestBackend,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Style, Stylize},
    text::{Line, Span, Text},
    widgets::{Block, Cell, Paragraph, Row, Table, Wrap},
};

use super::state::{Rates, View};
use crate::{
    admin::api::model::Severity,
    cli::output::{bytes, duration_ms, rate},
    units::count,
};

/// Puts the view on the screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let trouble = trouble(view);
    let [head, bad, mappings, sessions, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(u16::try_from(trouble.len().min(4)).unwrap_or(4)),
        Constraint::Fill(1),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(view)), head);
    frame.render_widget(Paragraph::new(trouble).wrap(Wrap { trim: true }), bad);
    draw_mappings(frame, mappings, view);
    draw_sessions(frame, sessions, view);
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

fn headline(view: &View) -> Text<'static> {
    let Some(status) = view.status() else {
        return Text::raw("waiting for the proxy");
    };
    let total = view.total();
    let up = duration_ms(status.uptime_ms);
    let first = format!(
        "tml-proxy {} up {up}   {}   {} of {} sessions",
        status.version,
        count(status.mappings, "mapping"),
        status.sessions,
        status.sessions_limit
    );
    let second = format!(
        "up {}   down {}   {:.1} new/s   pipes {} of {}   memory {}",
        rate(total.up),
        rate(total.down),
        total.opened,
        status.pipes.in_use,
        status.pipes.limit,
        status.process.resident_bytes.map_or("?".to_owned(), bytes),
    );
    Text::from(vec![Line::from(first).bold(), Line::from(second)])
}

fn trouble(view: &View) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(trouble) = &view.trouble {
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

fn draw_mappings(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.mappings().into_iter().map(|(mapping, rates)| {
        let cells = [
            mapping.mapping.clone(),
            mapping.state.clone(),
            mapping.sessions.to_string(),
            format!("{:.1}", rates.opened),
            mapping.refused().to_string(),
            mapping.failed().to_string(),
        ];
        row(cells, 2, rates)
    });
    let heads = [
        "MAPPING", "STATE", "SESSIONS", "NEW/s", "REFUSED", "FAILED", "UP", "DOWN",
    ];
    let widths = [16, 10, 8, 7, 8, 8, 8, 8];
    draw_table(
        frame,
        area,
        "Mappings",
        (&heads, 2),
        &widths,
        rows.collect(),
    );
}

fn draw_sessions(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.sessions().into_iter().map(|(session, rates)| {
        let cells = [
            session.mapping.clone(),
            session.client.clone(),
            session.session.to_string(),
            duration_ms(session.duration_ms),
            duration_ms(session.quiet_ms),
            bytes(session.bytes_up + session.bytes_down),
        ];
        row(cells, 2, rates)
    });
    let heads = [
        "MAPPING", "CLIENT", "SESSION", "AGE", "QUIET", "BYTES", "UP", "DOWN",
    ];
    let widths = [16, 22, 8, 8, 8, 6, 8, 8];
    draw_table(
        frame,
        area,
        "Sessions",
        (&heads, 2),
        &widths,
        rows.collect(),
    );
}

/// A row of cells, the first `texts` of which are text, with the rates behind them.
fn row<const N: usize>(cells: [String; N], texts: usize, rates: Rates) -> Row<'static> {
    let cells = cells.into_iter().chain([rate(rates.up), rate(rates.down)]);
    Row::new(cells.enumerate().map(|(place, cell)| match place < texts {
        true => Cell::from(cell),
        false => Cell::from(Text::from(cell).alignment(Alignment::Right)),
    }))
}

fn draw_table(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &'static str,
    (heads, texts): (&[&'static str], usize),
    widths: &[u16],
    rows: Vec<Row<'static>>,
) {
    let heads = heads.iter().enumerate().map(|(place, head)| {
        let alignment = match place < texts {
            true => Alignment::Left,
            false => Alignment::Right,
        };
        Cell::from(Text::from(*head).alignment(alignment))
    });
    // The first column takes the room that is left.
    let widths = widths.iter().enumerate().map(|(place, width)| match place {
        0 => Constraint::Min(*width),
        _ => Constraint::Length(*width),
    });
    let table = Table::new(rows, widths)
        .header(Row::new(heads).style(Style::new().dim()))
        .block(Block::new().title(Line::from(title).bold()));
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use super::{super::state::tests::view, *};

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
}
