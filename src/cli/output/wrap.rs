//! Text in lines that fit.

/// Breaks lines that are too long between words; what goes on is indented. Escape sequences that
/// colour text take no room.
pub fn wrapped(text: &str, room: usize, indent: usize) -> String {
    // Where hardly anything fits beside the indentation, there had better be none.
    let indent = if indent < room / 2 { indent } else { 0 };
    let lines = text.split('\n').map(|line| broken(line, room, indent));
    lines.collect::<Vec<_>>().join("\n")
}

/// Text of several lines in one.
pub fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

fn broken(line: &str, room: usize, indent: usize) -> String {
    let mut text = String::new();
    let mut rest = line.trim_end();
    // A line that begins with a name in a column is not to be broken behind the name.
    let mut earliest = indent;
    let mut left = room.max(1);
    while let Some(place) = end_of_line(rest, left, earliest) {
        let (line, others) = rest.split_at(place);
        text.push_str(line.trim_end());
        text.push('\n');
        text.push_str(&" ".repeat(indent));
        rest = others.trim_start();
        (earliest, left) = (0, room.max(1) - indent);
    }
    text.push_str(rest);
    text
}

/// Where to break a line that is too long.
fn end_of_line(line: &str, room: usize, earliest: usize) -> Option<usize> {
    let (mut width, mut space, mut escaped) = (0, None, false);
    for (place, c) in line.char_indices() {
        if c == '\x1b' || escaped {
            escaped = c != 'm';
            continue;
        }
        if c == ' ' && width > earliest {
            space = Some(place);
        }
        if width == room {
            return Some(space.unwrap_or(place));
        }
        width += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_fit_stay_as_they_are() {
        let text = "key = [\n  |    ^ no";
        assert_eq!(wrapped(text, 80, 2), text);
        assert_eq!(wrapped(text, usize::MAX / 2, 2), text);
    }

    #[test]
    fn long_lines_go_on_below_their_beginning() {
        assert_eq!(
            wrapped("name  one two three", 14, 6),
            "name  one two\n      three"
        );
        assert_eq!(
            wrapped("name  one two three", 13, 7),
            "name  one two\nthree"
        );
    }

    #[test]
    fn colours_take_no_room_and_words_longer_than_a_line_are_broken() {
        assert_eq!(
            wrapped("\x1b[31mred\x1b[0m text", 8, 0),
            "\x1b[31mred\x1b[0m text"
        );
        assert_eq!(wrapped("abcdefgh", 3, 0), "abc\ndef\ngh");
    }

    #[test]
    fn every_width_is_kept_and_nothing_lost() {
        let text = "refused    30 source_rate, 2 denied, a_word_longer_than_most_there_are, 1";
        for room in 1..90 {
            let lines = wrapped(text, room, 11);
            assert!(
                lines.lines().all(|line| line.chars().count() <= room),
                "{room}: {lines}"
            );
            let all = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(all(&lines), all(text), "{room}");
        }
    }
}
