//! "Did you mean": the known key nearest to a misspelt one.

use strsim::osa_distance;

/// The one of `known` that `word` was probably meant to be.
pub(super) fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let length = word.chars().count();
    let most_edits = (length / 3).clamp(1, 3);
    known
        .iter()
        .filter(|candidate| candidate.len().abs_diff(length) <= most_edits)
        .map(|candidate| (osa_distance(word, candidate), *candidate))
        .filter(|(edits, _)| *edits <= most_edits)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 5] = ["name", "listen", "target", "idle_timeout", "allow"];

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        for (typed, meant) in [
            ("lisen", "listen"),
            ("targets", "target"),
            ("idle-timeout", "idle_timeout"),
            ("idel_timeout", "idle_timeout"),
            ("naem", "name"),
            ("alolw", "allow"),
        ] {
            assert_eq!(nearest(typed, &KEYS), Some(meant));
        }
    }

    #[test]
    fn another_word_is_not() {
        for typed in ["", "x", "server", "max"] {
            assert_eq!(nearest(typed, &KEYS), None, "{typed}");
        }
    }
}
