//! What systemd is told (sd_notify(3)), when it listens.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    sync::Once,
    time::Duration,
};

use sd_notify::NotifyState;

use crate::os_error::in_words;

/// How long a message may wait for room in systemd's queue.
const WITHIN: Duration = Duration::from_secs(1);

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
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let addr = match name.as_bytes() {
        // An abstract name: there is no file of it.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(Path::new(&name))?,
    };
    let lines: String = state.iter().map(|line| format!("{line}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(WITHIN))?;
    socket.send_to_addr(lines.as_bytes(), &addr).map(drop)
}
