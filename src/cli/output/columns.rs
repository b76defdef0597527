//! Rows in columns.

use std::{collections::BTreeSet, iter};

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
    rows: impl Iterator<Item = [String; N]>,
    screen: &Screen,
) -> String {
    let heads = columns.map(|column| column.head.to_owned());
    let all: Vec<_> = iter::once(heads).chain(rows).collect();
    let shown = fit(columns, &widths(&all), screen.width);
    let mut text = String::new();
    let shortened: Vec<(Vec<String>, usize, Align)> = (shown.into_iter())
        .map(|(place, width)| {
            let cells: Vec<&str> = all.iter().map(|row| row[place].as_str()).collect();
            (shortened(&cells, width), width, columns[place].align)
        })
        .collect();
    for number in 0..all.len() {
        let cells: Vec<String> = shortened
            .iter()
            .map(|(cells, width, align)| match align {
                Align::Left | Align::Name => format!("{:width$}", cells[number]),
                Align::Right => format!("{:>width$}", cells[number]),
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

/// Texts in so much room each. What does not fit goes from their middle, as ends tell names apart too:
/// from such a place that those that differ still do, if there is one.
fn shortened(texts: &[&str], room: usize) -> Vec<String> {
    let usual = room.saturating_sub(1) / 3;
    let cut = |end| -> Vec<String> {
        let cut = texts.iter().map(|text| without_middle(text, room, end));
        cut.collect()
    };
    let at_usual = cut(usual);
    let differing = distinct(texts.iter().copied());
    if distinct(at_usual.iter()) == differing {
        return at_usual;
    }
    let others = (0..room).filter(|end| *end != usual).map(cut);
    let mut all = others.chain([without_common_start(texts, room)]);
    let found = all.find(|cut| distinct(cut.iter()) == differing);
    found.unwrap_or(at_usual)
}

fn distinct<T: Ord>(texts: impl Iterator<Item = T>) -> usize {
    texts.collect::<BTreeSet<_>>().len()
}

/// The long ones without what all of them begin with, and then without their middle.
fn without_common_start(texts: &[&str], room: usize) -> Vec<String> {
    let is_long = |text: &&&str| text.chars().count() > room;
    let mut long = texts.iter().filter(is_long);
    let first: Vec<char> = long
        .next()
        .map_or_else(Vec::new, |text| text.chars().collect());
    let common = long.fold(first.len(), |common, text| {
        let same = first.iter().zip(text.chars());
        same.take(common)
            .take_while(|(one, other)| **one == *other)
            .count()
    });
    let each = texts.iter().map(|text| match is_long(&text) {
        false => (*text).to_owned(),
        true => {
            let rest: String = text.chars().skip(common).collect();
            let room = room.saturating_sub(1);
            format!(
                "…{}",
                without_middle(&rest, room, room.saturating_sub(1) / 3)
            )
        }
    });
    each.collect()
}

/// Text in so much room, with so much of its end.
fn without_middle(text: &str, room: usize, end: usize) -> String {
    let length = text.chars().count();
    if length <= room {
        return text.to_owned();
    }
    let end = end.min(room.saturating_sub(1));
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
        table(&COLUMNS, rows.into_iter(), &Screen::plain(width))
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
        let row = [name.to_owned(), "a note".to_owned(), "7".to_owned()];
        let on = |width| table(&COLUMNS, iter::once(row.clone()), &Screen::plain(width));
        let text = on(40);
        assert!(text.contains("NOTE") && text.contains("COUNT"), "{text}");
        assert!(text.contains("0/ssh  a note      7\n"), "{text}");
        let endless = on(usize::MAX / 2);
        assert!(endless.contains(name), "{endless}");
    }

    #[test]
    fn shortened_names_of_jobs_still_differ() {
        let names = |name: fn(u32) -> String| (0..40).map(name).collect::<Vec<_>>();
        for names in [
            names(|job| format!("job/{job:08}-0000-4000-8000-000000000000/ssh")),
            names(|job| format!("job/00000000-0000-4000-8000-{job:012}/ssh")),
            names(|job| format!("job/00000000-0000-{job:04}-8000-000000000000/ssh")),
            names(|job| {
                format!(
                    "job/{:08}-0000-4000-8000-000000000000/{}",
                    job / 2,
                    ["ssh", "web"][job as usize % 2]
                )
            }),
        ] {
            let texts: Vec<&str> = names.iter().map(String::as_str).chain(["x"]).collect();
            for room in [16, 20, 30] {
                let short = shortened(&texts, room);
                assert_eq!(distinct(short.iter()), 41, "{short:?}");
                let fits = short.iter().all(|text| text.chars().count() <= room);
                assert!(fits, "{short:?}");
            }
        }
    }
}
