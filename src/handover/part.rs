//! A part as it travels: a line that says what comes, the values, the bytes, and the numbers of its
//! descriptors.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::Values;

/// More than any line that says what comes.
const LONGEST_HEAD: usize = 4096;

/// What the line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub part: String,
    /// How long they are.
    values: u64,
    bytes: u64,
    /// How many there are.
    pub descriptors: usize,
    /// Whether their numbers are there, four bytes each.
    #[serde(default)]
    numbered: bool,
}

/// A part that was read, but for its values.
#[derive(Debug)]
pub(super) struct Opened {
    pub head: Head,
    pub values: Values,
    pub bytes: Vec<u8>,
    pub numbers: Vec<u32>,
}

/// Why a part cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// The kernel refused.
    #[error("it cannot be read: {0}")]
    Refused(String),
    /// It does not begin with such a line.
    #[error("it does not say what is in it: {0}")]
    Head(String),
    /// There is less of it than it says, or more.
    #[error("it has {found} bytes where it says {said}")]
    Length { said: u64, found: u64 },
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Refused(crate::os_error::in_words(&error))
    }
}

impl Head {
    pub fn of(part: &str, values: &[u8], bytes: &[u8], descriptors: usize) -> Self {
        Self {
            part: part.to_owned(),
            values: values.len() as u64,
            bytes: bytes.len() as u64,
            descriptors,
            numbered: false,
        }
    }

    /// Writes the part, this line first.
    pub fn write(&self, values: &[u8], bytes: &[u8], mut out: impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.write_all(values)?;
        out.write_all(bytes)
    }

    /// Writes the part with the numbers of its descriptors.
    pub fn write_numbered(
        &self,
        values: &[u8],
        bytes: &[u8],
        numbers: impl Iterator<Item = u32>,
        mut out: impl Write,
    ) -> io::Result<()> {
        let numbered = Self {
            numbered: true,
            ..self.clone()
        };
        numbered.write(values, bytes, &mut out)?;
        let numbers: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        out.write_all(&numbers)
    }

    /// The line at the beginning, and its length.
    fn at_the_beginning(text: &[u8]) -> Result<(Self, usize), Unreadable> {
        let end = text
            .iter()
            .take(LONGEST_HEAD)
            .position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| Unreadable::Head("there is no line".to_owned()))?;
        let head = serde_json::from_slice(&text[..end]);
        let head = head.map_err(|error| Unreadable::Head(error.to_string()))?;
        Ok((head, end + 1))
    }

    /// How long the numbers are.
    fn numbers(&self) -> u64 {
        let descriptors = self.descriptors as u64;
        u64::from(self.numbered) * descriptors.saturating_mul(4)
    }

    /// How long everything after the line is.
    fn length(&self) -> u64 {
        let beside = self.bytes.saturating_add(self.numbers());
        self.values.saturating_add(beside)
    }

    /// Takes the first part of `text` off: what it says of itself, its values and its bytes.
    pub fn split_off(text: &mut Vec<u8>) -> Result<(Self, Vec<u8>, Vec<u8>), Unreadable> {
        let (head, begin) = Self::at_the_beginning(text)?;
        let said = head.length();
        let found = (text.len() - begin) as u64;
        if said > found {
            return Err(Unreadable::Length { said, found });
        }
        // No more than there is, so that all fit.
        let (values, bytes) = (head.values as usize, head.bytes as usize);
        let rest = text.split_off(begin + said as usize);
        text.truncate(begin + values + bytes);
        let kept = text.split_off(begin + values);
        let values = text.split_off(begin);
        *text = rest;
        Ok((head, values, kept))
    }

    /// Opens a file with one part and nothing else, from its beginning wherever others have left off.
    /// Its values are read when they are asked for.
    pub fn open(file: File) -> Result<Opened, Unreadable> {
        let length = file.metadata()?.len();
        let mut line = vec![0; LONGEST_HEAD.min(usize::try_from(length).unwrap_or(LONGEST_HEAD))];
        file.read_exact_at(&mut line, 0)?;
        let (head, begin) = Self::at_the_beginning(&line)?;
        let (begin, said) = (begin as u64, head.length());
        let found = length - begin;
        if said != found {
            return Err(Unreadable::Length { said, found });
        }
        let read = |at: u64, length: u64| {
            // No more than there is, so that it fits.
            let mut read = vec![0; length as usize];
            file.read_exact_at(&mut read, at).map(|()| read)
        };
        let values_end = begin + head.values;
        let bytes = read(values_end, head.bytes)?;
        let numbers = read(values_end + head.bytes, head.numbers())?;
        let numbers = numbers.as_chunks::<4>().0.iter();
        Ok(Opened {
            numbers: numbers.map(|number| u32::from_le_bytes(*number)).collect(),
            bytes,
            values: Values::of_file(file, begin, values_end),
            head,
        })
    }
}

/// A file in memory without a name.
pub(super) fn memory(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux knows it since 6.3.
        Err(Errno::INVAL) => memfd_create(name, flags),
        made => made,
    };
    Ok(File::from(made?))
}

/// Nobody changes it any more, whoever gets hold of it.
pub(super) fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    Ok(fcntl_add_seals(file, seals)?)
}

/// A file that nothing comes of.
pub(super) fn nothing() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

/// All there is to read, at most `allowed` bytes.
pub(super) fn read_all(from: impl Read, allowed: u64) -> Result<Vec<u8>, Unreadable> {
    let mut text = Vec::new();
    from.take(allowed.saturating_add(1))
        .read_to_end(&mut text)?;
    match text.len() as u64 {
        found if found > allowed => Err(Unreadable::Length {
            said: allowed,
            found,
        }),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(values: &[u8], bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let head = Head::of("p", values, bytes, 3);
        head.write(values, bytes, &mut out).expect("there is room");
        out
    }

    #[test]
    fn parts_one_after_the_other_come_back_as_they_were() {
        let mut text = [written(b"{}", b"\0\n\xff"), written(b"[1]", b"")].concat();
        let first = Head::split_off(&mut text).expect("it is whole");
        assert_eq!(first.0.descriptors, 3);
        assert_eq!((&first.1[..], &first.2[..]), (&b"{}"[..], &b"\0\n\xff"[..]));
        let second = Head::split_off(&mut text).expect("it is whole");
        assert_eq!((&second.1[..], &second.2[..]), (&b"[1]"[..], &b""[..]));
        assert!(text.is_empty());
    }

    #[test]
    fn a_part_that_is_cut_short_anywhere_is_an_error() {
        let whole = written(b"{\"a\": 1}", b"bytes");
        for end in 0..whole.len() {
            let mut text = whole[..end].to_vec();
            Head::split_off(&mut text).expect_err("it is not whole");
        }
        let file = memory("test").expect("there is memory");
        (&file).write_all(&whole).expect("there is room");
        (&file).write_all(b"!").expect("there is room");
        let error = Head::open(file).expect_err("there is more");
        assert!(matches!(error, Unreadable::Length { .. }), "{error}");
    }

    #[test]
    fn a_file_is_read_from_its_beginning_with_bytes_and_numbers() {
        let (values, bytes) = (&b"1\n2\n"[..], &b"kept"[..]);
        let head = Head::of("p", values, bytes, 2);
        let file = memory("test").expect("there is memory");
        let written = head.write_numbered(values, bytes, [7, 1 << 20].into_iter(), &file);
        written.expect("there is room");
        let mut opened = Head::open(file).expect("it is whole");
        assert_eq!((opened.head.descriptors, &opened.bytes[..]), (2, bytes));
        assert_eq!(opened.numbers, [7, 1 << 20]);
        assert_eq!(opened.values.record::<u8>().expect("a number"), 1);
        assert_eq!(opened.values.record::<u8>().expect("a number"), 2);
        opened.values.record::<u8>().expect_err("there is no more");
    }

    #[test]
    fn lengths_that_cannot_be_are_an_error_and_no_panic() {
        let head = br#"{"part":"p","values":18446744073709551615,"bytes":9,"descriptors":0}"#;
        let mut text = [&head[..], b"\n{}"].concat();
        Head::split_off(&mut text).expect_err("there is not as much");
    }

    #[test]
    fn what_is_sealed_stays_as_it_is() {
        let file = memory("test").expect("there is memory");
        (&file).write_all(b"x").expect("there is room");
        seal(&file).expect("it can be");
        (&file).write_all(b"y").expect_err("it is sealed");
    }
}
