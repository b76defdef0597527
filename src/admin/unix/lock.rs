//! The right to a unix socket: a lock on a file beside it, which one process has at a time.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, lstat, open},
    io::Errno,
};

use super::SocketError;

/// The right to a unix socket. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct SocketLock {
    path: PathBuf,
    file: OwnedFd,
}

impl AsFd for SocketLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SocketLock {
    fn drop(&mut self) {
        // It is still locked; whoever opened it meanwhile sees that it is not there any more.
        let _ = fs::remove_file(&self.path);
    }
}

fn beside(socket: &Path) -> PathBuf {
    let mut path = socket.to_owned().into_os_string();
    path.push(".lock");
    PathBuf::from(path)
}

impl SocketLock {
    /// One that this process has had before, locked as it was.
    pub fn handed_over(socket: &Path, file: OwnedFd) -> Self {
        let path = beside(socket);
        Self { path, file }
    }

    pub fn take(socket: &Path) -> Result<Self, SocketError> {
        let path = beside(socket);
        let refused = || SocketError::at(&path, "lock it");
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        loop {
            let file = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(refused())?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(SocketError::Taken(socket.to_owned())),
                Err(errno) => return Err(refused()(errno)),
            }
            let locked = fstat(&file).map_err(refused())?;
            let is_it = |there: rustix::fs::Stat| {
                (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino)
            };
            // Otherwise the one who had it has removed it since it was opened.
            if lstat(&path).is_ok_and(is_it) {
                return Ok(Self { path, file });
            }
        }
    }
}
