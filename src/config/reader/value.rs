//! Values with their places as serde reads them, and what is wrong with them.

use std::fmt;

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
        Visitor,
    },
    forward_to_deserialize_any,
};
use toml::de::{DeTable, DeValue};

use super::{Below, Block, Node, needed, unknown_keys};
use crate::config::{problem::Fault, report::Report};

/// The way to a value, from the value up.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Block(&'p str),
    Key(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub fn key(&'p self, key: &'p str) -> Path<'p> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(name) => f.write_str(name.trim_end_matches(['.', ':', ' '])),
            Self::Key(Path::Block(name), key) => write!(f, "{name}{}", written_key(key)),
            Self::Key(up, key) => write!(f, "{up}.{}", written_key(key)),
            Self::Item(up, index) => write!(f, "{up} (item {})", index + 1),
        }
    }
}

/// Why serde gave up.
#[derive(Debug)]
pub(in crate::config) enum Error {
    /// The value is not what is allowed, which this says.
    Value(String),
    /// The value does not go together with something else.
    Contradiction(String),
    /// A key has to be there.
    Missing(&'static str),
    /// Something is wrong that was noted when the value was read before.
    Spoiled,
    /// Something was wrong, has been noted, and is left out the next time.
    Noted,
}

impl Error {
    /// Notes what is wrong with the value at `offset`, which is left out from now on.
    pub(super) fn note(
        self,
        report: &Report<'_>,
        offset: usize,
        path: &Path<'_>,
        found: String,
    ) -> Self {
        let (path, fault) = match self {
            Self::Noted => return self,
            Self::Spoiled => {
                report.leave_out(offset);
                return Self::Noted;
            }
            Self::Value(allowed) => (path.to_string(), Fault::Value { found, allowed }),
            Self::Contradiction(why) => (path.to_string(), Fault::Contradiction(why)),
            Self::Missing(key) => {
                let path = path.key(key).to_string();
                let needed = needed(&path, key).to_owned();
                (path, Fault::Missing { needed })
            }
        };
        report.add(offset, path, fault);
        report.leave_out(offset);
        Self::Noted
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self::Contradiction(why.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, allowed: &dyn Expected) -> Self {
        Self::Value(allowed.to_string())
    }

    fn invalid_value(_: Unexpected<'_>, allowed: &dyn Expected) -> Self {
        Self::Value(allowed.to_string())
    }

    fn missing_field(key: &'static str) -> Self {
        Self::Missing(key)
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::Contradiction(format!("given twice, once as {key}"))
    }
}

/// A block is read as a struct.
impl<'de> Deserializer<'de> for &Block<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut structs = self.structs.borrow_mut();
        if !structs.iter().any(|known| std::ptr::eq(*known, fields)) {
            structs.push(fields);
        }
        drop(structs);
        let path = Path::Block(&self.name);
        let keys = Keys::new(self.report, &path, self.table, self.below);
        visitor.visit_map(keys)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A value with its place.
#[derive(Clone, Copy)]
struct Value<'v> {
    report: &'v Report<'v>,
    path: &'v Path<'v>,
    node: &'v Node<'v>,
    below: Option<Below<'v>>,
}

impl<'v> Value<'v> {
    fn refused<T>(self, allowed: &str) -> Result<T, Error> {
        Err(Error::Value(allowed.to_owned()))
    }

    /// Whether variables have made it what it is.
    fn is_expanded(self) -> bool {
        self.report.is_expanded(self.node.span().start)
    }

    /// Reads it by `seed` and notes what is wrong.
    fn read<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self).map_err(|error| self.note(error))
    }

    fn note(self, error: Error) -> Error {
        let offset = self.node.span().start;
        let found = written(self.node.get_ref());
        match (&error, self.node.get_ref()) {
            (Error::Missing(key), DeValue::Table(table)) if table.contains_key(*key) => {
                Error::Spoiled.note(self.report, offset, self.path, found)
            }
            _ => error.note(self.report, offset, self.path, found),
        }
    }
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.get_ref() {
            // A kind of setting reads it as text from a variable, which may be a number.
            DeValue::String(text) if self.is_expanded() => visitor.visit_bytes(text.as_bytes()),
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => visitor.visit_unit(),
                }
            }
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            DeValue::Float(_) | DeValue::Datetime(_) => visitor.visit_unit(),
            DeValue::Array(items) => visitor.visit_seq(Items {
                of: self,
                items: items.iter().enumerate(),
                spoiled: false,
            }),
            // A kind of setting reads it as a struct.
            DeValue::Table(_) => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.get_ref() {
            DeValue::Table(table) => {
                visitor.visit_map(Keys::new(self.report, self.path, table, self.below))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.get_ref() {
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            DeValue::String(text) if self.is_expanded() && *text == "true" => {
                visitor.visit_bool(true)
            }
            DeValue::String(text) if self.is_expanded() && *text == "false" => {
                visitor.visit_bool(false)
            }
            _ => self.refused("true or false"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let DeValue::Table(table) = self.node.get_ref() else {
            return self.refused("a table");
        };
        // It may be read more than once.
        if self.report.once(self.node.span().start, "") {
            let known: Vec<_> = fields.iter().collect();
            unknown_keys(self.report, table, self.path, &known);
        }
        visitor.visit_map(Keys::new(self.report, self.path, table, self.below))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct enum identifier
    }
}

/// A key with its value, and the report of the file that has it.
type Entry<'v> = (&'v Report<'v>, &'v str, &'v Node<'v>);

/// Those of a table.
fn entries<'v>(report: &'v Report<'v>, table: &'v DeTable<'v>) -> impl Iterator<Item = Entry<'v>> {
    let entries = table.iter();
    entries.map(move |(key, node)| (report, key.get_ref().as_ref(), node))
}

/// The keys of a table, and those of the one below that it does not have.
struct Keys<'v> {
    path: &'v Path<'v>,
    keys: Box<dyn Iterator<Item = Entry<'v>> + 'v>,
    below: Option<Below<'v>>,
    value: Option<Entry<'v>>,
}

impl<'v> Keys<'v> {
    fn new(
        report: &'v Report<'v>,
        path: &'v Path<'v>,
        table: &'v DeTable<'v>,
        below: Option<Below<'v>>,
    ) -> Self {
        let more = below
            .into_iter()
            .flat_map(move |below| entries(below.report, below.table));
        let more = more.filter(|(_, key, _)| !table.contains_key(*key));
        Self {
            path,
            keys: Box::new(entries(report, table).chain(more)),
            below,
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Keys<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let left = |(report, _, node): &Entry<'_>| !report.is_left_out(node.span().start);
        self.value = self.keys.by_ref().find(left);
        let key = self
            .value
            .map(|(_, key, _)| seed.deserialize(key.into_deserializer()));
        key.transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (report, key, node) = self
            .value
            .take()
            .ok_or_else(|| Error::custom("a value without its key"))?;
        let value = Value {
            report,
            path: &self.path.key(key),
            node,
            below: self.below.and_then(|below| below.completes(key)),
        };
        value.read(seed)
    }
}

/// The items of a list.
struct Items<'v> {
    of: Value<'v>,
    items: std::iter::Enumerate<std::slice::Iter<'v, Node<'v>>>,
    spoiled: bool,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        for (index, node) in self.items.by_ref() {
            // A list of which an item is wrong is not the list that somebody wanted.
            if self.of.report.is_left_out(node.span().start) {
                self.spoiled = true;
                continue;
            }
            let path = Path::Item(self.of.path, index);
            let value = Value {
                path: &path,
                node,
                below: None,
                ..self.of
            };
            return value.read(seed).map(Some);
        }
        match std::mem::take(&mut self.spoiled) {
            true => Err(Error::Spoiled),
            false => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// A value as a message shows it: on one line, and not longer than makes sense.
pub(super) fn written(value: &DeValue<'_>) -> String {
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

pub(super) fn written_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !key.is_empty() && key.chars().all(bare) {
        true => shortened(key),
        false => quoted(key),
    }
}

/// Text in quotation marks, with nothing in it that could break a line of the log.
pub(in crate::config) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
