//! What the start opens and divides before anything is forwarded.

use std::{io, os::fd::OwnedFd, thread};

use tokio::net::TcpListener;

use super::limits::{self, Budget, Wanted};
use crate::{
    config::{AutoOr, Config},
    listen::bind_own,
    session::AckProbe,
    table::ListenAddr,
};

/// Says what this kernel lacks and sessions will miss.
pub(super) fn warn_of_kernel() {
    if AckProbe::works() == Some(false) {
        tracing::warn!(
            "this kernel does not tell what a client has acknowledged (sock_diag): when one side resets, \
             a slow other side may lose what was sent before"
        );
    }
}

/// Opens a listener that is no mapping, beside one of ours that it may overlap.
pub(super) fn open_own(
    key: &str,
    addr: &ListenAddr,
    leaving: Option<&OwnedFd>,
) -> io::Result<TcpListener> {
    TcpListener::from_std(bind_own(key, addr, leaving)?)
}

/// Of the descriptors, ports of jobs may take one in this many.
const JOBS_SHARE: u64 = 8;

pub(super) fn take_budget(config: &Config, listeners: usize) -> Budget {
    let value = |wish| match wish {
        AutoOr::Auto => None,
        AutoOr::Value(value) => Some(value),
    };
    let wanted = Wanted {
        sessions: sessions_wanted(config),
        pipes: value(config.process.pipes),
        pipe_size: config.process.pipe_size,
    };
    let descriptors = limits::raise_descriptor_limit();
    let listeners = listeners + job_listeners(config, descriptors);
    let budget = limits::budget(descriptors, listeners, wanted, limits::pipe_memory());
    if let Some(sessions) = wanted.sessions
        && budget.sessions < sessions
    {
        tracing::warn!(
            wanted = sessions,
            possible = budget.sessions,
            descriptors,
            "limits.max_sessions is more than the limit on open files allows"
        );
    }
    budget
}

/// Sessions the operator wants there to be at most.
pub(super) fn sessions_wanted(config: &Config) -> Option<u32> {
    match config.max_sessions {
        AutoOr::Auto => None,
        AutoOr::Value(sessions) => Some(sessions.get()),
    }
}

/// Listeners to expect for jobs: as many as there may be, and no more than the share of descriptors
/// that leaves room for sessions.
fn job_listeners(config: &Config, descriptors: u64) -> usize {
    let Some(switchboard) = &config.switchboard else {
        return 0;
    };
    let most = switchboard
        .max_total
        .map_or(usize::MAX, |most| most as usize);
    let share = usize::try_from(descriptors / JOBS_SHARE).unwrap_or(usize::MAX);
    most.min(switchboard.ports.count()).min(share)
}

/// Half the processors, at least one: the kernel's share of forwarding runs beside the workers, and
/// one moves several GB/s.
pub(super) fn worker_count(config: &Config) -> usize {
    match config.process.workers {
        AutoOr::Auto => thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2)),
        AutoOr::Value(workers) => workers.get() as usize,
    }
}
