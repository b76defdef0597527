//! How public addresses and targets are written, and how the two are paired.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, de::SeqAccess};

use crate::{
    host_port::HostPort,
    setting::{
        As, Found, Json, Kind, Refusal,
        address::{NOT_LINK_LOCAL, host_ip, is_broadcast, is_link_local, port},
        items,
    },
    table::{ListenAddr, ListenHost},
    target::{GroupSettings, TargetAddr, TargetSettings, TargetSpec},
};

/// What a public address looks like.
pub(crate) const LISTEN: &str = "a port (22014), an address and a port (\"*:22014\", \
                                 \"192.0.2.1:22014\", \"[2001:db8::1]:22014\") or a range of \
                                 ports (\"22000-22099\")";

/// The longest name that can be asked for.
const LONGEST_NAME: usize = 254;

/// What a target looks like.
pub(crate) const TARGET: &str = "an IP address or a name and a port (\"192.0.2.1:22\", \
                                 \"[2001:db8::1]:22\", \"db.example.org:22\") or a range of ports \
                                 (\"192.0.2.1:22-31\")";

/// Public addresses on one host, as one value asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    host: ListenHost,
    ports: Ports,
}

/// Targets on one host, as one value asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    host: TargetHost,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TargetHost {
    Ip(IpAddr),
    /// In small letters.
    Name(Arc<str>),
}

/// One port or a range of them; a range of one is still a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    One(u16),
    Range { first: u16, last: u16 },
}

impl Ports {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let Some((first, last)) = text.split_once('-') else {
            return port(text).map(Self::One);
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(Refusal::new(
                "a range whose first port is not above its last",
            ));
        }
        Ok(Self::Range { first, last })
    }

    fn first(self) -> u16 {
        match self {
            Self::One(port) | Self::Range { first: port, .. } => port,
        }
    }

    fn last(self) -> u16 {
        match self {
            Self::One(port) | Self::Range { last: port, .. } => port,
        }
    }

    fn count(self) -> usize {
        usize::from(self.last() - self.first()) + 1
    }

    /// The ports as a message counts them.
    fn describe(self) -> String {
        match self {
            Self::One(port) => format!("1 port ({port})"),
            Self::Range { first, last } => match self.count() {
                1 => format!("1 port ({first}-{last})"),
                count => format!("{count} ports ({first}-{last})"),
            },
        }
    }
}

impl Listen {
    /// Reads `PORT`, `HOST:PORT`, or either with `FIRST-LAST` in place of the port.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let (host, ports) = ListenHost::before_port(text, LISTEN)?;
        let ports = Ports::parse(ports)?;
        Ok(Self { host, ports })
    }

    /// The addresses of this machine it means.
    pub fn host(&self) -> ListenHost {
        self.host
    }

    /// How many public addresses these are.
    pub fn count(&self) -> usize {
        self.ports.count()
    }

    fn addresses(self) -> impl Iterator<Item = ListenAddr> {
        let ports = self.ports.first()..=self.ports.last();
        ports.map(move |port| ListenAddr::new(self.host, port))
    }
}

impl Target {
    /// Reads `HOST:PORT` or `HOST:FIRST-LAST`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let (host, ports) = text.rsplit_once(':').ok_or(Refusal::new(TARGET))?;
        let host = match name(host) {
            Some(name) => TargetHost::Name(name),
            None => TargetHost::Ip(target_ip(host)?),
        };
        let ports = Ports::parse(ports)?;
        Ok(Self { host, ports })
    }

    /// Whether some port is that of both.
    pub fn meets(&self, other: &Self) -> bool {
        self.host == other.host
            && self.ports.first() <= other.ports.last()
            && other.ports.first() <= self.ports.last()
    }

    /// The host, unless it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host {
            TargetHost::Ip(ip) => Some(ip),
            TargetHost::Name(_) => None,
        }
    }

    fn at(&self, offset: usize) -> Option<TargetAddr> {
        let offset = u16::try_from(offset).ok()?;
        let port = self.ports.first().checked_add(offset)?;
        Some(match &self.host {
            TargetHost::Ip(ip) => TargetAddr::Address(SocketAddr::new(*ip, port)),
            TargetHost::Name(name) => TargetAddr::Name(Arc::clone(name), port),
        })
    }
}

fn target_ip(host: &str) -> Result<IpAddr, Refusal> {
    let ip = host_ip(host, TARGET)?.to_canonical();
    if is_link_local(ip) {
        return Err(Refusal::new(NOT_LINK_LOCAL));
    }
    if ip.is_unspecified() || ip.is_multicast() || is_broadcast(ip) {
        return Err(Refusal::new("an address that can be connected to"));
    }
    Ok(ip)
}

/// A host that is a name, in small letters.
fn name(host: &str) -> Option<Arc<str>> {
    let read = HostPort::parse(host).ok()?;
    let is_name = read.port().is_none() && read.ip().is_none() && host.len() <= LONGEST_NAME;
    is_name.then(|| host.to_ascii_lowercase().into())
}

impl Kind for Listen {
    type Value = Self;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        match found {
            Found::Text(text) | Found::Expanded(text) => Self::parse(text),
            Found::Integer(number) => port(&number.to_string()).map(|port| Self {
                host: ListenHost::Any,
                ports: Ports::One(port),
            }),
            Found::Other => Err(Refusal::new(LISTEN)),
        }
    }

    fn write(_: &Self) -> Json {
        Json::Null
    }

    #[cfg(test)]
    fn schema() -> Json {
        ListenAddr::schema()
    }
}

/// One value that asks for public addresses, or a list of them.
pub(super) struct Listens;

impl Kind for Listens {
    type Value = Vec<Listen>;

    const LISTS: bool = true;

    fn read(found: Found<'_>) -> Result<Vec<Listen>, Refusal> {
        Listen::read(found).map(|one| vec![one])
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Vec<Listen>, A::Error> {
        items::<Listen, A>(list)
    }

    fn write(_: &Vec<Listen>) -> Json {
        Json::Null
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::{List, schema::or};
        or(Listen::schema(), List::<Listen>::schema())
    }
}

impl Kind for Target {
    type Value = Self;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        let text = found.text().ok_or_else(|| Refusal::new(TARGET))?;
        Self::parse(text)
    }

    fn write(_: &Self) -> Json {
        Json::Null
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text(
            "^[-A-Za-z0-9_.]+:[0-9]+(-[0-9]+)?$|^\\[[0-9a-fA-F:.]+\\]:[0-9]+(-[0-9]+)?$",
        )
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        As::<Self>::deserialize(from)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Target {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "target".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        As::<Self>::json_schema(generator)
    }
}

/// One target, as a text or as a table with what goes with it.
struct OneTarget;

impl Kind for OneTarget {
    type Value = TargetSettings<Target>;

    const TABLES: bool = true;

    fn read(found: Found<'_>) -> Result<Self::Value, Refusal> {
        Target::read(found).map(TargetSettings::of)
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self::Value, D::Error> {
        TargetSettings::deserialize(table)
    }

    fn write(_: &Self::Value) -> Json {
        Json::Null
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::schema::{or, table};
        or(Target::schema(), table::<TargetSettings<Target>>())
    }
}

/// One target, or a list of them.
pub(super) struct Targets;

impl Kind for Targets {
    type Value = Vec<TargetSettings<Target>>;

    const LISTS: bool = true;
    const TABLES: bool = true;

    fn read(found: Found<'_>) -> Result<Self::Value, Refusal> {
        OneTarget::read(found).map(|one| vec![one])
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self::Value, A::Error> {
        items::<OneTarget, A>(list)
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self::Value, D::Error> {
        OneTarget::table(table).map(|one| vec![one])
    }

    fn write(_: &Self::Value) -> Json {
        Json::Null
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::{List, schema::or};
        or(OneTarget::schema(), List::<OneTarget>::schema())
    }
}

/// Targets and public addresses that do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpaired {
    /// The place of the target in its list.
    pub target: usize,
    /// Why they do not, in a sentence.
    pub why: String,
}

/// Pairs every public address with its targets: a single port with the first port of each, a range
/// port by port with the range of its size. Those with the same targets share them. An address alone that is
/// `checked` is a group, too.
///
/// # Errors
///
/// Ranges that do not fit each other.
pub(crate) fn pair(
    listens: &[Listen],
    targets: &[TargetSettings<Target>],
    checked: bool,
) -> Result<Vec<(ListenAddr, TargetSpec)>, Unpaired> {
    let mut pairs = Vec::with_capacity(listens.iter().map(Listen::count).sum());
    // What the first, the second port of a range leads to and so on.
    let mut specs: Vec<TargetSpec> = Vec::new();
    for listen in listens {
        for (target, TargetSettings { address, .. }) in targets.iter().enumerate() {
            fits(listen.ports, address.ports).map_err(|why| Unpaired { target, why })?;
        }
        for (offset, address) in listen.addresses().enumerate() {
            if specs.len() == offset {
                specs.push(spec(targets, offset, checked));
            }
            pairs.push((address, specs[offset].clone()));
        }
    }
    Ok(pairs)
}

/// Whether there is a port of a target for each public one.
fn fits(listen: Ports, target: Ports) -> Result<(), String> {
    if matches!(target, Ports::Range { .. }) && target.count() != listen.count() {
        return Err(format!(
            "listen has {} and target has {}: both must have the same number, or target only \
             its first port",
            listen.describe(),
            target.describe(),
        ));
    }
    if usize::from(target.first()) + listen.count() - 1 > usize::from(u16::MAX) {
        return Err(format!(
            "listen has {} and target starts at port {}: the last would be above 65535",
            listen.describe(),
            target.first(),
        ));
    }
    Ok(())
}

/// The targets of a port so many ports above the first.
fn spec(targets: &[TargetSettings<Target>], offset: usize, checked: bool) -> TargetSpec {
    let at = |target: &TargetSettings<Target>| {
        let address = target.address.at(offset);
        Some(target.at(address?))
    };
    let targets: Vec<_> = targets.iter().filter_map(at).collect();
    match &targets[..] {
        [
            only @ TargetSettings {
                address: TargetAddr::Address(address),
                ..
            },
        ] if !checked && *only == TargetSettings::of(only.address.clone()) => {
            TargetSpec::Address(*address)
        }
        _ => TargetSpec::Group(Arc::new(GroupSettings { targets })),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn pairs(listens: &[&str], target: &str) -> Result<Vec<String>, String> {
        let listens: Vec<_> = listens
            .iter()
            .map(|text| Listen::parse(text).expect("a public address"))
            .collect();
        let target = TargetSettings::of(Target::parse(target).expect("a target"));
        let pairs = pair(&listens, &[target], false).map_err(|unpaired| unpaired.why)?;
        Ok(pairs
            .iter()
            .map(|(listen, target)| format!("{listen} {target}"))
            .collect())
    }

    #[test]
    fn a_port_alone_is_taken_on_every_address() {
        let any = Listen::read(Found::Integer(22014)).expect("a port");
        assert_eq!(Listen::parse("22014"), Ok(any));
        assert_eq!(Listen::parse("*:22014"), Ok(any));
    }

    #[test]
    fn a_host_says_which_family() {
        for (text, host) in [
            ("0.0.0.0:1", ListenHost::V4(Ipv4Addr::UNSPECIFIED)),
            ("[::]:1", ListenHost::V6(Ipv6Addr::UNSPECIFIED)),
            ("127.0.0.1:1", ListenHost::V4(Ipv4Addr::LOCALHOST)),
            ("[::1]:1-2", ListenHost::V6(Ipv6Addr::LOCALHOST)),
        ] {
            assert_eq!(Listen::parse(text).expect(text).host, host);
        }
    }

    #[test]
    fn a_public_address_is_refused_unless_one_can_listen_on_it() {
        for text in [
            "",
            ":",
            ":22",
            "0",
            "65536",
            "-1",
            "+22",
            " 22",
            "22-",
            "-22",
            "22-21",
            "22-23-24",
            "*",
            "*:",
            "*:0",
            "localhost:22",
            "::1",
            "::1:22",
            "[::1]",
            "[::1]22",
            "[::1%lo]:22",
            "[127.0.0.1]:22",
            "127.0.0.1",
            "[::ffff:127.0.0.1]:22",
            "224.0.0.1:22",
            "255.255.255.255:22",
            "[ff02::1]:22",
            "[fe80::1]:22",
            "[fe80::1%lo]:22",
        ] {
            assert!(Listen::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_that_means_nothing_without_an_interface_is_refused_with_the_reason() {
        for text in ["[fe80::1]:22", "[fe80::1%eth0]:22", "[febf::1]:22"] {
            let refused = Refusal::new(NOT_LINK_LOCAL);
            assert_eq!(Listen::parse(text), Err(refused.clone()), "{text}");
            assert_eq!(Target::parse(text), Err(refused.clone()), "{text}");
            assert_eq!(ListenAddr::parse(text), Err(refused), "{text}");
        }
    }

    #[test]
    fn a_listener_of_the_proxys_own_is_written_as_a_public_address_and_is_one() {
        for text in ["9422", "*:9422", "0.0.0.0:9422", "[::]:9422", "[::1]:9422"] {
            let one = ListenAddr::parse(text).expect(text);
            let mapping = Listen::parse(text).expect(text);
            assert_eq!(mapping.addresses().collect::<Vec<_>>(), [one]);
        }
        for text in ["", "x", "0", "9422-9422", "127.0.0.1", "[::1%1]:9422"] {
            assert!(ListenAddr::parse(text).is_err(), "{text}");
        }
        let refused = ListenAddr::parse("x").expect_err("no address").to_string();
        assert!(refused.starts_with("a port (9422), or"), "{refused}");
    }

    #[test]
    fn a_target_is_refused_unless_one_can_connect_to_it() {
        for text in [
            "",
            "22",
            "*:22",
            "0.0.0.0:22",
            "[::]:22",
            "[::ffff:0.0.0.0]:22",
            "224.0.0.1:22",
            "255.255.255.255:22",
            "[ff02::1]:22",
            "[fe80::1]:22",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "example.org",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn single_ports_share_the_target() {
        assert_eq!(
            pairs(&["1000", "127.0.0.1:2000"], "10.0.0.1:22"),
            Ok(vec![
                "*:1000 10.0.0.1:22".to_owned(),
                "127.0.0.1:2000 10.0.0.1:22".to_owned()
            ])
        );
    }

    #[test]
    fn ranges_are_paired_port_by_port_and_all_start_at_the_same_target_port() {
        let expected = [
            "*:1000 10.0.0.1:22",
            "*:1001 10.0.0.1:23",
            "[::1]:2000 10.0.0.1:22",
            "[::1]:2001 10.0.0.1:23",
        ];
        for target in ["10.0.0.1:22", "10.0.0.1:22-23"] {
            let pairs = pairs(&["1000-1001", "[::1]:2000-2001"], target);
            assert_eq!(pairs.expect("fits"), expected);
        }
    }

    #[test]
    fn ranges_of_two_sizes_are_refused_and_both_sizes_named() {
        for (listen, target, named) in [
            (
                "1000-1009",
                "10.0.0.1:22-23",
                ["10 ports (1000-1009)", "2 ports (22-23)"],
            ),
            (
                "1000",
                "10.0.0.1:22-23",
                ["1 port (1000)", "2 ports (22-23)"],
            ),
            (
                "1000-1001",
                "10.0.0.1:65535",
                ["2 ports (1000-1001)", "port 65535"],
            ),
        ] {
            let text = pairs(&[listen], target).expect_err("does not fit");
            assert!(named.iter().all(|name| text.contains(name)), "{text}");
        }
    }

    #[test]
    fn a_range_may_be_every_port_there_is() {
        let pairs = pairs(&["1-65535"], "10.0.0.1:1").expect("fits");
        assert_eq!(pairs.len(), 65535);
        assert_eq!(pairs[65534], "*:65535 10.0.0.1:65535");
    }

    #[test]
    fn a_mapped_target_is_the_ipv4_address_it_maps() {
        let target = Target::parse("[::ffff:10.0.0.1]:22").expect("a target");
        assert_eq!(target.ip(), Some(IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn a_target_may_be_a_name() {
        assert_eq!(
            pairs(&["100-101"], "Db_1.example.org:5432"),
            Ok(vec![
                "*:100 db_1.example.org:5432".to_owned(),
                "*:101 db_1.example.org:5433".to_owned(),
            ])
        );
        for text in [
            "db.example.org",
            "db.example.org:",
            "db.example.org:0",
            "db..example:22",
            "-db:22",
            "db example:22",
            "http://db:22",
            "fd00::14:22",
            "10.0.0.256:22",
            "127.1:22",
            "[db]:22",
            ":22",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
