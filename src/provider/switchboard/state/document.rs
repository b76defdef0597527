//! The files: JSON that says its version and a checksum, and what is kept; and lines of what has changed
//! since, each with a checksum, the first of which says what they go on from.

use std::{borrow::Cow, hash::Hasher};

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::provider::switchboard::ports::{Record, Step};

/// The version of the format.
const VERSION: u32 = 2;

/// How lines of steps begin, and the checksum of the file they go on from.
const STEPS: &str = "tml-proxy-ports-after 1 ";

/// How a file of version 1 begins: with a line that ends in the checksum, before the JSON.
const VERSION_1: &str = "tml-proxy-ports 1 ";

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is something else than a file.
    #[error("it is no file")]
    NotAFile,
    /// It is of another version.
    #[error("it was written by another version (format {0}, known: {VERSION})")]
    Version(u32),
    /// What it says is not what was written.
    #[error("its checksum does not fit")]
    Checksum,
    /// Its content cannot be understood.
    #[error("it is no state file: {0}")]
    Content(String),
}

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    version: u32,
    checksum: Cow<'a, str>,
    /// As it was written: the checksum is that of the text.
    #[serde(borrow)]
    state: Cow<'a, RawValue>,
}

impl From<serde_json::Error> for Damage {
    fn from(error: serde_json::Error) -> Self {
        Self::Content(error.to_string())
    }
}

/// It finds damage; it is no defence against whoever may write there.
fn checksum(state: &str) -> String {
    format!("{:016x}", hash(state.as_bytes()))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

const ALWAYS: &str = "text, numbers and lists are always JSON";

pub(super) fn write(record: &Record) -> Vec<u8> {
    let state = to_raw_value(record).expect(ALWAYS);
    let document = Document {
        version: VERSION,
        checksum: checksum(state.get()).into(),
        state: Cow::Owned(state),
    };
    serde_json::to_vec(&document).expect(ALWAYS)
}

pub(super) fn read(bytes: &[u8]) -> Result<Record, Damage> {
    let text = str::from_utf8(bytes).map_err(|error| Damage::Content(error.to_string()))?;
    let version_1 = || text.strip_prefix(VERSION_1)?.split_once('\n');
    let document;
    let (sum, state) = match version_1() {
        Some(parts) => parts,
        None => {
            document = serde_json::from_str::<Document<'_>>(text)?;
            if document.version != VERSION {
                return Err(Damage::Version(document.version));
            }
            (&*document.checksum, document.state.get())
        }
    };
    if sum != checksum(state) {
        return Err(Damage::Checksum);
    }
    Ok(serde_json::from_str(state)?)
}

/// What lines that go on from a file begin with: they are of no use beside another.
pub(super) fn first_line(file: &[u8]) -> String {
    format!("{STEPS}{:016x}\n", hash(file))
}

/// The line of a step.
pub(super) fn line(step: &Step) -> String {
    let step = serde_json::to_string(step).expect(ALWAYS);
    format!("{} {step}\n", checksum(&step))
}

/// The steps in lines that go on from `file`. The last may be half written, and one that is not as it was
/// written ends them.
pub(super) fn steps(lines: &[u8], file: &[u8]) -> Vec<Step> {
    let Some(lines) = lines.strip_prefix(first_line(file).as_bytes()) else {
        return Vec::new();
    };
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    let step = |line: &[u8]| {
        let line = str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let (sum, step) = line.split_once(' ')?;
        let step = (sum == checksum(step)).then(|| serde_json::from_str(step));
        step?.ok()
    };
    lines.map_while(step).collect()
}
