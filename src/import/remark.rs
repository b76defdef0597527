//! What has no counterpart: where it stands, why, and what to do instead.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, Serializer, ser::SerializeMap};

/// A line of a file; 0 is the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub file: Arc<PathBuf>,
    pub line: usize,
}

impl Place {
    /// A file as a whole.
    pub fn whole(file: &Path) -> Self {
        let file = Arc::new(file.to_owned());
        Self { file, line: 0 }
    }

    /// A line of the same file.
    pub fn at(&self, line: usize) -> Self {
        let file = Arc::clone(&self.file);
        Self { file, line }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("file", &self.file.display().to_string())?;
        map.serialize_entry("line", &self.line)?;
        map.end()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// How much is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The other proxy would not start with it, or it cannot be understood: nothing can be written.
    Invalid,
    /// Something that forwards, or keeps clients out: the front end stays with the other proxy.
    LeftOut,
    /// It is forwarded, and something about it is different.
    Different,
    /// It has no counterpart, and forwarding does not depend on it.
    Dropped,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Invalid => "not valid",
            Self::LeftOut => "left out",
            Self::Different => "different",
            Self::Dropped => "dropped",
        }
    }
}

/// Something that is not written as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    #[serde(flatten)]
    pub place: Place,
    pub kind: Kind,
    /// What stands there, as it is written there.
    pub what: String,
    pub why: String,
    /// What to do instead.
    pub instead: String,
}

impl Remark {
    pub fn new(kind: Kind, place: Place, what: &str, why: impl Into<String>) -> Self {
        Self {
            place,
            kind,
            what: super::quoted(what),
            why: why.into(),
            instead: String::new(),
        }
    }

    pub fn invalid(place: Place, what: &str, why: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, place, what, why)
    }

    pub fn left_out(place: Place, what: &str, why: impl Into<String>) -> Self {
        Self::new(Kind::LeftOut, place, what, why)
    }

    pub fn different(place: Place, what: &str, why: impl Into<String>) -> Self {
        Self::new(Kind::Different, place, what, why)
    }

    pub fn dropped(place: Place, what: &str, why: impl Into<String>) -> Self {
        Self::new(Kind::Dropped, place, what, why)
    }

    /// With what to do about it.
    pub fn instead(mut self, instead: impl Into<String>) -> Self {
        self.instead = instead.into();
        self
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place, what, why, ..
        } = self;
        write!(f, "{place}: {}: {what}: {why}", self.kind.words())?;
        match self.instead.as_str() {
            "" => Ok(()),
            instead => write!(f, "; {instead}"),
        }
    }
}
