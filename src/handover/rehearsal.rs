//! What a rehearsal is given: the same parts in one file, without their descriptors.

use std::{
    fs::File,
    io::{self, Seek},
    sync::{Mutex, PoisonError},
};

use super::{
    HandoverError, Loader, Part, Records, Saver, Sink, Values,
    part::{Head, Unreadable, memory, nothing, read_all},
};
use crate::os_error::in_words;

/// More than all values and bytes of a proxy.
const LONGEST: u64 = 4 << 30;

/// Where parts are written, for whoever rehearses.
#[derive(Debug)]
pub struct Rehearsal(Mutex<File>);

impl Rehearsal {
    /// Nothing written yet.
    ///
    /// # Errors
    ///
    /// There is no descriptor left, in words.
    pub fn new() -> Result<Self, String> {
        let file = memory("rehearsal").map_err(|error| in_words(&error))?;
        Ok(Self(Mutex::new(file)))
    }

    /// What was written, to be read from the beginning.
    ///
    /// # Errors
    ///
    /// The kernel refused, in words.
    pub fn finish(&self) -> Result<File, String> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rewound = file.rewind().and_then(|()| file.try_clone());
        rewound.map_err(|error| in_words(&error))
    }
}

impl Sink for Rehearsal {
    fn put(&self, part: &str, values: &Records, saver: Saver<'_>) -> Result<(), String> {
        let (descriptors, bytes) = saver.into_parts();
        let values = values.as_bytes();
        let head = Head::of(part, values, &bytes, descriptors.len());
        // What was written in part makes the whole unreadable, and that is found.
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = head.write(values, &bytes, &*file);
        written.map_err(|error| in_words(&error))
    }
}

/// The parts that were written for a rehearsal, which give out nothing that could be used.
///
/// # Errors
///
/// Not all of it is there.
pub fn rehearsed(from: impl io::Read) -> Result<Vec<Part>, HandoverError> {
    let wrong = |error: Unreadable| HandoverError::Part {
        part: "the rehearsal".to_owned(),
        why: error.to_string(),
    };
    let mut text = read_all(from, LONGEST).map_err(wrong)?;
    let mut parts = Vec::new();
    while !text.is_empty() {
        let (head, values, bytes) = Head::split_off(&mut text).map_err(wrong)?;
        let stand = nothing().map_err(|error| wrong(error.into()))?;
        let loader = Loader::rehearsing(stand, bytes);
        parts.push(Part::rehearsed(head.part, Values::of_text(values), loader));
    }
    Ok(parts)
}
