//! The problems of one file while it is read, and the way from an offset in it to line and column.

use std::{cell::RefCell, path::PathBuf, sync::Arc};

use super::problem::{Fault, Problem};
use crate::table::Origin;

/// Collects the problems of one file.
pub(super) struct Report<'t> {
    path: Arc<PathBuf>,
    text: &'t str,
    /// The number of the first line of the text.
    first_line: usize,
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Report<'t> {
    /// No problems yet in `text`, the content of `path`.
    pub fn new(path: Arc<PathBuf>, text: &'t str) -> Self {
        Self::from_line(1, path, text)
    }

    /// No problems yet in `text`, the part of `path` that begins with line number `first_line`.
    pub fn from_line(first_line: usize, path: Arc<PathBuf>, text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self {
            path,
            text,
            first_line,
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            problems: RefCell::default(),
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

    /// The line of the byte at `offset`.
    pub fn line(&self, offset: usize) -> usize {
        self.first_line + self.line_index(offset)
    }

    /// How many lines end before the byte at `offset`.
    fn line_index(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset) - 1
    }

    /// The place of the byte at `offset`.
    pub fn origin(&self, offset: usize) -> Origin {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let index = self.line_index(offset);
        let before = &self.text[self.line_starts[index]..offset];
        Origin::File {
            path: Arc::clone(&self.path),
            line: self.first_line + index,
            column: before.chars().count() + 1,
        }
    }

    /// What was noted.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
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
}
