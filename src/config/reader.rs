//! Parsed TOML as serde reads it, with everything that is wrong noted in its place.
//!
//! A [`Block`] is a table of the file that is read into one or more structs. Serde gives up at the
//! first value that a struct does not take; that is noted, and the struct is read again without the
//! key, until nothing is left that is wrong. So every key of a block is reported, and what could be
//! read is there for further checks. A key that no struct asked for is unknown.

use std::{cell::RefCell, fmt};

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error as _, Expected, IntoDeserializer, MapAccess,
        SeqAccess, Unexpected, Visitor,
    },
    forward_to_deserialize_any,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{problem::Fault, report::Report, similar::nearest};
use crate::table::Origin;

type Node<'a> = Spanned<DeValue<'a>>;

/// A key whose table is completed by that of the block below, as a table of its own.
const COMPLETED: &str = "keepalive";

/// Keys of an earlier version with the names that they have now. A field has the former as an alias;
/// it is read for one version and said to be outdated.
const FORMER: &[(&str, &str)] = &[("penalty", "ban")];

/// A table that has what another leaves out, and the report of its file.
#[derive(Clone, Copy)]
struct Below<'a> {
    report: &'a Report<'a>,
    table: &'a DeTable<'a>,
}

impl Below<'_> {
    /// What completes the table under `key`.
    fn completes(self, key: &str) -> Option<Self> {
        let node = (key == COMPLETED).then(|| self.table.get(key))?;
        match node?.get_ref() {
            DeValue::Table(table) => Some(Self { table, ..self }),
            _ => None,
        }
    }
}

/// A table of the file.
pub(super) struct Block<'a> {
    report: &'a Report<'a>,
    /// What an operator calls it, up to its keys.
    name: String,
    offset: usize,
    table: &'a DeTable<'a>,
    /// The table that has what this one leaves out.
    below: Option<Below<'a>>,
    /// The keys that somebody asked for.
    known: RefCell<Vec<&'static str>>,
    /// The keys of the structs that were read.
    structs: RefCell<Vec<&'static [&'static str]>>,
}

impl<'a> Block<'a> {
    /// The outermost table.
    pub fn root(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            report,
            name: String::new(),
            offset: 0,
            table,
            below: None,
            known: RefCell::default(),
            structs: RefCell::default(),
        }
    }

    /// Takes note that `key` is known.
    pub fn ask(&self, key: &'static str) {
        self.known.borrow_mut().push(key);
    }

    /// The table under `key`, if there is one.
    pub fn section(&self, key: &'static str) -> Option<Block<'a>> {
        self.ask(key);
        let node = self.table.get(key)?;
        self.table(node, format!("{key}."))
    }

    /// The tables in the list under `key`, in its order; `allowed` says what the list is.
    pub fn tables(
        &self,
        key: &'static str,
        allowed: &str,
    ) -> impl Iterator<Item = &'a Node<'a>> + use<'a> {
        self.ask(key);
        let items = match self.table.get(key).map(Spanned::get_ref) {
            Some(DeValue::Array(items)) => items.iter().as_slice(),
            Some(_) => {
                self.refuse(&[key], allowed);
                &[]
            }
            None => &[],
        };
        items.iter()
    }

    /// `node` as a table whose keys an operator finds behind `name`.
    pub fn table(&self, node: &'a Node<'a>, name: String) -> Option<Block<'a>> {
        let DeValue::Table(table) = node.get_ref() else {
            let name = name.trim_end_matches([':', '.', ' ']);
            let fault = Fault::Value {
                found: written(node.get_ref()),
                allowed: "a table".to_owned(),
            };
            self.report.add(node.span().start, name, fault);
            return None;
        };
        Some(Block {
            report: self.report,
            name,
            offset: node.span().start,
            table,
            below: None,
            known: RefCell::default(),
            structs: RefCell::default(),
        })
    }

    /// The same, with what it leaves out as in `below`.
    pub fn over(self, below: Option<&Block<'a>>) -> Self {
        Self {
            below: below.map(|&Block { report, table, .. }| Below { report, table }),
            ..self
        }
    }

    /// Whether there are no keys but these.
    pub fn has_only(&self, keys: &[&str]) -> bool {
        let known = |key: &str| keys.contains(&key);
        self.table.iter().all(|(key, _)| known(key.get_ref()))
    }

    /// What stands under `key`.
    pub fn value(&self, key: &str) -> Option<&'a DeValue<'a>> {
        self.table.get(key).map(Spanned::get_ref)
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value of `key` stands; at its default if it does not.
    pub fn origin(&self, key: &str) -> Origin {
        let offset = self.table.get(key).map(|node| node.span().start);
        offset.map_or(Origin::BuiltIn, |offset| self.report.origin(offset))
    }

    /// The struct in this table; nothing if it lacks a key that has no default.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        loop {
            match T::deserialize(self) {
                Ok(value) => return Some(value),
                // One key less each time.
                Err(Error::Noted) => {}
                Err(Error::Missing(key)) => {
                    self.require(&[key]);
                    return None;
                }
                Err(error) => {
                    let path = Path::Block(&self.name);
                    error.note(self.report, self.offset, &path, "a table".to_owned());
                    return None;
                }
            }
        }
    }

    /// Each of `keys` has to be there.
    pub fn require(&self, keys: &[&'static str]) {
        for key in keys.iter().filter(|key| !self.table.contains_key(**key)) {
            self.missing(key);
        }
    }

    fn missing(&self, key: &'static str) {
        if self.report.once(self.offset, key) {
            let path = Path::Block(&self.name).key(key).to_string();
            let needed = needed(&path, key).to_owned();
            self.report
                .add(self.offset, path, Fault::Missing { needed });
        }
    }

    /// Notes that the value under a path of keys is not what is allowed.
    pub fn refuse(&self, keys: &[&str], allowed: &str) {
        let found = self.node(keys).map(|node| written(node.get_ref()));
        self.fault(
            keys,
            Fault::Value {
                found: found.unwrap_or_default(),
                allowed: allowed.to_owned(),
            },
        );
    }

    /// Notes that the value under a path of keys does not go together with something else.
    pub fn contradicts(&self, keys: &[&str], why: impl Into<String>) {
        self.fault(keys, Fault::Contradiction(why.into()));
    }

    /// Notes that an item of a list does not go together with something else.
    pub fn item_contradicts(&self, key: &str, index: usize, why: String) {
        let items = self.value(key).and_then(DeValue::as_array);
        let item = items.and_then(|items| items.get(index));
        let offset = item.map_or(self.offset, |item| item.span().start);
        let path = format!("{}{key} (item {})", self.name, index + 1);
        self.report.add(offset, path, Fault::Contradiction(why));
    }

    fn fault(&self, keys: &[&str], fault: Fault) {
        let offset = self
            .node(keys)
            .map_or(self.offset, |node| node.span().start);
        let path: Vec<_> = keys.iter().map(|key| written_key(key)).collect();
        let path = format!("{}{}", self.name, path.join("."));
        self.report.add(offset, path, fault);
    }

    fn node(&self, keys: &[&str]) -> Option<&'a Node<'a>> {
        let (first, rest) = keys.split_first()?;
        let step = |node: &'a Node<'a>, key: &&str| match node.get_ref() {
            DeValue::Table(table) => table.get(*key),
            _ => None,
        };
        rest.iter().try_fold(self.table.get(*first)?, step)
    }

    /// Every key that nobody asked for is a problem.
    pub fn finish(self) {
        let structs = self.structs.borrow();
        let known = self.known.borrow();
        let known: Vec<_> = known
            .iter()
            .chain(structs.iter().copied().flatten())
            .collect();
        for &(former, now) in FORMER {
            if known.contains(&&former) && self.table.contains_key(former) {
                let at = self.origin(former);
                let (former, now) = (
                    format!("{}{former}", self.name),
                    format!("{}{now}", self.name),
                );
                self.report.outdated(format!(
                    "{at}: {former} is called {now} now; the former name is read in this version only"
                ));
            }
        }
        unknown_keys(self.report, self.table, &Path::Block(&self.name), &known);
    }
}

/// Notes every key of `table` that is not `known`.
fn unknown_keys(
    report: &Report<'_>,
    table: &DeTable<'_>,
    path: &Path<'_>,
    known: &[&&'static str],
) {
    let keys = table.iter().map(|(key, _)| key);
    let unknown = keys.filter(|key| !known.contains(&&key.get_ref().as_ref()));
    let mut unknown: Vec<_> = unknown
        .map(|key| (key.span().start, key.get_ref().as_ref()))
        .collect();
    // What will not be told is known at once, if those that come first are seen first.
    unknown.sort_unstable();
    let is_former = |key: &str| FORMER.iter().any(|(former, _)| *former == key);
    let allowed = || known.iter().map(|key| **key).filter(|key| !is_former(key));
    for (offset, name) in unknown {
        report.add_lazily(offset, || {
            let allowed: Vec<_> = allowed().collect();
            let fault = Fault::UnknownKey {
                near: nearest(name, &allowed),
                allowed,
            };
            (path.key(name).to_string(), fault)
        });
    }
}

/// What to say of a key that has to be there.
fn needed(path: &str, key: &str) -> &'static str {
    match key {
        "version" => "1",
        "name" if path.starts_with("switchboard") => {
            "1 to 32 lower-case letters, digits and hyphens"
        }
        "name" | "region" if path.starts_with("fleet") => {
            "1 to 63 lower-case letters, digits, hyphens and dots"
        }
        "name" => super::mapping::NAME,
        "listen" => super::address::LISTEN,
        "target" | "address" => super::address::TARGET,
        "url" => "an http or https URL such as \"https://switchboard.example.org\"",
        "database" => {
            "the URL of a PostgreSQL such as \"postgresql://tml_proxy@db.example.org/tml\""
        }
        "token_file" => "the path of a file with the token",
        "public_host" => "the host name or address that users connect to",
        "ports" => "a range of ports such as \"40000-49999\", or a list of them",
        "targets" => "{ allow = [\"fd00::/8\"] } with the prefixes that jobs' addresses are in",
        "allow" => "the prefixes that jobs' addresses are in",
        "expose" => "tables, each headed [[switchboard.expose]]",
        "port" => "the port of the job",
        "rate" if path.contains("bandwidth") => {
            "how much in a second, or in \"per\", such as \"10MiB\""
        }
        "rate" => "how much in a second, or in \"per\", such as 20",
        "drain" => "the time that sessions have left, such as \"30s\"",
        "after" => "how many refusals it takes",
        "within" => "the time they have to fall into, such as \"1m\"",
        "lasts" => "how long the source is refused, such as \"10m\"",
        _ => "a value",
    }
}

/// The way to a value, from the value up.
#[derive(Clone, Copy)]
enum Path<'p> {
    Block(&'p str),
    Key(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    fn key(&'p self, key: &'p str) -> Path<'p> {
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
pub(super) enum Error {
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
    fn note(self, report: &Report<'_>, offset: usize, path: &Path<'_>, found: String) -> Self {
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

fn written_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !key.is_empty() && key.chars().all(bare) {
        true => shortened(key),
        false => quoted(key),
    }
}

/// Text in quotation marks, with nothing in it that could break a line of the log.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
