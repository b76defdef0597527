//! What an operator says of targets.

use std::{fmt, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{
    proxy_protocol::Version,
    resolve::MOST_ADDRESSES,
    setting::{As, Count, Given, Number, Off, Word},
};

/// The target of a public address, as a provider asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSpec {
    /// That address, and nothing to be known of it.
    Address(SocketAddr),
    Group(Arc<GroupSettings>),
}

/// Targets to choose from, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    pub targets: Vec<TargetSettings>,
}

/// One of several targets. What is written for its address differs: a file may have a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TargetSettings<A = TargetAddr> {
    /// Where it is.
    pub address: A,
    /// Its share of the sessions, compared to that of the others.
    #[serde(default = "one", with = "As::<Number<u32, 1, 256>>")]
    pub weight: u32,
    /// Whether it is for when no other target is up.
    #[serde(default)]
    pub backup: bool,
    /// Sessions it may have at once.
    #[serde(default, with = "As::<Off<Count<u32>>>")]
    pub max_sessions: Option<u32>,
    /// Whether it is told whose connection it gets, in a PROXY header; as the mapping says if left out.
    #[serde(
        default,
        with = "As::<Given<Off<Word<Version>>>>",
        skip_serializing_if = "Option::is_none"
    )]
    pub send_proxy: Option<Option<Version>>,
}

const fn one() -> u32 {
    1
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetAddr {
    Address(SocketAddr),
    /// The port of every address that a name has.
    Name(Arc<str>, u16),
}

impl<A> TargetSettings<A> {
    /// A target of which only its address is said.
    pub const fn of(address: A) -> Self {
        Self {
            address,
            weight: 1,
            backup: false,
            max_sessions: None,
            send_proxy: None,
        }
    }

    /// The same for another address.
    pub fn at<B>(&self, address: B) -> TargetSettings<B> {
        TargetSettings {
            address,
            weight: self.weight,
            backup: self.backup,
            max_sessions: self.max_sessions,
            send_proxy: self.send_proxy,
        }
    }
}

impl TargetSpec {
    /// The only address there is, if there can be no other.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Group(_) => None,
        }
    }

    /// How many addresses there may be.
    pub fn most(&self) -> usize {
        match self {
            Self::Address(_) => 1,
            Self::Group(group) => {
                let of_names = group.names().count();
                group.targets.len() + of_names * (MOST_ADDRESSES - 1)
            }
        }
    }

    /// Every address that was written as one.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let (one, several) = match self {
            Self::Address(address) => (Some(*address), &[][..]),
            Self::Group(group) => (None, &*group.targets),
        };
        let several = several.iter().filter_map(|target| match target.address {
            TargetAddr::Address(address) => Some(address),
            TargetAddr::Name(..) => None,
        });
        one.into_iter().chain(several)
    }

    /// The port of every target.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let (one, several) = match self {
            Self::Address(address) => (Some(address.port()), &[][..]),
            Self::Group(group) => (None, &*group.targets),
        };
        let several = several.iter().map(|target| match &target.address {
            TargetAddr::Address(address) => address.port(),
            TargetAddr::Name(_, port) => *port,
        });
        one.into_iter().chain(several)
    }

    /// Whether both lead to the same places, whatever else is said of them.
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Group(one), Self::Group(other)) => {
                let has = |group: &GroupSettings, address: &TargetAddr| {
                    group.targets.iter().any(|own| own.address == *address)
                };
                let all_in = |one: &GroupSettings, other: &GroupSettings| {
                    one.targets.iter().all(|own| has(other, &own.address))
                };
                all_in(one, other) && all_in(other, one)
            }
            (Self::Address(one), Self::Group(group)) | (Self::Group(group), Self::Address(one)) => {
                let here = TargetAddr::Address(*one);
                group.targets.iter().all(|target| target.address == here)
            }
        }
    }

    /// Whether it is the same as the target of the port before, with every port one up.
    pub fn follows(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Address(before), Self::Address(own)) => follows(before, own),
            (Self::Group(before), Self::Group(own)) => {
                let same = |(before, own): (&TargetSettings, &TargetSettings)| {
                    own.address.follows(&before.address) && before.at(()) == own.at(())
                };
                before.targets.len() == own.targets.len()
                    && before.targets.iter().zip(&own.targets).all(same)
            }
            _ => false,
        }
    }

    /// What it is called in a list of targets whose ports go up to those of `last`.
    pub fn up_to(&self, last: &Self) -> String {
        let range = |first: &dyn fmt::Display, from: u16, to: u16| match from == to {
            true => first.to_string(),
            false => format!("{first}-{to}"),
        };
        match (self, last) {
            (Self::Group(first), Self::Group(last)) => {
                let both = first.targets.iter().zip(&last.targets);
                let each = both.map(|(first, last)| {
                    let (from, to) = (first.address.port(), last.address.port());
                    format!("{}{}", range(&first.address, from, to), first.remark())
                });
                each.collect::<Vec<_>>().join(", ")
            }
            (Self::Address(first), Self::Address(last)) => range(first, first.port(), last.port()),
            _ => self.to_string(),
        }
    }
}

fn follows(before: &SocketAddr, own: &SocketAddr) -> bool {
    own.ip() == before.ip() && before.port().checked_add(1) == Some(own.port())
}

impl TargetSettings {
    /// What distinguishes it, behind its address.
    fn remark(&self) -> &'static str {
        match self.backup {
            true => " (backup)",
            false => "",
        }
    }
}

impl TargetAddr {
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Address(_) => None,
            Self::Name(name, _) => Some(name),
        }
    }

    fn follows(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Address(before), Self::Address(own)) => follows(before, own),
            (Self::Name(before, port), Self::Name(own, next)) => {
                before == own && port.checked_add(1) == Some(*next)
            }
            _ => false,
        }
    }
}

impl From<SocketAddr> for TargetSpec {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Group(group) => group.fmt(f),
        }
    }
}

impl GroupSettings {
    /// The names among its targets; one may occur more than once.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let names = self.targets.iter();
        names.filter_map(|target| target.address.name())
    }
}

impl fmt::Display for GroupSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, target) in self.targets.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}{}", target.address, target.remark())?;
        }
        Ok(())
    }
}

impl fmt::Display for TargetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl Serialize for TargetAddr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TargetAddr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let address = text.parse().map(Self::Address).ok();
        let name = || {
            let (name, port) = text.rsplit_once(':')?;
            Some(Self::Name(name.into(), port.parse().ok()?))
        };
        let target = address.or_else(name);
        target.ok_or_else(|| D::Error::custom(format!("{text:?} is no target")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(addresses: &[&str]) -> TargetSpec {
        let targets = addresses
            .iter()
            .map(|text| TargetSettings::of(TargetAddr::Address(text.parse().expect("an address"))));
        TargetSpec::Group(Arc::new(GroupSettings {
            targets: targets.collect(),
        }))
    }

    #[test]
    fn several_targets_of_a_range_are_one_range_each() {
        let first = group(&["10.0.0.1:22", "[fd00::1]:80"]);
        let second = group(&["10.0.0.1:23", "[fd00::1]:81"]);
        assert!(second.follows(&first) && !first.follows(&second));
        assert_eq!(first.up_to(&second), "10.0.0.1:22-23, [fd00::1]:80-81");
        assert_eq!(first.to_string(), "10.0.0.1:22, [fd00::1]:80");
    }

    #[test]
    fn another_order_or_weight_is_the_same_place() {
        let one = group(&["10.0.0.1:22", "10.0.0.2:22"]);
        assert!(one.is_same_place(&group(&["10.0.0.2:22", "10.0.0.1:22"])));
        assert!(!one.is_same_place(&group(&["10.0.0.2:22"])));
        assert!(!group(&["10.0.0.2:22"]).is_same_place(&one));
        let alone = TargetSpec::Address("10.0.0.1:22".parse().expect("an address"));
        assert!(alone.is_same_place(&group(&["10.0.0.1:22"])));
        assert!(!alone.is_same_place(&one));
    }
}
