//! Names, addresses of listeners and origins as texts.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::table::{ListenAddr, MappingName, Origin};

impl Serialize for MappingName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MappingName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::of_text)
    }
}

impl Serialize for ListenAddr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        Self::parse(&text).map_err(|allowed| {
            D::Error::custom(format!(
                "{text:?} is no address of a listener, but for {allowed}"
            ))
        })
    }
}

/// An [`Origin`] as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum SavedOrigin {
    File(String, usize, usize),
    Argument(String),
    Switchboard,
    BuiltIn,
}

impl Serialize for Origin {
    /// The name of a file is only said to people.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let saved = match self {
            Self::File { path, line, column } => {
                SavedOrigin::File(path.to_string_lossy().into_owned(), *line, *column)
            }
            Self::Argument(text) => SavedOrigin::Argument(text.to_string()),
            Self::Switchboard => SavedOrigin::Switchboard,
            Self::BuiltIn => SavedOrigin::BuiltIn,
        };
        saved.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match SavedOrigin::deserialize(from)? {
            SavedOrigin::File(path, line, column) => Self::File {
                path: Arc::new(PathBuf::from(path)),
                line,
                column,
            },
            SavedOrigin::Argument(text) => Self::Argument(text.into()),
            SavedOrigin::Switchboard => Self::Switchboard,
            SavedOrigin::BuiltIn => Self::BuiltIn,
        })
    }
}
