//! What systemd is told (sd_notify(3)), when it listens, and what it keeps for the process.

use std::{
    env, io,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;
use tokio::{io::Interest, time::timeout};

use crate::os_error::in_words;

/// How long a message may wait for room in systemd's queue.
const WITHIN: Duration = Duration::from_secs(1);

/// How long one that nothing else waits for may.
const WITHIN_STORE: Duration = Duration::from_secs(10);

/// Tells systemd that the process serves, and how it is doing.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells systemd that a reload has begun; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no monotonic clock for systemd"),
    }
}

/// Tells systemd that the process is stopping, and has it wait as long as that may take, if it is
/// known; otherwise `TimeoutStopSec=` decides.
pub(super) fn stopping(status: &str, within: Option<Duration>) {
    let extend = within.map(|within| format!("EXTEND_TIMEOUT_USEC={}", within.as_micros()));
    let extend = extend.as_deref().map(NotifyState::Custom);
    let state = [NotifyState::Stopping, NotifyState::Status(status)];
    let state: Vec<_> = state.into_iter().chain(extend).collect();
    notify(&state);
}

/// Tells systemd that the process is alive.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often to say so, if systemd wants to hear it: twice in the time it allows.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}

fn notify(state: &[NotifyState<'_>]) {
    static SAID: Once = Once::new();
    if let Err(error) = send(state) {
        let error = in_words(&error);
        SAID.call_once(|| tracing::warn!(error, "systemd cannot be told how it goes"));
    }
}

fn send(state: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(socket) = connect()? else {
        return Ok(());
    };
    let lines: String = state.iter().map(|line| format!("{line}\n")).collect();
    socket.set_write_timeout(Some(WITHIN))?;
    socket.send(lines.as_bytes()).map(drop)
}

/// A socket to systemd, if it listens.
fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(None);
    };
    let addr = match name.as_bytes() {
        // An abstract name: there is no file of it.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(Path::new(&name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&addr)?;
    Ok(Some(socket))
}

/// How many descriptors systemd keeps for the next process of the unit; none where the unit does not
/// say. systemd 254 and newer set the variable by themselves.
pub(super) fn store_size() -> usize {
    let size = env::var("FDSTORE").ok().and_then(|size| size.parse().ok());
    size.filter(|_| env::var_os("NOTIFY_SOCKET").is_some())
        .unwrap_or(0)
}

/// Takes the descriptors, each with its name, that systemd has kept for this process. They are given
/// out once.
pub(super) fn take_stored() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Vec::new();
    }
    match sd_notify::listen_fds_with_names() {
        // systemd says that they are for this very process (LISTEN_PID), so nobody else has them.
        Ok(stored) => stored
            .map(|(raw, name)| (name, uapi::OwnedFd::new(raw).into()))
            .collect(),
        Err(error) => {
            let error = in_words(&error);
            tracing::warn!(error, "what systemd has kept cannot be taken back");
            Vec::new()
        }
    }
}

/// Has systemd keep a descriptor for the next process.
pub(super) async fn store(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let message = format!("FDSTORE=1\nFDNAME={name}\n");
    send_when_there_is_room(&message, &[descriptor]).await
}

/// Has systemd close what it keeps under that name.
pub(super) async fn unstore(name: &str) -> io::Result<()> {
    send_when_there_is_room(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[]).await
}

async fn send_when_there_is_room(message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(socket) = connect()? else {
        return Ok(());
    };
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixDatagram::from_std(socket)?;
    let sent = socket.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let lines = [IoSlice::new(message.as_bytes())];
        Ok(sendmsg(
            socket.as_fd(),
            &lines,
            &mut control,
            SendFlags::NOSIGNAL,
        )?)
    });
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    timeout(WITHIN_STORE, sent)
        .await
        .unwrap_or_else(late)
        .map(drop)
}
