//! Files with prefixes that `allow` and `deny` name: a prefix on each line, and whatever is behind a `#`
//! or a `;` is a remark. Each is read once, whoever names it.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    file::{LONGEST, text_of},
    problem::{Fault, Problems},
    reader::{Block, quoted},
    report::Report,
};
use crate::{
    files::{self, FileError},
    setting::{Found, Kind, Prefix},
    table::{Entry, PrefixFile, Prefixes},
};

/// Files that a configuration may name.
const MOST_FILES: usize = 100;

/// Prefixes that a file may have.
const MOST_PREFIXES: usize = 1_000_000;

/// The files that were named so far.
#[derive(Debug, Default)]
pub(super) struct PrefixFiles {
    known: RefCell<HashMap<PathBuf, Result<Arc<PrefixFile>, Unfit>>>,
    /// What is wrong in them.
    problems: RefCell<Problems>,
}

/// Why there are no prefixes of a file.
#[derive(Debug, Clone)]
enum Unfit {
    /// It cannot be had.
    Unreadable(String),
    /// What is wrong in it has been noted.
    Noted,
}

impl PrefixFiles {
    /// The prefixes that the list under `key` comes to.
    pub fn prefixes(&self, entries: Vec<Entry>, key: &str, block: &Block<'_>) -> Prefixes {
        let (mut own, mut files) = (Vec::new(), Vec::new());
        for (index, entry) in entries.into_iter().enumerate() {
            match entry {
                Entry::Prefix(net) => own.push(net),
                Entry::File(path) => match self.file(&path) {
                    Ok(file) => files.push(file),
                    // Where it is inherited it has been told before.
                    Err(Unfit::Unreadable(why)) if block.has(key) => {
                        block.item_contradicts(key, index, why);
                    }
                    Err(_) => {}
                },
            }
        }
        Prefixes::new(own, files)
    }

    /// What was found wrong in the files.
    pub fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }

    fn file(&self, path: &Path) -> Result<Arc<PrefixFile>, Unfit> {
        if let Some(known) = self.known.borrow().get(path) {
            return known.clone();
        }
        let found = match self.known.borrow().len() {
            MOST_FILES => Err(Unfit::Unreadable(format!(
                "more than {MOST_FILES} files with prefixes are named"
            ))),
            _ => self.read(path).map(Arc::new),
        };
        if self.known.borrow().len() < MOST_FILES {
            let path = path.to_owned();
            self.known.borrow_mut().insert(path, found.clone());
        }
        found
    }

    fn read(&self, path: &Path) -> Result<PrefixFile, Unfit> {
        let of_file = path.to_owned();
        let content = files::off_this_thread(move || files::read(&of_file, LONGEST));
        let content = content.unwrap_or_else(|unanswered| Err(FileError::from(unanswered)));
        let unreadable =
            |error: FileError| Unfit::Unreadable(format!("{}: {error}", path.display()));
        let content = content.map_err(unreadable)?;
        let text = text_of(&content, path).map_err(|problems| self.note(problems))?;
        let report = Report::new(Arc::new(path.to_owned()), text);
        let mut prefixes = Vec::new();
        let mut at = 0;
        for line in text.split('\n') {
            let remark = line.find(['#', ';']).unwrap_or(line.len());
            let word = line[..remark].trim();
            match Prefix::read(Found::Text(word)) {
                _ if word.is_empty() => {}
                Ok(_) if prefixes.len() == MOST_PREFIXES => {
                    let why = format!("more than {MOST_PREFIXES} prefixes");
                    report.add(at, "", Fault::Contradiction(why));
                    break;
                }
                Ok(net) => prefixes.push(net),
                Err(allowed) => report.add_lazily(at + line.find(word).unwrap_or(0), || {
                    let fault = Fault::Value {
                        found: quoted(word),
                        allowed: allowed.to_string(),
                    };
                    (String::new(), fault)
                }),
            }
            at += line.len() + 1;
        }
        let (problems, _) = report.into_parts();
        match problems.is_empty() {
            true => Ok(PrefixFile::new(path.to_owned(), prefixes)),
            false => Err(self.note(problems)),
        }
    }

    fn note(&self, problems: Problems) -> Unfit {
        self.problems.borrow_mut().append(problems);
        Unfit::Noted
    }
}
