//! "Did you mean": the known key nearest to a misspelt one.

/// The one of `known` that `word` was probably meant to be.
pub(super) fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let length = word.chars().count();
    let most_edits = (length / 3).clamp(1, 3);
    known
        .iter()
        .filter(|candidate| candidate.len().abs_diff(length) <= most_edits)
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(edits, _)| *edits <= most_edits)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Characters to insert, remove or replace to make `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["listen", "target", "idle_timeout", "allow"];

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        for (typed, meant) in [
            ("lisen", "listen"),
            ("targets", "target"),
            ("idle-timeout", "idle_timeout"),
            ("idel_timeout", "idle_timeout"),
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
