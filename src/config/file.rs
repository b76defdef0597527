//! From the bytes of a file to TOML: whatever keeps a file from being read at all.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use toml::de::DeTable;

use super::{
    draft::Draft,
    problem::{Fault, Problem},
    reader::Section,
    report::Report,
    sections,
};

/// No configuration is this long; `/dev/zero` is.
const LONGEST: usize = 64 << 20;

/// Reads the file `path` as far as it can be read.
pub(crate) fn read(path: &Path) -> Draft {
    match bytes_of(path) {
        Ok(bytes) => read_bytes(&bytes, path),
        Err(error) => Draft::of_problems(vec![Problem::Unreadable {
            path: Arc::new(path.to_owned()),
            error,
        }]),
    }
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LONGEST as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > LONGEST {
        let why = format!("longer than {} MiB", LONGEST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

pub(super) fn read_bytes(bytes: &[u8], path: &Path) -> Draft {
    let mut chunks = bytes.utf8_chunks();
    let Some(first) = chunks.next() else {
        return read_text("", path);
    };
    match first.invalid() {
        [] => read_text(first.valid(), path),
        [byte, ..] => {
            let report = Report::new(Arc::new(path.to_owned()), first.valid());
            let fault = Fault::Text(format!("not UTF-8 text (byte 0x{byte:02x})"));
            report.add(first.valid().len(), "", fault);
            Draft::of_problems(report.into_problems())
        }
    }
}

/// Reads `text`, the content of `path`, as far as it can be read.
pub(crate) fn read_text(text: &str, path: &Path) -> Draft {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let report = Report::new(Arc::new(path.to_owned()), text);
    let config = document(text, &report)
        .and_then(|table| sections::read(Section::root(&report, &table)))
        .unwrap_or_default();
    Draft {
        config,
        problems: report.into_problems(),
    }
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
