//! The choice an operator has about how bytes are moved.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bytes are moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayMode {
    /// Copy small traffic, splice bulk.
    #[default]
    Auto,
    /// Never splice.
    Copy,
    /// Splice from the first byte, as long as a pipe is to be had.
    Splice,
}

impl fmt::Display for RelayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Copy => "copy",
            Self::Splice => "splice",
        })
    }
}
