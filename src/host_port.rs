//! A host and perhaps a port, as URLs and arguments have them: the one place where they are read.
//!
//! What is read here can be resolved, connected to and asked for a certificate: no part of it is
//! understood in another way later.

use std::{
    fmt,
    net::{IpAddr as Ip, Ipv6Addr},
};

use rustls::pki_types::{IpAddr, ServerName};

/// A host and perhaps a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// As in a URL: an IPv6 address is in brackets.
    host: String,
    port: Option<u16>,
}

/// Why a text is no host with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// The host is none.
    #[error("a host: a name, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// Nothing can connect to the host.
    #[error(
        "an address that can be connected to; \"fe80::…\" means another host on every interface"
    )]
    Unreachable,
    /// The port is none.
    #[error("a port from 1 to 65535")]
    Port,
}

impl HostPort {
    /// Takes `HOST` and `HOST:PORT` that one can connect to.
    ///
    /// # Errors
    ///
    /// Which part is not allowed; what is said of it is what would be.
    pub fn parse(text: &str) -> Result<Self, HostPortError> {
        let read = Self::parse_any(text)?;
        match read.ip().is_some_and(is_unreachable) {
            true => Err(HostPortError::Unreachable),
            false => Ok(read),
        }
    }

    /// Takes the same from somebody who has connected already, by whatever address.
    ///
    /// # Errors
    ///
    /// Which part is not allowed.
    pub fn parse_any(text: &str) -> Result<Self, HostPortError> {
        let end = text.find(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match text[end..].split_once(':') {
            Some((name, port)) => (&text[..end + name.len()], Some(port)),
            None => (text, None),
        };
        if !is_host(host) {
            return Err(HostPortError::Host);
        }
        let digits = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
        let number = |port: &str| {
            let port = Some(port).filter(digits)?.parse::<u16>().ok()?;
            (port != 0).then_some(port)
        };
        Ok(Self {
            host: host.to_owned(),
            port: port
                .map(|port| number(port).ok_or(HostPortError::Port))
                .transpose()?,
        })
    }

    /// The port, if it is said.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as an address, if it is one.
    pub fn ip(&self) -> Option<Ip> {
        let host = in_brackets(&self.host).unwrap_or(&self.host);
        host.parse().ok()
    }

    /// Whether it is this machine's loopback.
    pub fn is_loopback(&self) -> bool {
        let is_its_name = self.host.eq_ignore_ascii_case("localhost");
        self.ip().map_or(is_its_name, |ip| ip.is_loopback())
    }
}

/// What stands in brackets, as an IPv6 address does beside a port.
pub fn in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// Whether the kernel refuses to connect there: nothing here says on which interface a link-local
/// address is.
fn is_unreachable(ip: Ip) -> bool {
    match ip.to_canonical() {
        Ip::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        Ip::V6(ip) => ip.is_multicast() || ip.is_unicast_link_local(),
    }
}

fn is_host(text: &str) -> bool {
    match in_brackets(text) {
        Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
        // An IPv6 address without brackets would take the port for a part of itself.
        None => matches!(
            ServerName::try_from(text),
            Ok(ServerName::DnsName(_) | ServerName::IpAddress(IpAddr::V4(_)))
        ),
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for text in [
            "h",
            "sb.example.org",
            "sb.example.org:443",
            "a_b:1",
            "192.0.2.1:65535",
            "[::1]",
            "[2001:db8::1]:22",
        ] {
            assert_eq!(HostPort::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_resolved_or_connected_to_is_refused_and_the_part_named() {
        for (text, part) in [
            ("", HostPortError::Host),
            (":22", HostPortError::Host),
            ("[::1", HostPortError::Host),
            ("::1", HostPortError::Host),
            ("::1]", HostPortError::Host),
            ("[::1]x:22", HostPortError::Host),
            ("[fe80::1%eth0]:22", HostPortError::Host),
            ("[127.0.0.1]", HostPortError::Host),
            ("[fe80::1]:22", HostPortError::Unreachable),
            ("[ff02::1]", HostPortError::Unreachable),
            ("255.255.255.255:22", HostPortError::Unreachable),
            ("a%zz", HostPortError::Host),
            ("a b", HostPortError::Host),
            ("-a", HostPortError::Host),
            ("a..b", HostPortError::Host),
            ("127.1", HostPortError::Host),
            ("1.2.3.256", HostPortError::Host),
            ("h/x", HostPortError::Host),
            ("b\u{fc}cher.example", HostPortError::Host),
            ("h:", HostPortError::Port),
            ("h:0", HostPortError::Port),
            ("h:99999", HostPortError::Port),
            ("h:+1", HostPortError::Port),
            ("h:22:22", HostPortError::Port),
            ("[::1]:", HostPortError::Port),
        ] {
            assert_eq!(HostPort::parse(text), Err(part), "{text:?}");
        }
    }

    proptest! {
        /// Nobody behind this has another opinion.
        #[test]
        fn what_is_read_here_is_read_everywhere(
            text in "(\\[[0-9a-f:.%]{0,12}\\]?|[-a-z0-9_.%@]{0,12})(:[0-9]{0,6})?"
        ) {
            if let Ok(read) = HostPort::parse(&text) {
                prop_assert_eq!(HostPort::parse(&read.to_string()), Ok(read.clone()));
                let authority: http::uri::Authority = text.parse().expect("a URL's");
                prop_assert_eq!(authority.port_u16(), read.port());
                let host = authority.host().trim_matches(['[', ']']);
                prop_assert!(ServerName::try_from(host).is_ok());
            }
        }
    }

    #[test]
    fn loopback_is_no_beginning_of_a_name() {
        for (text, expected) in [
            ("localhost", true),
            ("127.0.0.9:80", true),
            ("[::1]:80", true),
            ("localhost.example.org", false),
            ("127.example.org", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(HostPort::parse(text).expect(text).is_loopback(), expected);
        }
    }
}
