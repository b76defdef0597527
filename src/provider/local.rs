//! Which addresses are this machine's own, as its kernel routes them.
//!
//! Whether a socket can be bound to an address says nothing where foreign ones can be bound too
//! (`net.ipv4.ip_nonlocal_bind`), and a list of addresses leaves out prefixes that are routed here as a
//! whole. The kernel is asked where a packet to the address would go: rtnetlink(7), `RTM_GETROUTE`.

use std::{
    cell::RefCell,
    net::{IpAddr, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    io::{self, Errno},
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::SocketAddrNetlink, recv, send, socket_with,
    },
};
use tokio::{
    net::UnixDatagram,
    time::{Instant, sleep_until},
};

/// The kernel's answers; opens its netlink socket at the first question.
#[derive(Debug, Default)]
pub(crate) struct LocalAddresses(RefCell<Option<OwnedFd>>);

/// Where the parts of a message are: behind `nlmsghdr`, `struct rtmsg` and one `rtattr` with the
/// address.
const HEADER_LEN: usize = 16;
const ATTRIBUTE: usize = HEADER_LEN + 12;
const ADDRESS: usize = ATTRIBUTE + 4;
/// Where `rtm_type` is in the answer.
const ROUTE_TYPE: usize = HEADER_LEN + 7;
/// Where the error number, negative, is in an answer that says why there is no route.
const ERROR_NUMBER: std::ops::Range<usize> = HEADER_LEN..HEADER_LEN + 4;

/// The protocol that a netlink socket has if none is named.
const NETLINK_ROUTE: Option<Protocol> = None;
/// `RTM_NEWROUTE`.
const NEW_ROUTE: u16 = 24;
/// `RTM_GETROUTE`.
const GET_ROUTE: u16 = 26;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `RTA_DST`.
const DESTINATION: u16 = 1;
/// `RTN_LOCAL` and `RTN_ANYCAST`: connections to both arrive here.
const ARRIVES_HERE: [u8; 2] = [2, 4];

impl LocalAddresses {
    /// Whether connections from here to `ip` arrive at this machine.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        // The unspecified address is the loopback one to connect(2).
        if ip.is_loopback() || ip.is_unspecified() {
            return true;
        }
        match self.ask(ip) {
            Ok(Some(local)) => local,
            // A kernel that does not tell, as that of a sandbox.
            Ok(None) | Err(_) => calls_itself_from(ip),
        }
    }

    /// What the kernel says; nothing if its answer is none.
    fn ask(&self, ip: IpAddr) -> io::Result<Option<bool>> {
        let mut netlink = self.0.borrow_mut();
        let netlink = match &mut *netlink {
            Some(netlink) => netlink,
            closed => closed.insert(route_socket()?),
        };
        let (question, len) = question(ip);
        send(&*netlink, &question[..len], SendFlags::empty())?;
        // The kernel answers while it takes the question, so the answer is there.
        let mut answer = [0; 4096];
        let (len, _) = recv(&*netlink, &mut answer, RecvFlags::empty())?;
        Ok(answer.get(..len).and_then(understood))
    }
}

fn route_socket() -> io::Result<OwnedFd> {
    socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        NETLINK_ROUTE,
    )
}

/// Asks for the route to an address.
fn question(ip: IpAddr) -> ([u8; ADDRESS + 16], usize) {
    /// `AF_INET` and `AF_INET6` as the kernel numbers them on Linux.
    const FAMILIES: (u8, u8) = (2, 10);

    let mut message = [0; ADDRESS + 16];
    let (family, bytes) = match ip {
        IpAddr::V4(ip) => (FAMILIES.0, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILIES.1, ip.octets().to_vec()),
    };
    let len = ADDRESS + bytes.len();
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(len as u32).to_ne_bytes());
    put(4, &GET_ROUTE.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    put(HEADER_LEN, &[family, 8 * bytes.len() as u8]);
    put(ATTRIBUTE, &((len - ATTRIBUTE) as u16).to_ne_bytes());
    put(ATTRIBUTE + 2, &DESTINATION.to_ne_bytes());
    put(ADDRESS, &bytes);
    (message, len)
}

/// Whether the route in an answer ends here.
fn understood(answer: &[u8]) -> Option<bool> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    match kind {
        NEW_ROUTE => Some(ARRIVES_HERE.contains(answer.get(ROUTE_TYPE)?)),
        ERROR => {
            let error = i32::from_ne_bytes(answer.get(ERROR_NUMBER)?.try_into().ok()?);
            let nowhere = [
                Errno::NETUNREACH,
                Errno::HOSTUNREACH,
                Errno::ACCESS,
                // A route of the kind "blackhole".
                Errno::INVAL,
            ];
            let is_nowhere = nowhere.iter().any(|errno| errno.raw_os_error() == -error);
            is_nowhere.then_some(false)
        }
        _ => None,
    }
}

/// Whether a packet to `ip` would have that very address as its source. Connecting a datagram socket
/// sends nothing.
fn calls_itself_from(ip: IpAddr) -> bool {
    let any = match ip {
        IpAddr::V4(_) => "0.0.0.0:0",
        IpAddr::V6(_) => "[::]:0",
    };
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

/// Hears that the addresses or the routes of this machine change.
#[derive(Debug)]
pub(crate) struct AddressChanges {
    /// A netlink socket, watched through the type for another kind of datagrams: to have tokio watch a
    /// descriptor as such takes unsafe code. `None` where the kernel does not tell.
    netlink: Option<UnixDatagram>,
    not_before: Instant,
}

impl AddressChanges {
    /// `RTMGRP_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR` and `_IPV6_ROUTE`.
    const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

    /// A machine whose routes change all the time is looked at once in this time.
    const AT_MOST_EVERY: Duration = Duration::from_secs(1);

    /// Begins to listen. It takes a runtime.
    pub fn listen() -> Self {
        let open = || -> std::io::Result<_> {
            let netlink = route_socket()?;
            bind(&netlink, &SocketAddrNetlink::new(0, Self::GROUPS))?;
            UnixDatagram::from_std(netlink.into())
        };
        let netlink = open().inspect_err(|error| {
            tracing::debug!(%error, "changes of this machine's addresses are not heard");
        });
        Self {
            netlink: netlink.ok(),
            not_before: Instant::now(),
        }
    }

    /// Waits for the next change; for ever where the kernel does not tell. What has been heard is not
    /// lost if this is ended while it waits.
    pub async fn next(&mut self) {
        let Some(netlink) = &self.netlink else {
            return std::future::pending().await;
        };
        sleep_until(self.not_before).await;
        // Fails only with the runtime.
        if netlink.readable().await.is_err() {
            return std::future::pending().await;
        }
        // What changed does not matter, only that something did; past what fits the kernel says
        // ENOBUFS once.
        let mut message = [0; 4096];
        let is_empty = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        while !netlink
            .try_recv(&mut message)
            .is_err_and(|error| is_empty(&error))
        {}
        self.not_before = Instant::now() + Self::AT_MOST_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_ours_and_documentation_addresses_are_not() {
        let own = LocalAddresses::default();
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            let ip = text.parse().expect("an address");
            assert_eq!(own.contains(ip), expected, "{text}");
        }
    }

    #[test]
    fn both_ways_to_ask_agree_on_the_address_this_machine_calls_from() {
        let own = LocalAddresses::default();
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        // Without a way out there is no such address.
        if socket.connect("192.0.2.1:9").is_ok() {
            let ip = socket.local_addr().expect("it is connected").ip();
            assert!(own.contains(ip) && calls_itself_from(ip), "{ip}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_not_taken_for_one() {
        for answer in [&b""[..], &[0; 40], &[2, 0, 0, 0, 2, 0, 0, 0]] {
            assert_eq!(understood(answer), None);
        }
    }
}
