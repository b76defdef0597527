//! The listeners of the admin endpoint, opened, moved and closed as the configuration says.
//!
//! What a change needs is opened first ([`AdminListeners::prepare`]) and changes nothing that is
//! there; [`AdminListeners::set`] cannot fail any more. Connections that were accepted go on whatever
//! becomes of their listener: the order to reload may have come over one of them.

use std::{
    env, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    setup::open_own,
    tasks::{Ended, Tasks, end, why_ended},
};
use crate::{
    admin::{self, AdminListener, NewSocket, SavedSocketFile, SocketFile, Sources, UnixAddr},
    config::{Admin, AutoOr},
    handover::{Descriptor, LoadError, Loader, Saver},
    os_error::in_words,
    table::ListenAddr,
    telemetry::Task,
};

/// The listeners there are.
#[derive(Debug)]
pub(super) struct AdminListeners {
    tasks: Tasks,
    tcp: Option<Tcp>,
    unix: Option<Unix>,
}

#[derive(Debug)]
struct Tcp {
    addr: ListenAddr,
    socket: OwnedFd,
    serving: JoinHandle<String>,
}

#[derive(Debug)]
struct Unix {
    addr: UnixAddr,
    socket: OwnedFd,
    file: SocketFile,
    serving: JoinHandle<String>,
}

/// Listeners, as they are handed over to the next image of the program. Connections are not.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SavedAdmin {
    tcp: Option<(ListenAddr, Descriptor)>,
    unix: Option<SavedUnix>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedUnix {
    addr: UnixAddr,
    file: SavedSocketFile,
    socket: Descriptor,
    lock: Descriptor,
}

/// Listeners that were handed over. Dropping them removes no file: they may be another's yet.
#[derive(Debug)]
pub(super) struct LoadedAdmin {
    tcp: Option<(ListenAddr, OwnedFd)>,
    unix: Option<LoadedUnix>,
}

#[derive(Debug)]
struct LoadedUnix {
    addr: UnixAddr,
    file: SavedSocketFile,
    socket: OwnedFd,
    lock: OwnedFd,
}

impl SavedAdmin {
    /// Takes them up.
    ///
    /// # Errors
    ///
    /// A socket did not come.
    pub fn load(self, loader: &mut Loader) -> Result<LoadedAdmin, LoadError> {
        let Self { tcp, unix } = self;
        let tcp = tcp.map(|(addr, socket)| Ok((addr, loader.descriptor(socket)?)));
        let tcp = tcp.transpose()?;
        let unix = unix.map(|saved| {
            let SavedUnix {
                addr,
                file,
                socket,
                lock,
            } = saved;
            Ok(LoadedUnix {
                addr,
                file,
                socket: loader.descriptor(socket)?,
                lock: loader.descriptor(lock)?,
            })
        });
        Ok(LoadedAdmin {
            tcp,
            unix: unix.transpose()?,
        })
    }
}

impl LoadedAdmin {
    /// Those of them that `wanted`, which was in force, asks for. From here on their files are removed
    /// when they are not needed any more.
    ///
    /// # Errors
    ///
    /// A socket is of no use, in words.
    pub fn prepare(self, wanted: &Admin) -> Result<Prepared, String> {
        let failed = |error: io::Error| format!("the admin endpoint: {}", in_words(&error));
        let tcp = self.tcp.filter(|(addr, _)| wanted.listen == Some(*addr));
        let tcp = tcp.map(|(_, socket)| -> io::Result<_> {
            let listener = TcpListener::from_std(socket.try_clone()?.into())?;
            Ok((listener, socket))
        });
        let unix = self
            .unix
            .filter(|unix| unix_addr(wanted).as_ref() == Some(&unix.addr));
        let unix = unix.map(|unix| NewSocket::handed_over(unix.file, unix.socket, unix.lock));
        Ok(Prepared {
            tcp: tcp.transpose().map_err(failed)?,
            unix: unix.transpose().map_err(failed)?,
        })
    }
}

/// What a change of the settings needs, had before anything is changed.
#[derive(Debug)]
pub(super) struct Prepared {
    tcp: Option<(TcpListener, OwnedFd)>,
    unix: Option<NewSocket>,
}

impl AdminListeners {
    /// None is there yet.
    pub fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            tcp: None,
            unix: None,
        }
    }

    /// The listeners there are.
    pub fn save<'a>(&'a self, saver: &mut Saver<'a>) -> SavedAdmin {
        let Self {
            tasks: _,
            tcp,
            unix,
        } = self;
        let tcp = tcp.as_ref();
        let tcp = tcp.map(|tcp| (tcp.addr, saver.descriptor(tcp.socket.as_fd())));
        let unix = unix.as_ref().map(|unix| {
            let (file, lock) = unix.file.save();
            SavedUnix {
                addr: unix.addr.clone(),
                file,
                socket: saver.descriptor(unix.socket.as_fd()),
                lock: saver.descriptor(lock),
            }
        });
        SavedAdmin { tcp, unix }
    }

    /// Lets go of those that have ended by themselves, and says which and why. What is wanted and not
    /// there is opened by the next change, be it one to the same settings.
    pub async fn take_ended(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        if let Some(tcp) = self.tcp.take_if(|tcp| tcp.serving.is_finished()) {
            let what = format!("admin.listen {}", tcp.addr);
            let (task, why) = (Task::Admin, why_ended(tcp.serving).await);
            ended.push(Ended { task, what, why });
        }
        if let Some(unix) = self.unix.take_if(|unix| unix.serving.is_finished()) {
            let what = format!("admin.socket {}", unix.addr.path.display());
            let (task, why) = (Task::AdminSocket, why_ended(unix.serving).await);
            ended.push(Ended { task, what, why });
        }
        ended
    }

    /// Opens what `wanted` asks for and is not there yet.
    ///
    /// # Errors
    ///
    /// What cannot be had, in words. Nothing has changed then.
    pub fn prepare(&self, wanted: &Admin) -> Result<Prepared, String> {
        let tcp = match wanted.listen {
            Some(addr) if !self.listens_at(addr) => Some(self.open_tcp(addr)?),
            _ => None,
        };
        let unix = match unix_addr(wanted) {
            Some(addr) if !self.serves_at(&addr) => {
                let own = self.unix.as_ref().map(|unix| &unix.file);
                let opened = NewSocket::open(&addr, own);
                let failed = |error| format!("cannot open the admin socket {error}");
                Some(opened.map_err(failed)?)
            }
            _ => None,
        };
        Ok(Prepared { tcp, unix })
    }

    fn open_tcp(&self, addr: ListenAddr) -> Result<(TcpListener, OwnedFd), String> {
        // A listener at every address stands in the way of one at a single address.
        let overlaps = |tcp: &&Tcp| tcp.addr.overlaps(&addr);
        let leaving = self.tcp.as_ref().filter(overlaps).map(|tcp| &tcp.socket);
        let opened = open_own("admin.listen", &addr, leaving).and_then(|listener| {
            let socket = listener.as_fd().try_clone_to_owned()?;
            Ok((listener, socket))
        });
        opened.map_err(|error| {
            let why = in_words(&error);
            format!("cannot open the admin endpoint {addr}: {why}")
        })
    }

    fn listens_at(&self, addr: ListenAddr) -> bool {
        self.tcp.as_ref().is_some_and(|tcp| tcp.addr == addr)
    }

    /// Whether the socket there is the one wanted; somebody may have removed its file.
    fn serves_at(&self, addr: &UnixAddr) -> bool {
        let serves = |unix: &Unix| unix.addr == *addr && unix.file.is_in_place();
        self.unix.as_ref().is_some_and(serves)
    }

    /// Puts `wanted` into force with what was prepared for it.
    pub async fn set(&mut self, wanted: &Admin, prepared: Prepared, sources: &Arc<Sources>) {
        let tasks = self.tasks.clone();
        let serve = |listener| {
            let serving = admin::serve(listener, Arc::clone(sources));
            tasks.spawn(async { in_words(&serving.await) })
        };
        if (prepared.tcp.is_some() || wanted.listen.is_none())
            && let Some(old) = self.tcp.take()
        {
            end(old.serving).await;
        }
        if let (Some((listener, socket)), Some(addr)) = (prepared.tcp, wanted.listen) {
            let serving = serve(AdminListener::Tcp(listener));
            self.tcp = Some(Tcp {
                addr,
                socket,
                serving,
            });
        }
        let addr = unix_addr(wanted);
        let new = match prepared.unix.map(NewSocket::put_in_place).transpose() {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(%error, "the admin socket stays as it was");
                return;
            }
        };
        if (new.is_some() || addr.is_none())
            && let Some(old) = self.unix.take()
        {
            end(old.serving).await;
        }
        if let (Some((listener, file)), Some(addr)) = (new, addr) {
            let socket = match listener.as_fd().try_clone_to_owned() {
                Ok(socket) => socket,
                Err(error) => {
                    let error = in_words(&error);
                    tracing::error!(error, "there is no admin socket");
                    return;
                }
            };
            let serving = serve(AdminListener::Unix(listener));
            self.unix = Some(Unix {
                addr,
                socket,
                file,
                serving,
            });
        }
    }

    /// Where the unix socket is, if there is one.
    pub fn socket(&self) -> Option<&Path> {
        self.unix.as_ref().map(|unix| unix.addr.path.as_path())
    }
}

/// Whether anybody can look at the proxy.
pub(super) fn can_be_seen(admin: &Admin) -> bool {
    admin.listen.is_some() || unix_addr(admin).is_some()
}

fn unix_addr(admin: &Admin) -> Option<UnixAddr> {
    let path = match &admin.socket {
        AutoOr::Auto => runtime_directory()?.join("admin.sock"),
        AutoOr::Value(path) => path.clone()?,
    };
    Some(UnixAddr {
        path,
        mode: admin.socket_mode,
        group: admin.socket_group.clone(),
    })
}

/// The directory that the service manager made for the process (`RuntimeDirectory=`), the first one
/// of several.
fn runtime_directory() -> Option<PathBuf> {
    let listed = env::var_os("RUNTIME_DIRECTORY")?;
    let first = listed.as_bytes().split(|byte| *byte == b':').next()?;
    let first = Path::new(std::ffi::OsStr::from_bytes(first));
    first.is_absolute().then(|| first.to_owned())
}
