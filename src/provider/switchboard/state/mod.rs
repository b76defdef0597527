//! What has to outlive the process: who owns which port, which ports cool down, who waits.
//!
//! One file in one directory, replaced as a whole: written beside, flushed, renamed, the directory
//! flushed. It says its version and a checksum; a file that is not as it was written is put aside
//! under another name and never read again, so damage costs what was kept and nothing else. One
//! process at a time has the directory.

mod document;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

pub use document::{Damage, Kept, Record};

/// The file.
const FILE: &str = "ports.state";

/// No state is this long.
const LONGEST: u64 = 64 << 20;

/// Why the directory or the file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("{}: another process uses this state directory", .0.display())]
    InUse(PathBuf),
    /// The kernel refused something.
    #[error("{}: {what}: {error}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

/// What was found in the directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: this is the first start.
    Nothing,
    /// What was kept.
    Record(Record),
    /// Something that is not as it was written; it was put aside.
    Damaged {
        /// What is wrong with it.
        damage: Damage,
        /// Where it is now.
        aside: PathBuf,
    },
}

/// A state directory that this process has.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked as long as it is open.
    directory: File,
}

fn failed<T>(result: io::Result<T>, what: &'static str, path: &Path) -> Result<T, StateError> {
    result.map_err(|error| StateError::Io {
        what,
        path: path.to_owned(),
        error,
    })
}

impl StateDir {
    /// Takes the directory, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// Another process has it, or it cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        failed(made, "cannot be made", path)?;
        let directory = failed(File::open(path), "cannot be opened", path)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                directory,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(path.to_owned())),
            Err(error) => failed(Err(error.into()), "cannot be locked", path),
        }
    }

    /// What was kept.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a damaged one not be put aside.
    pub fn load(&self) -> Result<Found, StateError> {
        let path = self.path.join(FILE);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            read => failed(read, "cannot be read", &path)?,
        };
        match document::read(&bytes) {
            Ok(record) => Ok(Found::Record(record)),
            Err(damage) => {
                let aside = self.aside();
                failed(fs::rename(&path, &aside), "cannot be put aside", &path)?;
                Ok(Found::Damaged { damage, aside })
            }
        }
    }

    /// A name that no file has; the hundredth damaged one replaces the ninety-ninth.
    fn aside(&self) -> PathBuf {
        let name = |number| self.path.join(format!("{FILE}.damaged-{number}"));
        let free = (1..100).map(name).find(|path| !path.exists());
        free.unwrap_or_else(|| name(99))
    }

    /// Keeps `record` in place of what was kept before; when this returns, it outlives a crash of
    /// the machine.
    ///
    /// # Errors
    ///
    /// What failed. What was kept before is still kept then.
    pub fn save(&self, record: &Record) -> Result<(), StateError> {
        let (new, path) = (self.path.join(format!("{FILE}.new")), self.path.join(FILE));
        let bytes = document::write(record);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            });
        failed(written, "cannot be written", &new)?;
        failed(fs::rename(&new, &path), "cannot be replaced", &path)?;
        failed(self.directory.sync_all(), "cannot be flushed", &self.path)
    }
}
