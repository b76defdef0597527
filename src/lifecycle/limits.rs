//! How the descriptors that the kernel allows the process are divided, and the memory of pipes: first
//! listeners and what the process keeps for itself, then pipes, the rest for sessions.

use std::{fs, num::NonZero, thread};

use nix::sys::resource::{Resource, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

use super::{RunError, leading, lookups};
use crate::{
    admin::{self, LOOKUP_CONNECTIONS},
    config::{AutoOr, Config},
    health::MOST_AT_ONCE,
    os_error::in_words,
    provider::switchboard::follow::FollowSettings,
    relay::SMALL_PIPE,
    telemetry::descriptor_limits,
    units,
};

/// Descriptors set aside for what the process has open whatever it does: standard streams, epoll
/// instances, files that are being read, room to accept and refuse.
const OWN: u64 = 32;

/// A worker has an epoll instance, an eventfd and a descriptor in reserve.
const EACH_WORKER: u64 = 3;

/// Connections that are open to a switchboard beside its watches.
const QUESTIONS: u64 = 16;

/// What asking a fleet's database takes: a connection, and to look its name up.
const OF_FLEET: u64 = 4;

/// Of the descriptors, watches of a switchboard may take one in this many.
const WATCH_SHARE: u64 = 32;

/// Of the descriptors, checks of targets may take one in this many.
const CHECKS_SHARE: u64 = 16;

/// Of the descriptors, ports of jobs may take one in this many.
const JOBS_SHARE: u64 = 8;

/// The kernel's own limit, for a process that cannot learn which it has.
const USUAL: u64 = 1024;

/// Of the descriptors, pipes may take one part in this many: each takes two, and sessions matter
/// more.
const PIPE_SHARE: u64 = 32;

/// More pipes than this are never worth their descriptors.
const PIPES_AT_MOST: u64 = 1024;

/// More than this is never worth it: a pipe holds bytes only while their sink does not keep up.
const PIPE_MEMORY_AT_MOST: u64 = 256 << 20;

/// How the descriptors are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Descriptors the process may have open.
    pub descriptors: u64,
    /// Listeners to expect, ports of jobs among them.
    pub listeners: usize,
    /// Descriptors that no session gets, see [`kept_back`].
    pub kept_back: u64,
    /// Sessions there may be: two descriptors each, and no more than wanted.
    pub sessions: u32,
    /// Sessions that would fit, however many are wanted.
    pub fit: u32,
    /// Pipes that fit: two descriptors each, and the user's pipe memory.
    pub pipes: usize,
    /// Bytes of memory for them.
    pub pipe_memory: usize,
}

/// What the operator asked for; `None` is "as many as fit".
#[derive(Debug, Clone, Copy)]
struct Wanted {
    sessions: Option<u32>,
    pipes: Option<u32>,
    pipe_size: usize,
}

/// What is open while a reload is decided on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub workers: usize,
    pub pipes: usize,
    pub listeners: usize,
    pub sessions: u32,
    /// Listeners to come.
    pub added: usize,
}

impl Budget {
    /// Divides the limit on open files, raised as far as it can be, for so many ports of the file and
    /// so many threads of the data path.
    pub fn divide(config: &Config, ports: usize, workers: usize) -> Self {
        let descriptors = raise_descriptor_limit();
        let kept_back = kept_back(config, descriptors, workers);
        let wanted = Wanted {
            sessions: config.limits.max_sessions.value().map(NonZero::get),
            pipes: config.process.pipes.value(),
            pipe_size: config.process.pipe_size,
        };
        let listeners = ports + job_listeners(config, descriptors);
        let budget = share(descriptors, listeners, kept_back, wanted, pipe_memory());
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

    /// The same for the start.
    ///
    /// # Errors
    ///
    /// There are too few to serve anybody.
    pub(super) fn at_start(config: &Config, ports: usize) -> Result<Self, RunError> {
        let budget = Self::divide(config, ports, 2 * worker_count(config));
        match budget.fit {
            0 => Err(RunError::Start(budget.too_few())),
            _ => Ok(budget),
        }
    }

    /// The same for a reload.
    ///
    /// # Errors
    ///
    /// The listeners to come do not fit, in words.
    pub(super) fn at_reload(config: &Config, open: Open) -> Result<Self, String> {
        let ports = config.mappings.iter().map(|spec| spec.pairs.len()).sum();
        let budget = Self::divide(config, ports, open.workers);
        if open.added == 0 {
            return Ok(budget);
        }
        if budget.fit == 0 {
            return Err(budget.too_few());
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

    fn too_few(&self) -> String {
        let needed = self.kept_back + self.listeners as u64 + 2;
        let listeners = units::count(self.listeners as u64, "listener");
        format!(
            "the limit on open files is {} and leaves no session beside {listeners} and {} descriptors \
             that the proxy keeps for itself: at least {needed} are needed, and two more for each \
             further session; raise LimitNOFILE= in the unit (ulimit -n)",
            self.descriptors, self.kept_back
        )
    }
}

fn share(
    descriptors: u64,
    listeners: usize,
    kept_back: u64,
    wanted: Wanted,
    pipe_memory: Option<u64>,
) -> Budget {
    let left = descriptors.saturating_sub(listeners as u64 + kept_back);
    let memory = pipe_memory.map_or(PIPE_MEMORY_AT_MOST, |bytes| bytes.min(PIPE_MEMORY_AT_MOST));
    let affordable = memory / wanted.pipe_size.min(SMALL_PIPE) as u64;
    let pipes = wanted
        .pipes
        .map_or((left / PIPE_SHARE).min(PIPES_AT_MOST), u64::from)
        .min(affordable)
        .min(left / 4);
    let fit = u32::try_from((left - 2 * pipes) / 2).unwrap_or(u32::MAX);
    Budget {
        descriptors,
        listeners,
        kept_back,
        sessions: wanted.sessions.map_or(fit, |sessions| sessions.min(fit)),
        fit,
        pipes: pipes as usize,
        pipe_memory: memory as usize,
    }
}

/// Raises the soft limit on open descriptors to the hard one and returns what is then in force, without
/// a limit `u64::MAX`.
fn raise_descriptor_limit() -> u64 {
    let Some((soft, hard)) = descriptor_limits() else {
        tracing::warn!(assumed = USUAL, "the limit on open files cannot be learnt");
        return USUAL;
    };
    if soft == hard {
        return soft;
    }
    // It needs no privilege, but a sandbox may not allow it.
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(errno) => {
            let error = in_words(&errno.into());
            tracing::warn!(
                error,
                soft,
                hard,
                "the limit on open files cannot be raised"
            );
            soft
        }
    }
}

/// Descriptors that no session gets, so that with all sessions taken whoever wants to know why is
/// answered, and a reload that helps can be read: for the process itself, the admin endpoint, the
/// lookup listener and the switchboard.
fn kept_back(config: &Config, descriptors: u64, workers: usize) -> u64 {
    let socket = config.admin.socket != AutoOr::Value(None);
    let listeners = u64::from(config.admin.listen.is_some()) + u64::from(socket);
    let mut kept = OWN + EACH_WORKER * workers as u64 + listeners * (1 + admin::CONNECTIONS as u64);
    if let Some(switchboard) = &config.switchboard {
        kept += QUESTIONS + watches(descriptors) as u64;
        if switchboard.lookup.is_some() {
            kept += 1 + LOOKUP_CONNECTIONS as u64;
        }
    }
    if config.fleet.is_some() {
        kept += OF_FLEET;
    }
    if !leading::names(config).is_empty() {
        kept += 2 * lookups::AT_ONCE as u64;
    }
    kept + checks(config, descriptors) as u64
}

/// How many targets may be checked at a time.
pub(super) fn checks(config: &Config, descriptors: u64) -> usize {
    let checked = config.mappings.iter();
    let checked = checked.filter(|spec| spec.policy.check.is_some());
    let targets = checked.flat_map(|spec| spec.pairs.iter().map(|(_, target)| target.most()));
    let share = usize::try_from(descriptors / CHECKS_SHARE).unwrap_or(usize::MAX);
    targets.sum::<usize>().min(MOST_AT_ONCE).min(share)
}

/// How many connections for watches a switchboard may take.
pub(super) fn watches(descriptors: u64) -> usize {
    let share = usize::try_from(descriptors / WATCH_SHARE).unwrap_or(usize::MAX);
    share.min(FollowSettings::MAX_WATCHES)
}

/// The limit on open descriptors, as far as it can be learnt.
pub(super) fn descriptor_limit() -> u64 {
    descriptor_limits().map_or(USUAL, |(soft, _)| soft)
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

/// The bytes of pipe buffer this user may have, or `None` if the process is exempt (pipe(7),
/// `pipe-user-pages-soft`).
pub fn pipe_memory() -> Option<u64> {
    const PAGE: u64 = 4096;
    const EXEMPT: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_RESOURCE);
    if capabilities(None).is_ok_and(|sets| sets.effective.intersects(EXEMPT)) {
        return None;
    }
    let pages: u64 = fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft")
        .ok()
        .and_then(|pages| pages.trim().parse().ok())
        // The kernel's default.
        .unwrap_or(16384);
    // 0 is no limit. A sixteenth stays for other processes of this user.
    (pages > 0).then_some(pages * PAGE / 16 * 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Wanted = Wanted {
        sessions: None,
        pipes: None,
        pipe_size: 1 << 20,
    };

    fn budget(descriptors: u64, listeners: usize, wanted: Wanted, memory: Option<u64>) -> Budget {
        share(descriptors, listeners, 64, wanted, memory)
    }

    #[test]
    fn descriptors_left_by_listeners_and_pipes_go_to_sessions() {
        let budget = budget(20_000, 100, ANY, None);
        assert_eq!(budget.pipes, (20_000 - 164) / 32);
        assert_eq!(budget.sessions as usize, (20_000 - 164) / 2 - budget.pipes);
    }

    #[test]
    fn an_ordinary_user_gets_the_pipes_the_kernel_grants() {
        let budget = budget(20_000, 100, ANY, Some(64 * 1024 * 1024 / 16 * 15));
        assert_eq!(budget.pipes, (20_000 - 164) / 32);
        assert_eq!(budget.pipe_memory, 60 << 20);
    }

    #[test]
    fn a_wish_is_granted_as_far_as_it_fits() {
        let wanted = |sessions| Wanted {
            sessions: Some(sessions),
            pipes: Some(0),
            ..ANY
        };
        assert_eq!(budget(1064, 0, wanted(10), None).sessions, 10);
        assert_eq!(budget(1064, 0, wanted(10_000), None).sessions, 500);
    }

    #[test]
    fn more_listeners_leave_room_for_fewer_sessions() {
        let pipes = Some(10);
        let fit = |listeners| budget(1064, listeners, Wanted { pipes, ..ANY }, None).fit;
        assert_eq!(fit(600), fit(0) - 300);
        assert_eq!(fit(2000), 0);
    }

    #[test]
    fn what_answers_when_all_sessions_are_taken_has_descriptors_of_its_own() {
        let config = Config::default();
        let kept = kept_back(&config, 1024, 2);
        let of_admin = 1 + admin::CONNECTIONS as u64;
        assert!(config.admin.listen.is_some() && kept > OWN + of_admin);
        let mut without = config;
        without.admin.listen = None;
        assert_eq!(kept_back(&without, 1024, 2), kept - of_admin);
    }

    #[test]
    fn too_few_descriptors_make_no_session_and_no_panic() {
        assert_eq!(budget(10, 100, ANY, None).sessions, 0);
    }
}
