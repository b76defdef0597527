//! A configuration in columns and in JSON, with ranges as ranges again.

use std::{collections::HashMap, sync::Arc};

use crate::{
    cli::output::{self, columns},
    config::{Config, Document, line, of_policy, route_ranges, shown},
};

/// For people: every setting of the process that is not as it is when left out, or `all` of them, then
/// one line per mapping or range with what it does not have from the defaults.
pub(super) fn text(config: &Config, all: bool) -> String {
    let built_in: HashMap<_, _> = Config::default().sections().into_iter().collect();
    let defaults = of_policy(&config.defaults);
    let mut settings = Vec::new();
    for (section, values) in config.sections() {
        // What jobs' mappings do not say themselves is in [defaults].
        let usual = built_in.get(section).unwrap_or(&defaults);
        for (name, value) in &values {
            if all || usual.get(name) != Some(value) {
                settings.push([format!("{section}.{name}"), shown(value)]);
            }
        }
    }
    let mut mappings = vec![["NAME", "LISTEN", "TARGET", "NOT AS IN DEFAULTS"].map(str::to_owned)];
    let mut known = HashMap::new();
    for spec in &config.mappings {
        let own = known.entry(Arc::as_ptr(&spec.policy)).or_insert_with(|| {
            let mut settings = of_policy(&spec.policy);
            settings.retain(|name, value| defaults.get(name) != Some(value));
            line(&settings)
        });
        let mut own = own.clone();
        for range in route_ranges(&spec.pairs) {
            let own = std::mem::take(&mut own);
            mappings.push([spec.name.to_string(), range.listen, range.target, own]);
        }
    }
    match settings.is_empty() {
        true => columns(&mappings),
        false => format!("{}\n{}", columns(&settings), columns(&mappings)),
    }
}

/// For programs: every setting of the process and of each mapping, whether given or not.
pub(super) fn json(config: &Config) -> String {
    output::json(&Document::from(config))
}
