//! What systemd is told (sd_notify(3)), when it listens.

use std::time::Duration;

use sd_notify::NotifyState;

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

/// Tells systemd that the process is stopping.
pub(super) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
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
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
