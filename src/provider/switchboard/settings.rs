//! `[switchboard]`: where jobs are asked for, which of them are exposed, and on which ports.
//!
//! Values only; the configuration reads and checks them.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::{
    JobState, PortRanges, Rule, RuleName,
    client::{BaseUrl, ClientSettings, UrlError},
    follow::FollowSettings,
    publish::AnnotationKey,
};
use crate::{
    setting::{
        As, Auto, AutoOr, Found, Json, KeepOr, Kind, List, Number, Off, OffIsZero, PathFromRoot,
        Prefix, Refusal, Seed, Span, Word, Words, address::port, items,
    },
    table::{ListenAddr, Origin, Policy},
};

/// Everything about the mappings that come from a switchboard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Switchboard {
    /// Where its API is.
    #[serde(with = "As::<BaseUrl>")]
    pub url: BaseUrl,
    /// The file with the token to ask with.
    #[serde(with = "As::<PathFromRoot>")]
    pub token_file: PathBuf,
    /// The file with the certificates to trust in place of the system's.
    #[serde(default, with = "As::<Off<PathFromRoot>>")]
    pub ca_file: Option<PathBuf>,
    /// What to expose of a job, in the order of importance.
    #[serde(with = "As::<List<Rule>>")]
    pub expose: Vec<Rule>,
    /// The states in which a job is exposed.
    #[serde(default = "ready", with = "As::<List<Word<JobState>>>")]
    pub states: Vec<JobState>,
    /// The ports to allocate from.
    #[serde(with = "As::<PortRanges>")]
    pub ports: PortRanges,
    /// Where `ports` was written.
    #[serde(skip)]
    pub ports_origin: Origin,
    /// The name that users connect to.
    #[serde(with = "As::<PublicHost>")]
    pub public_host: PublicHost,
    /// Prefixes of which one must contain a job's address.
    #[serde(rename = "targets", with = "As::<Allowed>")]
    pub allow: Vec<IpNet>,
    /// Where the jobs on a host are, by its name or id, if they do not say so themselves.
    #[serde(default, with = "As::<Addresses>")]
    pub addresses: BTreeMap<String, IpAddr>,
    /// How long a port is given to nobody else after its job.
    #[serde(default = "ten_minutes", with = "As::<OffIsZero<Span>>")]
    pub cooldown: Duration,
    /// Ports a job may have.
    #[serde(default = "eight", with = "As::<Number<u32, 1, 1000>>")]
    pub max_per_job: u32,
    /// Ports all jobs may have; "off" is as many as there are.
    #[serde(default, with = "As::<Off<Number<u32, 1, 65535>>>")]
    pub max_total: Option<u32>,
    /// What becomes of a job whose host is not alive: "keep" keeps it, a time closes it after
    /// that.
    #[serde(default, with = "As::<KeepOr<Span>>")]
    pub host_gone: Option<Duration>,
    /// Between two walks through all jobs.
    #[serde(default = "refresh", with = "As::<Span<100>>")]
    pub refresh: Duration,
    /// Between two looks for new jobs, where nothing else tells of them.
    #[serde(default = "poll", with = "As::<Span<100>>")]
    pub poll: Duration,
    /// Where allocations are kept over a restart.
    #[serde(default = "state_dir", with = "As::<PathFromRoot>")]
    pub state_dir: PathBuf,
    /// The annotation of each job that its endpoints are written into, if they are, without the
    /// proxy's name.
    #[serde(default, with = "As::<Off<AnnotationKey>>")]
    pub publish: Option<AnnotationKey>,
    /// What tells its key from that of other proxies: `public_host`, a name, or nothing.
    #[serde(default, with = "As::<Auto<Off<AnnotationKey>>>")]
    pub publish_name: AutoOr<Option<AnnotationKey>>,
    /// Whether what was written is removed at a stop.
    #[serde(
        rename = "publish_on_stop",
        default = "withdraw",
        with = "As::<OnStop>"
    )]
    pub withdraw: bool,
    /// Where anybody may ask for the endpoints of one job.
    #[serde(default, with = "As::<Off<ListenAddr>>")]
    pub lookup: Option<ListenAddr>,
    /// Where `lookup` was written.
    #[serde(skip)]
    pub lookup_origin: Origin,
    /// The policy of the sessions; its keys stand beside these.
    #[serde(skip)]
    pub policy: Arc<Policy>,
}

impl Switchboard {
    /// The key of the annotation, if there is one and it is not too long.
    pub fn annotation(&self) -> Option<AnnotationKey> {
        let key = self.publish.as_ref()?;
        match &self.publish_name {
            AutoOr::Auto => key.of_host(self.public_host.as_str()),
            AutoOr::Value(Some(name)) => key.named(&name.to_string()),
            AutoOr::Value(None) => Some(key.clone()),
        }
    }

    /// How it is asked.
    pub fn client(&self) -> ClientSettings {
        ClientSettings {
            url: self.url.clone(),
            token_file: self.token_file.clone(),
            ca_file: self.ca_file.clone(),
        }
    }
}

/// The name or address that users connect to; fit for a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicHost(String);

impl PublicHost {
    /// Takes a host name or an address without brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let fit = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
        let valid = (1..=253).contains(&text.len())
            && text.chars().all(fit)
            && !text.starts_with(['-', '.'])
            && (!text.contains(':') || text.parse::<std::net::Ipv6Addr>().is_ok());
        valid.then(|| Self(text.to_owned()))
    }

    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PublicHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn ready() -> Vec<JobState> {
    vec![JobState::Ready]
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn eight() -> u32 {
    8
}

fn refresh() -> Duration {
    FollowSettings::REFRESH
}

fn poll() -> Duration {
    FollowSettings::POLL
}

fn state_dir() -> PathBuf {
    PathBuf::from("/var/lib/tml-proxy")
}

fn withdraw() -> bool {
    true
}

/// Makes a [`Kind`] of a type that is parsed from text and printed back.
macro_rules! text_kind {
    ($kind:ty, $value:ty, $parse:expr, $allowed:expr, $pattern:expr) => {
        impl Kind for $kind {
            type Value = $value;

            fn read(found: Found<'_>) -> Result<$value, Refusal> {
                let value = found.text().and_then($parse);
                value.ok_or_else(|| Refusal::new($allowed))
            }

            fn write(value: &$value) -> Json {
                value.to_string().into()
            }

            #[cfg(test)]
            fn schema() -> Json {
                crate::setting::schema::text($pattern)
            }
        }
    };
}

text_kind!(
    PublicHost,
    Self,
    PublicHost::parse,
    "the host name or address that users connect to",
    "^[A-Za-z0-9:][-A-Za-z0-9.:]*$"
);

text_kind!(
    AnnotationKey,
    Self,
    AnnotationKey::parse,
    "the key of an annotation, such as \"proxy-endpoint\": 1 to 128 lower-case letters, digits and \
     any of . _ / -, the first and the last a letter or digit",
    "^[a-z0-9]([-a-z0-9._/]*[a-z0-9])?$"
);

text_kind!(
    RuleName,
    Self,
    RuleName::parse,
    "1 to 32 lower-case letters, digits and hyphens",
    "^[-a-z0-9]{1,32}$"
);

impl Kind for BaseUrl {
    type Value = Self;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        let text = found.text().ok_or(UrlError::Malformed);
        text.and_then(Self::parse).map_err(|error| match error {
            // The value has a secret in it.
            UrlError::UserInfo => Refusal::Contradicts(error.to_string()),
            _ => Refusal::new(error.to_string()),
        })
    }

    fn write(value: &Self) -> Json {
        value.to_string().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^https?://")
    }
}

impl Words for JobState {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("queued", Self::Queued),
        ("assigned", Self::Assigned),
        ("initializing", Self::Initializing),
        ("ready", Self::Ready),
        ("terminating", Self::Terminating),
    ];
}

/// What becomes of what was published when the proxy stops.
struct OnStop;

impl Kind for OnStop {
    type Value = bool;

    fn read(found: Found<'_>) -> Result<bool, Refusal> {
        match found.text() {
            Some("withdraw") => Ok(true),
            Some("keep") => Ok(false),
            _ => Err(Refusal::new("\"withdraw\"").or("\"keep\"")),
        }
    }

    fn write(withdraw: &bool) -> Json {
        (if *withdraw { "withdraw" } else { "keep" }).into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::words(&["withdraw", "keep"])
    }
}

/// A range of ports, or a list of them.
const PORTS: &str = "a range of ports such as \"40000-49999\", or a list of them";

impl Kind for PortRanges {
    type Value = Self;

    const LISTS: bool = true;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        let number = match found {
            Found::Integer(number) => number.to_string(),
            Found::Text(_) | Found::Expanded(_) | Found::Other => String::new(),
        };
        let text = found.text().unwrap_or(&number);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = port(first).and_then(|first| Ok(first..=port(last)?));
        let ports = range.ok().and_then(|range| Self::new([range]));
        ports.ok_or_else(|| Refusal::new(PORTS))
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        let all = items::<Self, A>(list)?;
        let all = Self::new(all.iter().flat_map(PortRanges::ranges));
        all.ok_or_else(|| Refusal::new(PORTS).into_error())
    }

    /// More than one as a list, as a file has them.
    fn write(value: &Self) -> Json {
        let one = |range| Self(vec![range]).to_string().into();
        let mut ranges = value.ranges().map(one);
        match ranges.len() {
            1 => ranges.next().unwrap_or_default(),
            _ => ranges.collect(),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::schema::{or, text};
        let one = or(
            serde_json::json!({ "type": "integer", "minimum": 1, "maximum": 65535 }),
            text("^[0-9]+(-[0-9]+)?$"),
        );
        or(
            one.clone(),
            serde_json::json!({ "type": "array", "items": one }),
        )
    }
}

/// The prefixes of `targets`, a table of their own.
struct Allowed;

#[derive(Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct AllowedTable {
    /// Prefixes of which one must contain a job's address.
    #[serde(with = "As::<List<Prefix>>")]
    allow: Vec<IpNet>,
}

impl Kind for Allowed {
    type Value = Vec<IpNet>;

    const TABLES: bool = true;

    fn read(_: Found<'_>) -> Result<Vec<IpNet>, Refusal> {
        Err(Refusal::new("a table"))
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Vec<IpNet>, D::Error> {
        AllowedTable::deserialize(table).map(|table| table.allow)
    }

    fn write(allow: &Vec<IpNet>) -> Json {
        let allow = allow.clone();
        serde_json::json!(AllowedTable { allow })
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::table::<AllowedTable>()
    }
}

/// Where the jobs on a host are.
struct HostAddress;

text_kind!(
    HostAddress,
    IpAddr,
    |text| text.parse().ok(),
    "the IP address of the jobs on this host, such as \"fd00::14\"",
    "^[0-9a-fA-F:.]+$"
);

/// Addresses by names that the operator chose.
struct Addresses;

impl Kind for Addresses {
    type Value = BTreeMap<String, IpAddr>;

    const TABLES: bool = true;

    fn read(_: Found<'_>) -> Result<Self::Value, Refusal> {
        Err(Refusal::new("a table"))
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self::Value, D::Error> {
        table.deserialize_map(Self)
    }

    fn write(addresses: &Self::Value) -> Json {
        serde_json::json!(addresses)
    }

    #[cfg(test)]
    fn schema() -> Json {
        serde_json::json!({ "type": "object", "additionalProperties": HostAddress::schema() })
    }
}

impl<'de> Visitor<'de> for Addresses {
    type Value = BTreeMap<String, IpAddr>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    /// Every address is read, whatever is wrong with some of them.
    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Self::Value, A::Error> {
        let mut addresses = BTreeMap::new();
        let mut failed = None;
        while let Some(host) = table.next_key::<String>()? {
            match table.next_value_seed(Seed::<HostAddress>::new()) {
                Ok(address) => _ = addresses.insert(host, address),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(addresses), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_host_cannot_be_an_option_of_a_command() {
        for host in ["us.proxy.example.org", "192.0.2.1", "2001:db8::1"] {
            assert!(PublicHost::parse(host).is_some(), "{host}");
        }
        for host in ["", "-oProxyCommand=x", "a b", "[::1]", "h:22", ".h", "h;x"] {
            assert!(PublicHost::parse(host).is_none(), "{host}");
        }
    }
}
