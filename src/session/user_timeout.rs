//! Whether the hosts of both sides still answer, judged for `user_timeout`.
//!
//! The kernel's own option (tcp(7) `TCP_USER_TIMEOUT`) counts the time without progress, so that it
//! ends a connection whose reader pauses although its host answers every probe, and it replaces the
//! count of keepalive probes. Here a host is lost when it was asked for something, by a segment or by
//! a probe, and has not acknowledged anything at all for that long since. Nothing is done per byte: the
//! kernel is asked now and then, and only while something may be on its way.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::acks::{PeerState, Unanswered};
use crate::{
    handover::{is_default, monotonic},
    relay::Side,
};

/// The kernel is asked this often in the time allowed; so late may the end be.
const LOOKS: u32 = 8;

/// Times are told by the kernel in steps of its clock, which are not longer.
const GRAIN: Duration = Duration::from_millis(10);

/// A closed window is probed seldom, every two minutes in the end: one probe may get lost.
const PROBES: u8 = 3;

/// What is known of both sides of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct UserTimeout {
    #[serde(skip_serializing_if = "is_default")]
    client: Waiting,
    #[serde(skip_serializing_if = "is_default")]
    target: Waiting,
    #[serde(with = "monotonic::option")]
    next: Option<Instant>,
}

/// What a side's host has still to answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Waiting {
    #[default]
    Nothing,
    /// What was sent at that time, or later.
    Since(#[serde(with = "monotonic")] Instant),
    /// The kernel judges by itself because it does not tell.
    LeftToKernel,
}

/// What a look at both sides showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    Nothing,
    /// The host of this side is lost.
    Lost(Side),
    /// The kernel does not tell of this side and has to judge by itself.
    Untold(Side),
}

impl UserTimeout {
    /// Of a session that is under way: something may be on its way to both sides.
    pub(super) fn of_a_session(now: Instant, limit: Duration) -> Self {
        let mut user_timeout = Self::default();
        user_timeout.sent(Side::Client, now, limit);
        user_timeout.sent(Side::Target, now, limit);
        user_timeout
    }

    /// Notes that something was sent to that side.
    pub(super) fn sent(&mut self, side: Side, now: Instant, limit: Duration) {
        let waiting = self.waiting(side);
        if *waiting == Waiting::Nothing {
            *waiting = Waiting::Since(now);
        }
        if *waiting != Waiting::LeftToKernel {
            self.next.get_or_insert(now + pause(limit));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether the kernel judges that side by itself.
    pub(super) fn is_left_to_kernel(&self, side: Side) -> bool {
        let waiting = match side {
            Side::Client => self.client,
            Side::Target => self.target,
        };
        waiting == Waiting::LeftToKernel
    }

    /// Looks at both sides, if it is time to.
    pub(super) fn look(
        &mut self,
        now: Instant,
        limit: Duration,
        mut ask: impl FnMut(Side) -> Result<PeerState, Unanswered>,
    ) -> Finding {
        let Some(due) = self.next.filter(|at| *at <= now) else {
            return Finding::Nothing;
        };
        // Who was not running for a while has not given the host its time.
        let late = now.duration_since(due);
        let stood_still = if late > pause(limit) {
            late
        } else {
            Duration::ZERO
        };
        let mut next: Option<Instant> = None;
        for side in [Side::Client, Side::Target] {
            let waiting = self.waiting(side);
            let since = match *waiting {
                Waiting::LeftToKernel => continue,
                Waiting::Nothing => None,
                Waiting::Since(since) => Some(since + stood_still),
            };
            let at = match ask(side) {
                Err(Unanswered::Ever) => {
                    *waiting = Waiting::LeftToKernel;
                    return Finding::Untold(side);
                }
                Err(Unanswered::Now) => now + pause(limit),
                Ok(peer) => match judge(since, &peer, now, limit) {
                    Judgement::AllAcknowledged => {
                        *waiting = Waiting::Nothing;
                        continue;
                    }
                    Judgement::Answers => {
                        *waiting = Waiting::Nothing;
                        now + pause(limit)
                    }
                    Judgement::Silent(since) => {
                        *waiting = Waiting::Since(since);
                        let end = since + limit;
                        let end = if end > now { end } else { now + pause(limit) };
                        end.min(now + pause(limit))
                    }
                    Judgement::Lost => return Finding::Lost(side),
                },
            };
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        self.next = next;
        Finding::Nothing
    }

    fn waiting(&mut self, side: Side) -> &mut Waiting {
        match side {
            Side::Client => &mut self.client,
            Side::Target => &mut self.target,
        }
    }
}

fn pause(limit: Duration) -> Duration {
    (limit / LOOKS).max(GRAIN)
}

/// What a look at one side says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    AllAcknowledged,
    /// Something is, and the host has answered all it was asked.
    Answers,
    /// It has not answered what it was asked at that time.
    Silent(Instant),
    /// Not for too long.
    Lost,
}

/// Judges a side that has something to answer from `since`, as far as is known.
fn judge(since: Option<Instant>, peer: &PeerState, now: Instant, limit: Duration) -> Judgement {
    if peer.unacknowledged == 0 {
        return Judgement::AllAcknowledged;
    }
    let sent_later = peer.since_sent + GRAIN < peer.since_heard;
    let asks = match peer.in_flight {
        0 => peer.probes > 0,
        // An end of stream alone does not count as data that was sent.
        _ => sent_later || (peer.unacknowledged == 1 && peer.tries > 0),
    };
    // `None` if that is further back than the clock goes.
    let heard = now.checked_sub(peer.since_heard);
    let known = since.filter(|since| heard.is_none_or(|heard| heard + GRAIN < *since));
    let since = match known {
        Some(since) => since,
        None if !asks => return Judgement::Answers,
        None if sent_later && peer.in_flight > 0 => now.checked_sub(peer.since_sent).unwrap_or(now),
        None => now,
    };
    let tried = match (peer.in_flight, peer.window_closed) {
        (0, _) => peer.probes >= PROBES,
        // What the host has no room for is sent again as seldom as a probe.
        (_, true) => now.duration_since(since) >= 2 * peer.retry_after,
        (_, false) => true,
    };
    match asks && tried && now.duration_since(since) >= limit {
        true => Judgement::Lost,
        false => Judgement::Silent(since),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A moment with as much before it as is needed.
    fn now() -> Instant {
        Instant::now() + seconds(100_000)
    }

    /// A reader that has paused: its window is closed, and it was last heard so long ago.
    fn paused(probes: u8, heard: u64) -> PeerState {
        PeerState {
            unacknowledged: 100_000,
            probes,
            window_closed: true,
            since_sent: seconds(4000),
            since_heard: seconds(heard),
            ..PeerState::default()
        }
    }

    /// Bytes on their way, last sent and last heard so long ago.
    fn on_the_way(sent: u64, heard: u64) -> PeerState {
        PeerState {
            unacknowledged: 100,
            in_flight: 1,
            tries: 3,
            retry_after: seconds(10),
            since_sent: seconds(sent),
            since_heard: seconds(heard),
            ..PeerState::default()
        }
    }

    #[test]
    fn a_reader_that_pauses_is_there_however_seldom_it_is_asked() {
        let now = now();
        for since in [None, Some(now - seconds(4000)), Some(now - seconds(31))] {
            let judged = judge(since, &paused(0, 119), now, LIMIT);
            assert!(
                matches!(judged, Judgement::Answers | Judgement::Silent(_)),
                "{judged:?}"
            );
        }
        assert_eq!(judge(None, &paused(0, 119), now, LIMIT), Judgement::Answers);
        // A probe may get lost.
        let asked = Some(now - seconds(100));
        let judged = judge(asked, &paused(2, 220), now, LIMIT);
        assert_eq!(judged, Judgement::Silent(now - seconds(100)));
        assert_eq!(judge(asked, &paused(3, 340), now, LIMIT), Judgement::Lost);
    }

    #[test]
    fn a_host_that_acknowledges_nothing_is_lost_in_time_and_not_before() {
        let now = now();
        let sent = |ago| Some(now - seconds(ago));
        // It was idle for an hour and then sent a byte.
        let peer = on_the_way(2, 3600);
        let judged = judge(sent(29), &peer, now, LIMIT);
        assert_eq!(judged, Judgement::Silent(now - seconds(29)));
        assert_eq!(judge(sent(30), &peer, now, LIMIT), Judgement::Lost);
        // It has said something since.
        let judged = judge(sent(30), &on_the_way(20, 25), now, LIMIT);
        assert_eq!(judged, Judgement::Silent(now - seconds(20)));
        let judged = judge(sent(30), &on_the_way(20, 3), now, LIMIT);
        assert_eq!(judged, Judgement::Answers);
    }

    #[test]
    fn bytes_a_host_has_no_room_for_are_no_silence_between_two_attempts() {
        let now = now();
        let refused = |sent, heard| PeerState {
            window_closed: true,
            retry_after: seconds(120),
            ..on_the_way(sent, heard)
        };
        let since = Some(now - seconds(31));
        // Sent and refused 100 s ago, more bytes came 31 s ago, the next attempt is to come.
        let judged = judge(since, &refused(100, 100), now, LIMIT);
        assert_eq!(judged, Judgement::Silent(now - seconds(31)));
        // One attempt got lost.
        let judged = judge(since, &refused(10, 120), now, LIMIT);
        assert_eq!(judged, Judgement::Silent(now - seconds(31)));
        let judged = judge(Some(now - seconds(241)), &refused(1, 361), now, LIMIT);
        assert_eq!(judged, Judgement::Lost);
    }

    #[test]
    fn an_end_of_stream_that_nobody_acknowledges_is_noticed() {
        let now = now();
        let end = PeerState {
            unacknowledged: 1,
            since_sent: seconds(50),
            since_heard: seconds(40),
            ..on_the_way(0, 0)
        };
        assert_eq!(judge(None, &end, now, LIMIT), Judgement::Silent(now));
        let asked = Some(now - seconds(30));
        assert_eq!(judge(asked, &end, now, LIMIT), Judgement::Lost);
    }

    #[test]
    fn a_proxy_that_stood_still_gives_the_host_its_time() {
        let start = now();
        let mut user_timeout = UserTimeout::default();
        user_timeout.sent(Side::Target, start, LIMIT);
        let due = user_timeout.next().expect("something is on its way");
        let late = due + seconds(300);
        let silent = |side| {
            Ok(match side {
                Side::Client => PeerState::default(),
                Side::Target => on_the_way(1, 3600),
            })
        };
        assert_eq!(user_timeout.look(late, LIMIT, silent), Finding::Nothing);
        let mut at = user_timeout.next().expect("it goes on");
        while user_timeout.look(at, LIMIT, silent) == Finding::Nothing {
            at = user_timeout.next().expect("it goes on");
        }
        assert_eq!(at, start + seconds(330));
    }

    #[test]
    fn where_the_kernel_does_not_tell_it_judges_by_itself() {
        let start = now();
        let mut user_timeout = UserTimeout::of_a_session(start, LIMIT);
        let untold = |_| Err(Unanswered::Ever);
        let at = start + LIMIT;
        let findings = [0; 3].map(|_| user_timeout.look(at, LIMIT, untold));
        assert_eq!(
            findings,
            [
                Finding::Untold(Side::Client),
                Finding::Untold(Side::Target),
                Finding::Nothing
            ]
        );
        assert_eq!(user_timeout.next(), None);
        user_timeout.sent(Side::Client, at, LIMIT);
        assert_eq!(user_timeout.next(), None);
    }
}
