//! The socket options both sides of a session share.
//!
//! Set on a listener they are inherited by every socket it accepts (tcp(7); `SO_OOBINLINE` too),
//! so only the socket towards the target pays for them per session.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Once,
    time::Duration,
};

use rustix::{
    io::{Errno, Result},
    net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt},
};

use socket2::SockRef;

use crate::{
    os_error::in_words,
    table::{Keepalive, Policy},
};

/// A non-blocking TCP socket of the family of `addr`, closed on exec.
pub fn open(addr: &SocketAddr) -> Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )
}

/// Sets what a session's bytes need from its first one on.
pub fn set_stream_options(socket: impl AsFd) -> Result<()> {
    let socket = socket.as_fd();
    // Small writes are keystrokes: waiting to merge them would be felt.
    sockopt::set_tcp_nodelay(socket, true)?;
    // Urgent bytes stay in the stream, or they would be lost on the way through.
    sockopt::set_socket_oobinline(socket, true)
}

/// Sets how the kernel notices a dead peer; may be called again when the policy changes.
pub fn set_liveness(socket: impl AsFd, policy: &Policy) -> Result<()> {
    let socket = socket.as_fd();
    sockopt::set_socket_keepalive(socket, policy.keepalive.is_some())?;
    if let Some(Keepalive {
        idle,
        interval,
        count,
    }) = policy.keepalive
    {
        sockopt::set_tcp_keepidle(socket, idle)?;
        sockopt::set_tcp_keepintvl(socket, interval)?;
        sockopt::set_tcp_keepcnt(socket, count)?;
    }
    Ok(())
}

/// Has the kernel give a peer up that makes no progress for this long.
pub fn set_user_timeout(socket: impl AsFd, limit: Option<Duration>) -> Result<()> {
    // 0 is the kernel's own way to say off.
    sockopt::set_tcp_user_timeout(socket.as_fd(), limit.map_or(0, millis))
}

/// Lets a socket be bound to an address this machine does not have yet (ip(7) `IP_FREEBIND`).
pub fn set_freebind(socket: impl AsFd, addr: &SocketAddr) -> Result<()> {
    match addr {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(socket, true),
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(socket, true),
    }
}

/// Lets a socket be bound to any address, as if it were this machine's (ip(7) `IP_TRANSPARENT`; the
/// option is one for both families).
pub fn set_transparent(socket: impl AsFd) -> Result<()> {
    SockRef::from(&socket.as_fd())
        .set_ip_transparent_v4(true)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Makes closing the socket send a reset instead of an end of stream (socket(7) `SO_LINGER`).
pub fn reset_on_close(socket: impl AsFd) {
    static SAID: Once = Once::new();
    if let Err(errno) = sockopt::set_socket_linger(socket, Some(Duration::ZERO)) {
        let error = in_words(&errno.into());
        SAID.call_once(|| tracing::error!(error, "sessions that are cut end as if complete"));
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
