//! What is allowed: plain values from the configuration.

use std::{
    marker::PhantomData,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Rate, SourceNet};
use crate::setting::{
    As, Auto, AutoOr, Bytes, Count, Found, Given, Json, KeyTable, Kind, List, Number, Off,
    PerSecond, Prefix, Refusal, Span, Words,
};

/// Limits that hold for the process as well as for one mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SessionLimits {
    /// Sessions of one source open at once.
    #[serde(with = "As::<Off<Count<u32>>>")]
    pub max_sessions_per_source: Option<u32>,
    /// Sessions begun in a second.
    #[serde(
        rename = "new_sessions_per_second",
        with = "As::<Off<RateOf<PerSecond>>>"
    )]
    pub new_sessions: Option<Rate>,
    /// Sessions begun in a second by one source.
    #[serde(
        rename = "new_sessions_per_second_per_source",
        with = "As::<Off<RateOf<PerSecond>>>"
    )]
    pub new_sessions_per_source: Option<Rate>,
    /// Sessions that wait for their target's answer at once.
    #[serde(with = "As::<Off<Count<u32>>>")]
    pub max_dialling: Option<u32>,
}

impl SessionLimits {
    /// Whether anything is counted for each source.
    pub fn counts_sources(&self) -> bool {
        self.max_sessions_per_source.is_some() || self.new_sessions_per_source.is_some()
    }
}

/// Limits of the process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Limits {
    /// Sessions open at once; "auto" follows the descriptor limit.
    #[serde(with = "As::<Auto<Count<NonZeroU32>>>")]
    pub max_sessions: AutoOr<NonZeroU32>,
    /// What else is counted; its keys stand beside these.
    #[serde(skip)]
    pub sessions: SessionLimits,
    /// Bits of an IPv4 address that make a source.
    #[serde(with = "As::<Number<u8, 8, 32>>")]
    pub source_prefix_v4: u8,
    /// Bits of an IPv6 address that make a source.
    #[serde(with = "As::<Number<u8, 16, 128>>")]
    pub source_prefix_v6: u8,
    /// What happens to a source that keeps running into limits.
    #[serde(alias = "penalty", with = "As::<Off<Ban>>")]
    pub ban: Option<Ban>,
    /// Who is never counted as a source.
    #[serde(with = "As::<List<Prefix>>")]
    pub exempt: Vec<IpNet>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions: AutoOr::Auto,
            sessions: SessionLimits::default(),
            source_prefix_v4: 32,
            source_prefix_v6: 64,
            ban: None,
            exempt: Vec::new(),
        }
    }
}

impl Limits {
    /// The source a client belongs to; none if it is exempt. An IPv4-mapped address counts as IPv4.
    pub fn source(&self, client: SocketAddr) -> Option<SourceNet> {
        let address = client.ip().to_canonical();
        let exempt = self.exempt.iter().any(|net| net.contains(&address));
        let (v4, v6) = (self.source_prefix_v4, self.source_prefix_v6);
        (!exempt).then(|| SourceNet::of_client(client, v4, v6))
    }
}

/// A source refused for its own limits too often is refused altogether for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ban {
    /// Refusals it takes.
    #[serde(with = "As::<Number<u32, 1, 1_000_000>>")]
    pub after: u32,
    /// The time they have to fall into.
    #[serde(with = "As::<Span>")]
    pub within: Duration,
    /// How long the source is banned.
    #[serde(with = "As::<Span>")]
    pub lasts: Duration,
}

/// How a client is told that it gets no session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnRefuse {
    /// By a reset.
    #[default]
    Reset,
    /// By an end of stream.
    Close,
    /// Not at all.
    Drop,
}

impl Words for OnRefuse {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("reset", Self::Reset),
        ("close", Self::Close),
        ("drop", Self::Drop),
    ];
}

impl KeyTable for Ban {
    const EXAMPLE: &'static str = "{ after = 20, within = \"1m\", lasts = \"10m\" }";
}

/// What a rate is counted in.
pub(crate) trait Unit: Kind<Value = NonZeroU64> {
    const EXAMPLE: &'static str;
}

impl Unit for PerSecond {
    const EXAMPLE: &'static str = "20";
}

impl Unit for Bytes {
    const EXAMPLE: &'static str = "\"10MiB\"";
}

/// The time that a rate is of.
type Per = Span<1000, 86_400>;

fn second() -> Duration {
    Duration::from_secs(1)
}

fn is_second(per: &Duration) -> bool {
    *per == second()
}

/// A rate: a value alone, which is of a second, or a table with the time and the burst. Without a burst,
/// as much may come at once as in that time.
pub(crate) struct RateOf<U>(PhantomData<U>);

/// A rate that is a table.
#[derive(Deserialize, Serialize)]
#[serde(bound = "U: Unit")]
struct RateTable<U: Unit> {
    /// How much in the time below.
    #[serde(with = "As::<U>")]
    rate: NonZeroU64,
    #[serde(
        default = "second",
        with = "As::<Per>",
        skip_serializing_if = "is_second"
    )]
    per: Duration,
    /// How much at once after a pause.
    #[serde(default, with = "As::<Given<U>>")]
    burst: Option<NonZeroU64>,
    #[serde(skip)]
    unit: PhantomData<U>,
}

impl<U: Unit> Kind for RateOf<U> {
    type Value = Rate;

    const TABLES: bool = true;

    fn read(found: Found<'_>) -> Result<Rate, Refusal> {
        let table = format!("{{ rate = {0}, per = \"1m\", burst = {0} }}", U::EXAMPLE);
        let rate = U::read(found).map_err(|refusal| refusal.or(table))?;
        Ok(Rate::even(rate))
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Rate, D::Error> {
        let table = RateTable::<U>::deserialize(table)?;
        Ok(Rate {
            amount: table.rate,
            per: table.per,
            burst: table.burst.unwrap_or(table.rate),
        })
    }

    fn write(value: &Rate) -> Json {
        serde_json::json!(RateTable::<U> {
            rate: value.amount,
            per: value.per,
            burst: Some(value.burst),
            unit: PhantomData,
        })
    }

    #[cfg(test)]
    fn schema() -> Json {
        let table = serde_json::json!({
            "type": "object",
            "properties": { "rate": U::schema(), "per": Per::schema(), "burst": U::schema() },
            "required": ["rate"],
            "additionalProperties": false,
        });
        crate::setting::schema::or(U::schema(), table)
    }
}
