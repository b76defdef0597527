//! Rows in columns.

use super::Screen;

/// Where the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A column of a table for people.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// Where its cells stand.
    pub align: Align,
    /// What goes first when the terminal is too narrow; 0 never goes.
    pub spare: u8,
}

/// Between two columns.
const GAP: usize = 2;

/// Rows in columns, two spaces apart.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths = widths(rows);
    let line = |row: &[String; N]| {
        let padded = row.iter().zip(widths);
        padded
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect::<String>()
    };
    rows.iter()
        .map(|row| format!("{}\n", line(row).trim_end()))
        .collect()
}

/// A table with heads. Where the screen is too narrow for it, columns are left out, then lines cut.
pub fn table<const N: usize>(
    columns: &[Column; N],
    rows: &[[String; N]],
    screen: &Screen,
) -> String {
    let heads = columns.map(|column| column.head.to_owned());
    let mut all = vec![heads];
    all.extend_from_slice(rows);
    let widths = widths(&all);
    let shown = shown(columns, &widths, screen.width);
    let mut text = String::new();
    for (number, row) in all.iter().enumerate() {
        let cells: Vec<String> = shown
            .iter()
            .map(|&place| {
                let (cell, width) = (&row[place], widths[place]);
                match columns[place].align {
                    Align::Left => format!("{cell:width$}"),
                    Align::Right => format!("{cell:>width$}"),
                }
            })
            .collect();
        let line = cells.join(&" ".repeat(GAP));
        let line = cut(line.trim_end(), screen.width);
        match number {
            0 => text.push_str(&screen.dim(&line)),
            _ => text.push_str(&line),
        }
        text.push('\n');
    }
    text
}

fn widths<const N: usize>(rows: &[[String; N]]) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

/// The places of the columns that fit.
fn shown(columns: &[Column], widths: &[usize], room: usize) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    loop {
        let wide: usize = shown.iter().map(|&place| widths[place] + GAP).sum();
        let least = shown
            .iter()
            .copied()
            .filter(|&place| columns[place].spare > 0)
            .max_by_key(|&place| columns[place].spare);
        match least {
            Some(least) if wide > room + GAP => shown.retain(|&place| place != least),
            _ => return shown,
        }
    }
}

fn cut(line: &str, room: usize) -> String {
    match line.chars().count() > room {
        true => line
            .chars()
            .take(room.saturating_sub(1))
            .chain(['…'])
            .collect(),
        false => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            head: "NAME",
            align: Align::Left,
            spare: 0,
        },
        Column {
            head: "NOTE",
            align: Align::Left,
            spare: 1,
        },
        Column {
            head: "COUNT",
            align: Align::Right,
            spare: 0,
        },
    ];

    fn on(width: usize) -> String {
        let row = |name: &str, note: &str, count: &str| [name, note, count].map(str::to_owned);
        let rows = [row("board-14", "a note", "7"), row("x", "", "1234567")];
        table(&COLUMNS, &rows, &Screen::plain(width))
    }

    #[test]
    fn a_table_is_aligned() {
        let expected = "NAME      NOTE      COUNT\n\
                        board-14  a note        7\n\
                        x                 1234567\n";
        assert_eq!(on(80), expected);
        assert_eq!(on(25), expected);
    }

    #[test]
    fn a_narrow_screen_loses_columns_and_then_ends_of_lines() {
        assert_eq!(
            on(24),
            "NAME        COUNT\nboard-14        7\nx         1234567\n"
        );
        assert_eq!(on(12), "NAME       …\nboard-14   …\nx         1…\n");
    }
}
