//! The choice an operator has about how bytes are moved.

use std::fmt;

/// How bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayMode {
    /// Copy small traffic, splice bulk.
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
