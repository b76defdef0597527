//! A view of parsed TOML that notes what is wrong with it and goes on.
//!
//! A [`Section`] is a table, an [`Entry`] a value; both know their place and their key path. A
//! section learns which keys exist by being asked for them, so the list of keys is the code that
//! reads them.

use std::{fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{problem::Fault, report::Report, similar::nearest, values::Parsed};
use crate::table::Origin;

/// The way to a key: keys joined by dots, inside what an operator knows by another name.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyPath {
    scope: String,
    keys: String,
}

impl KeyPath {
    /// The inside of `scope`.
    pub fn scope(scope: String) -> Self {
        Self {
            scope,
            keys: String::new(),
        }
    }

    fn key(&self, key: &str) -> Self {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let mut path = self.clone();
        if !path.keys.is_empty() {
            path.keys.push('.');
        }
        if !key.is_empty() && key.chars().all(bare) {
            path.keys.push_str(&shortened(key));
        } else {
            path.keys.push_str(&quoted(key));
        }
        path
    }

    fn item(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.keys.push_str(&format!(" (item {})", index + 1));
        path
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.scope.is_empty() || self.keys.is_empty() {
            ""
        } else {
            ": "
        };
        write!(f, "{}{between}{}", self.scope, self.keys)
    }
}

/// A table.
pub(super) struct Section<'a> {
    report: &'a Report<'a>,
    path: KeyPath,
    offset: usize,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The outermost table.
    pub fn root(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            report,
            path: KeyPath::default(),
            offset: 0,
            table,
            known: Vec::new(),
        }
    }

    /// What stands under `key`.
    pub fn entry(&mut self, key: &'static str) -> Option<Entry<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let value = self.table.get(key)?;
        Some(Entry {
            report: self.report,
            path: self.path.key(key),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// What stands under `key`; it is a problem if nothing does.
    pub fn required(&mut self, key: &'static str, needed: &str) -> Option<Entry<'a>> {
        let entry = self.entry(key);
        if entry.is_none() {
            let needed = needed.to_owned();
            self.report.add(
                self.offset,
                self.path.key(key).to_string(),
                Fault::Missing { needed },
            );
        }
        entry
    }

    /// Notes that what `key` is without standing here does not go together with something else.
    pub fn contradicts(&self, key: &str, why: impl Into<String>) {
        let path = self.path.key(key).to_string();
        self.report
            .add(self.offset, path, Fault::Contradiction(why.into()));
    }

    /// The table under `key`.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.entry(key)?.into_section()
    }

    /// Reads the value of `key`, if there is one, into `slot`.
    pub fn set<T>(
        &mut self,
        key: &'static str,
        slot: &mut T,
        read: impl FnOnce(&DeValue<'_>) -> Parsed<T>,
    ) {
        if let Some(value) = self.entry(key).and_then(|entry| entry.read(read)) {
            *slot = value;
        }
    }

    /// The values of the list under `key`, if there is one and all of it can be read.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        self.entry(key)?.list(read)
    }

    /// Everything that stands in the table, for one whose keys are the user's own.
    pub fn entries(self) -> impl Iterator<Item = (&'a str, Entry<'a>)> {
        let Self {
            report,
            path,
            table,
            ..
        } = self;
        table.iter().map(move |(key, value)| {
            let name: &str = key.get_ref().as_ref();
            let entry = Entry {
                report,
                path: path.key(name),
                span: value.span(),
                value: value.get_ref(),
            };
            (name, entry)
        })
    }

    /// Every key that nobody asked for is a problem.
    pub fn finish(self) {
        let keys = self.table.iter().map(|(key, _)| key);
        let unknown = keys.filter(|key| !self.known.contains(&key.get_ref().as_ref()));
        let mut unknown: Vec<_> = unknown
            .map(|key| (key.span().start, key.get_ref().as_ref()))
            .collect();
        // What will not be told is known at once, if those that come first are seen first.
        unknown.sort_unstable();
        for (offset, name) in unknown {
            self.report.add_lazily(offset, || {
                let fault = Fault::UnknownKey {
                    near: nearest(name, &self.known),
                    allowed: self.known.clone(),
                };
                (self.path.key(name).to_string(), fault)
            });
        }
    }
}

/// A value.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    report: &'a Report<'a>,
    path: KeyPath,
    span: Range<usize>,
    value: &'a DeValue<'a>,
}

impl<'a> Entry<'a> {
    /// The value as TOML has it.
    pub fn value(&self) -> &'a DeValue<'a> {
        self.value
    }

    /// Where it stands.
    pub fn origin(&self) -> Origin {
        self.report.origin(self.span.start)
    }

    /// The same value under another path.
    pub fn renamed(self, path: KeyPath) -> Self {
        Self { path, ..self }
    }

    /// The value as `read` understands it.
    pub fn read<T>(&self, read: impl FnOnce(&DeValue<'_>) -> Parsed<T>) -> Option<T> {
        read(self.value)
            .map_err(|refusal| self.refuse(refusal.to_string()))
            .ok()
    }

    /// Notes that the value is not what is allowed.
    pub fn refuse(&self, allowed: impl Into<String>) {
        self.fault(Fault::Value {
            found: written(self.value),
            allowed: allowed.into(),
        });
    }

    /// Notes that the value does not go together with something else.
    pub fn contradicts(&self, why: impl Into<String>) {
        self.fault(Fault::Contradiction(why.into()));
    }

    fn fault(&self, fault: Fault) {
        self.report
            .add(self.span.start, self.path.to_string(), fault);
    }

    /// The value as a table.
    pub fn into_section(self) -> Option<Section<'a>> {
        let DeValue::Table(table) = self.value else {
            self.refuse("a table");
            return None;
        };
        Some(Section {
            report: self.report,
            path: self.path,
            offset: self.span.start,
            table,
            known: Vec::new(),
        })
    }

    /// The values of a list; `allowed` says what it is a list of.
    pub fn items(&self, allowed: &str) -> Option<Vec<Entry<'a>>> {
        let DeValue::Array(items) = self.value else {
            self.refuse(allowed);
            return None;
        };
        let entry = |(index, item): (usize, &'a Spanned<DeValue<'a>>)| Entry {
            report: self.report,
            path: self.path.item(index),
            span: item.span(),
            value: item.get_ref(),
        };
        Some(items.iter().enumerate().map(entry).collect())
    }

    /// The values of a list, if all of them can be read.
    pub fn list<T>(&self, read: impl Fn(&DeValue<'_>) -> Parsed<T>) -> Option<Vec<T>> {
        let items = self.items("a list")?;
        let values: Vec<_> = items.iter().filter_map(|item| item.read(&read)).collect();
        (values.len() == items.len()).then_some(values)
    }
}

/// A value as a message shows it: on one line, and not longer than makes sense.
fn written(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => shortened(&number.to_string()),
        DeValue::Float(number) => shortened(&number.to_string()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Text in quotation marks, with nothing in it that could break a line of the log.
fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
