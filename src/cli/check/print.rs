//! A configuration in columns and in JSON, with ranges as ranges again.

use crate::{
    cli::output::{self, columns},
    config::{Config, Document, Settings, route_ranges},
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
        let mut own = Settings::from(&*spec.policy).except(&defaults).to_string();
        for range in route_ranges(&spec.pairs) {
            let own = std::mem::take(&mut own);
            mappings.push([spec.name.to_string(), range.listen, range.target, own]);
        }
    }
    format!("{}\n{}", columns(&settings), columns(&mappings))
}

/// For programs: every setting of the process and of each mapping, whether given or not.
pub(super) fn json(config: &Config) -> String {
    output::json(&Document::from(config))
}
