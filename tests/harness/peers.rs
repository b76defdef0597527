//! Scripted peers: plain blocking sockets, each step of which is bounded.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt,
};
use socket2::{Domain, SockRef, Socket, Type};

use super::{DEADLINE, Stream};

/// One end of a connection.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    local: SocketAddr,
    /// Connecting succeeded and was followed by a reset so closely that it told only of that.
    reset_at_once: bool,
}

impl Peer {
    /// Connects to a port of this machine, over IPv4.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        Self::connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Connects to an address.
    #[track_caller]
    pub fn connect_to(addr: SocketAddr) -> Self {
        match Self::try_connect_to(addr) {
            Ok(peer) => peer,
            Err(error) => panic!("connecting to {addr}: {error}"),
        }
    }

    /// Connects, or says why not.
    pub fn try_connect_to(addr: SocketAddr) -> std::io::Result<Self> {
        Self::try_connect_prepared(addr, |_| {})
    }

    /// Connects from an address of this machine, to a port of the same address family.
    pub fn connect_from(source: IpAddr, port: u16) -> Self {
        let loopback = match source {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
        };
        Self::connect_prepared(SocketAddr::from((loopback, port)), |socket| {
            let source = SocketAddr::from((source, 0));
            socket
                .bind(&source.into())
                .expect("an address of this machine");
        })
    }

    /// Connects with socket options set beforehand.
    #[track_caller]
    pub fn connect_prepared(addr: SocketAddr, prepare: impl FnOnce(&Socket)) -> Self {
        match Self::try_connect_prepared(addr, prepare) {
            Ok(peer) => peer,
            Err(error) => panic!("connecting to {addr}: {error}"),
        }
    }

    fn try_connect_prepared(
        addr: SocketAddr,
        prepare: impl FnOnce(&Socket),
    ) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        prepare(&socket);
        let reset_at_once = match socket.connect_timeout(&addr.into(), DEADLINE) {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => return Err(error),
        };
        Ok(Self {
            reset_at_once,
            ..Self::of(socket.into())
        })
    }

    /// Makes a peer of a connection.
    pub fn of(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(DEADLINE))
            .and_then(|()| stream.set_write_timeout(Some(DEADLINE)))
            .and_then(|()| stream.set_nodelay(true))
            .expect("options of a fresh socket");
        let local = stream.local_addr().expect("a connected socket");
        Self {
            stream,
            local,
            reset_at_once: false,
        }
    }

    /// Its own address.
    pub fn addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether it was reset so soon that connecting told of it; reading then tells of an end.
    pub fn was_reset_at_once(&self) -> bool {
        self.reset_at_once
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A second handle to the same end, for the other direction.
    pub fn twin(&self) -> Self {
        Self {
            stream: self.stream.try_clone().expect("a descriptor to spare"),
            local: self.local,
            reset_at_once: self.reset_at_once,
        }
    }

    /// Sends all of `bytes`.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .expect("the other end takes it");
    }

    /// Sends bytes the last of which is urgent.
    #[track_caller]
    pub fn send_urgent(&mut self, bytes: &[u8]) {
        let sent = SockRef::from(&self.stream)
            .send_out_of_band(bytes)
            .expect("the other end takes it");
        assert_eq!(sent, bytes.len());
    }

    /// Sends of `stream` what is left of its first `end` bytes.
    #[track_caller]
    pub fn send_stream(&mut self, stream: &mut Stream, end: u64) {
        while stream.position() < end {
            let most = usize::try_from(end - stream.position()).unwrap_or(usize::MAX);
            let piece = stream.ahead(most);
            self.stream
                .write_all(piece)
                .expect("the other end takes it");
            stream.advance(piece.len());
        }
    }

    /// Sends of `stream` what the path takes without anybody reading: until nothing more was taken
    /// for `quiet`, or `most` bytes.
    pub fn offer_stream(&mut self, stream: &mut Stream, most: u64, quiet: Duration) {
        self.stream
            .set_write_timeout(Some(quiet))
            .expect("not zero");
        while stream.position() < most {
            let piece = stream.ahead(usize::try_from(most - stream.position()).unwrap_or(1));
            match self.stream.write(piece) {
                Ok(length) => stream.advance(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the other end takes it: {error}"),
            }
        }
        self.stream
            .set_write_timeout(Some(DEADLINE))
            .expect("not zero");
    }

    /// Writes until that fails, and says how it failed.
    #[track_caller]
    pub fn send_until_error(&mut self) -> ErrorKind {
        let bytes = [7; 16 * 1024];
        loop {
            if let Err(error) = self.stream.write(&bytes) {
                return error.kind();
            }
        }
    }

    /// Receives exactly `bytes`.
    #[track_caller]
    pub fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        if let Err(error) = self.stream.read_exact(&mut got) {
            panic!("{error} instead of {:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(bytes)
        );
        self.acknowledge();
    }

    /// Has the kernel acknowledge what was received now, not up to 40 ms later: a session that is cut
    /// meanwhile counts only what was acknowledged.
    fn acknowledge(&self) {
        // Where the connection is gone already, nothing is left to acknowledge.
        let _ = sockopt::set_tcp_quickack(&self.stream, true);
    }

    /// Receives of `stream` what is left of its first `end` bytes.
    #[track_caller]
    pub fn expect_stream(&mut self, stream: &mut Stream, end: u64) {
        let mut bytes = vec![0; 64 * 1024];
        while stream.position() < end {
            let most = bytes.len().min((end - stream.position()) as usize);
            match self.stream.read(&mut bytes[..most]) {
                Ok(0) => panic!("end of stream after {} of {end}", stream.position()),
                Ok(length) => stream.check(&bytes[..length]),
                Err(error) => panic!("{error} after {} of {end}", stream.position()),
            }
        }
        self.acknowledge();
    }

    /// Receives the end of the stream, and nothing before it.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut bytes = [0; 64];
        match self.stream.read(&mut bytes) {
            Ok(0) => {}
            Ok(length) => panic!(
                "{:?} instead of the end",
                String::from_utf8_lossy(&bytes[..length])
            ),
            Err(error) => panic!("{error} instead of the end"),
        }
    }

    /// Receives a reset, and nothing before it.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        let got = self.receive_until_reset();
        assert!(got.is_empty(), "{} bytes before the reset", got.len());
    }

    /// Receives whatever comes until the end, and says how much it was.
    #[track_caller]
    pub fn receive_until_end(&mut self) -> u64 {
        std::io::copy(&mut self.stream, &mut std::io::sink()).expect("an end, not an error")
    }

    /// Receives until the connection is reset. Its end instead is a failure.
    #[track_caller]
    pub fn receive_until_reset(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        if self.reset_at_once {
            return got;
        }
        match self.stream.read_to_end(&mut got) {
            Ok(_) => panic!("a clean end after {} bytes, not a reset", got.len()),
            Err(error) => assert_eq!(
                error.kind(),
                ErrorKind::ConnectionReset,
                "{error} after {} bytes",
                got.len()
            ),
        }
        got
    }

    /// Closes the sending direction.
    pub fn finish(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("a connection still open");
    }

    /// Resets the connection.
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("an open socket");
    }

    /// Sends `bytes` and has `other` receive them, then the same the other way.
    #[track_caller]
    pub fn exchange(&mut self, other: &mut Self, bytes: &[u8]) {
        self.send(bytes);
        other.expect(bytes);
        other.send(bytes);
        self.expect(bytes);
    }
}

/// Where sessions lead.
#[derive(Debug)]
pub struct Target {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Target {
    /// Listens on a port of its own, on IPv6 loopback: what the proxy is for.
    pub fn bind() -> Self {
        Self::bind_to(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
    }

    /// Listens on an address.
    pub fn bind_to(addr: SocketAddr) -> Self {
        Self::of(TcpListener::bind(addr).expect("a free port of this machine"))
    }

    /// Makes a target of a listening socket.
    pub fn of(listener: TcpListener) -> Self {
        let addr = listener.local_addr().expect("a bound socket");
        Self { listener, addr }
    }

    /// One whose connections take in little, so that bytes wait in the proxy's sockets.
    pub fn narrow() -> Self {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a TCP socket");
        socket.set_recv_buffer_size(8192).expect("any size will do");
        let addr = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        socket.bind(&addr.into()).expect("any port");
        socket.listen(1024).expect("a bound socket");
        Self::of(socket.into())
    }

    /// A listening socket whose queue is full: it answers no further connection. The peers returned
    /// fill the queue.
    pub fn full() -> (Self, Vec<Peer>) {
        Self::full_at(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
    }

    /// The same at an address.
    pub fn full_at(addr: SocketAddr) -> (Self, Vec<Peer>) {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a TCP socket");
        // As the standard library does: an address that was just in use may be used again.
        socket.set_reuse_address(true).expect("a fresh socket");
        socket.bind(&addr.into()).expect("a free port");
        // A queue of 0 holds one connection: the kernel refuses when it is over the limit.
        socket.listen(0).expect("a bound socket");
        let target = Self::of(socket.into());
        let filler = Peer::connect_to(target.addr);
        (target, vec![filler])
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The listening socket.
    pub fn socket(&self) -> &TcpListener {
        &self.listener
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The next connection.
    #[track_caller]
    pub fn accept(&self) -> Peer {
        assert!(self.is_called(DEADLINE), "nobody connects to the target");
        let (stream, _) = self.listener.accept().expect("a connection waits");
        Peer::of(stream)
    }

    /// Whether a connection waits, or comes within `patience`.
    pub fn is_called(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).expect("a short time");
        let mut fds = [PollFd::from_borrowed_fd(
            self.listener.as_fd(),
            PollFlags::IN,
        )];
        poll(&mut fds, Some(&patience)).expect("poll of one socket") > 0
    }
}

/// Sends what is left of the two streams of each session up to `length`, receives both streams
/// whole, and closes.
pub fn both_ways<'a>(
    sessions: impl IntoIterator<Item = (&'a Peer, &'a Peer, [Stream; 2])>,
    length: u64,
) {
    thread::scope(|scope| {
        for (client, server, [up, down]) in sessions {
            for (from, to, mut sent) in [(client, server, up), (server, client, down)] {
                let (mut from, mut to) = (from.twin(), to.twin());
                let mut expected = sent.restart();
                scope.spawn(move || {
                    from.send_stream(&mut sent, length);
                    from.finish();
                });
                scope.spawn(move || {
                    to.expect_stream(&mut expected, length);
                    to.expect_end();
                });
            }
        }
    });
}
