//! What a peer has acknowledged, asked of the kernel through sock_diag(7).
//!
//! `SIOCOUTQ` would say the same, but no safe binding offers it; sock_diag also answers for any
//! socket of this machine by its addresses, without holding it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getpeername, getsockname,
        netlink, recv, send, socket_with,
    },
};

use super::path::{self, TcpInfo};
use crate::telemetry::PathInfo;

/// Asks the kernel; opens its netlink socket at the first question.
#[derive(Debug, Default)]
pub struct AckProbe {
    netlink: Option<OwnedFd>,
}

/// What is on its way to the peer of a TCP socket, and whether the peer answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerState {
    /// Bytes, and an end of stream as one more, that the peer has not acknowledged and still may.
    pub unacknowledged: u32,
    /// Segments of those that were sent. Without any, the peer's window is closed.
    pub in_flight: u32,
    /// Whether the peer's window is known to be closed.
    pub window_closed: bool,
    /// Probes of a closed window since the peer was last heard.
    pub probes: u8,
    /// Times the oldest segment was sent again since the last progress.
    pub tries: u8,
    /// How long the kernel waits at present before it sends a segment again.
    pub retry_after: Duration,
    /// Since data was last sent.
    pub since_sent: Duration,
    /// Since the peer was last heard: an acknowledgement of nothing new is one.
    pub since_heard: Duration,
}

/// Why a [`PeerState`] could not be learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// Something ran short; it may be told another time.
    Now,
    /// This kernel does not tell.
    Ever,
}

/// Bytes that the peer of a TCP socket has acknowledged in all, the end of the stream being one of them, or
/// `None` if the kernel does not tell. Unlike [`AckProbe`] it also tells of a connection that has broken.
/// `connected_here` is whether the socket was connected and not accepted.
///
/// What was not acknowledged is to be reckoned from this: `tcpi_bytes_sent` counts a segment again each
/// time the machine itself refused to send it, which is what happens where an interface is gone.
pub fn acknowledged(socket: BorrowedFd<'_>, connected_here: bool) -> Option<u64> {
    let mut room = [0; 512];
    TcpInfo::of(socket, &mut room)?.acknowledged(connected_here)
}

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
const QUESTION_LEN: usize = 16 + 56;
/// Where `idiag_wqueue` is in the answer: behind `nlmsghdr`, four bytes, `inet_diag_sockid`,
/// `idiag_expires` and `idiag_rqueue`.
const WQUEUE: std::ops::Range<usize> = 76..80;
/// Where the answer's attributes begin: behind `nlmsghdr` and `inet_diag_msg`.
const ATTRIBUTES: usize = 16 + 72;

impl AckProbe {
    /// Bytes sent through a TCP socket that its peer has not acknowledged and still may, or `None`
    /// if the kernel does not tell.
    pub fn unacknowledged(&mut self, socket: BorrowedFd<'_>) -> Option<u32> {
        // A connection that is gone will acknowledge nothing more.
        if getpeername(socket) == Err(io::Errno::NOTCONN) {
            return Some(0);
        }
        let answer = self.ask(&question(socket, 0)?).ok()?;
        let wqueue = answer.get(WQUEUE)?.try_into();
        Some(u32::from_ne_bytes(wqueue.expect("the range is four bytes")))
    }

    /// One that the kernel does not answer.
    #[cfg(test)]
    pub(super) fn deaf() -> Self {
        use rustix::net::socket;
        let other = socket(AddressFamily::INET, SocketType::DGRAM, None);
        Self {
            netlink: Some(other.expect("a descriptor to spare")),
        }
    }

    /// How the way to the peer of a connected TCP socket does, or `None` if the kernel does not
    /// tell.
    pub fn path(&mut self, socket: BorrowedFd<'_>) -> Option<PathInfo> {
        let answer = self.ask(&question(socket, path::EXTENSION)?).ok()?;
        Some(TcpInfo::find(answer.get(ATTRIBUTES..)?)?.path())
    }

    /// What is on its way to the peer of a TCP socket.
    ///
    /// # Errors
    ///
    /// Whether it is worth asking again.
    pub fn peer_state(&mut self, socket: BorrowedFd<'_>) -> Result<PeerState, Unanswered> {
        let Some(question) = question(socket, path::EXTENSION) else {
            // A connection that is gone has nothing on its way.
            return Ok(PeerState::default());
        };
        let answer = self.ask(&question).map_err(|errno| match errno {
            io::Errno::MFILE | io::Errno::NFILE | io::Errno::NOMEM | io::Errno::NOBUFS => {
                Unanswered::Now
            }
            io::Errno::AGAIN => Unanswered::Now,
            _ => Unanswered::Ever,
        })?;
        let found = answer.get(WQUEUE).and_then(|bytes| bytes.try_into().ok());
        let info = answer.get(ATTRIBUTES..).and_then(TcpInfo::find);
        match (found, info) {
            (Some(wqueue), Some(info)) => Ok(PeerState {
                unacknowledged: u32::from_ne_bytes(wqueue),
                in_flight: info.in_flight(),
                window_closed: info.window_closed(),
                probes: info.probes(),
                tries: info.tries(),
                retry_after: info.retry_after(),
                since_sent: info.since_sent(),
                since_heard: info.since_heard(),
            }),
            // It may have broken while it was asked about.
            _ if getpeername(socket).is_err() => Ok(PeerState::default()),
            _ => Err(Unanswered::Ever),
        }
    }

    /// Whether the kernel tells at all, asked about a listener made for that; nothing if there cannot
    /// be one.
    pub fn works() -> Option<bool> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let local = listener.local_addr().ok()?;
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let answer = Self::default().ask(&question_about(local, nobody, 0));
        Some(answer.is_ok_and(|answer| !answer.is_empty()))
    }

    /// The kernel's answer; empty if it knows no such socket.
    fn ask(&mut self, question: &[u8]) -> io::Result<Vec<u8>> {
        let netlink = match &self.netlink {
            Some(netlink) => netlink,
            None => self.netlink.insert(socket_with(
                AddressFamily::NETLINK,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(netlink::SOCK_DIAG),
            )?),
        };
        send(netlink, question, SendFlags::empty())?;
        // The kernel answers while it takes the question, so the answer is there.
        let mut answer = [0; 1024];
        let (len, _) = recv(netlink, &mut answer, RecvFlags::empty())?;
        let is_socket = answer[4..6] == BY_FAMILY.to_ne_bytes();
        let len = if is_socket { len.min(answer.len()) } else { 0 };
        Ok(answer[..len].to_vec())
    }
}

/// Asks for the socket with the two addresses of this one, and for these extensions.
fn question(socket: BorrowedFd<'_>, extensions: u8) -> Option<[u8; QUESTION_LEN]> {
    let local = SocketAddr::try_from(getsockname(socket).ok()?).ok()?;
    let remote = SocketAddr::try_from(getpeername(socket).ok()??).ok()?;
    Some(question_about(local, remote, extensions))
}

fn question_about(local: SocketAddr, remote: SocketAddr, extensions: u8) -> [u8; QUESTION_LEN] {
    /// `AF_INET` and `AF_INET6` as the kernel numbers them on Linux.
    const FAMILIES: (u8, u8) = (2, 10);
    /// `IPPROTO_TCP`.
    const TCP: u8 = 6;

    let mut message = [0; QUESTION_LEN];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(QUESTION_LEN as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    let local_ip = local.ip().to_canonical();
    put(
        16,
        &[
            match local_ip {
                IpAddr::V4(_) => FAMILIES.0,
                IpAddr::V6(_) => FAMILIES.1,
            },
            TCP,
            extensions,
        ],
    );
    // Every state.
    put(20, &u32::MAX.to_ne_bytes());
    put(24, &local.port().to_be_bytes());
    put(26, &remote.port().to_be_bytes());
    for (at, ip) in [(28, local_ip), (44, remote.ip().to_canonical())] {
        match ip {
            IpAddr::V4(ip) => put(at, &ip.octets()),
            IpAddr::V6(ip) => put(at, &ip.octets()),
        }
    }
    if let SocketAddr::V6(local) = local {
        // Link-local addresses mean nothing without their interface.
        put(60, &local.scope_id().to_ne_bytes());
    }
    // No cookie.
    put(64, &[0xff; 8]);
    message
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn this_kernel_tells() {
        assert_eq!(AckProbe::works(), Some(true));
    }

    #[test]
    fn what_a_reader_took_is_acknowledged_and_what_does_not_fit_is_not() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bind).expect("a listener");
            let mut sender =
                TcpStream::connect(listener.local_addr().expect("its address")).expect("connects");
            let (mut reader, _) = listener.accept().expect("accepted");
            let mut probe = AckProbe::default();

            sender.write_all(b"hello").expect("sent");
            reader.read_exact(&mut [0; 5]).expect("received");
            assert_eq!(probe.unacknowledged(sender.as_fd()), Some(0), "{bind}");

            let path = probe.path(sender.as_fd()).expect("the kernel knows it");
            assert!(path.rtt_us > 0 && path.segments > 0, "{bind}: {path:?}");
            assert!(
                path.min_rtt_us.is_some_and(|min| min <= path.rtt_us),
                "{bind}: {path:?}"
            );

            sender.set_nonblocking(true).expect("non-blocking");
            while sender.write(&[0; 65536]).is_ok() {}
            let waiting = probe.unacknowledged(sender.as_fd());
            assert!(
                waiting.is_some_and(|bytes| bytes > 0),
                "{bind}: {waiting:?}"
            );
        }
    }
}
