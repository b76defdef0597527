//! What two lists have in common at their beginning and their end.
//!
//! Most changes of a configuration are in one place. What lies between two equal ends is all that
//! has to be looked at.

use std::ops::Range;

/// How many items two lists share at each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub before: usize,
    pub after: usize,
}

impl Ends {
    /// The equal ends of a list of `new` items and one of `old`; `same` compares an item of the new
    /// list with one of the old. The ends do not overlap.
    pub fn shared(new: usize, old: usize, same: impl Fn(usize, usize) -> bool) -> Self {
        let most = new.min(old);
        let before = (0..most).take_while(|&index| same(index, index)).count();
        let after = (1..=most - before)
            .take_while(|&back| same(new - back, old - back))
            .count();
        Self { before, after }
    }

    /// The items between the ends of a list of `len` items, which is one of the two.
    pub fn between(self, len: usize) -> Range<usize> {
        self.before..len - self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ends_are_found_and_never_overlap() {
        for (new, old, before, after) in [
            ("", "", 0, 0),
            ("abc", "abc", 3, 0),
            ("abc", "axc", 1, 1),
            ("abbc", "abc", 2, 1),
            ("ac", "abc", 1, 1),
            ("aaa", "aa", 2, 0),
            ("xyz", "abc", 0, 0),
        ] {
            let (a, b) = (new.as_bytes(), old.as_bytes());
            let ends = Ends::shared(a.len(), b.len(), |i, j| a[i] == b[j]);
            assert_eq!((ends.before, ends.after), (before, after), "{new} {old}");
            assert_eq!(ends.between(a.len()), before..a.len() - after);
        }
    }
}
