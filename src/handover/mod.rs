//! What one image of the program hands to the next: sockets and pipes, and what they are for.
//!
//! A part of the proxy saves what it is made of as plain values (serde): descriptors and bytes are
//! left with a [`Saver`] and named in those values by a [`Descriptor`] or [`Bytes`]; times are on the
//! monotonic clock of the machine, which goes on meanwhile ([`monotonic`]). The next image gets both
//! back from a [`Loader`]. How they travel is not told here to those who save and load.
//!
//! They travel over a socket of the process to itself ([`Outgoing`], [`incoming()`]), which stays open
//! while execve(2) replaces the image, and with it every descriptor that waits in it. The descriptors
//! stay open themselves as well, at the numbers they have: so an epoll instance that is handed over goes
//! on reporting on them, and none has to be received. What waits in the socket is for the way back,
//! should the next image have closed some. A [`Rehearsal`] has the values alone.

mod header;
mod incoming;
mod loader;
pub mod monotonic;
mod outgoing;
mod part;
mod rehearsal;
mod saver;
mod values;

use serde::{Deserialize, Serialize};

pub use header::{HEADER, Header, Unsuitable, version};
pub use incoming::{Descriptors, HandoverError, Part, incoming};
pub use loader::{LoadError, Loader};
pub use outgoing::Outgoing;
pub use rehearsal::{Rehearsal, rehearsed};
pub use saver::Saver;
pub use values::{Records, Values};

/// A descriptor that is handed over, by its place among those of its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Descriptor(u32);

/// Bytes that are handed over beside the values, by their place and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    at: u32,
    len: u32,
}

/// Whether a value need not be written, for serde's `skip_serializing_if`.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where a part of the proxy leaves what it hands over.
pub trait Sink: Send + Sync {
    /// Takes a part: its values, and the descriptors and bytes they name. It may be called by
    /// several threads at once, each with a part of its own.
    ///
    /// # Errors
    ///
    /// Why it could not be taken, in words; nothing has changed then.
    fn put(&self, part: &str, values: &Records, saver: Saver<'_>) -> Result<(), String>;
}

#[cfg(test)]
mod tests;
