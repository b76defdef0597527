//! What has to outlive the process: who owns which port, which ports cool down, who waits.
//!
//! One file in one directory, replaced as a whole: written beside, flushed, renamed, the directory
//! flushed. It says its version and a checksum; a file that is not as it was written is put aside
//! under another name and never read again, so damage costs what was kept and nothing else. Beside it are
//! the steps from there to now, a line each, flushed one by one: what is kept of a change is as long as
//! the change.
//!
//! One process at a time has the directory, and all it does there it does in the directory that it has
//! locked, whatever has become of the path. Nobody but its user and root may be able to write there:
//! who can, decides which port leads to whom.

mod document;
#[cfg(test)]
mod tests;

use std::{
    fs::{DirBuilder, File},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, open, openat,
        renameat, stat, statat, unlinkat,
    },
    io::Errno,
    process::{getegid, geteuid},
};

pub use document::Damage;

use super::ports::{Record, Step};
use crate::mutex::lock;

/// The file.
const FILE: &str = "ports.state";

/// The one that takes its place.
const NEW_FILE: &str = "ports.state.new";

/// The one with the steps since.
const STEPS_FILE: &str = "ports.steps";

/// Steps are kept up to this length, or so many times that of the file.
const STEPS_AT_LEAST: u64 = 64 << 10;
const STEPS_PER_FILE: u64 = 4;

/// No state is this long.
const LONGEST: u64 = 64 << 20;

/// Why the directory or the file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("{}: another process uses this state directory", .0.display())]
    InUse(PathBuf),
    /// Somebody else could change what is kept.
    #[error("{}: {why}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Who could, and what would do.
        why: String,
    },
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
    place: Mutex<Place>,
}

#[derive(Debug)]
struct Place {
    /// Locked as long as it is open.
    directory: File,
    /// What steps go on from; nothing before the first record is kept.
    whole: Option<Whole>,
}

/// A file that was written by this process.
#[derive(Debug)]
struct Whole {
    first_line: String,
    len: u64,
    /// The file with the steps, and its length.
    steps: Option<(File, u64)>,
}

impl Place {
    fn new(directory: File) -> Mutex<Self> {
        Mutex::new(Self {
            directory,
            whole: None,
        })
    }
}

fn failed<T, E: Into<io::Error>>(
    result: Result<T, E>,
    what: &'static str,
    path: &Path,
) -> Result<T, StateError> {
    result.map_err(|error| StateError::Io {
        what,
        path: path.to_owned(),
        error: error.into(),
    })
}

/// Makes the directory if there is none, and locks it.
fn take(path: &Path) -> Result<File, StateError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    failed(made, "cannot be made", path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = failed(open(path, flags, Mode::empty()), "cannot be opened", path)?;
    let found = failed(fstat(&directory), "cannot be looked at", path)?;
    if let Some(why) = objection(&found, geteuid().as_raw(), getegid().as_raw()) {
        let path = path.to_owned();
        return Err(StateError::Unsafe { path, why });
    }
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory.into()),
        Err(Errno::WOULDBLOCK) => Err(StateError::InUse(path.to_owned())),
        Err(error) => failed(Err(error), "cannot be locked", path),
    }
}

/// Why a directory is not fit to keep anything, for a process of that user and group.
fn objection(found: &Stat, user: u32, group: u32) -> Option<String> {
    let mode = found.st_mode & 0o7777;
    let would_do = "it has to belong to the user of the proxy, with mode 0700";
    if ![0, user].contains(&found.st_uid) {
        let owner = found.st_uid;
        return Some(format!("belongs to the user {owner}; {would_do}"));
    }
    if mode & 0o002 != 0 {
        return Some(format!(
            "everybody may write there (mode {mode:04o}); {would_do}"
        ));
    }
    // The group of the process itself is how a package lets it write where root is the owner.
    if mode & 0o020 != 0 && ![0, group].contains(&found.st_gid) {
        let members = found.st_gid;
        return Some(format!(
            "the group {members} may write there (mode {mode:04o}); {would_do}"
        ));
    }
    None
}

/// Whether the path leads to that very directory.
fn is_at(path: &Path, directory: &File) -> bool {
    let identity = |found: Stat| (found.st_dev, found.st_ino);
    match (stat(path), fstat(directory)) {
        (Ok(there), Ok(here)) => identity(there) == identity(here),
        _ => false,
    }
}

impl StateDir {
    /// Takes the directory, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// Another process has it, others may write there, or it cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Ok(Self {
            path: path.to_owned(),
            place: Place::new(take(path)?),
        })
    }

    /// One that this process has had before, locked as it was.
    pub(crate) fn handed_over(path: PathBuf, directory: OwnedFd) -> Self {
        Self {
            path,
            place: Place::new(directory.into()),
        }
    }

    /// Where it is, and the directory with its lock.
    ///
    /// # Errors
    ///
    /// There is no descriptor for it.
    pub(crate) fn hand_over(&self) -> io::Result<(PathBuf, OwnedFd)> {
        Ok((
            self.path.clone(),
            lock(&self.place).directory.try_clone()?.into(),
        ))
    }

    /// What was kept.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a damaged one not be put aside.
    pub fn load(&self) -> Result<Found, StateError> {
        let place = lock(&self.place);
        let directory = &place.directory;
        let Some(read) = self.read(directory, FILE)? else {
            return Ok(Found::Nothing);
        };
        let damage = match read {
            None => Damage::NotAFile,
            Some(bytes) => match document::read(&bytes) {
                Ok(record) => {
                    let lines = self.read(directory, STEPS_FILE)?.flatten();
                    let steps = document::steps(&lines.unwrap_or_default(), &bytes);
                    return Ok(Found::Record(record.after(steps)));
                }
                Err(damage) => damage,
            },
        };
        let aside = aside(directory);
        let moved = renameat(directory, FILE, directory, &aside);
        failed(moved, "cannot be put aside", &self.path.join(FILE))?;
        Ok(Found::Damaged {
            damage,
            aside: self.path.join(aside),
        })
    }

    /// Keeps `record` in place of what was kept before; when this returns, it outlives a crash of
    /// the machine. A directory that has been removed is made again.
    ///
    /// # Errors
    ///
    /// What failed. What was kept before is still kept then.
    pub fn save(&self, record: &Record) -> Result<(), StateError> {
        let mut place = lock(&self.place);
        place.whole = None;
        if !is_at(&self.path, &place.directory) {
            // It was removed, and may be another process's by now.
            place.directory = take(&self.path)?;
        }
        let directory = &place.directory;
        let new = self.path.join(NEW_FILE);
        let bytes = document::write(record);
        let written = write_new(directory, NEW_FILE, &bytes);
        failed(written, "cannot be written", &new)?;
        let renamed = renameat(directory, NEW_FILE, directory, FILE);
        failed(renamed, "cannot be replaced", &self.path.join(FILE))?;
        failed(directory.sync_all(), "cannot be flushed", &self.path)?;
        place.whole = Some(Whole {
            first_line: document::first_line(&bytes),
            len: bytes.len() as u64,
            steps: None,
        });
        Ok(())
    }

    /// Whether a step can be kept: a whole record was kept by this process, no step has failed since, and
    /// there are not too many.
    pub fn takes_steps(&self) -> bool {
        let place = lock(&self.place);
        let is_short = |whole: &Whole| {
            let most = STEPS_AT_LEAST.max(STEPS_PER_FILE * whole.len);
            whole.steps.as_ref().is_none_or(|(_, len)| *len < most)
        };
        place.whole.as_ref().is_some_and(is_short)
    }

    /// Keeps a step from what was kept before; when this returns, it outlives a crash of the machine.
    ///
    /// # Errors
    ///
    /// What failed. A whole record has to be kept next: how much of the step is there is not known.
    pub fn save_step(&self, step: &Step) -> Result<(), StateError> {
        let mut place = lock(&self.place);
        let Place { directory, whole } = &mut *place;
        // If it fails, it is not put back.
        let mut known = whole.take().filter(|_| is_at(&self.path, directory));
        let path = self.path.join(STEPS_FILE);
        let kept = keep_step(directory, known.as_mut(), &document::line(step));
        failed(kept, "cannot be written", &path)?;
        *whole = known;
        Ok(())
    }

    /// What is in a file, if it is there; nothing if it is something else.
    fn read(&self, directory: &File, name: &str) -> Result<Option<Option<Vec<u8>>>, StateError> {
        let path = self.path.join(name);
        // A pipe of that name would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            file => failed(file, "cannot be opened", &path)?,
        };
        if !is_file(&file) {
            return Ok(Some(None));
        }
        let mut bytes = Vec::new();
        let read = File::from(file).take(LONGEST).read_to_end(&mut bytes);
        failed(read, "cannot be read", &path)?;
        Ok(Some(Some(bytes)))
    }
}

fn keep_step(directory: &File, whole: Option<&mut Whole>, line: &str) -> io::Result<()> {
    let nothing = || io::Error::other("there is nothing that it goes on from");
    let Whole {
        first_line, steps, ..
    } = whole.ok_or_else(nothing)?;
    match steps {
        // Somebody has removed it, and nobody would find it again.
        Some((file, _)) if fstat(&*file)?.st_nlink == 0 => {
            return Err(io::Error::from(Errno::NOENT));
        }
        Some((file, len)) => {
            file.write_all(line.as_bytes())?;
            file.sync_data()?;
            *len += line.len() as u64;
        }
        None => {
            let text = format!("{first_line}{line}");
            let file = write_new(directory, STEPS_FILE, text.as_bytes())?;
            directory.sync_all()?;
            *steps = Some((file, text.len() as u64));
        }
    }
    Ok(())
}

fn is_file(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_file())
}

/// A name that no file has; the hundredth damaged one replaces the ninety-ninth.
fn aside(directory: &File) -> String {
    let name = |number| format!("{FILE}.damaged-{number}");
    let is_free = |name: &String| statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_err();
    let free = (1..100).map(name).find(is_free);
    free.unwrap_or_else(|| name(99))
}

/// Writes a file, and nothing that was there already.
fn write_new(directory: &File, name: &str, bytes: &[u8]) -> io::Result<File> {
    match unlinkat(directory, name, AtFlags::empty()) {
        // What a process left behind that did not get further.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(openat(directory, name, flags, mode)?);
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}
