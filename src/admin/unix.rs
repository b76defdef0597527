//! The unix socket: made with its permissions before anybody can connect, removed at the end.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};
use tokio::net::UnixListener;

use crate::{
    config::{Admin, SOCKET_PATH_AT_MOST},
    os_error::in_words,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// A unix socket that is listened on.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a unix socket. Dropping it removes it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// Why there is no unix socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens on it.
    #[error("{0}: another process serves there; is the proxy running already?")]
    Taken(PathBuf),
    /// Something that is no socket has its name.
    #[error("{0}: exists and is not a socket; it is left alone")]
    Foreign(PathBuf),
    /// The group does not exist.
    #[error("admin.socket_group: there is no group {0:?} in /etc/group")]
    UnknownGroup(String),
    /// The kernel refused a step.
    #[error("{path}: cannot {step}: {}", in_words(error))]
    Refused {
        /// The socket's path.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// The kernel's reason.
        error: io::Error,
    },
}

impl UnixSocket {
    /// Opens the socket that the configuration asks for, if it does.
    ///
    /// A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    ///
    /// See [`SocketError`]; a new socket file does not stay behind.
    pub fn open(admin: &Admin) -> Result<Option<Self>, SocketError> {
        let Some(path) = &admin.socket else {
            return Ok(None);
        };
        check_free(path)?;
        let group = admin.socket_group.as_deref().map(group_id).transpose()?;
        // Nobody knows this name, and nobody can connect before listen(2): by then the socket has
        // its permissions. rename(2) puts it in place of a stale one in one step.
        let new = path.with_file_name(format!(".tml-proxy-{}.new", std::process::id()));
        let opened = listen_at(&new, path, admin.socket_mode, group);
        if opened.is_err() {
            // It may not have come to be.
            let _ = fs::remove_file(&new);
        }
        opened.map(Some)
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // By now the name may belong to the socket of a process that took over.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn check_free(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(file) if !file.file_type().is_socket() => Err(SocketError::Foreign(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(SocketError::Taken(path.to_owned())),
            Err(_) => Ok(()),
        },
    }
}

fn listen_at(
    new: &Path,
    path: &Path,
    mode: u32,
    group: Option<u32>,
) -> Result<UnixSocket, SocketError> {
    let refused = |step| {
        move |error: io::Error| SocketError::Refused {
            path: path.to_owned(),
            step,
            error,
        }
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let bound = || -> io::Result<_> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind_at(&socket, new)?;
        Ok(socket)
    };
    let socket = bound().map_err(refused("make a socket there"))?;
    fs::set_permissions(new, fs::Permissions::from_mode(mode))
        .map_err(refused("set its permissions"))?;
    if group.is_some() {
        chown(new, None, group).map_err(refused("give it to the group"))?;
    }
    listen(&socket, BACKLOG).map_err(|errno| refused("listen")(errno.into()))?;
    let inode = fs::symlink_metadata(new)
        .map_err(refused("look at it"))?
        .ino();
    fs::rename(new, path).map_err(refused("put it in its place"))?;
    let listener = UnixListener::from_std(socket.into()).map_err(refused("serve on it"))?;
    Ok(UnixSocket {
        listener,
        file: SocketFile {
            path: path.to_owned(),
            inode,
        },
    })
}

/// Binds a socket to a path that may be longer than the address of a socket can be: the one that it
/// is renamed to need not leave room for that.
fn bind_at(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    if path.as_os_str().len() <= SOCKET_PATH_AT_MOST {
        return Ok(bind(socket, &SocketAddrUnix::new(path)?)?);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    // An open directory has a short name as well.
    let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(bind(
        socket,
        &SocketAddrUnix::new(Path::new(&short).join(name))?,
    )?)
}

/// The number of a group given by name or number.
fn group_id(group: &str) -> Result<u32, SocketError> {
    let unknown = || SocketError::UnknownGroup(group.to_owned());
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut lines = groups.lines().map(|line| line.split(':'));
    let number = lines.find_map(|mut fields| {
        let is_it = fields.next() == Some(group);
        is_it.then(|| fields.nth(1))?
    });
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(path: &Path, mode: u32) -> Admin {
        Admin {
            socket: Some(path.to_owned()),
            socket_mode: mode,
            ..Admin::default()
        }
    }

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("tml-proxy-{}-{name}", std::process::id()))
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_goes_with_its_owner() {
        let path = path("mode.sock");
        let socket = UnixSocket::open(&admin(&path, 0o640)).expect("a fresh name");
        let file = fs::metadata(&path).expect("it is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o640);
        let again = UnixSocket::open(&admin(&path, 0o640));
        assert!(matches!(again, Err(SocketError::Taken(_))), "{again:?}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_anything_else_is_left_alone() {
        let path = path("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a fresh name"));
        drop(UnixSocket::open(&admin(&path, 0o600)).expect("a stale one"));
        fs::write(&path, "mine").expect("a file");
        let refused = UnixSocket::open(&admin(&path, 0o600));
        assert!(
            matches!(refused, Err(SocketError::Foreign(_))),
            "{refused:?}"
        );
        assert_eq!(fs::read_to_string(&path).expect("still there"), "mine");
        fs::remove_file(&path).expect("own file");
    }

    #[tokio::test]
    async fn a_path_as_long_as_the_kernel_takes_will_do() {
        let directory = path(&"d".repeat(50));
        fs::create_dir(&directory).expect("a fresh name");
        for file_name in ["s".to_owned(), "long.sock".to_owned()] {
            let shortest = directory.join(&file_name).as_os_str().len();
            let above = directory.join("d".repeat(SOCKET_PATH_AT_MOST - shortest - 1));
            fs::create_dir(&above).expect("a fresh name");
            let path = above.join(&file_name);
            assert_eq!(path.as_os_str().len(), SOCKET_PATH_AT_MOST);
            let socket = UnixSocket::open(&admin(&path, 0o600)).expect("it fits");
            UnixStream::connect(&path).expect("it is listened on");
            drop(socket);
            fs::remove_dir(above).expect("nothing is left in it");
        }
        fs::remove_dir(directory).expect("nothing is left in it");
    }

    #[test]
    fn groups_have_names_and_numbers() {
        assert_eq!(group_id("7").expect("a number"), 7);
        assert_eq!(group_id("root").expect("every system has it"), 0);
        assert!(group_id("no such group").is_err());
    }
}
