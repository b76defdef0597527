//! What the kernel allows the process, and how many sessions and pipes that makes.

use std::fs;

use nix::sys::resource::{Resource, setrlimit};

use crate::{os_error::in_words, relay::SMALL_PIPE, telemetry::descriptor_limits};

/// Descriptors set aside for everything that is neither session, listener nor pipe: standard
/// streams, epoll instances, eventfds, admin connections, and room to accept and refuse.
const RESERVE: u64 = 64;

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
    /// Pipes that fit: two descriptors each, and the user's pipe memory.
    pub pipes: usize,
    /// Bytes of memory for them.
    pub pipe_memory: usize,
}

/// Raises the soft limit on open descriptors to the hard one and returns what is then in force.
///
/// Without a limit the answer is `u64::MAX`.
pub fn raise_descriptor_limit() -> u64 {
    /// The kernel's own, for a process that cannot learn its limit.
    const USUAL: u64 = 1024;
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

/// Divides the descriptors: first listeners and a reserve, then pipes, the rest for sessions.
pub fn budget(
    descriptors: u64,
    listeners: usize,
    wanted: Wanted,
    pipe_memory: Option<u64>,
) -> Budget {
    let left = descriptors.saturating_sub(listeners as u64 + RESERVE);
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
    fn too_few_descriptors_make_no_session_and_no_panic() {
        assert_eq!(budget(10, 100, ANY, None).sessions, 0);
    }
}
