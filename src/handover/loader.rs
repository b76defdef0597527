//! Taking what was handed over.

use std::os::fd::OwnedFd;

use super::{Bytes, Descriptor};

/// Gives out the descriptors and bytes of a part of the proxy, each descriptor once.
#[derive(Debug)]
pub struct Loader {
    descriptors: Descriptors,
    bytes: Vec<u8>,
    in_place: bool,
}

#[derive(Debug)]
enum Descriptors {
    Handed(Vec<Option<OwnedFd>>),
    /// In a rehearsal every descriptor is this one: a file that nothing comes of.
    Stand(OwnedFd),
}

/// What was handed over contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A descriptor was named that did not come, or twice.
    #[error("descriptor {0} was not handed over, or is named twice")]
    Descriptor(u32),
    /// Bytes were named that did not come.
    #[error("bytes {at} to {end} were not handed over: there are {there}")]
    Bytes {
        /// Where they should begin.
        at: u64,
        /// Where they should end.
        end: u64,
        /// How many there are.
        there: usize,
    },
    /// For a rehearsal no descriptor could be made.
    #[error("a descriptor for the rehearsal: {0}")]
    Rehearsal(String),
    /// A value says what cannot be.
    #[error("{what}: {why}")]
    Value {
        /// Which value.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl LoadError {
    /// A value that says what cannot be.
    pub fn value(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Value {
            what: what.into(),
            why: why.into(),
        }
    }
}

impl Loader {
    /// Of what came.
    pub fn new(descriptors: Vec<OwnedFd>, bytes: Vec<u8>) -> Self {
        Self {
            descriptors: Descriptors::Handed(descriptors.into_iter().map(Some).collect()),
            bytes,
            in_place: false,
        }
    }

    /// Of what stayed open at the numbers it had.
    pub(super) fn in_place(descriptors: Vec<OwnedFd>, bytes: Vec<u8>) -> Self {
        Self {
            in_place: true,
            ..Self::new(descriptors, bytes)
        }
    }

    /// To see whether all can be loaded, with `file` in the place of each descriptor: nothing may be
    /// asked of it.
    pub fn rehearsing(file: OwnedFd, bytes: Vec<u8>) -> Self {
        Self {
            descriptors: Descriptors::Stand(file),
            bytes,
            in_place: true,
        }
    }

    /// Whether descriptors have the numbers they had, so that an epoll instance among them knows the
    /// others.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Gives out a descriptor.
    ///
    /// # Errors
    ///
    /// It did not come, or was given out before.
    pub fn descriptor(&mut self, Descriptor(place): Descriptor) -> Result<OwnedFd, LoadError> {
        match &mut self.descriptors {
            Descriptors::Handed(all) => all
                .get_mut(place as usize)
                .and_then(Option::take)
                .ok_or(LoadError::Descriptor(place)),
            Descriptors::Stand(file) => file
                .try_clone()
                .map_err(|error| LoadError::Rehearsal(crate::os_error::in_words(&error))),
        }
    }

    /// Gives out bytes.
    ///
    /// # Errors
    ///
    /// They did not come.
    pub fn bytes(&self, Bytes { at, len }: Bytes) -> Result<&[u8], LoadError> {
        let (at, end) = (u64::from(at), u64::from(at) + u64::from(len));
        self.bytes
            .get(at as usize..end as usize)
            .ok_or(LoadError::Bytes {
                at,
                end,
                there: self.bytes.len(),
            })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::{super::Saver, *};

    #[test]
    fn descriptors_and_bytes_come_back_and_each_descriptor_once() {
        let file = std::fs::File::open("/dev/null").expect("it is there");
        let mut saver = Saver::default();
        let descriptor = saver.descriptor(file.as_fd());
        let (first, second) = (saver.bytes(b"one"), saver.bytes(b"two"));
        let (descriptors, bytes) = saver.into_parts();
        let clones = descriptors.iter().map(|fd| fd.try_clone_to_owned());
        let clones: Result<Vec<_>, _> = clones.collect();
        let mut loader = Loader::new(clones.expect("there is room"), bytes);
        assert_eq!(loader.bytes(first), Ok(&b"one"[..]));
        assert_eq!(loader.bytes(second), Ok(&b"two"[..]));
        assert!(loader.descriptor(descriptor).is_ok());
        let again = loader.descriptor(descriptor).expect_err("it is gone");
        assert_eq!(again, LoadError::Descriptor(0));
    }

    #[test]
    fn bytes_that_did_not_come_are_an_error_and_no_panic() {
        let loader = Loader::new(Vec::new(), vec![0; 4]);
        let bytes = Bytes {
            at: u32::MAX,
            len: u32::MAX,
        };
        assert!(matches!(loader.bytes(bytes), Err(LoadError::Bytes { .. })));
    }
}
