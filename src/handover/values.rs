//! Values of a part as they travel: records, each a line of JSON.
//!
//! They are written and read one after the other, so that nobody holds the text of ten thousand sessions
//! at once: an allocator keeps what it was asked for once.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    os::unix::fs::FileExt,
};

use serde::{Serialize, de::DeserializeOwned};

/// What is read of a file at a time.
const PIECE: usize = 64 << 10;

/// Records to be handed over.
#[derive(Debug, Default)]
pub struct Records(Vec<u8>);

impl Records {
    /// Adds one; returns its text.
    ///
    /// # Errors
    ///
    /// It has no form as JSON, in words.
    pub fn push(&mut self, record: &impl Serialize) -> Result<&[u8], String> {
        let begin = self.0.len();
        serde_json::to_writer(&mut self.0, record).map_err(|error| error.to_string())?;
        self.0.push(b'\n');
        Ok(&self.0[begin..])
    }

    /// Adds one that has that text.
    pub fn push_again(&mut self, text: &[u8]) {
        self.0.extend_from_slice(text);
    }

    /// Puts all of `first` before them.
    pub fn begin_with(&mut self, first: &Self) {
        self.0.splice(..0, first.0.iter().copied());
    }

    /// Removes all, and keeps the memory for as many again.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// As they travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Records that were handed over.
#[derive(Debug)]
pub struct Values {
    from: BufReader<From>,
    line: Vec<u8>,
}

#[derive(Debug)]
enum From {
    File { file: File, at: u64, end: u64 },
    Memory(Cursor<Vec<u8>>),
}

impl Values {
    /// Those in a file between two places.
    pub(super) fn of_file(file: File, at: u64, end: u64) -> Self {
        Self::of(From::File { file, at, end })
    }

    /// Those of a text.
    pub fn of_text(text: Vec<u8>) -> Self {
        Self::of(From::Memory(Cursor::new(text)))
    }

    fn of(from: From) -> Self {
        Self {
            from: BufReader::with_capacity(PIECE, from),
            line: Vec::new(),
        }
    }

    /// The next record.
    ///
    /// # Errors
    ///
    /// There is none, or another.
    pub fn record<T: DeserializeOwned>(&mut self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.line().map_err(serde_json::Error::io)?)
    }

    /// The text of the next record, which is empty after the last one.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        self.from.read_until(b'\n', &mut self.line)?;
        Ok(&self.line)
    }
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(text) => text.read(buffer),
            Self::File { file, at, end } => {
                let left = usize::try_from(*end - *at).unwrap_or(usize::MAX);
                let room = buffer.len().min(left);
                let count = file.read_at(&mut buffer[..room], *at)?;
                *at += count as u64;
                Ok(count)
            }
        }
    }
}
