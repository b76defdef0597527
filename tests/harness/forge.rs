//! TCP segments that no socket sent, as attackers make them. Needs root, for raw sockets.

use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// What the segment is for.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// To begin a connection.
    Syn = 2,
    /// To break one.
    Rst = 4,
}

/// Sends forged segments.
#[derive(Debug)]
pub struct Forger(Socket);

impl Forger {
    /// Makes one in the namespace of the thread that calls.
    pub fn new() -> Self {
        // IPPROTO_RAW (raw(7)): the IP header is ours as well.
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
        Self(socket.expect("root may have raw sockets"))
    }

    /// Sends one. The kernel fills in the length and the checksum of the IP header.
    pub fn send(&self, kind: Kind, source: SocketAddrV4, destination: SocketAddrV4, sequence: u32) {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend(source.ip().octets());
        packet.extend(destination.ip().octets());
        let mut segment = Vec::new();
        segment.extend(source.port().to_be_bytes());
        segment.extend(destination.port().to_be_bytes());
        segment.extend(sequence.to_be_bytes());
        segment.extend([0, 0, 0, 0, 5 << 4, kind as u8, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = checksum(*source.ip(), *destination.ip(), &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        packet.extend(segment);
        self.0
            .send_to(&packet, &SockAddr::from(destination))
            .expect("a route to there");
    }
}

/// TCP's checksum (RFC 9293, 3.1).
fn checksum(source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> u16 {
    let pairs = [source.octets(), destination.octets()].concat();
    let sum: u32 = pairs
        .chunks(2)
        .chain(segment.chunks(2))
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum::<u32>()
        + 6
        + segment.len() as u32;
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
