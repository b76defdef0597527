//! Addresses of clients in the log: whole, or without the bits that tell one client of a network from
//! another.
//!
//! It holds for the process, for whoever writes a line, and a reload changes it for lines from then on.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use ipnet::IpNet;

/// How many bits of an address are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownBits {
    /// Of an IPv4 address, up to 32.
    pub ipv4: u8,
    /// Of an IPv6 address, up to 128.
    pub ipv6: u8,
}

impl ShownBits {
    const ALL: Self = Self {
        ipv4: 32,
        ipv6: 128,
    };

    /// The address without what is not shown.
    fn of(self, ip: IpAddr) -> IpAddr {
        let bits = match ip {
            IpAddr::V4(_) => self.ipv4,
            // Written as it comes, though it is one of IPv4.
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => 96 + self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        };
        IpNet::new(ip, bits).map_or(ip, |net| net.network())
    }

    fn of_net(self, net: IpNet) -> IpNet {
        let shown = match net {
            IpNet::V4(_) => self.ipv4,
            IpNet::V6(_) => self.ipv6,
        };
        let shorter = IpNet::new(net.addr(), shown.min(net.prefix_len()));
        shorter.map_or(net, |net| net.trunc())
    }
}

/// Both numbers of [`ShownBits`].
static SHOWN: AtomicU16 = AtomicU16::new(u16::from_be_bytes([
    ShownBits::ALL.ipv4,
    ShownBits::ALL.ipv6,
]));

fn shown() -> ShownBits {
    let [ipv4, ipv6] = SHOWN.load(Relaxed).to_be_bytes();
    ShownBits { ipv4, ipv6 }
}

/// From now on the log shows so much of clients' addresses; without a number, all.
pub fn show_clients(bits: Option<ShownBits>) {
    let ShownBits { ipv4, ipv6 } = bits.unwrap_or(ShownBits::ALL);
    SHOWN.store(u16::from_be_bytes([ipv4, ipv6]), Relaxed);
}

/// A client as the log shows it.
pub fn client_in_log(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(shown().of(client.ip()), client.port())
}

/// The network of clients as the log shows it.
pub fn network_in_log(net: IpNet) -> IpNet {
    shown().of_net(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_zero() {
        let bits = ShownBits { ipv4: 24, ipv6: 48 };
        for (whole, expected) in [
            ("203.0.113.77", "203.0.113.0"),
            ("2001:db8:1:2::77", "2001:db8:1::"),
            ("::ffff:203.0.113.77", "::ffff:203.0.113.0"),
        ] {
            let ip = whole.parse().expect("an address");
            assert_eq!(bits.of(ip).to_string(), expected);
            assert_eq!(ShownBits::ALL.of(ip), ip);
        }
        for (whole, expected) in [
            ("203.0.113.77/32", "203.0.113.0/24"),
            ("203.0.0.0/16", "203.0.0.0/16"),
            ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ] {
            let net = whole.parse().expect("a prefix");
            assert_eq!(bits.of_net(net).to_string(), expected);
        }
    }
}
