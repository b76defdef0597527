//! From the bytes of a file to TOML: whatever keeps a file from being read at all.

use std::{collections::HashSet, path::Path, sync::Arc};

use toml::de::DeTable;

use super::{
    draft::Draft,
    include::{self, IncludedFile},
    prefix_files::PrefixFiles,
    problem::{Fault, Problem, Problems},
    reader::Block,
    report::Report,
    sections,
    settings::{Config, Includes},
    variables,
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
    match text_of(bytes, path) {
        Ok(text) => read_text(text, path),
        Err(problems) => Draft::of_problems(problems),
    }
}

/// The text that a file is.
pub(super) fn text_of<'b>(bytes: &'b [u8], path: &Path) -> Result<&'b str, Problems> {
    str::from_utf8(bytes).map_err(|error| {
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        let text = str::from_utf8(valid).unwrap_or_default();
        let report = Report::new(Arc::new(path.to_owned()), text);
        let byte = rest.first().copied().unwrap_or_default();
        let fault = Fault::Text(format!("not UTF-8 text (byte 0x{byte:02x})"));
        report.add(text.len(), "", fault);
        report.into_parts().0
    })
}

/// Reads `text`, the content of `path`, as far as it can be read, and the files that it includes.
pub(crate) fn read_text(text: &str, path: &Path) -> Draft {
    let main = Text::new(text, path);
    if main.is_empty() {
        // Not that each of its keys is missing.
        let fault = Fault::Text("the file is empty, needed at least: version = 1".to_owned());
        main.report.add(0, "", fault);
    }
    let (config, more) = match &main.table {
        Some(table) if !main.is_empty() => read_table(Block::root(&main.report, table), path),
        _ => Default::default(),
    };
    let mut config = config.unwrap_or_default();
    let (mut problems, outdated) = main.report.into_parts();
    problems.append(more);
    config.outdated.extend(outdated);
    Draft { config, problems }
}

/// Reads the outermost table of the file `path` with the files that it includes. The problems are those
/// of the others.
fn read_table(root: Block<'_>, path: &Path) -> (Option<Config>, Problems) {
    let files = included(&root, path);
    let mut problems = Problems::default();
    let mut texts = Vec::new();
    for IncludedFile { path, content } in &files {
        match text_of(content, path) {
            Ok(text) => texts.push(Text::new(text, path)),
            Err(found) => problems.append(found),
        }
    }
    let blocks = texts.iter().filter_map(|text| {
        let table = text.table.as_ref()?;
        Some(Block::root(&text.report, table))
    });
    let prefixes = PrefixFiles::default();
    let mut config = sections::read(root, blocks.collect(), &prefixes);
    problems.append(prefixes.into_problems());
    for text in texts {
        let (found, outdated) = text.report.into_parts();
        problems.append(found);
        if let Some(config) = &mut config {
            config.outdated.extend(outdated);
        }
    }
    (config, problems)
}

/// The files that the file `path` includes, as far as they can be had.
fn included(root: &Block<'_>, path: &Path) -> Vec<IncludedFile> {
    let Some(Includes { include }) = root.read() else {
        return Vec::new();
    };
    if include.is_empty() {
        return Vec::new();
    }
    let main = path.to_owned();
    let read = files::off_this_thread(move || include::read(&main, &include));
    match read {
        Ok((found, failures)) => {
            for (index, failure) in failures {
                root.item_contradicts("include", index, failure.to_string());
            }
            found
        }
        Err(unanswered) => {
            root.contradicts(&["include"], unanswered.to_string());
            Vec::new()
        }
    }
}

/// A file of which the TOML was read.
struct Text<'t> {
    text: &'t str,
    report: Report<'t>,
    /// None if its keys cannot be trusted to stand where they were written.
    table: Option<DeTable<'t>>,
}

impl<'t> Text<'t> {
    fn new(text: &'t str, path: &Path) -> Self {
        let text = without_mark(text);
        let report = Report::new(Arc::new(path.to_owned()), text);
        let mut table = document(text, &report);
        if let Some(table) = &mut table {
            variables::expand(table, &report, &variables::of_process);
        }
        Self {
            text,
            report,
            table,
        }
    }

    fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// The text after the mark some editors put before it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The TOML in `text`, if its keys can be trusted to stand where they were written.
fn document<'t>(text: &'t str, report: &Report<'_>) -> Option<DeTable<'t>> {
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
