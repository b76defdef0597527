//! Public addresses, and what becomes of several of one port.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Which addresses of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// All of both families, by one socket.
    Any,
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// Ports of a host: one, or a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listen {
    pub host: Host,
    pub first: u16,
    pub last: u16,
}

impl Host {
    pub const ANY_V4: Self = Self::V4(Ipv4Addr::UNSPECIFIED);
    pub const ANY_V6: Self = Self::V6(Ipv6Addr::UNSPECIFIED);

    /// An address, of which the unspecified ones are all of one family.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(Self::V6(ip), Self::V4),
        }
    }

    /// Whether it takes everything that `other` takes.
    fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::ANY_V4, Self::V4(_)) | (Self::ANY_V6, Self::V6(_)) => true,
            _ => self == other,
        }
    }

    /// Whether the kernel lets only one of the two be listened on.
    fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl Listen {
    pub fn is_range(&self) -> bool {
        self.first != self.last
    }

    /// Each port by itself.
    pub fn ports(self) -> impl Iterator<Item = Self> {
        (self.first..=self.last).map(move |port| Self {
            first: port,
            last: port,
            ..self
        })
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.host.overlaps(other.host) && self.first <= other.last && other.first <= self.last
    }

    /// Whether a connection to `ip` and `port` would arrive at it, as far as that can be told without
    /// knowing the addresses of this machine.
    pub fn receives(&self, ip: IpAddr, port: u16) -> bool {
        let reaches = match (self.host, ip) {
            (Host::Any, ip) => ip.is_loopback(),
            (Host::ANY_V4, IpAddr::V4(ip)) => ip.is_loopback(),
            (Host::ANY_V6, IpAddr::V6(ip)) => ip.is_loopback(),
            (Host::V4(own), IpAddr::V4(ip)) => own == ip,
            (Host::V6(own), IpAddr::V6(ip)) => own == ip,
            _ => false,
        };
        reaches && (self.first..=self.last).contains(&port)
    }
}

/// `listens` without those that others take as well; the two families of one port become one listener.
pub fn merged(listens: Vec<Listen>) -> Vec<Listen> {
    let mut merged: Vec<Listen> = Vec::new();
    for listen in listens {
        let same_ports = |known: &Listen| (known.first, known.last) == (listen.first, listen.last);
        if merged
            .iter()
            .any(|known| same_ports(known) && known.host.covers(listen.host))
        {
            continue;
        }
        merged.retain(|known| !(same_ports(known) && listen.host.covers(known.host)));
        merged.push(listen);
    }
    merged
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Any => {}
            Host::V4(ip) => write!(f, "{ip}:")?,
            Host::V6(ip) => write!(f, "[{ip}]:")?,
        }
        write!(f, "{}", self.first)?;
        match self.is_range() {
            true => write!(f, "-{}", self.last),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(host: Host, first: u16, last: u16) -> Listen {
        Listen { host, first, last }
    }

    #[test]
    fn both_families_of_a_port_are_one_listener() {
        let [v4, any, v6] = [Host::ANY_V4, Host::Any, Host::ANY_V6].map(|h| listen(h, 22, 22));
        assert_eq!(merged(vec![v4, any]), [any]);
        assert_eq!(merged(vec![any, v6, v4]), [any]);
        assert_eq!(merged(vec![v4, v6]), [v4, v6]);
        let other = listen(Host::ANY_V4, 22, 23);
        assert_eq!(merged(vec![any, other]), [any, other]);
    }

    #[test]
    fn what_a_wildcard_takes_overlaps() {
        let one = listen(Host::V4(Ipv4Addr::LOCALHOST), 20, 30);
        assert!(listen(Host::ANY_V4, 30, 40).overlaps(&one));
        assert!(listen(Host::Any, 1, 20).overlaps(&one));
        assert!(!listen(Host::ANY_V6, 20, 30).overlaps(&one));
        assert!(!listen(Host::ANY_V4, 31, 40).overlaps(&one));
    }
}
