//! A configuration in columns and in JSON, with ranges as ranges again.

use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use crate::{
    config::{self, Config, Settings},
    table::{ListenAddr, MappingSpec},
};

/// For people: every setting of the process, then one line per mapping or range with what it does
/// not have from the defaults.
pub(super) fn text(config: &Config) -> String {
    let mut settings = Vec::new();
    for (section, values) in config.sections() {
        for (name, value) in values.iter() {
            settings.push([format!("{section}.{name}"), value.to_string()]);
        }
    }
    let defaults = Settings::from(&config.defaults);
    let mut mappings = vec![["NAME", "LISTEN", "TARGET", "NOT AS IN DEFAULTS"].map(str::to_owned)];
    for spec in &config.mappings {
        let mut own = Settings::from(&spec.policy).except(&defaults).to_string();
        for range in ranges(&spec.pairs) {
            let own = std::mem::take(&mut own);
            mappings.push([spec.name.to_string(), range.listen, range.target, own]);
        }
    }
    format!("{}\n{}", columns(&settings), columns(&mappings))
}

/// Rows in columns, two spaces apart.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let padded = row.iter().zip(widths);
        let line: String = padded
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// For programs: every setting of the process and of each mapping, whether given or not.
pub(super) fn json(config: &Config) -> String {
    let document = Document {
        version: config::VERSION,
        sections: config.sections(),
        mappings: config.mappings.iter().map(Mapping::from).collect(),
    };
    let mut text = serde_json::to_string_pretty(&document)
        .expect("text, numbers and lists of them are always JSON");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Document {
    version: u32,
    #[serde(flatten, serialize_with = "by_name")]
    sections: [(&'static str, Settings); 5],
    mappings: Vec<Mapping>,
}

#[derive(Serialize)]
struct Mapping {
    name: String,
    origin: String,
    routes: Vec<RouteRange>,
    policy: Settings,
}

impl From<&MappingSpec> for Mapping {
    fn from(spec: &MappingSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            origin: spec.origin.to_string(),
            routes: ranges(&spec.pairs),
            policy: Settings::from(&spec.policy),
        }
    }
}

fn by_name<S: Serializer>(
    sections: &[(&'static str, Settings); 5],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sections.iter().map(|(name, settings)| (name, settings)))
}

/// Routes whose ports go up together.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct RouteRange {
    listen: String,
    target: String,
}

fn ranges(pairs: &[(ListenAddr, SocketAddr)]) -> Vec<RouteRange> {
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
