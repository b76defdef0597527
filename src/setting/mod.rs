//! Kinds of settings: how a value is written in a file, what is allowed in its place, and how it is
//! printed back.
//!
//! A field of a settings struct names its kind, `#[serde(with = "As::<Off<Span>>")]`, and has its
//! range checked where it is read. Kinds are put together: [`Off`], [`Auto`] and [`List`] take
//! another. Nothing here knows a file, a key or who uses the value.

pub(crate) mod address;
mod kinds;
#[cfg(test)]
pub(crate) mod schema;

use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer, Serialize, Serializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error, MapAccess, SeqAccess, Unexpected, Visitor,
        value::MapAccessDeserializer,
    },
};

pub use kinds::{Auto, Off};
pub(crate) use kinds::{
    Bytes, Count, FileMode, Given, Group, KeepOr, LONGEST_SOCKET_PATH, List, LocalAddress, Number,
    OffIsZero, OwnName, PathFromRoot, PerSecond, PipeSize, Prefix, Seconds, SocketPath, Span, Word,
};

/// A value as JSON.
pub(crate) type Json = serde_json::Value;

/// A value, or the wish that the program picks one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum AutoOr<T> {
    /// The program picks.
    #[default]
    Auto,
    /// The operator picked.
    Value(T),
}

impl<T> AutoOr<T> {
    /// The operator's value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Value(value) => Some(value),
        }
    }
}

/// What a file has in the place of a value, if it is neither a list nor a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    Text(&'a str),
    /// Text that variables of the environment have a part in: it may stand for a number.
    Expanded(&'a str),
    Integer(i64),
    Other,
}

impl<'a> Found<'a> {
    pub fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) | Self::Expanded(text) => Some(text),
            Self::Integer(_) | Self::Other => None,
        }
    }

    pub fn integer(self) -> Option<u32> {
        match self {
            Self::Integer(number) => u32::try_from(number).ok(),
            Self::Expanded(text) => text.parse().ok(),
            Self::Text(_) | Self::Other => None,
        }
    }

    /// Whether it is this word.
    pub fn is(self, word: &str) -> bool {
        self.text() == Some(word)
    }
}

/// Why a value is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// One of these is allowed in its place.
    Allowed(Vec<String>),
    /// It is understood, and does not go together with something else.
    Contradicts(String),
}

impl Refusal {
    /// Allowed is only `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self::Allowed(vec![what.into()])
    }

    /// Allowed is `what` as well.
    pub fn or(mut self, what: impl Into<String>) -> Self {
        if let Self::Allowed(all) = &mut self {
            all.push(what.into());
        }
        self
    }

    /// Allowed is `what` as well, and named first.
    pub fn or_first(mut self, what: &str) -> Self {
        if let Self::Allowed(all) = &mut self {
            all.insert(0, what.to_owned());
        }
        self
    }

    /// What serde is told.
    pub fn into_error<E: Error>(self) -> E {
        match &self {
            Self::Allowed(_) => {
                E::invalid_value(Unexpected::Other("this value"), &self.to_string().as_str())
            }
            Self::Contradicts(why) => E::custom(why),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contradicts(why) => f.write_str(why),
            Self::Allowed(all) => match all.split_last() {
                Some((last, rest)) if !rest.is_empty() => {
                    write!(f, "{} or {last}", rest.join(", "))
                }
                _ => f.write_str(&all.concat()),
            },
        }
    }
}

/// A way to write values.
pub(crate) trait Kind {
    /// What they are in the program.
    type Value;

    /// Whether some of them are lists.
    const LISTS: bool = false;

    /// Whether some of them are tables.
    const TABLES: bool = false;

    /// The value, if it is neither a list nor a table.
    fn read(found: Found<'_>) -> Result<Self::Value, Refusal>;

    /// The value as a list, for kinds with [`Kind::LISTS`].
    fn list<'de, A: SeqAccess<'de>>(_items: A) -> Result<Self::Value, A::Error> {
        Self::read(Found::Other).map_err(Refusal::into_error)
    }

    /// The value as a table, for kinds with [`Kind::TABLES`].
    fn table<'de, D: Deserializer<'de>>(_table: D) -> Result<Self::Value, D::Error> {
        Self::read(Found::Other).map_err(Refusal::into_error)
    }

    /// The value as it is printed.
    fn write(value: &Self::Value) -> Json;

    /// Its JSON schema.
    #[cfg(test)]
    fn schema() -> Json;
}

/// What the schema of a table is made of, where there is one.
#[cfg(test)]
pub(crate) use schemars::JsonSchema as Described;
#[cfg(not(test))]
pub(crate) trait Described {}
#[cfg(not(test))]
impl<T> Described for T {}

/// A struct that is written as a table, its fields the keys.
pub(crate) trait KeyTable: DeserializeOwned + Serialize + Described {
    /// Such a table, for whoever has written something else.
    const EXAMPLE: &'static str;
}

impl<T: KeyTable> Kind for T {
    type Value = Self;

    const TABLES: bool = true;

    fn read(_: Found<'_>) -> Result<Self, Refusal> {
        Err(Refusal::new(format!("a table such as {}", T::EXAMPLE)))
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self, D::Error> {
        Self::deserialize(table)
    }

    fn write(value: &Self) -> Json {
        serde_json::json!(value)
    }

    #[cfg(test)]
    fn schema() -> Json {
        schema::table::<Self>()
    }
}

/// Words of a file, each with what it means.
pub(crate) trait Words: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    /// What `word` means.
    fn of_word(word: &str) -> Option<Self> {
        let known = Self::WORDS.iter().find(|(known, _)| *known == word);
        known.map(|(_, value)| *value)
    }

    fn word(self) -> &'static str {
        let known = Self::WORDS.iter().find(|(_, value)| *value == self);
        known.map_or("", |(word, _)| word)
    }
}

/// Reads and writes a field by its kind: `#[serde(with = "As::<Kind>")]`.
pub(crate) struct As<K>(PhantomData<K>);

impl<K: Kind> As<K> {
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<K::Value, D::Error> {
        Seed::<K>::new().deserialize(from)
    }

    pub fn serialize<S: Serializer>(value: &K::Value, to: S) -> Result<S::Ok, S::Error> {
        K::write(value).serialize(to)
    }
}

/// Reads one value of a kind.
pub(crate) struct Seed<K>(PhantomData<K>);

impl<K> Seed<K> {
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, K: Kind> DeserializeSeed<'de> for Seed<K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<K::Value, D::Error> {
        if const { K::LISTS || K::TABLES } {
            return from.deserialize_any(self);
        }
        let mut value = None;
        let mut read = |found: Found<'_>| {
            value = Some(K::read(found)?);
            Ok(())
        };
        from.deserialize_any(Scalar(&mut read))?;
        value.ok_or_else(|| D::Error::custom("no value"))
    }
}

/// A file hands text over as bytes if variables have a part in it.
fn expanded(text: &[u8]) -> Found<'_> {
    str::from_utf8(text).map_or(Found::Other, Found::Expanded)
}

/// Reads a value that is neither a list nor a table: the same code whatever its kind is.
struct Scalar<'r>(&'r mut dyn FnMut(Found<'_>) -> Result<(), Refusal>);

impl<'de> Visitor<'de> for Scalar<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0(Found::Text(text)).map_err(Refusal::into_error)
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<(), E> {
        self.0(expanded(text)).map_err(Refusal::into_error)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.0(Found::Integer(number)).map_err(Refusal::into_error)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => self.visit_unit(),
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0(Found::Other).map_err(Refusal::into_error)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.visit_unit()
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.visit_unit()
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        self.visit_unit()
    }
}

impl<'de, K: Kind> Visitor<'de> for Seed<K> {
    type Value = K::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<K::Value, E> {
        K::read(Found::Text(text)).map_err(Refusal::into_error)
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<K::Value, E> {
        K::read(expanded(text)).map_err(Refusal::into_error)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<K::Value, E> {
        K::read(Found::Integer(number)).map_err(Refusal::into_error)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<K::Value, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => self.visit_unit(),
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<K::Value, E> {
        self.visit_unit()
    }

    fn visit_unit<E: Error>(self) -> Result<K::Value, E> {
        K::read(Found::Other).map_err(Refusal::into_error)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<K::Value, A::Error> {
        match K::LISTS {
            true => K::list(items),
            false => self.visit_unit(),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<K::Value, A::Error> {
        self.visit_newtype_struct(MapAccessDeserializer::new(table))
    }

    /// A file hands a table over so, and has the kind read it as a struct with its keys.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, table: D) -> Result<K::Value, D::Error> {
        match K::TABLES {
            true => K::table(table),
            false => self.visit_unit(),
        }
    }
}

/// Every item of a list as a kind. All items are read, whatever is wrong with some of them, if it is
/// known how many are left: a list that is broken off would never end.
pub(crate) fn items<'de, K: Kind, A: SeqAccess<'de>>(
    mut items: A,
) -> Result<Vec<K::Value>, A::Error> {
    let mut values = Vec::new();
    let mut failed = None;
    loop {
        match items.next_element_seed(Seed::<K>::new()) {
            Ok(Some(value)) => values.push(value),
            Ok(None) => return failed.map_or(Ok(values), Err),
            Err(error) => {
                let first = failed.unwrap_or(error);
                if items.size_hint().unwrap_or(0) == 0 {
                    return Err(first);
                }
                failed = Some(first);
            }
        }
    }
}
