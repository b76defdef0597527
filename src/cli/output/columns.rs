//! Rows in columns.

use super::Screen;

/// Where the cells of a column stand, and whether they are of use without their middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text that is of use only whole, such as an address.
    Left,
    /// Names, which are shortened before anything is left out.
    Name,
    Right,
}

#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub head: &'static str,
    pub align: Align,
    /// What goes first when the terminal is too narrow; 0 goes only where nothing else helps.
    pub spare: u8,
}

impl Column {
    pub const fn new(head: &'static str, align: Align, spare: u8) -> Self {
        Self { head, align, spare }
    }
}

/// Between two columns.
pub const GAP: usize = 2;

/// Characters of a name that still tell it from most others.
const SHORT: usize = 16;

/// Characters of a name when even the columns that may not go would otherwise have to.
const SHORTEST: usize = 6;

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

/// A table with heads. Where the screen is too narrow for it, names are shortened and columns left
/// out.
pub fn table<const N: usize>(
    columns: &[Column; N],
    rows: &[[String; N]],
    screen: &Screen,
) -> String {
    let heads = columns.map(|column| column.head.to_owned());
    let mut all = vec![heads];
    all.extend_from_slice(rows);
    let shown = fit(columns, &widths(&all), screen.width);
    let mut text = String::new();
    for (number, row) in all.iter().enumerate() {
        let cells: Vec<String> = shown
            .iter()
            .map(|&(place, width)| {
                let cell = shortened(&row[place], width);
                match columns[place].align {
                    Align::Left | Align::Name => format!("{cell:width$}"),
                    Align::Right => format!("{cell:>width$}"),
                }
            })
            .collect();
        let line = cells.join(&" ".repeat(GAP));
        let line = line.trim_end();
        match number {
            0 => text.push_str(&screen.dim(line)),
            _ => text.push_str(line),
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

/// The columns that fit, by place, with the room each gets of what it would take.
fn fit(columns: &[Column], widths: &[usize], room: usize) -> Vec<(usize, usize)> {
    let is_name = |place: usize| columns[place].align == Align::Name;
    let fits = |places: &[usize], short| {
        let least = |place: usize| match is_name(place) {
            true => widths[place].min(short),
            false => widths[place],
        };
        let wide: usize = places.iter().map(|&place| least(place) + GAP).sum();
        wide <= room + GAP
    };
    let (mut places, mut others): (Vec<_>, Vec<_>) =
        (0..columns.len()).partition(|&place| columns[place].spare == 0);
    while places.len() > 1 && !fits(&places, SHORTEST) {
        places.pop();
    }
    // Where one does not fit, a narrower one that matters less still may.
    others.sort_by_key(|&place| columns[place].spare);
    for place in others {
        places.push(place);
        if !fits(&places, SHORT) {
            places.pop();
        }
    }
    places.sort_unstable();
    let mut shown: Vec<_> = (places.into_iter())
        .map(|place| (place, widths[place]))
        .collect();
    // The widest name gives first, so that several end up equal.
    let taken = shown.iter().map(|(_, width)| width + GAP).sum::<usize>();
    for _ in 0..taken.saturating_sub(room + GAP) {
        let names = shown.iter_mut().filter(|(place, _)| is_name(*place));
        match names.max_by_key(|(_, width)| *width) {
            Some((_, width)) if *width > 1 => *width -= 1,
            _ => break,
        }
    }
    if let [(_, width)] = &mut shown[..] {
        *width = room.min(*width);
    }
    shown
}

/// Text in so much room: what does not fit goes from its middle, as its end tells names apart too.
fn shortened(text: &str, room: usize) -> String {
    let length = text.chars().count();
    if length <= room {
        return text.to_owned();
    }
    let end = room.saturating_sub(1) / 3;
    let start = room.saturating_sub(1 + end);
    let first = text.chars().take(start);
    let last = text.chars().skip(length - end);
    first.chain(['…']).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::new("NAME", Align::Name, 0),
        Column::new("NOTE", Align::Left, 1),
        Column::new("COUNT", Align::Right, 0),
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
    fn a_narrow_screen_loses_columns_and_then_middles_of_names() {
        assert_eq!(
            on(24),
            "NAME        COUNT\nboard-14        7\nx         1234567\n"
        );
        assert_eq!(
            on(16),
            "NAME       COUNT\nboar…14        7\nx        1234567\n"
        );
    }

    #[test]
    fn no_number_is_shown_in_part() {
        for width in 1..40 {
            let text = on(width);
            let fits = text.lines().all(|line| line.chars().count() <= width);
            assert!(fits, "{width}: {text}");
            let last = text.lines().last().expect("a row");
            let whole = last
                .split_whitespace()
                .all(|cell| ["x", "1234567"].contains(&cell));
            assert!(whole, "{width}: {text}");
        }
    }

    #[test]
    fn a_long_name_is_shortened_before_anything_is_left_out() {
        let name = "job/00000001-0000-4000-8000-000000000000/ssh";
        let rows = [[name.to_owned(), "a note".to_owned(), "7".to_owned()]];
        let text = table(&COLUMNS, &rows, &Screen::plain(40));
        assert!(text.contains("NOTE") && text.contains("COUNT"), "{text}");
        assert!(text.contains("0/ssh  a note      7\n"), "{text}");
        let endless = table(&COLUMNS, &rows, &Screen::plain(usize::MAX / 2));
        assert!(endless.contains(name), "{endless}");
    }
}
