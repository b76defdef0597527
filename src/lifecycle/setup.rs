//! What a start or a reload opens and divides before anything is put into force.

use std::{io, os::fd::OwnedFd, thread};

use tokio::net::TcpListener;

use super::{
    RunError,
    limits::{self, Budget, Wanted},
};
use crate::{
    config::{AutoOr, Config},
    listen::bind_own,
    session::AckProbe,
    table::ListenAddr,
    units,
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

/// Divides the descriptors for the start.
///
/// # Errors
///
/// They are too few to serve anybody.
pub(super) fn take_budget(config: &Config, listeners: usize) -> Result<Budget, RunError> {
    let (budget, listeners) = divide(config, listeners, 2 * worker_count(config));
    match budget.fit {
        0 => Err(RunError::Start(too_few(&budget, listeners))),
        _ => Ok(budget),
    }
}

/// Divides the descriptors for so many listeners of the file, and says for how many in all.
fn divide(config: &Config, listeners: usize, workers: usize) -> (Budget, usize) {
    let value = |wish| match wish {
        AutoOr::Auto => None,
        AutoOr::Value(value) => Some(value),
    };
    let descriptors = limits::raise_descriptor_limit();
    let wanted = Wanted {
        kept_back: limits::kept_back(config, descriptors, workers),
        sessions: sessions_wanted(config),
        pipes: value(config.process.pipes),
        pipe_size: config.process.pipe_size,
    };
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
    (budget, listeners)
}

/// What is open while a reload is decided on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// Threads of the data path.
    pub workers: usize,
    /// Pipes there may be.
    pub pipes: usize,
    /// Listeners.
    pub listeners: usize,
    /// Sessions.
    pub sessions: u32,
    /// Listeners to come.
    pub added: usize,
}

/// Divides the descriptors anew for `config`.
///
/// # Errors
///
/// The listeners to come do not fit, in words.
pub(super) fn divide_again(config: &Config, open: Open) -> Result<Budget, String> {
    let routes: usize = config.mappings.iter().map(|spec| spec.pairs.len()).sum();
    let (budget, listeners) = divide(config, routes, open.workers);
    if open.added == 0 {
        return Ok(budget);
    }
    if budget.fit == 0 {
        return Err(too_few(&budget, listeners));
    }
    // Those that go are closed only when those that come are open.
    let needed = budget.kept_back
        + 2 * (open.pipes as u64 + u64::from(open.sessions))
        + (open.listeners + open.added) as u64;
    if needed > budget.descriptors {
        return Err(format!(
            "{} beside {} and {} need {needed} descriptors, and the limit on open files is {}: \
             raise LimitNOFILE= in the unit (ulimit -n), or wait until there are fewer sessions",
            units::count(open.added as u64, "more listener"),
            units::count(open.listeners as u64, "listener"),
            units::count(open.sessions.into(), "session"),
            budget.descriptors,
        ));
    }
    Ok(budget)
}

fn too_few(budget: &Budget, listeners: usize) -> String {
    let needed = budget.kept_back + listeners as u64 + 2;
    let listeners = units::count(listeners as u64, "listener");
    format!(
        "the limit on open files is {} and leaves no session beside {listeners} and {} descriptors \
         that the proxy keeps for itself: at least {needed} are needed, and two more for each further \
         session; raise LimitNOFILE= in the unit (ulimit -n)",
        budget.descriptors, budget.kept_back
    )
}

/// Sessions the operator wants there to be at most.
pub(super) fn sessions_wanted(config: &Config) -> Option<u32> {
    match config.limits.max_sessions {
        AutoOr::Auto => None,
        AutoOr::Value(sessions) => Some(sessions.get()),
    }
}

/// Listeners to expect for jobs: as many as there may be, and no more than the share of descriptors
/// that leaves room for sessions.
pub(super) fn job_listeners(config: &Config, descriptors: u64) -> usize {
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
pub fn worker_count(config: &Config) -> usize {
    match config.process.workers {
        AutoOr::Auto => thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2)),
        AutoOr::Value(workers) => workers.get() as usize,
    }
}
