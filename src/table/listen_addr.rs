//! Public addresses: which host addresses and port a listener takes, and which of them overlap.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::setting::{
    Found, Json, Kind, Refusal,
    address::{NOT_LINK_LOCAL, host_ip, is_broadcast, is_link_local, port},
};

/// What the address of a single listener looks like.
const LISTENER: &str = "a port (9422), or an address and a port (\"*:9422\", \"127.0.0.1:9422\", \
                        \"[::1]:9422\")";

/// The host part of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenHost {
    /// Every address of both families, through one dual-stack socket (`*`).
    Any,
    /// One IPv4 address, or all of them (`0.0.0.0`).
    V4(Ipv4Addr),
    /// One IPv6 address, or all of them (`[::]`), and no IPv4.
    V6(Ipv6Addr),
}

impl ListenHost {
    /// Reads `*` or an address that can be listened on; `allowed` is what to say of anything else.
    pub(crate) fn parse(text: &str, allowed: &str) -> Result<Self, Refusal> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match host_ip(text, allowed)? {
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                Err(Refusal::new("an IPv4 address written as IPv4"))
            }
            ip if is_link_local(ip) => Err(Refusal::new(NOT_LINK_LOCAL)),
            ip if ip.is_multicast() || is_broadcast(ip) => {
                Err(Refusal::new("an address that can be listened on"))
            }
            IpAddr::V4(ip) => Ok(Self::V4(ip)),
            IpAddr::V6(ip) => Ok(Self::V6(ip)),
        }
    }

    /// The host and the rest of `PORT` or `HOST:PORT`.
    pub(crate) fn before_port<'t>(
        text: &'t str,
        allowed: &str,
    ) -> Result<(Self, &'t str), Refusal> {
        match text.rsplit_once(':') {
            Some((host, port)) => Ok((Self::parse(host, allowed)?, port)),
            None if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('.') => {
                Ok((Self::Any, text))
            }
            None => Err(Refusal::new(allowed)),
        }
    }
}

/// A public address: what one listening socket is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenAddr {
    host: ListenHost,
    port: u16,
}

impl ListenAddr {
    /// Reads `PORT` or `HOST:PORT`.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let (host, port_text) = ListenHost::before_port(text, LISTENER)?;
        if port_text.contains('-') {
            return Err(Refusal::new(LISTENER));
        }
        Ok(Self::new(host, port(port_text)?))
    }

    /// A listener on `host` and `port`.
    pub const fn new(host: ListenHost, port: u16) -> Self {
        Self { host, port }
    }

    /// The host part.
    pub const fn host(&self) -> ListenHost {
        self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address to pass to bind(2).
    pub const fn socket_addr(&self) -> SocketAddr {
        let ip = match self.host {
            ListenHost::Any => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ListenHost::V4(ip) => IpAddr::V4(ip),
            ListenHost::V6(ip) => IpAddr::V6(ip),
        };
        SocketAddr::new(ip, self.port)
    }

    /// Where a client on this machine connects to it.
    pub const fn from_here(&self) -> SocketAddr {
        let ip = match self.host {
            ListenHost::V4(ip) if !ip.is_unspecified() => IpAddr::V4(ip),
            ListenHost::V6(ip) if !ip.is_unspecified() => IpAddr::V6(ip),
            ListenHost::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            // It takes IPv4 whether this machine has IPv6 or not.
            ListenHost::Any | ListenHost::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        SocketAddr::new(ip, self.port)
    }

    /// What to call these, ports that follow one another as a range: `22014`, `127.0.0.1:22100-22199`.
    pub(crate) fn in_ranges(mut addrs: Vec<Self>) -> Vec<String> {
        addrs.sort_unstable();
        let follows =
            |a: &Self, b: &Self| a.host == b.host && a.port.checked_add(1) == Some(b.port);
        let range = |run: &[Self]| match run {
            [] => String::new(),
            [only] => only.to_string(),
            [first, .., last] => format!("{first}-{}", last.port),
        };
        addrs.chunk_by(follows).map(range).collect()
    }

    /// Whether some connection could be claimed by both listeners; the kernel would refuse the
    /// second with `EADDRINUSE`.
    pub fn overlaps(&self, other: &Self) -> bool {
        use ListenHost::{Any, V4, V6};
        self.port == other.port
            && match (self.host, other.host) {
                (Any, _) | (_, Any) => true,
                (V4(a), V4(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
                (V6(a), V6(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
                (V4(_), V6(_)) | (V6(_), V4(_)) => false,
            }
    }

    /// Whether a connection from this machine to `target` would arrive at this listener.
    pub fn receives(&self, target: &SocketAddr, is_local: &dyn Fn(IpAddr) -> bool) -> bool {
        let ip = target.ip().to_canonical();
        // connect(2) to the unspecified address reaches the loopback one.
        let reaches_us = || ip.is_unspecified() || ip.is_loopback() || is_local(ip);
        self.port == target.port()
            && match (self.host, ip) {
                (ListenHost::Any, _) => reaches_us(),
                (ListenHost::V4(own), IpAddr::V4(to)) => {
                    own == to || ((own.is_unspecified() || to.is_unspecified()) && reaches_us())
                }
                (ListenHost::V6(own), IpAddr::V6(to)) => {
                    own == to || ((own.is_unspecified() || to.is_unspecified()) && reaches_us())
                }
                (ListenHost::V4(_), IpAddr::V6(_)) | (ListenHost::V6(_), IpAddr::V4(_)) => false,
            }
    }
}

impl Kind for ListenAddr {
    type Value = Self;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        match found {
            Found::Text(text) | Found::Expanded(text) => Self::parse(text),
            Found::Integer(number) => Self::parse(&number.to_string()),
            Found::Other => Err(Refusal::new(LISTENER)),
        }
    }

    fn write(value: &Self) -> Json {
        value.to_string().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        let port = serde_json::json!({ "type": "integer", "minimum": 1, "maximum": 65535 });
        crate::setting::schema::or(port, crate::setting::schema::text("[0-9]+$"))
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> Self {
        let host = match addr.ip() {
            IpAddr::V4(ip) => ListenHost::V4(ip),
            IpAddr::V6(ip) => ListenHost::V6(ip),
        };
        Self::new(host, addr.port())
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            ListenHost::Any => write!(f, "*:{}", self.port),
            ListenHost::V4(ip) => write!(f, "{ip}:{}", self.port),
            ListenHost::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}
