//! The unix socket: made with its permissions before anybody can connect, removed at the end.
//!
//! One process at a time has the right to it, by a lock on a file beside it, however many start at
//! once and whether the one that serves answers or not.

mod lock;

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::{os_error::in_words, setting::LONGEST_SOCKET_PATH};
use lock::SocketLock;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// The step that a process outside of the group may not take.
const GIVE_TO_GROUP: &str =
    "give it to admin.socket_group (the process has to be in it: SupplementaryGroups= in its unit)";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixAddr {
    pub path: PathBuf,
    pub mode: u32,
    /// Its group, by name or number; `None` is that of the process.
    pub group: Option<String>,
}

/// A unix socket that is listened on, under a name that nobody knows yet.
#[derive(Debug)]
pub struct NewSocket {
    listener: UnixListener,
    file: SocketFile,
    path: PathBuf,
}

/// The file of a unix socket. Dropping it removes it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
    // Given up once the file is gone.
    lock: Arc<SocketLock>,
}

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{0}: another process serves there; is the proxy running already?")]
    Taken(PathBuf),
    #[error("{0}: exists and is not a socket; it is left alone")]
    Foreign(PathBuf),
    #[error("admin.socket_group: there is no group {0:?} in /etc/group")]
    UnknownGroup(String),
    #[error("{path}: cannot {step}: {}", in_words(error))]
    Refused {
        path: PathBuf,
        step: &'static str,
        error: io::Error,
    },
}

impl SocketError {
    fn at<E: Into<io::Error>>(path: &Path, step: &'static str) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |error| Self::Refused {
            path,
            step,
            error: error.into(),
        }
    }
}

impl NewSocket {
    /// Opens a socket that can be put where `addr` says. One that nobody listens on any more, or that
    /// is `own`, does not stand in its way. A new socket file does not stay behind if it fails.
    pub fn open(addr: &UnixAddr, own: Option<&SocketFile>) -> Result<Self, SocketError> {
        let path = &addr.path;
        let own = own.filter(|own| own.path == *path);
        let lock = match own {
            Some(own) => Arc::clone(&own.lock),
            None => Arc::new(SocketLock::take(path)?),
        };
        if !own.is_some_and(SocketFile::is_in_place) {
            check_free(path)?;
        }
        let group = addr.group.as_deref().map(group_id).transpose()?;
        // Nobody knows this name, and nobody can connect before listen(2): by then the socket has
        // its permissions. rename(2) puts it in place of a stale one in one step.
        let new = path.with_file_name(format!(".tml-proxy-{}.new", std::process::id()));
        // One that was killed may have left it, if process ids begin anew as in a container.
        let _ = fs::remove_file(&new);
        let opened = listen_at(&new, addr, group, lock);
        if opened.is_err() {
            // It may not have come to be.
            let _ = fs::remove_file(&new);
        }
        opened
    }

    /// The socket that was handed over with its file, and with the right to that. It has its name.
    pub fn handed_over(
        saved: SavedSocketFile,
        listener: OwnedFd,
        lock: OwnedFd,
    ) -> io::Result<Self> {
        let SavedSocketFile { path, inode } = saved;
        let lock = Arc::new(SocketLock::handed_over(&path, lock));
        Ok(Self {
            listener: UnixListener::from_std(listener.into())?,
            file: SocketFile {
                path: path.clone(),
                inode,
                lock,
            },
            path,
        })
    }

    /// Gives it its name.
    pub fn put_in_place(mut self) -> Result<(UnixListener, SocketFile), SocketError> {
        if self.file.path == self.path {
            return Ok((self.listener, self.file));
        }
        let renamed = fs::rename(&self.file.path, &self.path);
        renamed.map_err(SocketError::at(&self.path, "put it in its place"))?;
        self.file.path = self.path;
        Ok((self.listener, self.file))
    }
}

/// The file of a unix socket as it is handed over. Dropping it removes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// The file, and the lock that is the right to it.
    pub fn save(&self) -> (SavedSocketFile, BorrowedFd<'_>) {
        let Self { path, inode, lock } = self;
        let saved = SavedSocketFile {
            path: path.clone(),
            inode: *inode,
        };
        (saved, lock.as_fd())
    }

    /// Whether the name is still that of this socket.
    pub fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // By now the name may belong to the socket of a process that took over.
        if self.is_in_place()
            && let Err(error) = fs::remove_file(&self.path)
        {
            let (path, error) = (self.path.display(), in_words(&error));
            tracing::warn!(%path, error, "the file of the admin socket stays behind");
        }
    }
}

/// That nobody serves at `path` who knows nothing of the lock.
fn check_free(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(SocketError::Foreign(path.to_owned()));
        }
        Ok(_) => {}
    }
    match new_socket().and_then(|socket| socket.connect(&SockAddr::unix(path)?)) {
        // That its queue is full says that somebody listens, though they may hang.
        Ok(()) => Err(SocketError::Taken(path.to_owned())),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Err(SocketError::Taken(path.to_owned())),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(()),
            _ => Err(SocketError::at(path, "see whether somebody serves there")(
                error,
            )),
        },
    }
}

/// A unix socket that makes nobody wait.
fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen_at(
    new: &Path,
    addr: &UnixAddr,
    group: Option<u32>,
    lock: Arc<SocketLock>,
) -> Result<NewSocket, SocketError> {
    let path = &addr.path;
    let refused = |step| SocketError::at(path, step);
    let bound = || -> io::Result<_> {
        let socket = new_socket()?;
        bind_at(&socket, new)?;
        Ok(socket)
    };
    let socket = bound().map_err(refused("make a socket there"))?;
    fs::set_permissions(new, fs::Permissions::from_mode(addr.mode))
        .map_err(refused("set its permissions"))?;
    if group.is_some() {
        chown(new, None, group).map_err(refused(GIVE_TO_GROUP))?;
    }
    socket.listen(BACKLOG).map_err(refused("listen"))?;
    let listener = UnixListener::from_std(socket.into()).map_err(refused("serve on it"))?;
    let inode = fs::symlink_metadata(new)
        .map_err(refused("look at it"))?
        .ino();
    Ok(NewSocket {
        listener,
        file: SocketFile {
            path: new.to_owned(),
            inode,
            lock,
        },
        path: path.to_owned(),
    })
}

/// Binds a socket to a path that may be longer than the address of a socket can be: the one that it
/// is renamed to need not leave room for that.
fn bind_at(socket: &Socket, path: &Path) -> io::Result<()> {
    if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return socket.bind(&SockAddr::unix(path)?);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    // An open directory has a short name as well.
    let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
    socket.bind(&SockAddr::unix(Path::new(&short).join(name))?)
}

/// The number of a group given by name or number.
fn group_id(group: &str) -> Result<u32, SocketError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    // NAME:PASSWORD:NUMBER:MEMBERS
    let mut lines = groups.lines().map(|line| line.split(':'));
    let mut found = lines.find_map(|mut fields| (fields.next()? == group).then_some(fields));
    let number = found
        .as_mut()
        .and_then(|fields| fields.nth(1)?.parse().ok());
    number.ok_or_else(|| SocketError::UnknownGroup(group.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), SocketError> {
        let addr = UnixAddr {
            path: path.to_owned(),
            mode,
            group: None,
        };
        NewSocket::open(&addr, None)?.put_in_place()
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory for temporary files")
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_goes_with_its_owner() {
        let dir = directory();
        let path = dir.path().join("mode.sock");
        let socket = open(&path, 0o640).expect("a fresh name");
        let file = fs::metadata(&path).expect("it is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o640);
        let again = open(&path, 0o640);
        assert!(matches!(again, Err(SocketError::Taken(_))), "{again:?}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_anything_else_is_left_alone() {
        let dir = directory();
        let path = dir.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a fresh name"));
        drop(open(&path, 0o600).expect("a stale one"));
        fs::write(&path, "mine").expect("a file");
        let refused = open(&path, 0o600);
        assert!(
            matches!(refused, Err(SocketError::Foreign(_))),
            "{refused:?}"
        );
        assert_eq!(fs::read_to_string(&path).expect("still there"), "mine");
    }

    #[tokio::test]
    async fn a_path_as_long_as_the_kernel_takes_will_do() {
        let dir = directory();
        for file_name in ["s".to_owned(), "long.sock".to_owned()] {
            let shortest = dir.path().join(&file_name).as_os_str().len();
            let above = dir
                .path()
                .join("d".repeat(LONGEST_SOCKET_PATH - shortest - 1));
            fs::create_dir(&above).expect("a fresh name");
            let path = above.join(&file_name);
            assert_eq!(path.as_os_str().len(), LONGEST_SOCKET_PATH);
            let socket = open(&path, 0o600).expect("it fits");
            std::os::unix::net::UnixStream::connect(&path).expect("it is listened on");
            drop(socket);
            fs::remove_dir(above).expect("nothing is left in it");
        }
    }

    /// Those who start at once, after one that was killed.
    #[test]
    fn of_many_that_start_at_once_one_has_the_socket() {
        const STARTS: usize = 8;
        let dir = directory();
        let path = dir.path().join("many.sock");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        for _ in 0..30 {
            drop(std::os::unix::net::UnixListener::bind(&path).expect("no socket is there"));
            let together = std::sync::Barrier::new(STARTS);
            let open = || {
                let _inside = runtime.enter();
                together.wait();
                open(&path, 0o600)
            };
            let opened: Vec<_> = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..STARTS).map(|_| scope.spawn(open)).collect();
                let ended = starts.into_iter().map(|start| start.join());
                ended.map(|opened| opened.expect("no panic")).collect()
            });
            let served = opened.iter().filter(|opened| opened.is_ok()).count();
            assert_eq!(served, 1, "{opened:?}");
            let told = opened.iter().filter_map(|opened| opened.as_ref().err());
            assert!(
                told.into_iter()
                    .all(|error| matches!(error, SocketError::Taken(_)))
            );
            drop(opened);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_start_beside_one_that_hangs_is_told_at_once() {
        let dir = directory();
        let path = dir.path().join("hung.sock");
        let hung = new_socket().expect("a socket");
        let address = SockAddr::unix(&path).expect("short");
        hung.bind(&address).expect("a fresh name");
        hung.listen(1).expect("a bound socket");
        let mut waiting = Vec::new();
        loop {
            let client = new_socket().expect("a socket");
            match client.connect(&address) {
                Ok(()) => waiting.push(client),
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let refused = open(&path, 0o600);
        assert!(matches!(refused, Err(SocketError::Taken(_))), "{refused:?}");
    }

    #[test]
    fn groups_have_names_and_numbers() {
        assert_eq!(group_id("7").expect("a number"), 7);
        assert_eq!(group_id("root").expect("every system has it"), 0);
        assert!(group_id("no such group").is_err());
    }
}
