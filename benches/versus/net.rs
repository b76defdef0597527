//! Sockets for the load: listeners, connections and an epoll set, all non-blocking.
//!
//! Levels, not edges: a load generator that misses a wake-up would be blamed on the proxy.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    event::{Timespec, epoll},
    net::SocketFlags,
};
use socket2::{Domain, Socket, Type};

pub use rustix::event::epoll::{Event, EventFlags};

use crate::harness::ports;

/// Nothing here waits longer than this for a peer to do something.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A set of sockets to wait for.
pub struct Poller {
    epoll: rustix::fd::OwnedFd,
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Adds a socket; its descriptor number is its token.
    pub fn add(&self, socket: &(impl AsFd + AsRawFd), interest: EventFlags) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token(socket));
        Ok(epoll::add(&self.epoll, socket, token, interest)?)
    }

    /// Changes what a socket is waited for.
    pub fn modify(&self, socket: &(impl AsFd + AsRawFd), interest: EventFlags) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token(socket));
        Ok(epoll::modify(&self.epoll, socket, token, interest)?)
    }

    /// Waits until something is ready, at most `timeout`. What is ready replaces `ready`.
    pub fn wait(&self, ready: &mut Vec<Event>, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        ready.clear();
        ready.reserve(256);
        rustix::io::retry_on_intr(|| {
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(ready),
                Some(&timeout),
            )
        })?;
        Ok(())
    }
}

/// What a ready event calls this socket.
pub fn token(socket: &impl AsRawFd) -> u64 {
    u64::try_from(socket.as_raw_fd()).expect("an open descriptor is not negative")
}

/// Listens on a free port of an address; accepted sockets inherit TCP_NODELAY.
pub fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let address = SocketAddr::from((address, 0));
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Accepts one connection, if one waits.
pub fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(socket) => Ok(Some(socket.into())),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Connects, waiting a bounded time, and returns a non-blocking socket.
///
/// On the loopback interface the handshake is over when connect(2) returns, so that this is one
/// call and no wait.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    connected(
        Socket::new(Domain::for_address(to), Type::STREAM, None)?,
        to,
    )
}

fn connected(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&to.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Connects with blocking reads and writes that give up after a while.
pub fn connect_blocking(to: SocketAddr) -> io::Result<TcpStream> {
    blocking(connect(to)?)
}

/// The same from a certain address and port.
pub fn connect_blocking_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&from.into())?;
    blocking(connected(socket, to)?)
}

fn blocking(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A loopback address nobody listens on.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()))
}

/// Sends all of a small message on a non-blocking socket.
pub fn send_small(stream: &TcpStream, message: &[u8]) -> Result<()> {
    let sent = rustix::net::send(stream, message, rustix::net::SendFlags::NOSIGNAL)
        .context("send a small message")?;
    ensure!(
        sent == message.len(),
        "a small message was sent in part: {sent} bytes"
    );
    Ok(())
}
