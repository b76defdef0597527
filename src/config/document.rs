//! A configuration as a document for programs, with ranges as ranges again.

use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use super::{Config, Settings, VERSION};
use crate::table::{ListenAddr, MappingSpec};

/// Every setting of the process and of each mapping, whether given or not.
#[derive(Debug, Serialize)]
pub struct Document {
    version: u32,
    #[serde(flatten, serialize_with = "by_name")]
    sections: Vec<(&'static str, Settings)>,
    mappings: Vec<Mapping>,
}

#[derive(Debug, Serialize)]
struct Mapping {
    name: String,
    origin: String,
    routes: Vec<RouteRange>,
    policy: Settings,
}

impl From<&Config> for Document {
    fn from(config: &Config) -> Self {
        Self {
            version: VERSION,
            sections: config.sections(),
            mappings: config.mappings.iter().map(Mapping::from).collect(),
        }
    }
}

impl From<&MappingSpec> for Mapping {
    fn from(spec: &MappingSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            origin: spec.origin.to_string(),
            routes: route_ranges(&spec.pairs),
            policy: Settings::from(&*spec.policy),
        }
    }
}

fn by_name<S: Serializer>(
    sections: &[(&'static str, Settings)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sections.iter().map(|(name, settings)| (name, settings)))
}

/// Routes whose ports go up together.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct RouteRange {
    /// The public addresses.
    pub listen: String,
    /// The targets behind them.
    pub target: String,
}

/// Routes in their order, those whose ports go up together as one.
pub fn route_ranges(pairs: &[(ListenAddr, SocketAddr)]) -> Vec<RouteRange> {
    let follows = |a: &(ListenAddr, SocketAddr), b: &(ListenAddr, SocketAddr)| {
        a.0.host() == b.0.host()
            && a.1.ip() == b.1.ip()
            && a.0.port().checked_add(1) == Some(b.0.port())
            && a.1.port().checked_add(1) == Some(b.1.port())
    };
    pairs
        .chunk_by(follows)
        .filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let range = |text: String, last| match run.len() {
                1 => text,
                _ => format!("{text}-{last}"),
            };
            Some(RouteRange {
                listen: range(first.0.to_string(), last.0.port()),
                target: range(first.1.to_string(), last.1.port()),
            })
        })
        .collect()
}
