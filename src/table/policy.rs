//! What applies to the sessions of a mapping: the keys of `[defaults]` and `[[mapping]]`. Every duration
//! that can be off is an `Option`.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use socket2::TcpKeepalive;

use super::SourceRules;
use crate::{
    health::{Check, OnDown},
    limit::{OnRefuse, Rate, RateOf, SessionLimits},
    proxy_protocol::Version,
    relay::RelayMode,
    resolve::{Family, Refresh},
    setting::{
        As, Auto, AutoOr, Bytes, Count, Found, Json, KeyTable, Kind, List, LocalAddress, Number,
        Off, OffIsZero, Prefix, Refusal, Seconds, Span, Word, Words,
    },
    target::{Balance, QueueSettings},
};

/// Settings of one mapping's listeners and sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Policy {
    /// How several targets share the sessions.
    #[serde(with = "As::<Word<Balance>>")]
    pub balance: Balance,
    /// How often connecting is tried again after the first attempt: at targets that have not been tried,
    /// and once all have been, at all of them after a second. "auto" tries every target once.
    #[serde(with = "As::<Auto<OffIsZero<Number<u32, 1, 100>>>>")]
    pub retries: AutoOr<u32>,
    /// Whether clients wait when all targets have `max_sessions`.
    #[serde(with = "As::<Off<QueueSettings>>")]
    pub queue: Option<QueueSettings>,
    /// How long a target may take to accept a connection, all attempts together.
    #[serde(with = "As::<Span>")]
    pub connect_timeout: Duration,
    /// End a session in which neither side sent a byte for this long.
    #[serde(with = "As::<Off<Span>>")]
    pub idle_timeout: Option<Duration>,
    /// End a session in which one side has closed and the other was silent for this long.
    #[serde(with = "As::<Off<Span>>")]
    pub half_close_timeout: Option<Duration>,
    /// End a session this long after its client connected, whatever it does.
    #[serde(with = "As::<Off<Span>>")]
    pub max_duration: Option<Duration>,
    /// TCP keepalive on both sides (tcp(7) `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
    #[serde(with = "As::<Off<Keepalive>>")]
    pub keepalive: Option<Keepalive>,
    /// Give a peer up whose host has acknowledged nothing for this long although it was sent
    /// something, on both sides.
    #[serde(with = "As::<Off<Span<1, USER_TIMEOUT>>>")]
    pub user_timeout: Option<Duration>,
    /// Connections that may wait to be accepted (listen(2)); the kernel caps it at
    /// `net.core.somaxconn`.
    #[serde(with = "As::<Number<u32, 1, 65535>>")]
    pub backlog: u32,
    /// Who says whose connections it passes on, in a PROXY header; nobody else is asked.
    #[serde(with = "As::<List<Prefix>>")]
    pub accept_proxy: Vec<IpNet>,
    /// How long such a header may take to arrive.
    #[serde(with = "As::<Span>")]
    pub proxy_header_timeout: Duration,
    /// Whether the target is told whose connection it gets, in a PROXY header.
    #[serde(with = "As::<Off<Word<Version>>>")]
    pub send_proxy: Option<Version>,
    /// Who may connect; its keys stand beside these.
    #[serde(skip)]
    pub sources: SourceRules,
    /// Sessions open at once.
    #[serde(with = "As::<Off<Count<u32>>>")]
    pub max_sessions: Option<u32>,
    /// What else is limited; its keys stand beside these.
    #[serde(skip)]
    pub limits: SessionLimits,
    /// Bytes a second in each direction, of all sessions.
    #[serde(with = "As::<Off<RateOf<Bytes>>>")]
    pub bandwidth: Option<Rate>,
    /// Bytes a second in each direction, of all sessions of one source.
    #[serde(with = "As::<Off<RateOf<Bytes>>>")]
    pub bandwidth_per_source: Option<Rate>,
    /// How a client is told that it gets no session.
    #[serde(with = "As::<Word<OnRefuse>>")]
    pub on_refuse: OnRefuse,
    /// How often a target that is a name is looked up while the proxy runs.
    #[serde(with = "As::<Off<Refresh>>")]
    pub resolve: Option<Refresh>,
    /// Which of a name's addresses are targets.
    #[serde(with = "As::<Word<Family>>")]
    pub family: Family,
    /// How it is found out whether targets are up.
    #[serde(with = "As::<Off<Check>>")]
    pub check: Option<Check>,
    /// What happens to live sessions of a target that is found down.
    #[serde(with = "As::<Word<OnDown>>")]
    pub on_down: OnDown,
    /// What happens to live sessions when the mapping, or the port they came through, goes.
    #[serde(with = "As::<RemovalPolicy>")]
    pub on_remove: RemovalPolicy,
    /// What happens to live sessions when the target behind their port changes.
    #[serde(with = "As::<RemovalPolicy>")]
    pub on_retarget: RemovalPolicy,
    /// How bytes are moved.
    #[serde(with = "As::<Word<RelayMode>>")]
    pub relay: RelayMode,
    /// Source address for connections to the target.
    #[serde(with = "As::<Off<LocalAddress>>")]
    pub bind: Option<IpAddr>,
    /// How the kernel controls congestion (tcp(7) `TCP_CONGESTION`) towards client and target.
    #[serde(with = "As::<Off<Congestion>>")]
    pub congestion: Option<Congestion>,
    /// Whether connections to the target come from the client's address (ip(7) `IP_TRANSPARENT`).
    pub transparent: bool,
    /// Whether addresses may be bound that this machine does not have yet (ip(7) `IP_FREEBIND`).
    pub freebind: bool,
    /// Whether every port of a range is a mapping of its own.
    pub each_port: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            balance: Balance::RoundRobin,
            retries: AutoOr::Auto,
            queue: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: None,
            half_close_timeout: None,
            max_duration: None,
            keepalive: Some(Keepalive::default()),
            user_timeout: None,
            backlog: 4096,
            accept_proxy: Vec::new(),
            proxy_header_timeout: Duration::from_secs(5),
            send_proxy: None,
            sources: SourceRules::default(),
            max_sessions: None,
            limits: SessionLimits::default(),
            bandwidth: None,
            bandwidth_per_source: None,
            on_refuse: OnRefuse::Reset,
            resolve: None,
            family: Family::Both,
            check: None,
            on_down: OnDown::Keep,
            on_remove: RemovalPolicy::Keep,
            on_retarget: RemovalPolicy::Keep,
            relay: RelayMode::Auto,
            bind: None,
            congestion: None,
            transparent: false,
            freebind: false,
            each_port: false,
        }
    }
}

/// The longest user timeout, in seconds: what tcp(7) takes, where the kernel has to judge, is
/// milliseconds in a signed 32-bit number.
const USER_TIMEOUT: u64 = 24 * 86_400;

/// TCP keepalive: is the other host still there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds.
    #[serde(with = "As::<Seconds<1, 32767>>")]
    pub idle: Duration,
    /// Time between probes; whole seconds.
    #[serde(with = "As::<Seconds<1, 32767>>")]
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    #[serde(with = "As::<Number<u32, 1, 127>>")]
    pub count: u32,
}

impl From<Keepalive> for TcpKeepalive {
    fn from(keepalive: Keepalive) -> Self {
        Self::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count)
    }
}

impl Default for Keepalive {
    /// Two hours without an answer, as for a connection with the kernel's own settings, and a probe a
    /// minute for whoever on the way forgets silent connections.
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(60),
            count: 120,
        }
    }
}

impl KeyTable for Keepalive {
    const EXAMPLE: &'static str = "{ idle = \"60s\", interval = \"60s\", count = 120 }";
}

/// Algorithms of congestion control; a side without one has that of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Congestion {
    /// That towards the client.
    #[serde(with = "As::<Off<Algorithm>>")]
    pub client: Option<Box<str>>,
    /// That towards the target.
    #[serde(with = "As::<Off<Algorithm>>")]
    pub target: Option<Box<str>>,
}

/// The name of an algorithm, as the kernel has them: at most 15 bytes (`TCP_CA_NAME_MAX`).
struct Algorithm;

impl Kind for Algorithm {
    type Value = Box<str>;

    fn read(found: Found<'_>) -> Result<Box<str>, Refusal> {
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let name = found.text().filter(|name| (1..=15).contains(&name.len()));
        name.filter(|name| name.chars().all(fit))
            .map(Box::from)
            .ok_or_else(|| {
                Refusal::new("a name of net.ipv4.tcp_available_congestion_control, such as \"bbr\"")
            })
    }

    fn write(value: &Box<str>) -> Json {
        (**value).into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^[A-Za-z0-9_-]{1,15}$")
    }
}

impl KeyTable for Congestion {
    const EXAMPLE: &'static str = "{ client = \"bbr\", target = \"cubic\" }";
}

/// What becomes of live sessions when their route goes or leads elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemovalPolicy {
    /// They stay as long as they like.
    Keep,
    /// They may finish within this time, then they are closed.
    Drain(Duration),
    /// They are closed at once.
    Kill,
}

/// A removal policy that is a table.
#[derive(Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Drain {
    /// The time that sessions have left.
    #[serde(with = "As::<Span>")]
    drain: Duration,
}

impl Kind for RemovalPolicy {
    type Value = Self;

    const TABLES: bool = true;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        match found.text() {
            Some("keep") => Ok(Self::Keep),
            Some("kill") => Ok(Self::Kill),
            _ => Err(Refusal::new("\"keep\"")
                .or("\"kill\"")
                .or("{ drain = \"30s\" }")),
        }
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self, D::Error> {
        Drain::deserialize(table).map(|Drain { drain }| Self::Drain(drain))
    }

    fn write(value: &Self) -> Json {
        match *value {
            Self::Keep => "keep".into(),
            Self::Kill => "kill".into(),
            Self::Drain(drain) => serde_json::json!(Drain { drain }),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::schema::{or, table, words};
        or(words(&["keep", "kill"]), table::<Drain>())
    }
}

impl Words for RelayMode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("copy", Self::Copy),
        ("splice", Self::Splice),
    ];
}

impl Words for Version {
    const WORDS: &'static [(&'static str, Self)] = &[("v1", Self::V1), ("v2", Self::V2)];
}
