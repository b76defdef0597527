//! What is read first of all: who hands over, and whether whoever takes it understands.

use serde::{Deserialize, Serialize};

/// The part that holds it.
pub const HEADER: &str = "header";

/// The format of what this version hands over. It goes up with a change after which an older version
/// would misunderstand something; one that adds what may be missing, or leaves out what older ones
/// have a default for, is no such change.
const FORMAT: u32 = 1;

/// The oldest format that this version understands.
const OLDEST: u32 = 1;

/// Who hands over, and in which format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format of all parts.
    pub format: u32,
    /// The oldest format of which a version has to be that takes them.
    pub oldest: u32,
    /// The version that hands over.
    pub version: String,
}

/// Two versions that do not understand each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "version {from} hands over in format {format}, which version {} (formats {OLDEST} to {FORMAT}) does \
     not understand: update by a restart, or by way of a version between the two",
    version()
)]
pub struct Unsuitable {
    /// The version that hands over.
    pub from: String,
    /// Its format.
    pub format: u32,
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

impl Header {
    /// That of this version.
    pub fn own() -> Self {
        Self {
            format: FORMAT,
            oldest: OLDEST,
            version: version().to_owned(),
        }
    }

    /// Whether this version understands what comes.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn check(&self) -> Result<(), Unsuitable> {
        match self.format >= OLDEST && self.oldest <= FORMAT {
            true => Ok(()),
            false => Err(Unsuitable {
                from: self.version.clone(),
                format: self.format,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_do_not_understand_each_other_are_both_named() {
        let later = |oldest| Header {
            format: FORMAT + 5,
            oldest,
            version: "9.8.7".to_owned(),
        };
        assert_eq!(Header::own().check(), Ok(()));
        // One that older versions understand.
        assert_eq!(later(FORMAT).check(), Ok(()));
        let refused = later(FORMAT + 1).check().expect_err("it is too new");
        let words = refused.to_string();
        assert!(words.contains("version 9.8.7"), "{words}");
        assert!(words.contains(version()), "{words}");
    }
}
