//! `include`: further files that belong to a configuration.
//!
//! A pattern is a path, from the directory of the file that includes; its last part may have `*` and
//! `?`. Included files include nothing themselves. All of them together are read within the time and
//! the number of bytes that one file may take.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::file::LONGEST;
use crate::{
    files::{self, FileError},
    setting::{Found, Json, Kind, Refusal},
};

/// Files that a configuration may include.
const MOST: usize = 1000;

/// Names that a directory with included files may have, whatever they are.
const MOST_NAMES: usize = 100_000;

/// A path whose last part may stand for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(String);

const PATTERN: &str =
    "a path such as \"conf.d/*.toml\", in whose last part * and ? stand for others";

impl Kind for Pattern {
    type Value = Self;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        let text = found.text().filter(|text| {
            let (directory, name) = text.rsplit_once('/').unwrap_or(("", text));
            !name.is_empty() && !directory.contains(WILD) && !text.contains('\0')
        });
        text.map(|text| Self(text.to_owned()))
            .ok_or_else(|| Refusal::new(PATTERN))
    }

    fn write(value: &Self) -> Json {
        value.0.as_str().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^([^*?]*/)?[^/]+$")
    }
}

const WILD: [char; 2] = ['*', '?'];

/// A file that is included.
#[derive(Debug)]
pub(super) struct IncludedFile {
    pub path: PathBuf,
    pub content: Vec<u8>,
}

/// What a pattern comes to nothing by.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: FileError },
    #[error("more than {MOST} files are included")]
    TooMany,
    #[error("the files included up to here have more than {LONGEST} bytes together")]
    TooLong,
    #[error("{} has more than {MOST_NAMES} names in it", .0.display())]
    TooManyNames(PathBuf),
}

/// Every file that `patterns` stand for, each once, in their order and those of one pattern sorted by
/// name, without the one at `main`, from whose directory the patterns start. What could not be had is
/// told with the number of its pattern.
pub(super) fn read(
    main: &Path,
    patterns: &[Pattern],
) -> (Vec<IncludedFile>, Vec<(usize, Failure)>) {
    let base = main.parent().unwrap_or(Path::new(""));
    let mut known = vec![identity(main)];
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    let mut left = LONGEST;
    for (pattern, Pattern(text)) in patterns.iter().enumerate() {
        let paths = match paths(&base.join(text)) {
            Ok(paths) => paths,
            Err(failure) => {
                failures.push((pattern, failure));
                continue;
            }
        };
        for path in paths {
            let identity = identity(&path);
            if known.contains(&identity) {
                continue;
            }
            known.push(identity);
            if found.len() == MOST {
                failures.push((pattern, Failure::TooMany));
                return (found, failures);
            }
            match files::read(&path, LONGEST) {
                Ok(content) if content.len() as u64 > left => {
                    failures.push((pattern, Failure::TooLong));
                    return (found, failures);
                }
                Ok(content) => {
                    left -= content.len() as u64;
                    found.push(IncludedFile { path, content });
                }
                Err(error) => failures.push((pattern, Failure::Unreadable { path, error })),
            }
        }
    }
    (found, failures)
}

/// What two names of one file have in common.
fn identity(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The paths that a pattern stands for, sorted.
fn paths(pattern: &Path) -> Result<Vec<PathBuf>, Failure> {
    let name = pattern.file_name().unwrap_or_default();
    if !name.to_string_lossy().contains(WILD) {
        return Ok(vec![pattern.to_owned()]);
    }
    let directory = pattern.parent().unwrap_or(Path::new(""));
    let unreadable = |error: io::Error| Failure::Unreadable {
        path: directory.to_owned(),
        error: error.into(),
    };
    // read_dir has no word for the directory of a path without one.
    let opened = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let mut paths = Vec::new();
    for (count, entry) in fs::read_dir(opened).map_err(unreadable)?.enumerate() {
        if count == MOST_NAMES {
            return Err(Failure::TooManyNames(directory.to_owned()));
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

fn matches(pattern: &[u8], name: &[u8]) -> bool {
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
