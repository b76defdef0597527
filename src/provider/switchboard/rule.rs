//! What to expose of a job.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::Service;
use crate::setting::{As, Found, Given, Json, Kind, List, Number, Prefix, Refusal, Word, Words};

/// A name that is part of a mapping's: 1 to 32 lower-case letters, digits and hyphens.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(Arc<str>);

impl RuleName {
    /// Takes a fit name.
    pub fn parse(text: &str) -> Option<Self> {
        let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let valid = (1..=32).contains(&text.len()) && text.chars().all(fit);
        valid.then(|| Self(text.into()))
    }

    /// What sorts before every name.
    pub(super) fn least() -> Self {
        Self(Arc::default())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub(crate) fn as_arc(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl From<RuleName> for String {
    fn from(name: RuleName) -> Self {
        name.as_str().to_owned()
    }
}

impl TryFrom<String> for RuleName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no name of a rule"))
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// One port of a job to be exposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called.
    pub name: RuleName,
    /// The port of the job.
    pub port: u16,
    /// Of which jobs.
    pub condition: Condition,
    /// Prefixes of which one must contain where the job is; none is everywhere.
    pub hosts: Vec<IpNet>,
    /// What gets a port of its own.
    pub allocate: Allocate,
}

/// What has a port of its own for a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Allocate {
    /// Each job.
    #[default]
    Job,
    /// Each host, whatever job is there.
    Host,
}

impl Allocate {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Words for Allocate {
    const WORDS: &'static [(&'static str, Self)] = &[("job", Self::Job), ("host", Self::Host)];
}

impl Rule {
    /// Whether it is for jobs that are at `address`.
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|net| net.contains(&address))
    }
}

/// Of which jobs a rule exposes a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Of every job.
    Always,
    /// Of those that announce a service of this name.
    Service(String),
    /// Of those that announce a service of this protocol.
    Protocol(String),
}

impl Condition {
    /// Whether a job that announces `services` satisfies it.
    pub fn holds(&self, services: &[Service]) -> bool {
        match self {
            Self::Always => true,
            Self::Service(name) => services.iter().any(|service| *service.name == **name),
            Self::Protocol(protocol) => services
                .iter()
                .any(|service| *service.protocol == **protocol),
        }
    }
}

/// A rule as a file has it.
#[derive(Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RuleTable {
    /// What it is called: 1 to 32 lower-case letters, digits and hyphens.
    #[serde(with = "As::<RuleName>")]
    name: RuleName,
    /// The port of the job.
    #[serde(with = "As::<Number<u16, 1, 65535>>")]
    port: u16,
    /// Only of jobs that announce a service of this name.
    #[serde(
        default,
        with = "As::<Given<ServiceName>>",
        skip_serializing_if = "Option::is_none"
    )]
    service: Option<String>,
    /// Only of jobs that announce a service of this protocol.
    #[serde(
        default,
        with = "As::<Given<ServiceName>>",
        skip_serializing_if = "Option::is_none"
    )]
    protocol: Option<String>,
    /// Only of jobs on hosts whose addresses are in one of these prefixes; without it, of all.
    #[serde(
        default,
        with = "As::<List<Prefix>>",
        skip_serializing_if = "Vec::is_empty"
    )]
    hosts: Vec<IpNet>,
    /// What has a port of its own: each job, or each host, whose jobs have it one after another.
    #[serde(
        default,
        with = "As::<Word<Allocate>>",
        skip_serializing_if = "Allocate::is_default"
    )]
    allocate: Allocate,
}

impl Kind for Rule {
    type Value = Self;

    const TABLES: bool = true;

    fn read(_: Found<'_>) -> Result<Self, Refusal> {
        Err(Refusal::new("a table"))
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self, D::Error> {
        let table = RuleTable::deserialize(table)?;
        let condition = match (table.service, table.protocol) {
            (Some(_), Some(_)) => {
                return Err(D::Error::custom(
                    "has both service and protocol: at most one of them may be given",
                ));
            }
            (Some(service), None) => Condition::Service(service),
            (None, Some(protocol)) => Condition::Protocol(protocol),
            (None, None) => Condition::Always,
        };
        Ok(Self {
            name: table.name,
            port: table.port,
            condition,
            hosts: table.hosts,
            allocate: table.allocate,
        })
    }

    fn write(rule: &Self) -> Json {
        let (service, protocol) = match &rule.condition {
            Condition::Always => (None, None),
            Condition::Service(name) => (Some(name.clone()), None),
            Condition::Protocol(name) => (None, Some(name.clone())),
        };
        serde_json::json!(RuleTable {
            name: rule.name.clone(),
            port: rule.port,
            service,
            protocol,
            hosts: rule.hosts.clone(),
            allocate: rule.allocate,
        })
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::table::<RuleTable>()
    }
}

/// What a job may call a service or its protocol.
struct ServiceName;

impl Kind for ServiceName {
    type Value = String;

    fn read(found: Found<'_>) -> Result<String, Refusal> {
        let fit = |text: &&str| (1..=64).contains(&text.chars().count());
        let name = found.text().filter(fit).map(str::to_owned);
        name.ok_or_else(|| Refusal::new("1 to 64 characters"))
    }

    fn write(name: &String) -> Json {
        name.as_str().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        serde_json::json!({ "type": "string", "minLength": 1, "maxLength": 64 })
    }
}
