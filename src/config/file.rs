//! From the bytes of a file to TOML: whatever keeps a file from being read at all.

use std::{collections::HashSet, path::Path, sync::Arc};

use toml::de::DeTable;

use super::{
    draft::Draft,
    problem::{Fault, Problem, Problems},
    reader::Block,
    report::Report,
    sections,
};
use crate::files::{self, FileError};

/// No configuration is longer, in bytes: it is room for a mapping on each of the public addresses that
/// there may be.
pub(crate) const LONGEST: u64 = 32 << 20;

/// Reads the file `path` as far as it can be read.
pub(crate) fn read(path: &Path) -> Draft {
    read_content(files::read(path, LONGEST), path)
}

/// Reads what was found in the file `path` as far as it can be read.
pub(crate) fn read_content(content: Result<Vec<u8>, FileError>, path: &Path) -> Draft {
    match content {
        Ok(bytes) => read_bytes(&bytes, path),
        Err(error) => Draft::of_problems(Problems::from_iter([Problem::Unreadable {
            path: Arc::new(path.to_owned()),
            error,
        }])),
    }
}

pub(super) fn read_bytes(bytes: &[u8], path: &Path) -> Draft {
    let error = match str::from_utf8(bytes) {
        Ok(text) => return read_text(text, path),
        Err(error) => error,
    };
    let (valid, rest) = bytes.split_at(error.valid_up_to());
    let text = str::from_utf8(valid).unwrap_or_default();
    let report = Report::new(Arc::new(path.to_owned()), text);
    let byte = rest.first().copied().unwrap_or_default();
    let fault = Fault::Text(format!("not UTF-8 text (byte 0x{byte:02x})"));
    report.add(text.len(), "", fault);
    Draft::of_problems(report.into_parts().0)
}

/// Reads `text`, the content of `path`, as far as it can be read.
pub(crate) fn read_text(text: &str, path: &Path) -> Draft {
    let text = without_mark(text);
    let report = Report::new(Arc::new(path.to_owned()), text);
    let table = document(text, &report);
    let config = table.and_then(|table| sections::read(Block::root(&report, &table)));
    let mut config = config.unwrap_or_default();
    let (problems, outdated) = report.into_parts();
    config.outdated = outdated;
    Draft { config, problems }
}

/// The text after the mark some editors put before it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The TOML in `text`, if its keys can be trusted to stand where they were written.
fn document<'t>(text: &'t str, report: &Report<'_>) -> Option<DeTable<'t>> {
    if text.trim().is_empty() {
        let fault = Fault::Text("the file is empty, needed at least: version = 1".to_owned());
        report.add(0, "", fault);
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut lines = HashSet::new();
    for error in &errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        // One slip often makes the parser stumble more than once; the first time tells most.
        if lines.insert(report.line(offset)) {
            let fault = Fault::Text(format!("not TOML: {}", error.message()));
            report.add(offset, "", fault);
        }
    }
    // After any other error keys may have ended up in the wrong table.
    let only_duplicates = errors
        .iter()
        .all(|error| error.message() == "duplicate key");
    only_duplicates.then(|| table.into_inner())
}
