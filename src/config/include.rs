//! `include`: further files that belong to a configuration.
//!
//! A pattern is a path, from the directory of the file that includes; its last part may have `*` and
//! `?`. Included files include nothing themselves. All of them together are read within the time and
//! the number of bytes that one file may take.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::file::LONGEST;
use crate::{
    file_pattern::{self, PatternError, WILD},
    files::{self, FileError},
    setting::{Found, Json, Kind, Refusal},
};

/// Files that a configuration may include.
const MOST: usize = 1000;

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
    #[error(transparent)]
    Unknown(#[from] PatternError),
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
        let paths = match file_pattern::paths(&base.join(text)) {
            Ok(paths) => paths,
            Err(error) => {
                failures.push((pattern, error.into()));
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
