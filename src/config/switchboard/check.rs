//! What [switchboard] must not contradict: the ports it may allocate belong to nobody else.

use crate::{
    config::{Config, Fault, Problem},
    table::Origin,
};

/// Everything in `config` that the section does not go together with.
pub(in crate::config) fn problems(config: &Config) -> Vec<Problem> {
    let Some(switchboard) = &config.switchboard else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut contradiction = |origin: &Origin, key: &str, why: String| {
        found.push(Problem::Key {
            origin: origin.clone(),
            key: key.to_owned(),
            fault: Fault::Contradiction(why),
        });
    };
    let mut taken = |port: u16, by: String| {
        if switchboard.ports.contains(port) {
            contradiction(
                &switchboard.ports_origin,
                "switchboard.ports",
                format!("contains port {port}, which belongs to {by}"),
            );
        }
    };
    if let Some(admin) = config.admin.listen {
        let by = format!("the admin listener at {}", config.admin.origin);
        taken(admin.port(), by);
    }
    if let Some(lookup) = switchboard.lookup {
        let by = format!("the lookup listener at {}", switchboard.lookup_origin);
        taken(lookup.port(), by);
    }
    for mapping in &config.mappings {
        let ports = mapping.pairs.iter().map(|(listen, _)| listen.port());
        // One port says it: a range is one statement.
        if let Some(port) = ports
            .into_iter()
            .find(|port| switchboard.ports.contains(*port))
        {
            let by = format!("mapping {:?} at {}", mapping.name, mapping.origin);
            taken(port, by);
        }
    }
    found
}
