//! Text and tables in HTML.

use std::fmt::{self, Write};

/// Text as text: nothing in it can become markup, inside an attribute neither.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // An error of several lines is shown as such.
            '\n' => escaped.push(c),
            // They show nothing or turn the text around.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A section with a table. A head that begins with `#` is that of a column of numbers.
pub(super) fn table(
    page: &mut String,
    title: &str,
    total: usize,
    heads: &[&str],
    rows: impl ExactSizeIterator<Item = Vec<String>>,
) -> fmt::Result {
    let id: String = title.to_lowercase().replace(' ', "-");
    let shown = rows.len();
    // No landmark of its own: the table in it is one, of the same name.
    write!(
        page,
        "<section>\n<h2 id=\"{id}\">{title} <small>{total}</small></h2>\n"
    )?;
    if shown == 0 {
        page.push_str("<p>None.</p>\n</section>\n");
        return Ok(());
    }
    // Wide tables scroll by themselves; the keyboard has to reach them for that.
    write!(
        page,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"{id}\">\n\
         <table>\n<thead><tr>"
    )?;
    for head in heads {
        let (class, head) = number(head);
        write!(page, "<th scope=\"col\"{class}>{head}</th>")?;
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for (place, (head, cell)) in heads.iter().zip(row).enumerate() {
            let ((class, _), cell) = (number(head), escaped(&cell));
            match place {
                0 => write!(page, "<th scope=\"row\"{class}>{cell}</th>")?,
                _ => write!(page, "<td{class}>{cell}</td>")?,
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
    if shown < total {
        let left = total - shown;
        writeln!(
            page,
            "<p>And {left} more: <code>tml-proxy</code> lists them all.</p>"
        )?;
    }
    page.push_str("</section>\n");
    Ok(())
}

fn number(head: &str) -> (&'static str, &str) {
    match head.strip_prefix('#') {
        Some(head) => (" class=\"number\"", head),
        None => ("", head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_several_lines_keeps_them() {
        assert_eq!(escaped("line 1\n  | ^"), "line 1\n  | ^");
    }

    #[test]
    fn text_that_hides_or_turns_around_is_shown_as_such() {
        for c in ['\0', '\x1b', '\r', '\u{202e}', '\u{2066}', '\u{2069}'] {
            assert_eq!(escaped(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
        }
    }
}
