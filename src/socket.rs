//! TCP sockets: opened, bound, connected, and the options both sides of a session share.
//!
//! Set on a listener they are inherited by every socket it accepts (tcp(7); `SO_OOBINLINE` too),
//! so only the socket towards the target pays for them per session.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Once,
    time::Duration,
};

use rustix::{
    io::{Errno, Result},
    net::{Shutdown, connect_unspec, shutdown},
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::os_error::in_words;

/// What the kernel said, where socket2 has it as an error of the standard library.
fn of_kernel<T>(result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A non-blocking TCP socket of the family of `addr`, closed on exec.
pub fn open(addr: &SocketAddr) -> Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::for_address(*addr), kind, Some(Protocol::TCP));
    of_kernel(socket).map(OwnedFd::from)
}

pub fn bind(socket: &OwnedFd, addr: &SocketAddr) -> Result<()> {
    of_kernel(SockRef::from(socket).bind(&(*addr).into()))
}

/// Binds a socket that is going to connect to an address; connect(2) chooses the port (ip(7)
/// `IP_BIND_ADDRESS_NO_PORT`), so that one port serves a connection to each target. Where the kernel
/// lacks that, bind(2) takes a port for one connection alone.
pub fn bind_address(socket: &OwnedFd, source: IpAddr) -> Result<()> {
    let _ = set_ip_option(socket, uapi::c::IP_BIND_ADDRESS_NO_PORT, 1);
    bind(socket, &SocketAddr::new(source, 0))
}

/// Has connect(2) take any free port of `net.ipv4.ip_local_port_range` (ip(7) `IP_LOCAL_PORT_RANGE`).
///
/// By default it tries every second port, one after the other, before any of those between, which
/// takes up to milliseconds once half of them lead to the target. A range of the socket's own, here
/// one that narrows nothing, has it go through all of them from where it last stopped. Where the
/// kernel lacks that (before 6.8), it is only slower.
pub fn use_any_local_port(socket: &OwnedFd) {
    // From <linux/in.h>; the lowest port is the lower half.
    const IP_LOCAL_PORT_RANGE: uapi::c::c_int = 51;
    const ANY: u32 = (u16::MAX as u32) << 16;
    let _ = set_ip_option(socket, IP_LOCAL_PORT_RANGE, ANY);
}

/// Sets an option that is one for both families.
fn set_ip_option(socket: &OwnedFd, option: uapi::c::c_int, value: u32) -> uapi::Result<()> {
    uapi::setsockopt(socket.as_raw_fd(), uapi::c::IPPROTO_IP, option, &value)
}

/// Has a bound socket listen, or one that listens have another backlog.
pub fn listen(socket: &OwnedFd, backlog: u32) -> Result<()> {
    of_kernel(SockRef::from(socket).listen(i32::try_from(backlog).unwrap_or(i32::MAX)))
}

/// Whether that is a TCP socket that listens at `addr`: if that is of IPv6, without IPv4 or not, as
/// `only_v6` says.
pub fn listens(socket: &OwnedFd, addr: &SocketAddr, only_v6: bool) -> bool {
    let socket = SockRef::from(socket);
    let listens = || -> std::io::Result<bool> {
        Ok(socket.r#type()? == Type::STREAM
            && socket.protocol()? == Some(Protocol::TCP)
            && socket.is_listener()?
            && socket.local_addr()?.as_socket() == Some(*addr)
            && (addr.is_ipv4() || socket.only_v6()? == only_v6))
    };
    // What cannot be asked is something else.
    listens().unwrap_or(false)
}

/// Has a socket listen no longer, whoever else has it: systemd may keep it for the next process.
/// Clients that wait in its queue are reset.
pub fn close_listener(socket: &OwnedFd) -> Result<()> {
    shutdown(socket, Shutdown::Read)
}

/// Ends an attempt to connect: nothing comes of it any more.
pub fn give_up_connecting(socket: &OwnedFd) {
    // One that has failed is not connected, and says so.
    let _ = shutdown(socket, Shutdown::Both);
}

pub fn set_nonblocking(socket: &OwnedFd) -> Result<()> {
    of_kernel(SockRef::from(socket).set_nonblocking(true))
}

pub fn connect(socket: &OwnedFd, addr: &SocketAddr) -> Result<()> {
    of_kernel(SockRef::from(socket).connect(&(*addr).into()))
}

/// Sets what a session's bytes need from its first one on.
pub fn set_stream_options(socket: &OwnedFd) -> Result<()> {
    let socket = SockRef::from(socket);
    // Small writes are keystrokes: waiting to merge them would be felt.
    of_kernel(socket.set_tcp_nodelay(true))?;
    // Urgent bytes stay in the stream, or they would be lost on the way through.
    of_kernel(socket.set_out_of_band_inline(true))
}

/// Sets how the kernel controls congestion (tcp(7) `TCP_CONGESTION`).
pub fn set_congestion(socket: &OwnedFd, algorithm: &str) -> Result<()> {
    of_kernel(SockRef::from(socket).set_tcp_congestion(algorithm.as_bytes()))
}

/// Sets that as a new socket has it.
pub fn set_default_congestion(socket: &OwnedFd) -> Result<()> {
    let new = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
    let new = of_kernel(new)?;
    let [own, default] = [SockRef::from(socket).tcp_congestion(), new.tcp_congestion()];
    match (of_kernel(own)?, of_kernel(default)?) {
        (own, default) if own == default => Ok(()),
        // The kernel fills what it does not need with 0.
        (_, default) => {
            let name: Vec<u8> = default.into_iter().take_while(|byte| *byte != 0).collect();
            of_kernel(SockRef::from(socket).set_tcp_congestion(&name))
        }
    }
}

/// Sets how the kernel notices a dead peer, if it is to; may be called again when that changes.
pub fn set_keepalive(socket: &OwnedFd, keepalive: Option<TcpKeepalive>) -> Result<()> {
    let socket = SockRef::from(socket);
    of_kernel(match keepalive {
        None => socket.set_keepalive(false),
        Some(keepalive) => socket.set_tcp_keepalive(&keepalive),
    })
}

/// Has the kernel give a peer up that makes no progress for this long.
pub fn set_user_timeout(socket: impl AsFd, limit: Option<Duration>) -> Result<()> {
    of_kernel(SockRef::from(&socket).set_tcp_user_timeout(limit))
}

/// Has a restart not wait for the sessions of the last run to leave TIME_WAIT.
pub fn set_reuse_address(socket: &OwnedFd) -> Result<()> {
    of_kernel(SockRef::from(socket).set_reuse_address(true))
}

/// Whether a socket may listen beside others of one user that have this, too.
pub fn set_reuse_port(socket: &OwnedFd, shared: bool) -> Result<()> {
    of_kernel(SockRef::from(socket).set_reuse_port(shared))
}

pub fn set_only_v6(socket: &OwnedFd, only: bool) -> Result<()> {
    of_kernel(SockRef::from(socket).set_only_v6(only))
}

/// Lets a socket be bound to an address this machine does not have yet (ip(7) `IP_FREEBIND`).
pub fn set_freebind(socket: &OwnedFd, addr: &SocketAddr) -> Result<()> {
    let socket = SockRef::from(socket);
    of_kernel(match addr {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    })
}

/// Lets a socket be bound to any address, as if it were this machine's (ip(7) `IP_TRANSPARENT`; the
/// option is one for both families).
pub fn set_transparent(socket: &OwnedFd) -> Result<()> {
    of_kernel(SockRef::from(socket).set_ip_transparent_v4(true))
}

/// Makes closing the socket tell the other host nothing. Its reset has no way to leave this machine: it
/// is to go through the loopback interface, which does not lead to another host (socket(7)
/// `SO_BINDTODEVICE`, which takes no privilege on a socket without one since Linux 5.7), and where that
/// cannot be had, the next router discards it (ip(7) `IP_TTL`, ipv6(7) `IPV6_UNICAST_HOPS`).
pub fn say_nothing_on_close(socket: &OwnedFd) {
    reset_on_close(socket);
    let socket = SockRef::from(socket);
    if socket.bind_device(Some(b"lo")).is_err() {
        // One of them is of the other family.
        let _ = socket.set_ttl_v4(1);
        let _ = socket.set_unicast_hops_v6(1);
    }
}

/// Ends a connection with a reset, and leaves a socket that can be connected anew, with the options it has
/// (connect(2) with `AF_UNSPEC`).
pub fn disconnect(socket: &OwnedFd) -> Result<()> {
    connect_unspec(socket)
}

/// Has the receive buffer stay as large as it is, or the kernel enlarge it as it sees fit (`SO_BUF_LOCK`,
/// since Linux 5.15).
pub fn keep_receive_buffer(socket: impl AsFd, keep: bool) -> Result<()> {
    // From <asm-generic/socket.h> and <linux/socket.h>.
    const SO_BUF_LOCK: uapi::c::c_int = 72;
    const SOCK_RCVBUF_LOCK: u32 = 2;
    let socket = socket.as_fd().as_raw_fd();
    let locked = if keep { SOCK_RCVBUF_LOCK } else { 0 };
    uapi::setsockopt(socket, uapi::c::SOL_SOCKET, SO_BUF_LOCK, &locked)
        .map_err(|error| Errno::from_raw_os_error(error.0))
}

/// Gives a receive buffer so many bytes, as far as the kernel grants them, unless it has as many
/// (socket(7) `SO_RCVBUF`, which counts twice what it is told), and has it stay so. What the peer may send
/// follows only when it is told as well (tcp(7) `TCP_WINDOW_CLAMP`).
pub fn enlarge_receive_buffer(socket: impl AsFd, bytes: usize) -> Result<()> {
    let known = SockRef::from(&socket);
    if of_kernel(known.recv_buffer_size())? >= bytes {
        return Ok(());
    }
    of_kernel(known.set_recv_buffer_size(bytes / 2))?;
    let window = u32::try_from(bytes).unwrap_or(u32::MAX >> 1);
    let socket = socket.as_fd().as_raw_fd();
    let (level, option) = (uapi::c::IPPROTO_TCP, uapi::c::TCP_WINDOW_CLAMP);
    uapi::setsockopt(socket, level, option, &window)
        .map_err(|error| Errno::from_raw_os_error(error.0))
}

/// Makes closing the socket send a reset instead of an end of stream (socket(7) `SO_LINGER`).
pub fn reset_on_close(socket: &OwnedFd) {
    static SAID: Once = Once::new();
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        let error = in_words(&error);
        SAID.call_once(|| tracing::error!(error, "sessions that are cut end as if complete"));
    }
}
