//! Text of others that is kept, printed or sent on, no longer than makes sense: long values and lists,
//! what somebody said who panicked, and what must not steer a terminal or change a request.

use std::{any::Any, fmt::Display};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Of a list of things that are wrong, so many are told in full.
pub const TOLD: usize = 20;

/// `text`, or as much of its beginning as `most` bytes have room for and how much there is behind it.
pub fn clipped(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = char_start(&text, most);
        let more = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("… ({more} more bytes)"));
    }
    text
}

/// Where the character begins that has the byte at `offset`, or `offset` if one begins there.
pub fn char_start(text: &str, offset: usize) -> usize {
    let offset = offset.min(text.len());
    let starts = (0..=offset).rev();
    let mut starts = starts.filter(|place| text.is_char_boundary(*place));
    starts.next().unwrap_or(0)
}

/// `text` in one line of at most `most` characters, of which nothing steers a terminal or turns the text
/// around.
pub fn printable(text: &str, most: usize) -> String {
    let fit = |c: char| c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric();
    let shown = text.chars().flat_map(|c| match fit(c) {
        true => vec![c],
        false => c.escape_default().collect(),
    });
    shown.take(most).collect()
}

/// `value` as part of a URL's query, to which it adds no parameter and no header.
pub fn in_query(value: &str) -> String {
    /// All but what RFC 3986 calls unreserved.
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    utf8_percent_encode(value, RESERVED).to_string()
}

/// What somebody said who panicked.
pub fn of_panic(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    let said = literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    said.unwrap_or("without a message")
}

/// What `items` say, a line each: the first [`TOLD`], and how many more there are.
pub fn lines(items: impl ExactSizeIterator<Item = impl Display>) -> String {
    let more = items.len().saturating_sub(TOLD);
    let mut lines: Vec<String> = items.take(TOLD).map(|item| item.to_string()).collect();
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines.join("\n")
}

/// What `items` say, in one line: the first [`TOLD`], and how many more there are of `count`.
pub fn enumerated(items: impl Iterator<Item = impl Display>, count: usize) -> String {
    let told: Vec<String> = items.take(TOLD).map(|item| item.to_string()).collect();
    match count.saturating_sub(told.len()) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_ends_between_two_characters_and_says_how_much_is_missing() {
        assert_eq!(clipped("short".to_owned(), 5), "short");
        assert_eq!(clipped("aéé".to_owned(), 4), "aé… (2 more bytes)");
    }

    #[test]
    fn words_from_outside_cannot_steer_the_terminal() {
        let text = printable("no job\x1b]0;x\x07\n\u{9b}\u{202e} für Sie", 100);
        let expected = "no job\\u{1b}]0;x\\u{7}\\n\\u{9b}\\u{202e} für Sie";
        assert_eq!(text, expected);
        assert_eq!(printable(&"\n".repeat(10_000), 500).len(), 500);
    }

    #[test]
    fn a_value_from_outside_cannot_change_a_query() {
        let value = "a/b&limit=9 #\r\nX: ü-_.~";
        assert_eq!(
            in_query(value),
            "a%2Fb%26limit%3D9%20%23%0D%0AX%3A%20%C3%BC-_.~"
        );
    }

    #[test]
    fn the_message_of_a_panic_is_told() {
        let number = 7;
        for (panic, said) in [
            (
                std::panic::catch_unwind(|| panic!("a literal")),
                "a literal",
            ),
            (
                std::panic::catch_unwind(|| panic!("{number} is wrong")),
                "7 is wrong",
            ),
        ] {
            let panic = panic.map(|(): ()| ()).expect_err("it panics");
            assert_eq!(of_panic(&*panic), said);
        }
    }

    #[test]
    fn of_many_lines_the_first_are_told() {
        assert_eq!(lines(0..2), "0\n1");
        let many = lines(0..1000);
        assert_eq!(many.lines().count(), TOLD + 1);
        assert!(many.ends_with("and 980 more"), "{many}");
        assert_eq!(enumerated(0..2, 2), "0, 1");
        assert!(enumerated(0..1000, 1000).ends_with(", 19 and 980 more"));
    }
}
