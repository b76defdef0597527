//! A file cut at its `[[mapping]]` headers into pieces that can be read one by one.
//!
//! A TOML document is a row of expressions, each ending with its line. If every piece is a valid
//! document by itself, then no cut went through a string, a list or a comment, and the whole is the
//! expressions of the pieces in their order. If a cut did go through something, the piece before it
//! ends too early and is not valid: whoever reads the pieces has to take that as "read it whole".

/// The header at which a file is cut, at the beginning of a line.
const HEADER: &str = "[[mapping]]";

/// A file in pieces, which together are all of it.
pub(super) struct Blocks<'t> {
    /// What comes before the first mapping.
    pub head: &'t str,
    /// From each header to the next.
    pub mappings: Vec<&'t str>,
}

impl<'t> Blocks<'t> {
    /// Cuts `text`.
    pub fn cut(text: &'t str) -> Self {
        let mut starts = Vec::new();
        let mut line_start = 0;
        for line in text.split_inclusive('\n') {
            if line.starts_with(HEADER) {
                starts.push(line_start);
            }
            line_start += line.len();
        }
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        Self {
            head: &text[..starts.first().copied().unwrap_or(text.len())],
            mappings: starts
                .iter()
                .zip(ends)
                .map(|(&start, end)| &text[start..end])
                .collect(),
        }
    }
}

/// How many lines `text` ends.
pub(super) fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_where_a_line_begins_with_the_header() {
        let text = "a = 1\n[[mapping]]\nb = 2\n# [[mapping]]\n[[mapping]] # c\r\n[mapping.d]";
        let blocks = Blocks::cut(text);
        assert_eq!(blocks.head, "a = 1\n");
        assert_eq!(
            blocks.mappings,
            [
                "[[mapping]]\nb = 2\n# [[mapping]]\n",
                "[[mapping]] # c\r\n[mapping.d]"
            ]
        );
        assert_eq!(lines(text), 5);
    }

    #[test]
    fn a_file_without_mappings_is_all_head() {
        for text in ["", "version = 1", " [[mapping]]\n"] {
            let blocks = Blocks::cut(text);
            assert_eq!((blocks.head, blocks.mappings.len()), (text, 0));
        }
    }
}
