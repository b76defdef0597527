//! The tables of `top`: which columns there are, and what they lose where they do not fit.

use super::state::View;
use crate::cli::output::{Align, Column, Screen, bytes, duration_ms, rate, table};

/// Columns of either table.
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

/// A table of which the first rows are shown.
pub(super) struct Listing {
    pub title: &'static str,
    columns: [Column; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
    total: usize,
}

impl Listing {
    /// The head and the first rows.
    pub fn lines(&self, rows: usize, width: usize) -> Vec<String> {
        let rows = &self.rows[..rows.min(self.rows.len())];
        let text = table(&self.columns, rows, &Screen::plain(width));
        text.lines().map(str::to_owned).collect()
    }

    /// How many there are beyond the first rows.
    pub fn left(&self, rows: usize) -> usize {
        self.total - rows.min(self.rows.len())
    }
}

/// The mappings, busiest first.
pub(super) fn mappings(view: &View) -> Listing {
    let rows: Vec<_> = (view.mappings().into_iter())
        .map(|(mapping, rates)| {
            [
                mapping.mapping.clone(),
                mapping.state.clone(),
                mapping.sessions.to_string(),
                format!("{:.1}", rates.opened),
                mapping.refused().to_string(),
                mapping.failed().to_string(),
                steady(rates.up),
                steady(rates.down),
            ]
        })
        .collect();
    Listing {
        title: "Mappings",
        columns: MAPPINGS,
        total: rows.len(),
        rows,
    }
}

/// The sessions in the order asked for.
pub(super) fn sessions(view: &View) -> Listing {
    let rows: Vec<_> = (view.sessions().into_iter())
        .map(|(session, rates)| {
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
        })
        .collect();
    Listing {
        title: "Sessions",
        columns: SESSIONS,
        total: view.sessions_total().max(rows.len()),
        rows,
    }
}

/// A rate as wide as any, so that columns stay where they are while it changes.
fn steady(bytes_per_second: f64) -> String {
    format!("{:>6}", rate(bytes_per_second))
}
