//! Paths whose last part may have `*` and `?`: which files they stand for.
//!
//! Directories are not matched, and there are no sets in brackets.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Names that a directory may have, whatever they are.
const MOST_NAMES: usize = 100_000;

/// What stands for others.
pub const WILD: [char; 2] = ['*', '?'];

/// Why it is not known which files there are.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// The directory cannot be read.
    #[error("{}: {}", directory.display(), crate::os_error::in_words(error))]
    Unreadable {
        directory: PathBuf,
        error: io::Error,
    },
    /// There is too much in it.
    #[error("{} has more than {MOST_NAMES} names in it", .0.display())]
    TooManyNames(PathBuf),
}

impl PatternError {
    /// Whether there is no such directory.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unreadable { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The paths that a pattern stands for, sorted. One without `*` and `?` stands for itself.
pub fn paths(pattern: &Path) -> Result<Vec<PathBuf>, PatternError> {
    let name = pattern.file_name().unwrap_or_default();
    if !name.to_string_lossy().contains(WILD) {
        return Ok(vec![pattern.to_owned()]);
    }
    let directory = pattern.parent().unwrap_or(Path::new(""));
    let unreadable = |error| PatternError::Unreadable {
        directory: directory.to_owned(),
        error,
    };
    // read_dir has no word for the directory of a path without one.
    let opened = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let mut paths = Vec::new();
    for (count, entry) in fs::read_dir(opened).map_err(unreadable)?.enumerate() {
        if count == MOST_NAMES {
            return Err(PatternError::TooManyNames(directory.to_owned()));
        }
        let found = entry.map_err(unreadable)?.file_name();
        if stands_for(name, &found) {
            paths.push(directory.join(found));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a pattern stands for a name. A name that begins with a dot is hidden, unless the pattern
/// does.
fn stands_for(pattern: &OsStr, name: &OsStr) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let is_hidden = name.starts_with(b".") && !pattern.starts_with(b".");
    !is_hidden && matches(pattern, name)
}

/// Whether a pattern stands for a name, hidden or not.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of_name) = (0, 0);
    // Where the last * is, and up to where it reaches.
    let mut star = None;
    while of_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of_name));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[of_name] => {
                at += 1;
                of_name += 1;
            }
            _ => {
                let Some((of_star, reaches)) = star else {
                    return false;
                };
                star = Some((of_star, reaches + 1));
                at = of_star + 1;
                of_name = reaches + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_names() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", false),
            ("*.toml", "a.toml~", false),
            ("*.toml", ".a.toml", false),
            (".*.toml", ".a.toml", true),
            ("*", "a", true),
            ("??-*.toml", "10-ssh.toml", true),
            ("??-*.toml", "1-ssh.toml", false),
            ("*a*b*", "xxaxxabx", true),
            ("*a*b*", "bxa", false),
            ("[a].toml", "[a].toml", true),
            ("a", "a", true),
            ("a", "ab", false),
        ] {
            let stands = stands_for(OsStr::new(pattern), OsStr::new(name));
            assert_eq!(stands, expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_backtracks_takes_no_longer_than_its_square() {
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(255).as_bytes()));
    }
}
