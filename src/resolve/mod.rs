//! Names into addresses: by the hosts file and by DNS servers, as the system is set up, with the time for
//! which an answer is good.
//!
//! A lookup ends within its time, with so many addresses at most, whatever a server says or does not say.
//! Order does not depend on the answer's: the same addresses make the same list. What an address is good
//! for is not judged here, nor is anything kept but how the system is set up; nobody is asked before a
//! name is to be looked up.

mod book;
mod message;
mod schedule;
mod server;
mod system;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

pub(crate) use book::{Name, Names, News, SavedNames};
pub(crate) use message::Records;
pub use schedule::Refresh;
pub(crate) use schedule::Schedule;

use self::{
    message::{Question, Reply},
    system::System,
};
use crate::{
    files,
    mutex::lock,
    setting::{As, Found as Value, Json, Kind, List, Refusal, Span, Words, address::is_link_local},
    units,
};

/// Addresses that a name may have; of more, these are the first in their order.
pub(crate) const MOST_ADDRESSES: usize = 64;

/// How long what is known of the system is believed: both files are read again for lookups after that.
const SYSTEM_READ_EVERY: Duration = Duration::from_secs(5);

/// Which of a name's addresses are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// All of them, those of IPv6 first.
    #[default]
    Both,
    /// Those of IPv4.
    Ipv4,
    /// Those of IPv6.
    Ipv6,
    /// Those of IPv4, and those of IPv6 if there are none.
    PreferIpv4,
    /// Those of IPv6, and those of IPv4 if there are none.
    PreferIpv6,
}

impl Words for Family {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("both", Self::Both),
        ("ipv4", Self::Ipv4),
        ("ipv6", Self::Ipv6),
        ("prefer-ipv4", Self::PreferIpv4),
        ("prefer-ipv6", Self::PreferIpv6),
    ];
}

impl Family {
    /// Whether a kind of records is to be asked for.
    fn wants(self, records: Records) -> bool {
        match self {
            Self::Ipv4 => records == Records::A,
            Self::Ipv6 => records == Records::Aaaa,
            Self::Both | Self::PreferIpv4 | Self::PreferIpv6 => true,
        }
    }

    /// Those of the addresses that are wanted.
    fn choose(self, found: BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let (v4, v6): (Vec<_>, Vec<_>) = found.into_iter().partition(IpAddr::is_ipv4);
        match self {
            Self::Both => v6.into_iter().chain(v4).collect(),
            Self::Ipv4 => v4,
            Self::Ipv6 => v6,
            Self::PreferIpv4 if v4.is_empty() => v6,
            Self::PreferIpv4 => v4,
            Self::PreferIpv6 if v6.is_empty() => v4,
            Self::PreferIpv6 => v6,
        }
    }
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// At least one, each once, in an order of their own.
    pub addresses: Vec<IpAddr>,
    /// How many there are beyond those.
    pub beyond: usize,
    /// How long that is good for; nothing says so in a hosts file.
    pub ttl: Option<Duration>,
    /// Whether a server says so. The hosts file is the operator's own word.
    pub from_server: bool,
    /// The kind of which nobody knows whether there are any, and why not.
    pub unknown: Option<(Records, LookupError)>,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("there is no such name, says {server}")]
    NoSuchName { server: SocketAddr },
    #[error("it has no {} address, says {server}", of_family(*family))]
    NoAddress { server: SocketAddr, family: Family },
    #[error("{server} answers {code}")]
    Refused { server: SocketAddr, code: String },
    #[error("{server} gives an answer that cannot be read: {why}")]
    Unreadable {
        server: SocketAddr,
        why: &'static str,
    },
    #[error("{server} does not answer within {}", units::duration(*within))]
    Late {
        server: SocketAddr,
        within: Duration,
    },
    #[error("{server} cannot be asked: {error}")]
    Unreachable { server: SocketAddr, error: String },
    #[error("there is no answer within {}", units::duration(*.0))]
    Unanswered(Duration),
    #[error("{0}")]
    System(String),
    #[error("it is no name that can be asked for")]
    NoName,
}

fn of_family(family: Family) -> &'static str {
    match family {
        Family::Both | Family::PreferIpv4 | Family::PreferIpv6 => "IP",
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

impl LookupError {
    /// Whether a server has said so: there is nothing to wait for.
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::NoSuchName { .. } | Self::NoAddress { .. })
    }
}

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Asking {
    /// The DNS servers to ask; without any, those of /etc/resolv.conf.
    #[serde(with = "As::<List<Server>>")]
    pub servers: Vec<SocketAddr>,
    /// How long a lookup may take.
    #[serde(rename = "timeout", with = "As::<Span<100, 60>>")]
    pub within: Duration,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            within: Duration::from_secs(5),
        }
    }
}

/// A DNS server: an address, with a port if it is not 53.
struct Server;

impl Kind for Server {
    type Value = SocketAddr;

    fn read(found: Value<'_>) -> Result<SocketAddr, Refusal> {
        const DNS: u16 = 53;
        let text = found.text().unwrap_or_default();
        let alone = || text.parse().ok().map(|ip: IpAddr| (ip, DNS).into());
        let server: Option<SocketAddr> = text.parse().ok().or_else(alone);
        let server = server.filter(|server| server.port() != 0 && !server.ip().is_unspecified());
        server.ok_or_else(|| {
            Refusal::new("the IP address of a DNS server, such as \"192.0.2.53\"")
                .or("one with a port, such as \"[2001:db8::53]:5353\"")
        })
    }

    fn write(server: &SocketAddr) -> Json {
        server.to_string().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^[0-9a-fA-F:.\\[\\]]+$")
    }
}

/// Looks names up.
#[derive(Debug)]
pub(crate) struct Resolver {
    asking: Asking,
    system: Mutex<Option<(Instant, Arc<System>)>>,
}

impl Resolver {
    pub fn new(asking: Asking) -> Self {
        Self {
            asking,
            system: Mutex::default(),
        }
    }

    /// The addresses of `name`, which may be relative as the system allows.
    ///
    /// # Errors
    ///
    /// Why there is none, within the time that a lookup may take.
    pub async fn lookup(&self, name: &str, family: Family) -> Result<Found, LookupError> {
        let within = self.asking.within;
        let found = timeout(within, self.try_lookup(name, family)).await;
        found.unwrap_or(Err(LookupError::Unanswered(within)))
    }

    async fn try_lookup(&self, name: &str, family: Family) -> Result<Found, LookupError> {
        let system = self.system().await?;
        let of_hosts = system.hosts.addresses(name);
        let addresses = family.choose(of_hosts.collect());
        if !addresses.is_empty() {
            return Ok(Found::new(addresses, None, false, None));
        }
        if is_localhost(name) {
            let both = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            let addresses = family.choose(both.into());
            return Ok(Found::new(addresses, None, false, None));
        }
        let mut answer = Err(LookupError::NoName);
        for name in system.names(name) {
            answer = self.ask(&system, &name, family).await;
            // What is not known may be so: no other name is tried in its place.
            if !matches!(&answer, Err(error) if error.is_certain()) {
                return answer;
            }
        }
        answer
    }

    /// Asks for all kinds of records at a time.
    async fn ask(&self, system: &System, name: &str, family: Family) -> Result<Found, LookupError> {
        let ask = async |records| {
            if !family.wants(records) {
                return None;
            }
            Some(match Question::new(name, records) {
                Some(question) => self.ask_servers(system, &question).await,
                None => Err(LookupError::NoName),
            })
        };
        let (of_v6, of_v4) = tokio::join!(ask(Records::Aaaa), ask(Records::A));
        let (mut addresses, mut ttl) = (BTreeSet::new(), Duration::MAX);
        let (mut unknown, mut none) = (None, None);
        for (records, answer) in [(Records::Aaaa, of_v6), (Records::A, of_v4)] {
            match answer {
                Some(Ok((server, Reply::Addresses(found)))) => {
                    // An answer without any is good for nothing.
                    if !found.addresses.is_empty() {
                        ttl = ttl.min(found.ttl);
                    }
                    addresses.extend(found.addresses);
                    none = none.or(Some(LookupError::NoAddress { server, family }));
                }
                Some(Ok((server, Reply::NoSuchName))) => {
                    none = Some(LookupError::NoSuchName { server });
                }
                // Any other is an error already.
                Some(Ok(_)) | None => {}
                Some(Err(error)) => unknown = Some((records, error)),
            }
        }
        let addresses = family.choose(addresses);
        match (addresses.is_empty(), unknown, none) {
            (false, unknown, _) => Ok(Found::new(addresses, Some(ttl), true, unknown)),
            (true, Some((_, error)), _) | (true, None, Some(error)) => Err(error),
            (true, None, None) => Err(LookupError::NoName),
        }
    }

    /// Asks one server after the other, as often as the system says, for an answer that is one.
    async fn ask_servers(
        &self,
        system: &System,
        question: &Question,
    ) -> Result<(SocketAddr, Reply), LookupError> {
        let servers = match self.asking.servers.is_empty() {
            true => &system.servers,
            false => &self.asking.servers,
        };
        let times = servers.len() * system.attempts;
        let each = self.asking.within / u32::try_from(times.max(1)).unwrap_or(u32::MAX);
        let each = each.min(system.timeout);
        let mut last = LookupError::System("there is no DNS server to ask".to_owned());
        for server in servers.iter().cycle().take(times) {
            last = match server::ask(*server, question, system.only_tcp, each).await {
                Ok(reply @ (Reply::Addresses(_) | Reply::NoSuchName)) => {
                    return Ok((*server, reply));
                }
                Ok(Reply::Refused(code)) => LookupError::Refused {
                    server: *server,
                    code,
                },
                Ok(Reply::Unreadable(why)) => LookupError::Unreadable {
                    server: *server,
                    why,
                },
                Ok(Reply::CutShort) => LookupError::Unreadable {
                    server: *server,
                    why: "it is cut short",
                },
                Err(error) => error,
            };
        }
        Err(last)
    }

    /// How the system is set up, as lately as it has been asked for.
    async fn system(&self) -> Result<Arc<System>, LookupError> {
        let known = || lock(&self.system);
        if let Some((at, system)) = &*known()
            && at.elapsed() < SYSTEM_READ_EVERY
        {
            return Ok(Arc::clone(system));
        }
        let own_servers = !self.asking.servers.is_empty();
        let read = files::off_thread(move || System::read(own_servers)).await;
        let read = read.map_err(|late| LookupError::System(late.to_string()))?;
        let system = Arc::new(read.map_err(LookupError::System)?);
        *known() = Some((Instant::now(), Arc::clone(&system)));
        Ok(system)
    }
}

impl Found {
    fn new(
        mut addresses: Vec<IpAddr>,
        ttl: Option<Duration>,
        from_server: bool,
        unknown: Option<(Records, LookupError)>,
    ) -> Self {
        let beyond = addresses.len().saturating_sub(MOST_ADDRESSES);
        addresses.truncate(MOST_ADDRESSES);
        Self {
            addresses,
            beyond,
            ttl,
            from_server,
            unknown,
        }
    }

    /// Adds those of `before` of which nobody knows whether they are right any more.
    pub fn with_unknown_of(mut self, before: &[IpAddr]) -> Self {
        let Some((records, _)) = &self.unknown else {
            return self;
        };
        let kept = before.iter().filter(|ip| records.are_of(ip)).copied();
        let all = kept.chain(self.addresses).collect();
        self.addresses = Family::Both.choose(all);
        self.addresses.truncate(MOST_ADDRESSES);
        self
    }
}

/// Whether a name means this machine wherever it is looked up (RFC 6761).
fn is_localhost(name: &str) -> bool {
    let last = name.trim_end_matches('.').rsplit('.').next();
    last.is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// Why an address that a name has is no target, whatever the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unfit {
    /// Nothing can connect there.
    Unconnectable,
    /// It means another host on every interface.
    LinkLocal,
    /// A server says that it is this machine, and `targets.allow` does not.
    Loopback,
    /// It is not in `targets.allow`.
    NotAllowed,
    /// `bind` is an address of the other family.
    OtherFamily,
    /// It is a listener of the proxy's own.
    Own,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unconnectable => "nothing can connect there",
            Self::LinkLocal => "it is link-local: another host on every interface",
            Self::Loopback => "a DNS server says that it is this machine, targets.allow does not",
            Self::NotAllowed => "it is not in targets.allow",
            Self::OtherFamily => "bind is an address of the other family",
            Self::Own => "it is a listener of this proxy: connections would loop",
        })
    }
}

/// Whether an address of a name may be a target, as far as the address tells: as for one that stands in
/// the file, but that a server has no say in what this machine is.
pub(crate) fn judge(
    ip: IpAddr,
    from_server: bool,
    allow: &[ipnet::IpNet],
) -> Result<IpAddr, Unfit> {
    let ip = ip.to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let allowed = || allow.iter().any(|net| net.contains(&ip));
    match () {
        () if ip.is_unspecified() || ip.is_multicast() || is_broadcast => Err(Unfit::Unconnectable),
        () if is_link_local(ip) => Err(Unfit::LinkLocal),
        () if !allow.is_empty() && !allowed() => Err(Unfit::NotAllowed),
        () if ip.is_loopback() && from_server && !allowed() => Err(Unfit::Loopback),
        () => Ok(ip),
    }
}

#[cfg(test)]
mod tests;
