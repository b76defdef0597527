//! Looking up the names that a configuration leads to, for whoever asks whether it is fit.

use crate::{
    config::{Config, reserved},
    lifecycle::{self, Judges},
    resolve::Names,
    table::Table,
};

/// What came of a name: its addresses that may be targets, or why there is none.
pub(super) type LookedUp = (String, Result<String, String>);

/// Looks every name up and has the groups of the table lead there.
pub(super) fn look_up(config: &Config, table: &Table) -> Vec<LookedUp> {
    let wanted: Vec<_> = lifecycle::names(config)
        .into_iter()
        .map(|followed| followed.name)
        .collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let names = Names::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Err(format!("names cannot be looked up: {error}"));
            return vec![("names".to_owned(), error)];
        }
    };
    let mut found = Vec::new();
    let all = wanted.iter().cloned();
    runtime.block_on(lifecycle::all_of(&config.resolver, all, &mut found));
    for (name, outcome) in found {
        names.note(&name, &outcome);
    }
    let reserved = reserved(config);
    let judges = Judges {
        allow: &config.targets.allow,
        reserved: &reserved,
    };
    lifecycle::lead(table, &names, judges);
    let outcome = |name| {
        let known = names.of(name);
        let unfit = |ip: &&std::net::IpAddr| known.left_out.iter().any(|(out, _)| out == *ip);
        let fit = known.addresses.iter().filter(|ip| !unfit(ip));
        let fit: Vec<_> = fit.map(ToString::to_string).collect();
        match names.why_nowhere(name) {
            None => Ok(fit.join(", ")),
            Some(why) => Err(why),
        }
    };
    let all = wanted
        .iter()
        .map(|name| (name.name.to_string(), outcome(name)));
    all.collect()
}
