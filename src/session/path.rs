//! Reading `struct tcp_info` out of an answer of sock_diag(7).

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use crate::telemetry::PathInfo;

/// `INET_DIAG_INFO`, the attribute that carries it.
const INFO: u16 = 2;

/// The bit that asks for it.
pub(super) const EXTENSION: u8 = 1 << (INFO - 1);

/// The structure in an answer.
///
/// It grows at its end from kernel to kernel; what an old one does not have is 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct TcpInfo<'a>(&'a [u8]);

impl<'a> TcpInfo<'a> {
    /// That of a socket, with `room` as the place to put it.
    pub(super) fn of(socket: BorrowedFd<'_>, room: &'a mut [u8; 512]) -> Option<Self> {
        // No safe call of rustix or socket2 asks for it.
        let option = (uapi::c::IPPROTO_TCP, uapi::c::TCP_INFO);
        let len = uapi::getsockopt(socket.as_raw_fd(), option.0, option.1, room).ok()?;
        room.get(..len).map(Self)
    }

    /// Finds it among the attributes of an answer.
    pub(super) fn find(attributes: &'a [u8]) -> Option<Self> {
        find(attributes).map(Self)
    }

    pub(super) fn path(self) -> PathInfo {
        PathInfo {
            rtt_us: self.u32_at(68),
            // Without a sample the kernel says the largest there is.
            min_rtt_us: Some(self.u32_at(148)).filter(|rtt| (1..u32::MAX).contains(rtt)),
            retransmits: self.u32_at(100),
            segments: self.u32_at(156),
            delivery_rate: self.u64_at(160),
        }
    }

    /// Times the oldest segment was sent again since the last progress (`tcpi_retransmits`).
    pub(super) fn tries(self) -> u8 {
        self.u8_at(2)
    }

    /// Probes of a closed window without an answer so far (`tcpi_probes`).
    pub(super) fn probes(self) -> u8 {
        self.u8_at(3)
    }

    /// The time until a segment is sent again (`tcpi_rto`).
    pub(super) fn retry_after(self) -> Duration {
        Duration::from_micros(self.u32_at(8).into())
    }

    /// Segments on their way (`tcpi_unacked`).
    pub(super) fn in_flight(self) -> u32 {
        self.u32_at(24)
    }

    /// Since data was last sent, again or for the first time (`tcpi_last_data_sent`).
    pub(super) fn since_sent(self) -> Duration {
        Duration::from_millis(self.u32_at(44).into())
    }

    /// Since the peer last acknowledged anything, be it nothing new (`tcpi_last_ack_recv`).
    pub(super) fn since_heard(self) -> Duration {
        Duration::from_millis(self.u32_at(56).into())
    }

    /// The shortest round trip so far, where the kernel says so (`tcpi_min_rtt`).
    pub(super) fn shortest_round_trip(self) -> Option<Duration> {
        // Without a sample the kernel says the largest there is.
        let us = Some(self.u32_at(148)).filter(|us| (1..u32::MAX).contains(us));
        us.map(|us| Duration::from_micros(us.into()))
    }

    /// How long it takes from when a window is offered until it is full (`tcpi_rcv_rtt`): a round trip,
    /// and what bytes wait at either end.
    pub(super) fn receiving_round_trip(self) -> Duration {
        Duration::from_micros(self.u32_at(92).into())
    }

    /// Bytes that the peer has acknowledged in all, where the kernel counts them (`tcpi_bytes_acked`). A
    /// socket that was connected from here counts its first packet in.
    pub(super) fn acknowledged(self, connected_here: bool) -> Option<u64> {
        const ACKNOWLEDGED: usize = 120;
        let counted = self.0.len() >= ACKNOWLEDGED + 8;
        counted.then(|| {
            self.u64_at(ACKNOWLEDGED)
                .saturating_sub(connected_here.into())
        })
    }

    /// Whether the peer's window is closed, where the kernel says so (`tcpi_snd_wnd`).
    pub(super) fn window_closed(self) -> bool {
        const WINDOW: usize = 228;
        self.0.len() >= WINDOW + 4 && self.u32_at(WINDOW) == 0
    }

    fn u8_at(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn u32_at(self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    }

    fn u64_at(self, at: usize) -> u64 {
        let bytes = self.0.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    }
}

/// The content of the wanted attribute. Each has its length, its type, and is padded to four bytes.
fn find(mut attributes: &[u8]) -> Option<&[u8]> {
    loop {
        let header = attributes.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let content = attributes.get(4..len)?;
        if u16::from_ne_bytes([header[2], header[3]]) == INFO {
            return Some(content);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let len = 4 + content.len() as u16;
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_structure_is_found_behind_others_and_may_be_short() {
        let mut info = vec![0; 104];
        info[68..72].copy_from_slice(&1234u32.to_ne_bytes());
        let attributes = [attribute(8, &[3]), attribute(INFO, &info)].concat();
        let info = TcpInfo::find(&attributes).expect("it is there");
        let path = info.path();
        assert_eq!((path.rtt_us, path.delivery_rate), (1234, 0));
        assert!(!info.window_closed(), "that was not said");
    }

    #[test]
    fn nonsense_is_nothing() {
        for bytes in [&[][..], &[0; 8], &[255; 8], &attribute(8, &[1])] {
            assert!(TcpInfo::find(bytes).is_none(), "{bytes:?}");
        }
    }
}
