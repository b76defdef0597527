//! What waits to be read from near senders of bulk.
//!
//! The kernel gives a socket a receive buffer for twice of what was read in a round trip. The bytes of a
//! sender that is near, and faster than what comes behind, wait there; the wait makes round trips longer,
//! and the buffer grows up to `net.ipv4.tcp_rmem`: 6 MiB, or 32 since Linux 6.17. None of that is in a
//! cache any more, neither when it is written nor when it is read. So the buffer of a peer within [`NEAR`]
//! stays at [`BUFFER`], with which it may send a gigabyte a second.
//!
//! A buffer is never made smaller: the kernel would drop what was on its way into it, and the sender would
//! try again only after seconds. It is made larger at once, or kept as it is, before there is much in it.

use std::{fs, os::fd::BorrowedFd, sync::LazyLock, time::Duration};

use rustix::io::ioctl_fionread;
use serde::{Deserialize, Serialize};

use super::path::TcpInfo;
use crate::socket;

/// The longest round trip of a near peer.
const NEAR: Duration = Duration::from_millis(1);

/// Half of it costs each turn so much that nothing is won.
const BUFFER: usize = 1024 * 1024;

/// A round trip that is longer is the path's, unless bytes wait here. With less [`BUFFER`] is enough for a
/// gigabit a second.
const FAR: Duration = Duration::from_millis(8);

/// Fewer bytes waiting when a turn begins leave a sender no reason to wait for us.
const WAITING: u64 = BUFFER as u64 / 4;

/// So many looks in a row have to find a sender far: a processor that is busy makes one seem so as well.
const LOOKS: u8 = 3;

/// What a buffer is set to when a path has become long, as far as the kernel grants it. The kernel
/// enlarges only buffers that leave room for more than what has come in a round trip so far.
static RELEASED: LazyLock<Option<usize>> = LazyLock::new(|| {
    let last = |path| {
        let text = fs::read_to_string(path).ok()?;
        text.split_whitespace().last()?.parse::<usize>().ok()
    };
    let granted = 2 * last("/proc/sys/net/core/rmem_max")?;
    let released = granted.min(last("/proc/sys/net/ipv4/tcp_rmem")?);
    (released >= 4 * BUFFER).then_some(released)
});

/// Whether the receive buffers of a session are bounded, and what is known of its paths since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Bound(u8);

impl Bound {
    /// They are; the rest is how many looks in a row found a sender far.
    const BOUNDED: u8 = 1 << 6;
    /// The next turn begins with a look.
    const LOOK: u8 = 1 << 7;

    /// Bounds what may wait to be read from those sockets whose peers are near.
    pub fn begin(&mut self, sockets: [BorrowedFd<'_>; 2]) {
        if self.0 == 0 && sockets.map(bound).contains(&true) {
            self.0 = Self::BOUNDED;
        }
    }

    /// Has the next turn look whether the paths have become long.
    pub fn look_soon(&mut self) {
        if self.0 != 0 {
            self.0 |= Self::LOOK;
        }
    }

    /// Looks if it is due, before anything is read, and gives senders that have come to be far the window
    /// that their path takes.
    pub fn look(&mut self, sockets: [BorrowedFd<'_>; 2]) {
        if self.0 & Self::LOOK == 0 {
            return;
        }
        let found = match sockets.map(is_far).contains(&true) {
            true => (self.0 & !(Self::LOOK | Self::BOUNDED)) + 1,
            false => 0,
        };
        self.0 = Self::BOUNDED | found;
        if found >= LOOKS {
            sockets.into_iter().for_each(release);
            self.0 = 0;
        }
    }
}

/// Bounds what may wait to be read from a socket if its peer is near; whether it did.
fn bound(socket: BorrowedFd<'_>) -> bool {
    let mut room = [0; 512];
    let round_trip = TcpInfo::of(socket, &mut room).and_then(TcpInfo::shortest_round_trip);
    let is_near = round_trip.is_some_and(|shortest| shortest <= NEAR);
    // Kept first: the kernel could enlarge it between a look at its size and what follows from that.
    if !is_near || RELEASED.is_none() || socket::keep_receive_buffer(socket, true).is_err() {
        return false;
    }
    // One that is smaller than it may be is bounded all the same.
    let _ = socket::enlarge_receive_buffer(socket, BUFFER);
    true
}

/// Whether a sender waits for the path, and not for us to read. One that sends nothing does not.
fn is_far(socket: BorrowedFd<'_>) -> bool {
    let mut room = [0; 512];
    TcpInfo::of(socket, &mut room).is_some_and(|info| info.receiving_round_trip() > FAR)
        && ioctl_fionread(socket).is_ok_and(|waiting| (1..WAITING).contains(&waiting))
}

/// Leaves the receive buffer to the kernel again.
fn release(socket: BorrowedFd<'_>) {
    if let Some(released) = *RELEASED {
        let _ = socket::enlarge_receive_buffer(socket, released);
    }
    let _ = socket::keep_receive_buffer(socket, false);
}
