//! The other way round: settings as the file would have them, for people and for JSON.
//!
//! Names are those of the file and in its order; whatever is off is called `off`.

use std::{collections::HashMap, sync::Arc};

use serde::{Serialize, Serializer};
use serde_json::Map;

use super::{Config, VERSION};
use crate::{
    setting::Json,
    table::{ListenAddr, MappingSpec, Policy},
    target::TargetSpec,
};

/// Settings by name.
pub(crate) type Settings = Map<String, Json>;

/// Every setting of the process and of each mapping, whether given or not, as a document for programs.
#[derive(Debug, Serialize)]
pub struct Document {
    version: u32,
    #[serde(flatten)]
    sections: Settings,
    mappings: Vec<Mapping>,
}

#[derive(Debug, Serialize)]
struct Mapping {
    name: String,
    origin: String,
    routes: Vec<RouteRange>,
    /// Most mappings share that of the defaults.
    #[serde(serialize_with = "shared")]
    policy: Arc<Settings>,
}

fn shared<S: Serializer>(settings: &Arc<Settings>, to: S) -> Result<S::Ok, S::Error> {
    settings.serialize(to)
}

impl From<&Config> for Document {
    fn from(config: &Config) -> Self {
        let section = |(name, keys): (&str, Settings)| (name.to_owned(), Json::Object(keys));
        let mut known = HashMap::<_, Arc<Settings>>::new();
        let mapping = |spec: &MappingSpec| {
            let policy = known.entry(Arc::as_ptr(&spec.policy));
            Mapping {
                name: spec.name.to_string(),
                origin: spec.origin.to_string(),
                routes: route_ranges(&spec.pairs),
                policy: Arc::clone(policy.or_insert_with(|| of_policy(&spec.policy).into())),
            }
        };
        Self {
            version: VERSION,
            sections: config.sections().into_iter().map(section).collect(),
            mappings: config.mappings.iter().map(mapping).collect(),
        }
    }
}

impl Config {
    /// Every section but the mappings, by name.
    pub(crate) fn sections(&self) -> Vec<(&'static str, Settings)> {
        let limits = [("max_sessions", settings(&self.limits.sessions))];
        let mut sections = vec![
            ("process", settings(&self.process)),
            ("admin", settings(&self.admin)),
            ("log", settings(&self.log)),
            ("targets", settings(&self.targets)),
            ("resolver", settings(&self.resolver)),
            ("limits", with(settings(&self.limits), limits)),
            ("defaults", of_policy(&self.defaults)),
        ];
        sections.extend(self.switchboard.as_ref().map(|own| {
            let policy = [("lookup", of_policy(&own.policy))];
            ("switchboard", with(settings(own), policy))
        }));
        let fleet = self.fleet.as_ref();
        sections.extend(fleet.map(|own| ("fleet", settings(own))));
        sections
    }
}

/// The settings of a policy.
pub(crate) fn of_policy(policy: &Policy) -> Settings {
    let beside = [
        ("send_proxy", settings(&policy.sources.lists())),
        ("max_sessions", settings(&policy.limits)),
    ];
    with(settings(policy), beside)
}

/// The fields of a struct.
fn settings(of: &impl Serialize) -> Settings {
    match serde_json::to_value(of) {
        Ok(Json::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// `settings` with others behind some of them: structs whose keys stand in one table of the file.
fn with<const N: usize>(settings: Settings, more: [(&str, Settings); N]) -> Settings {
    let mut all = Map::new();
    for (name, value) in settings {
        let behind = more.iter().find(|(before, _)| *before == name);
        all.insert(name, value);
        all.extend(behind.into_iter().flat_map(|(_, more)| more.clone()));
    }
    all
}

/// Settings in a line.
pub(crate) fn line(settings: &Settings) -> String {
    let bare = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let assignment = |(name, value): (&String, &Json)| match bare(name) {
        true => format!("{name} = {}", shown(value)),
        false => format!("{name:?} = {}", shown(value)),
    };
    settings
        .iter()
        .map(assignment)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The value of a setting for people.
pub(crate) fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(settings) if settings.is_empty() => "{}".to_owned(),
        Json::Object(settings) => format!("{{ {} }}", line(settings)),
        other => other.to_string(),
    }
}

/// Routes whose ports go up together.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct RouteRange {
    /// The public addresses.
    pub listen: String,
    /// The targets behind them.
    pub target: String,
}

/// Routes in their order, those whose ports go up together in one run.
pub(crate) fn runs(
    pairs: &[(ListenAddr, TargetSpec)],
) -> impl Iterator<Item = &[(ListenAddr, TargetSpec)]> {
    let follows = |a: &(ListenAddr, TargetSpec), b: &(ListenAddr, TargetSpec)| {
        a.0.host() == b.0.host()
            && a.0.port().checked_add(1) == Some(b.0.port())
            && b.1.follows(&a.1)
    };
    pairs.chunk_by(follows)
}

/// Routes in their order, those whose ports go up together as one.
pub fn route_ranges(pairs: &[(ListenAddr, TargetSpec)]) -> Vec<RouteRange> {
    runs(pairs)
        .filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let range = |text: String, last| match run.len() {
                1 => text,
                _ => format!("{text}-{last}"),
            };
            Some(RouteRange {
                listen: range(first.0.to_string(), last.0.port()),
                target: first.1.up_to(&last.1),
            })
        })
        .collect()
}
