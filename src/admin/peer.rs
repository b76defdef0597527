//! Who asks.

use std::net::{IpAddr, SocketAddr};

use tokio::net::UnixStream;

/// Who is at the other end of a connection, as far as the kernel says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Peer {
    pub address: Option<IpAddr>,
    pub uid: Option<u32>,
    pub pid: Option<i32>,
}

impl Peer {
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address: Some(address.ip()),
            ..Self::default()
        }
    }

    pub fn of(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        Self {
            address: None,
            uid: credentials.map(|credentials| credentials.uid()),
            pid: credentials.and_then(|credentials| credentials.pid()),
        }
    }
}
