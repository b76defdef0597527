//! The PROXY protocol: a header in front of a connection that says whose it really is.
//!
//! Pure: bytes to a [`Header`] and back, versions 1 and 2 (HAProxy's `proxy-protocol.txt`). Who may
//! send one is the caller's to know; until then whatever it says is a claim. A parser here sees all
//! that has arrived so far and says how much of it is header, so that no byte behind it is touched.

mod crc32c;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::net::SocketAddr;

/// The longest header that is read: far more than anybody sends, and nobody waits for more.
pub const LONGEST: usize = 4096;

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary, with room for more than addresses.
    V2,
}

/// The two ends of the connection a header speaks of. Both are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// Who connected.
    pub source: SocketAddr,
    /// To which address.
    pub destination: SocketAddr,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Somebody else's connection is passed on.
    Proxied(Endpoints),
    /// The sender speaks for itself, as in a health check, or cannot say for whom.
    Own,
}

/// What has arrived so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Partly,
    /// A header, which takes the first `len` bytes.
    Whole {
        /// What it says.
        header: Header,
        /// How long it is.
        len: usize,
    },
}

/// Why something is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It begins like none.
    #[error("not a PROXY header")]
    Signature,
    /// A line of text that does not end in time.
    #[error("a line of more than 107 bytes")]
    Line,
    /// A line of text that is none of the forms there are.
    #[error("not a line of PROXY protocol version 1")]
    Words,
    /// A version or command there is not.
    #[error("version and command 0x{0:02x}")]
    Command(u8),
    /// An address family or protocol that is not TCP.
    #[error("family and protocol 0x{0:02x}")]
    Family(u8),
    /// More bytes than are ever read.
    #[error("{0} bytes, at most {LONGEST}")]
    Length(usize),
    /// Fewer bytes than the addresses or a value take.
    #[error("shorter than what is in it")]
    Short,
    /// The checksum is another.
    #[error("wrong checksum")]
    Checksum,
}

/// A value beside the addresses; there are none in version 1.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    /// Its type.
    pub kind: u8,
    /// Its content.
    pub content: &'a [u8],
}

impl Value<'_> {
    /// `PP2_TYPE_UNIQUE_ID`: what its sender calls the connection.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The first of the types that everybody may define: here the name of the mapping.
    pub const MAPPING: u8 = 0xe0;
}

/// Reads what has arrived so far.
///
/// # Errors
///
/// Why it is no header, and will never be one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |signature: &[u8]| {
        let shared = bytes.len().min(signature.len());
        bytes[..shared] == signature[..shared]
    };
    if begins(v2::SIGNATURE) {
        v2::parse(bytes)
    } else if begins(v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Err(Malformed::Signature)
    }
}

/// Writes a header for a connection that is passed on.
pub fn write(version: Version, of: Endpoints, values: &[Value<'_>]) -> Vec<u8> {
    let of = of.of_one_family();
    match version {
        Version::V1 => v1::write(of),
        Version::V2 => v2::write(of, values),
    }
}

/// The header of a connection that nobody else's is passed on with, as of a health check.
pub const fn write_own(version: Version) -> &'static [u8] {
    match version {
        Version::V1 => v1::OWN,
        Version::V2 => v2::OWN,
    }
}

impl Endpoints {
    /// The same with IPv4 as IPv4 where both ends have it, else both as IPv6.
    fn of_one_family(self) -> Self {
        let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let (source, destination) = (plain(self.source), plain(self.destination));
        let mapped = |addr: SocketAddr| match addr {
            SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
            SocketAddr::V6(_) => addr,
        };
        match source.is_ipv4() == destination.is_ipv4() {
            true => Self {
                source,
                destination,
            },
            false => Self {
                source: mapped(source),
                destination: mapped(destination),
            },
        }
    }
}
