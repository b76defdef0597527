//! How this machine looks names up: resolv.conf(5) and hosts(5).

use std::{
    borrow::Cow,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::Path,
    time::Duration,
};

use resolv_conf::ScopedIp;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::files::{self, FileError};

/// As many as the C library asks.
const MOST_SERVERS: usize = 3;

/// As many as the C library tries.
const MOST_SEARCHED: usize = 6;

const LONGEST_RESOLV_CONF: u64 = 64 << 10;

const LONGEST_HOSTS: u64 = 4 << 20;

/// What the files say.
#[derive(Debug)]
pub(super) struct System {
    pub hosts: Hosts,
    pub servers: Vec<SocketAddr>,
    /// How long one server may take for one answer.
    pub timeout: Duration,
    /// How often each is asked.
    pub attempts: usize,
    pub only_tcp: bool,
    search: Vec<String>,
    ndots: usize,
}

impl System {
    /// Reads them; `own_servers` are others than those of the system, which have its suffixes to do with.
    pub fn read(own_servers: bool) -> Result<Self, String> {
        let hosts = match read(Path::new("/etc/hosts"), LONGEST_HOSTS)? {
            Some(text) => Hosts::parse(&text),
            None => Hosts::default(),
        };
        let system = match own_servers {
            true => Self::of(""),
            false => {
                let text = read(Path::new("/etc/resolv.conf"), LONGEST_RESOLV_CONF)?;
                Self::of(&text.unwrap_or_default())
            }
        };
        Ok(Self { hosts, ..system })
    }

    /// What a resolv.conf says; what of it is not understood is left out, as the C library does.
    pub fn of(text: &str) -> Self {
        let (conf, _) = resolv_conf::Config::parse_with_errors(text.as_bytes());
        let search = conf
            .get_last_search_or_domain()
            .map(|suffix| suffix.to_owned());
        let search = search.take(MOST_SEARCHED).collect();
        let servers = conf.nameservers.iter().filter_map(address);
        let mut servers: Vec<_> = servers.take(MOST_SERVERS).collect();
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        Self {
            hosts: Hosts::default(),
            servers,
            timeout: Duration::from_secs(u64::from(conf.timeout.clamp(1, 30))),
            attempts: conf.attempts.clamp(1, 5) as usize,
            only_tcp: conf.use_vc,
            search,
            ndots: conf.ndots.min(15) as usize,
        }
    }

    /// The names to ask for in the place of one, the first that there is.
    pub fn names<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        let is_whole = name.ends_with('.');
        let first = is_whole || name.matches('.').count() >= self.ndots;
        let search = self.search.iter().filter(move |_| !is_whole);
        let longer = search.map(move |suffix| Cow::Owned(format!("{name}.{suffix}")));
        let before = first.then_some(Cow::Borrowed(name));
        let after = (!first).then_some(Cow::Borrowed(name));
        before.into_iter().chain(longer).chain(after)
    }
}

/// The text of a file, if there is one.
fn read(path: &Path, longest: u64) -> Result<Option<String>, String> {
    match files::read(path, longest) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(FileError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// A server of resolv.conf, unless it is on an interface that is not there.
fn address(server: &ScopedIp) -> Option<SocketAddr> {
    const DNS: u16 = 53;
    match server {
        ScopedIp::V4(ip) => Some((*ip, DNS).into()),
        ScopedIp::V6(ip, None) => Some((*ip, DNS).into()),
        ScopedIp::V6(ip, Some(interface)) => {
            let number = interface.parse().ok().or_else(|| number_of(interface))?;
            Some(SocketAddrV6::new(*ip, DNS, 0, number).into())
        }
    }
}

fn number_of(interface: &str) -> Option<u32> {
    let any = socket(AddressFamily::INET6, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(&any, interface).ok()
}

/// The names of a hosts file, in small letters.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    pub fn parse(text: &str) -> Self {
        let mut hosts = HashMap::<String, Vec<IpAddr>>::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            for name in words {
                let name = name.to_ascii_lowercase();
                hosts.entry(name).or_default().push(ip.to_canonical());
            }
        }
        Self(hosts)
    }

    pub fn addresses(&self, name: &str) -> impl Iterator<Item = IpAddr> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let found = self.0.get(&name).into_iter().flatten();
        found.copied()
    }
}
