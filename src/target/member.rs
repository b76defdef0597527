//! One address of a group, and what is known of it.

use std::{
    hash::Hasher,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use fnv::FnvHasher;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::{Queue, TargetSettings, balance::mixed};
use crate::{handover::monotonic, limit::Tick};

/// How long a member that could not be connected to comes after all others.
pub(super) const PUT_LAST: Duration = Duration::from_secs(10);

/// An address that sessions of a group may be led to.
#[derive(Debug)]
pub struct Member {
    pub address: SocketAddr,
    /// The number of the target in the settings of the group that it is an address of.
    pub target: usize,
    /// What was said of that target.
    pub settings: TargetSettings<()>,
    pub(super) key: u64,
    pub(super) known: Arc<Known>,
    /// Who waits for a place at it, or another of its group.
    pub(super) queue: Arc<Queue>,
}

/// What is known of an address. It outlives changes of the settings.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Sessions open, those included that are being connected.
    pub sessions: AtomicU32,
    /// Sessions it has been chosen for.
    pub chosen: AtomicU64,
    /// Connections that failed.
    pub failures: AtomicU64,
    /// When the last of them did, unless one has succeeded since: nanoseconds on the machine's monotonic
    /// clock, which the next image of the program knows as well. 0 for never.
    pub failed: AtomicU64,
    pub state: AtomicU8,
    /// Since when the state is what it is, on the same clock; 0 if it never was another.
    pub since: AtomicU64,
    /// Results of checks in a row that speak for another state.
    pub streak: AtomicU32,
    /// Checks that failed.
    pub check_failures: AtomicU64,
    /// The last of them.
    pub check_failure: ArcSwapOption<CheckFailure>,
}

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFailure {
    #[serde(with = "monotonic")]
    pub at: Instant,
    pub error: String,
}

/// Whether sessions may be led to a member.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MemberState {
    /// Nobody has checked: it is taken to be up.
    #[default]
    Unknown,
    Up,
    /// None begins there.
    Down,
}

impl Known {
    /// It is as if nobody had ever checked it.
    pub(super) fn forget_state(&self) {
        self.streak.store(0, Relaxed);
        self.since.store(0, Relaxed);
        self.state.store(MemberState::Unknown as u8, Relaxed);
    }
}

impl MemberState {
    pub fn word(self) -> &'static str {
        self.into()
    }
}

impl Member {
    pub(super) fn new(
        address: SocketAddr,
        target: usize,
        settings: TargetSettings<()>,
        known: Arc<Known>,
        queue: Arc<Queue>,
    ) -> Self {
        Self {
            address,
            target,
            settings,
            key: key(address),
            known,
            queue,
        }
    }

    pub fn state(&self) -> MemberState {
        let all = MemberState::VARIANTS;
        all[usize::from(self.known.state.load(Relaxed)) % all.len()]
    }

    /// Since when its state is what it is, if it has ever been another.
    pub fn since(&self) -> Option<Instant> {
        let nanos = i64::try_from(self.known.since.load(Relaxed));
        nanos
            .ok()
            .filter(|nanos| *nanos > 0)
            .map(monotonic::from_nanos)
    }

    /// Sessions open, those included that are being connected.
    pub fn sessions(&self) -> u32 {
        self.known.sessions.load(Relaxed)
    }

    /// Sessions it has been chosen for.
    pub fn chosen(&self) -> u64 {
        self.known.chosen.load(Relaxed)
    }

    /// Connections to it that failed.
    pub fn failures(&self) -> u64 {
        self.known.failures.load(Relaxed)
    }

    /// Checks of it that failed.
    pub fn check_failures(&self) -> u64 {
        self.known.check_failures.load(Relaxed)
    }

    /// The last check of it that failed.
    pub fn check_failure(&self) -> Option<Arc<CheckFailure>> {
        self.known.check_failure.load_full()
    }

    /// Takes note of what a check found, why it failed if it did. `rise` good results in a row make it up, `fall` bad ones down;
    /// one whose state is unknown becomes what the first says. Returns its state if that is another now.
    ///
    /// For one caller at a time.
    pub fn report(
        &self,
        failure: Option<String>,
        (rise, fall): (u32, u32),
        now: Tick,
    ) -> Option<MemberState> {
        let is_good = failure.is_none();
        if let Some(error) = failure {
            let at = now.instant();
            let failure = Arc::new(CheckFailure { at, error });
            self.known.check_failure.store(Some(failure));
            self.known.check_failures.fetch_add(1, Relaxed);
        }
        let state = self.state();
        let (found, needed) = match (is_good, state) {
            (true, MemberState::Up) | (false, MemberState::Down) => {
                self.known.streak.store(0, Relaxed);
                return None;
            }
            (true, MemberState::Unknown) => (MemberState::Up, 1),
            (false, MemberState::Unknown) => (MemberState::Down, 1),
            (true, MemberState::Down) => (MemberState::Up, rise),
            (false, MemberState::Up) => (MemberState::Down, fall),
        };
        let streak = self.known.streak.load(Relaxed) + 1;
        if streak < needed {
            self.known.streak.store(streak, Relaxed);
            return None;
        }
        self.set_state(found, now);
        if found == MemberState::Up {
            self.queue.wake_first();
        }
        Some(found)
    }

    /// Nobody checks it any more.
    pub fn forget_state(&self, now: Tick) {
        if self.state() != MemberState::Unknown {
            self.set_state(MemberState::Unknown, now);
        }
    }

    fn set_state(&self, state: MemberState, now: Tick) {
        self.known.streak.store(0, Relaxed);
        self.known.since.store(on_clock(now).max(1), Relaxed);
        self.known.state.store(state as u8, Relaxed);
    }

    pub(super) fn has_failed_lately(&self, now: Tick) -> bool {
        let failed = self.known.failed.load(Relaxed);
        failed != 0 && on_clock(now) < failed.saturating_add(PUT_LAST.as_nanos() as u64)
    }

    pub(super) fn has_room(&self) -> bool {
        let most = self.settings.max_sessions;
        most.is_none_or(|most| self.sessions() < most)
    }

    /// Counts a session in, unless there are as many as there may be.
    pub(super) fn try_take(&self) -> bool {
        let sessions = &self.known.sessions;
        let taken = match self.settings.max_sessions {
            None => {
                sessions.fetch_add(1, Relaxed);
                true
            }
            Some(most) => sessions
                .fetch_update(Relaxed, Relaxed, |open| (open < most).then_some(open + 1))
                .is_ok(),
        };
        if taken {
            self.known.chosen.fetch_add(1, Relaxed);
        }
        taken
    }

    /// A connection to it was made.
    pub(super) fn succeeded(&self) {
        // Most have nothing to forget, and all share the line of memory.
        if self.known.failed.load(Relaxed) != 0 {
            self.known.failed.store(0, Relaxed);
        }
    }

    /// A connection to it could not be made.
    pub(super) fn failed(&self, now: Tick) {
        self.known.failures.fetch_add(1, Relaxed);
        self.known.failed.store(on_clock(now).max(1), Relaxed);
    }
}

fn on_clock(at: Tick) -> u64 {
    u64::try_from(monotonic::to_nanos(at.instant())).unwrap_or(0)
}

/// A number for an address that is the same in every process.
fn key(address: SocketAddr) -> u64 {
    let mut hasher = FnvHasher::default();
    match address.ip() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write(&address.port().to_be_bytes());
    mixed(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Member {
        let address = "10.0.0.1:22".parse().expect("an address");
        let settings = TargetSettings::of(());
        Member::new(address, 0, settings, Arc::default(), Arc::default())
    }

    #[test]
    fn it_takes_as_many_results_in_a_row_as_were_asked_for() {
        let member = plain();
        let report = |good: bool| {
            let failure = (!good).then(|| "no".to_owned());
            member.report(failure, (2, 3), Tick(1))
        };
        assert_eq!(report(true), Some(MemberState::Up), "the first counts");
        let down = [false, false, true, false, false, false, false].map(report);
        let expected = [None, None, None, None, None, Some(MemberState::Down), None];
        assert_eq!(down, expected);
        let up = [true, false, true, true, true].map(report);
        assert_eq!(up, [None, None, None, Some(MemberState::Up), None]);
    }

    #[test]
    fn a_failure_is_forgotten_with_time_and_with_a_connection() {
        let member = plain();
        let then = Tick(5_000_000_000);
        assert!(!member.has_failed_lately(then));
        member.failed(then);
        assert!(member.has_failed_lately(then));
        assert!(!member.has_failed_lately(then.after(PUT_LAST)));
        member.succeeded();
        assert!(!member.has_failed_lately(then));
        assert_eq!(member.failures(), 1);
    }
}
