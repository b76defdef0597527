//! The receive buffer of a near sender of bulk.
//!
//! The kernel gives a socket a buffer for twice of what was read in a round trip. A sender that is near
//! and faster than what comes behind has its bytes wait there, the wait makes round trips longer, and
//! the buffer grows to `net.ipv4.tcp_rmem`: 6 MiB, or 32 with a newer kernel. That is memory the whole machine
//! shares; when it runs short the kernel drops what arrives. No link of a near peer needs as much: with
//! [`BUFFER`] and a round trip of [`NEAR`] a connection moves a gigabyte a second.

use std::{fs, os::fd::BorrowedFd, sync::LazyLock, time::Duration};

use super::path::TcpInfo;
use crate::socket;

/// Bytes a session has moved in bulk when its senders are judged. Buffers are still small then: one that
/// became smaller than what it holds would have the kernel drop bytes on their way.
pub(super) const JUDGED_AT: u32 = 128 * 1024;

/// The longest round trip of a near peer.
const NEAR: Duration = Duration::from_millis(1);

/// Less makes each turn worth less: with half of it bulk over 64 connections takes a tenth more of the
/// machine's processor time.
const BUFFER: usize = 1024 * 1024;

/// Whether the kernel grants [`BUFFER`], and would give more by itself.
static GRANTED: LazyLock<bool> = LazyLock::new(|| {
    let last = |path| {
        let text = fs::read_to_string(path).ok()?;
        text.split_whitespace().last()?.parse::<usize>().ok()
    };
    last("/proc/sys/net/core/rmem_max").is_some_and(|most| most >= BUFFER / 2)
        && last("/proc/sys/net/ipv4/tcp_rmem").is_some_and(|most| most > BUFFER)
});

/// Bounds what may wait to be read from a socket if its peer is near.
pub(super) fn bound_receive_buffer(socket: BorrowedFd<'_>) {
    let mut room = [0; 512];
    let round_trip = TcpInfo::of(socket, &mut room).and_then(TcpInfo::shortest_round_trip);
    if round_trip.is_some_and(|shortest| shortest <= NEAR) && *GRANTED {
        // Without it there is only more in flight.
        let _ = socket::set_receive_buffer(socket, BUFFER);
    }
}
