//! What [switchboard] must not contradict: the ports it may allocate belong to nobody else.

use super::Switchboard;
use crate::{
    config::{Config, Fault, Problem},
    table::Origin,
};

/// How a mapping from the switchboard is called, up to the job. No mapping of a file is, whether there
/// is a switchboard or not: there may be one after a reload, and commands take the job from the name.
pub(in crate::config) const RESERVED: &str = "job/";

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

/// Kept beside the check, so that both agree on the name.
impl Switchboard {
    /// What a mapping of a job is called.
    pub fn mapping_name(job: &str, rule: &str) -> String {
        format!("{RESERVED}{job}/{rule}")
    }

    /// The job in the name of a mapping, if it is a job's.
    pub fn job_in(mapping: &str) -> Option<&str> {
        mapping.strip_prefix(RESERVED)?.split('/').next()
    }
}
