//! Which addresses are this machine's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Whether `ip` belongs to this machine, by binding a socket to it that never sends.
///
/// Where foreign addresses can be bound too (`net.ipv4.ip_nonlocal_bind`), binding proves nothing
/// and no address counts as local.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    // Reserved for future use and the discard prefix: nobody's addresses.
    let foreign = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)),
    };
    can_bind(ip) && !can_bind(foreign)
}

fn can_bind(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_ours_and_documentation_addresses_are_not() {
        assert!(is_local(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!is_local(IpAddr::from([192, 0, 2, 1])));
    }
}
