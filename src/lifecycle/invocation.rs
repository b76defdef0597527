//! How the process was started, and how another image of the program is started in its place.

use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsString},
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use nix::unistd::{execve, fexecve};

/// Has an image take what another one handed over on standard input.
pub(crate) const ADOPT: &str = "--adopt";

/// Has an image take back what it had handed over, for a reason.
pub(crate) const TAKE_BACK: &str = "--take-back";

/// Has a process show whether it could, without doing anything.
pub(crate) const REHEARSE: &str = "--rehearse";

/// With what a process begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    /// With the configuration and nothing else.
    Start,
    /// With what another image of the program handed over.
    Adopt,
    /// With what it had handed over itself, since the other image could not go on.
    TakeBack {
        /// The version of the other image.
        version: String,
        why: String,
    },
}

/// How the process was started.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub how: How,
    /// The executable; by now it may be another file.
    pub binary: PathBuf,
    /// The words of the command, its name first, without those that one image gives another.
    pub words: Vec<OsString>,
}

/// What to execute.
pub(super) enum Executable<'a> {
    At(&'a Path),
    Open(BorrowedFd<'a>),
}

impl Invocation {
    /// Of this process, which has been told `how`.
    pub fn of_process(how: How) -> Self {
        let mut words: Vec<OsString> = env::args_os().collect();
        // They stand at the end, where the other image put them.
        let ours = match how {
            How::Start => 0,
            How::Adopt => 1,
            How::TakeBack { .. } => 3,
        };
        words.truncate(words.len().saturating_sub(ours).max(1));
        let binary = started_from(words.first());
        Self { how, binary, words }
    }

    /// Replaces this image by another one, which has its work told as `how`.
    pub(super) fn exec(&self, executable: &Executable<'_>, how: &How) -> io::Error {
        let Err(error) = self.try_exec(executable, how);
        error
    }

    fn try_exec(&self, executable: &Executable<'_>, how: &How) -> io::Result<Infallible> {
        let ours: &[&str] = match how {
            How::Start => &[],
            How::Adopt => &[ADOPT],
            How::TakeBack { version, why } => &[TAKE_BACK, version, why],
        };
        let words = self.words.iter().map(|word| word.as_bytes());
        let words = words.chain(ours.iter().map(|word| word.as_bytes()));
        let words: Vec<CString> = words.map(text).collect::<io::Result<_>>()?;
        // What systemd handed to the first image is gone (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES).
        let variables = env::vars_os()
            .filter(|(name, _)| !name.as_bytes().starts_with(b"LISTEN_"))
            .map(|(name, value)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
        let variables: Vec<CString> = variables.collect::<io::Result<_>>()?;
        Ok(match executable {
            Executable::At(path) => execve(&text(path.as_os_str().as_bytes())?, &words, &variables),
            Executable::Open(file) => fexecve(file, &words, &variables),
        }?)
    }
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The path under which the executable was started. A symbolic link in it may lead elsewhere after an
/// update, so none is followed.
fn started_from(name: Option<&OsString>) -> PathBuf {
    let named = name
        .map(Path::new)
        .filter(|name| name.components().count() > 1);
    let named = named.and_then(|name| std::path::absolute(name).ok());
    let named = named.filter(|path| path.is_file());
    named
        .or_else(|| env::current_exe().ok())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}
