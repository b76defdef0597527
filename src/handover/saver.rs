//! Collecting what is handed over.

use std::os::fd::BorrowedFd;

use super::{Bytes, Descriptor};

/// Takes the descriptors and bytes of a part of the proxy. The part keeps them: it may yet go on.
#[derive(Debug, Default)]
pub struct Saver<'a> {
    descriptors: Vec<BorrowedFd<'a>>,
    bytes: Vec<u8>,
}

impl<'a> Saver<'a> {
    /// Hands over a descriptor, which has to stay open until the next image has it.
    pub fn descriptor(&mut self, descriptor: BorrowedFd<'a>) -> Descriptor {
        let place = self.descriptors.len();
        self.descriptors.push(descriptor);
        // A process has fewer descriptors than that.
        Descriptor(u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// Hands over bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Bytes {
        let at = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(bytes);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Bytes { at, len }
    }

    /// All descriptors and bytes, in the order in which they came.
    pub fn into_parts(self) -> (Vec<BorrowedFd<'a>>, Vec<u8>) {
        (self.descriptors, self.bytes)
    }
}
