//! What is read first of all: who hands over, and whether whoever takes it understands.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

/// The part that holds it.
pub const HEADER: &str = "header";

/// What this build says of itself, in one piece: tests make another build by changing it in a copy of
/// the executable.
///
/// The first format is that of what this version hands over. It goes up with a change after which an
/// older version would misunderstand something; one that adds what may be missing, or leaves out what
/// older ones have a default for, is no such change. The second is the oldest that this version gets
/// along with: it understands it, and is understood.
const BUILD: &str = concat!("tml-proxy ", env!("CARGO_PKG_VERSION"), " handover 001 001");

/// What is in [`BUILD`].
fn build() -> (&'static str, u32, u32) {
    // A compiler that knew the text would not read it from the executable.
    let mut words = black_box(BUILD).split(' ').skip(1);
    let version = words.next().unwrap_or_default();
    let mut formats = words.skip(1).filter_map(|word| word.parse().ok());
    let mut format = || formats.next().unwrap_or_default();
    (version, format(), format())
}

/// The version that runs.
pub fn version() -> &'static str {
    build().0
}

/// Who hands over, and in which format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format of all parts.
    pub format: u32,
    /// The oldest format of a version that understands them.
    pub oldest: u32,
    /// The version that hands over.
    pub version: String,
}

/// Two versions that do not understand each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "version {from} hands over in format {format}, which version {to} (formats {} to {}) does not \
     understand: update by a restart, or by way of a version between the two",
    understood.0,
    understood.1
)]
pub struct Unsuitable {
    /// The version that hands over.
    pub from: String,
    /// Its format.
    pub format: u32,
    /// The version that was to take over.
    pub to: String,
    /// The oldest and the latest format it understands.
    pub understood: (u32, u32),
}

impl Header {
    /// That of this version.
    pub fn own() -> Self {
        let (version, format, oldest) = build();
        Self {
            format,
            oldest,
            version: version.to_owned(),
        }
    }

    /// Whether this version understands what comes.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn check(&self) -> Result<(), Unsuitable> {
        let own = Self::own();
        match self.format >= own.oldest && self.oldest <= own.format {
            true => Ok(()),
            false => Err(Unsuitable {
                from: self.version.clone(),
                format: self.format,
                to: own.version,
                understood: (own.oldest, own.format),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_do_not_understand_each_other_are_both_named() {
        let own = Header::own();
        let later = |oldest| Header {
            format: own.format + 5,
            oldest,
            version: "9.8.7".to_owned(),
        };
        assert_eq!(Header::own().check(), Ok(()));
        // One that older versions understand.
        assert_eq!(later(own.format).check(), Ok(()));
        let refused = later(own.format + 1).check().expect_err("it is too new");
        let words = refused.to_string();
        assert!(words.contains("version 9.8.7"), "{words}");
        assert!(words.contains(version()), "{words}");
        assert_eq!(version(), env!("CARGO_PKG_VERSION"));
    }
}
