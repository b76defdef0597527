//! What the kernel allows the process, and how many sessions and pipes that makes.

use std::fs;

use nix::sys::resource::{Resource, setrlimit};

use crate::{
    admin::{self, LOOKUP_CONNECTIONS},
    config::{AutoOr, Config},
    os_error::in_words,
    provider::switchboard::follow::FollowSettings,
    relay::SMALL_PIPE,
    telemetry::descriptor_limits,
};

/// Descriptors set aside for what the process has open whatever it does: standard streams, epoll
/// instances, files that are being read, room to accept and refuse.
const OWN: u64 = 32;

/// A worker has an epoll instance, an eventfd and a descriptor in reserve.
const EACH_WORKER: u64 = 3;

/// Connections that are open to a switchboard beside its watches.
const QUESTIONS: u64 = 16;

/// Of the descriptors, watches of a switchboard may take one in this many.
const WATCH_SHARE: u64 = 32;

/// The kernel's own limit, for a process that cannot learn which it has.
const USUAL: u64 = 1024;

/// Of the descriptors, pipes may take one part in this many: each takes two, and sessions matter
/// more.
const PIPE_SHARE: u64 = 32;

/// More pipes than this are never worth their descriptors.
const PIPES_AT_MOST: u64 = 1024;

/// More than this is never worth it: a pipe holds bytes only while their sink does not keep up.
const PIPE_MEMORY_AT_MOST: u64 = 256 << 20;

/// What the operator asked for; `None` is "as many as fit".
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Descriptors kept back, see [`kept_back`].
    pub kept_back: u64,
    /// Sessions.
    pub sessions: Option<u32>,
    /// Pipes.
    pub pipes: Option<u32>,
    /// Bytes a pipe.
    pub pipe_size: usize,
}

/// What there is to spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Descriptors the process may have open.
    pub descriptors: u64,
    /// Sessions there may be: two descriptors each, and no more than wanted.
    pub sessions: u32,
    /// Sessions that would fit, however many are wanted.
    pub fit: u32,
    /// Descriptors kept back.
    pub kept_back: u64,
    /// Pipes that fit: two descriptors each, and the user's pipe memory.
    pub pipes: usize,
    /// Bytes of memory for them.
    pub pipe_memory: usize,
}

/// Raises the soft limit on open descriptors to the hard one and returns what is then in force.
///
/// Without a limit the answer is `u64::MAX`.
pub fn raise_descriptor_limit() -> u64 {
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
pub fn kept_back(config: &Config, descriptors: u64, workers: usize) -> u64 {
    let socket = config.admin.socket != AutoOr::Value(None);
    let listeners = u64::from(config.admin.listen.is_some()) + u64::from(socket);
    let mut kept = OWN + EACH_WORKER * workers as u64 + listeners * (1 + admin::CONNECTIONS as u64);
    if let Some(switchboard) = &config.switchboard {
        kept += QUESTIONS + watches(descriptors) as u64;
        if switchboard.lookup.is_some() {
            kept += 1 + LOOKUP_CONNECTIONS as u64;
        }
    }
    kept
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

/// Divides the descriptors: first listeners and what is kept back, then pipes, the rest for sessions.
pub fn budget(
    descriptors: u64,
    listeners: usize,
    wanted: Wanted,
    pipe_memory: Option<u64>,
) -> Budget {
    let left = descriptors.saturating_sub(listeners as u64 + wanted.kept_back);
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
        sessions: wanted.sessions.map_or(fit, |sessions| sessions.min(fit)),
        fit,
        kept_back: wanted.kept_back,
        pipes: pipes as usize,
        pipe_memory: memory as usize,
    }
}

/// The bytes of pipe buffer this user may have, or `None` if the process is exempt (pipe(7),
/// `pipe-user-pages-soft`).
pub fn pipe_memory() -> Option<u64> {
    const PAGE: u64 = 4096;
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_SYS_RESOURCE: u64 = 1 << 24;

    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    if capabilities & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0 {
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
        kept_back: 64,
        sessions: None,
        pipes: None,
        pipe_size: 1 << 20,
    };

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
