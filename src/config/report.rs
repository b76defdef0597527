//! The problems of one file while it is read, and the way from an offset in it to line and column.

use std::{cell::RefCell, collections::HashSet, path::PathBuf, sync::Arc};

use super::problem::{Fault, Problem, Problems};
use crate::{table::Origin, text::char_start};

/// Between two places of the text whose number of characters is kept.
const STEP: usize = 1024;

/// Collects the problems of one file.
pub(super) struct Report<'t> {
    path: Arc<PathBuf>,
    text: &'t str,
    line_starts: Vec<usize>,
    /// Characters that begin before every [`STEP`]th byte: one line may be all of a long file.
    characters: Vec<usize>,
    problems: RefCell<Problems>,
    /// Where something was noted already, by key.
    noted: RefCell<HashSet<(usize, &'static str)>>,
    /// Values that are wrong and not read again.
    left_out: RefCell<HashSet<usize>>,
    /// Texts in which variables were replaced.
    expanded: RefCell<HashSet<usize>>,
    outdated: RefCell<Vec<String>>,
}

/// How many characters begin in `bytes`.
fn characters(bytes: &[u8]) -> usize {
    let begins = |byte: &&u8| (**byte & 0b1100_0000) != 0b1000_0000;
    bytes.iter().filter(begins).count()
}

impl<'t> Report<'t> {
    /// No problems yet in `text`, the content of `path`.
    pub fn new(path: Arc<PathBuf>, text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        let mut before = 0;
        let steps = text.as_bytes().chunks(STEP).map(|step| {
            let sum = before;
            before += characters(step);
            sum
        });
        Self {
            path,
            text,
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            characters: steps.collect(),
            problems: RefCell::default(),
            noted: RefCell::default(),
            left_out: RefCell::default(),
            expanded: RefCell::default(),
            outdated: RefCell::default(),
        }
    }

    /// Notes that something is wrong at `offset`.
    pub fn add(&self, offset: usize, key: impl Into<String>, fault: Fault) {
        let problem = Problem::Key {
            origin: self.origin(offset),
            key: key.into(),
            fault,
        };
        self.problems.borrow_mut().push(problem);
    }

    /// Notes that something is wrong at `offset`; `what` is asked only if that is to be told.
    pub fn add_lazily(&self, offset: usize, what: impl FnOnce() -> (String, Fault)) {
        let told = self.problems.borrow().would_tell(&self.origin(offset));
        if !told {
            self.problems.borrow_mut().count();
            return;
        }
        let (key, fault) = what();
        self.add(offset, key, fault);
    }

    /// Whether this is the first time that something is noted of `key` in the table at `offset`.
    pub fn once(&self, offset: usize, key: &'static str) -> bool {
        self.noted.borrow_mut().insert((offset, key))
    }

    /// The value at `offset` is not to be read again.
    pub fn leave_out(&self, offset: usize) {
        self.left_out.borrow_mut().insert(offset);
    }

    /// Whether the value at `offset` is not to be read again.
    pub fn is_left_out(&self, offset: usize) -> bool {
        self.left_out.borrow().contains(&offset)
    }

    /// Variables have made the text at `offset` what it is.
    pub fn expand(&self, offset: usize) {
        self.expanded.borrow_mut().insert(offset);
    }

    /// Whether variables have made the text at `offset` what it is.
    pub fn is_expanded(&self, offset: usize) -> bool {
        self.expanded.borrow().contains(&offset)
    }

    /// Notes that something is written in a way of an earlier version.
    pub fn outdated(&self, what: String) {
        self.outdated.borrow_mut().push(what);
    }

    /// The line of the byte at `offset`.
    pub fn line(&self, offset: usize) -> usize {
        self.line_index(offset) + 1
    }

    /// How many lines end before the byte at `offset`.
    fn line_index(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset) - 1
    }

    /// How many characters begin before the byte at `offset`.
    fn characters_before(&self, offset: usize) -> usize {
        let step = offset / STEP;
        match self.characters.get(step) {
            Some(before) => before + characters(&self.text.as_bytes()[step * STEP..offset]),
            // Right behind the last byte, if a step ends there.
            None => characters(self.text.as_bytes()),
        }
    }

    /// The place of the byte at `offset`.
    pub fn origin(&self, offset: usize) -> Origin {
        let offset = char_start(self.text, offset);
        let index = self.line_index(offset);
        let start = self.line_starts[index];
        let column = match offset - start < STEP {
            true => characters(&self.text.as_bytes()[start..offset]),
            false => self.characters_before(offset) - self.characters_before(start),
        };
        Origin::File {
            path: Arc::clone(&self.path),
            line: index + 1,
            column: column + 1,
        }
    }

    /// What is wrong, and what is outdated.
    pub fn into_parts(self) -> (Problems, Vec<String>) {
        (self.problems.into_inner(), self.outdated.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, offset: usize) -> (usize, usize) {
        match Report::new(Arc::default(), text).origin(offset) {
            Origin::File { line, column, .. } => (line, column),
            other => panic!("not a place in a file: {other:?}"),
        }
    }

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        assert_eq!(place("", 0), (1, 1));
        assert_eq!(place("a\nb", 1), (1, 2));
        assert_eq!(place("a\nb", 2), (2, 1));
        assert_eq!(place("a\r\nb", 3), (2, 1));
        assert_eq!(place("é = x", 5), (1, 5));
    }

    #[test]
    fn an_offset_inside_a_character_or_past_the_end_has_a_place_too() {
        assert_eq!(place("é", 1), (1, 1));
        assert_eq!(place("a\n", 9), (2, 1));
    }

    #[test]
    fn columns_of_a_line_as_long_as_the_file_are_counted_in_characters() {
        let text = format!("\n{}é", "é=1, ".repeat(2000));
        for number in [0, 1, 170, 171, 1023, 1024, 1999, 2000] {
            assert_eq!(
                place(&text, 1 + 6 * number),
                (2, 1 + 5 * number),
                "{number}"
            );
        }
        assert_eq!(place(&text, text.len()), (2, 5 * 2000 + 2));
        let exact = "a".repeat(4 * STEP);
        assert_eq!(place(&exact, exact.len()), (1, 4 * STEP + 1));
    }
}
