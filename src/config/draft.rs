//! A configuration that may have problems: kept together until every problem is known.

use std::{collections::HashSet, net::IpAddr};

use super::{
    problem::{ConfigErrors, Fault, Problem, Problems, problems_of},
    settings::Config,
};
use crate::table::{Reserved, Surroundings, Table};

/// What could be read, with the built-in value where something could not, and what is wrong. A
/// mapping name used twice is among the problems.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub config: Config,
    pub problems: Problems,
}

impl Draft {
    /// Nothing could be read.
    pub fn of_problems(problems: Problems) -> Self {
        Self {
            config: Config::default(),
            problems,
        }
    }

    /// The configuration, if nothing is wrong with it.
    pub fn finish(self) -> Result<Config, ConfigErrors> {
        if self.problems.is_empty() {
            Ok(self.config)
        } else {
            Err(ConfigErrors::from(self.problems))
        }
    }

    /// The configuration and its table, if nothing is wrong with either.
    pub fn build(
        mut self,
        previous: &Table,
        is_local: &dyn Fn(IpAddr) -> bool,
    ) -> Result<(Config, Table), ConfigErrors> {
        self.problems.extend(ports_of_others(&self.config));
        let reserved = reserved(&self.config);
        let around = Surroundings {
            reserved: &reserved,
            departed: &[],
            is_local,
            looping: &HashSet::new(),
        };
        match Table::build(&self.config.mappings, previous, &around) {
            Ok(table) => self.finish().map(|config| (config, table)),
            Err(conflicts) => {
                self.problems.extend(problems_of(conflicts));
                Err(ConfigErrors::from(self.problems))
            }
        }
    }
}

/// The listeners of the process that are no mappings.
pub(crate) fn reserved(config: &Config) -> Vec<Reserved> {
    let admin = config.admin.listen.map(|addr| Reserved {
        addr,
        what: "the admin listener",
        origin: config.admin.origin.clone(),
    });
    let switchboard = config.switchboard.as_ref();
    let lookup = switchboard.and_then(|switchboard| {
        Some(Reserved {
            addr: switchboard.lookup?,
            what: "the lookup listener",
            origin: switchboard.lookup_origin.clone(),
        })
    });
    admin.into_iter().chain(lookup).collect()
}

/// The ports that a switchboard may allocate belong to nobody else.
fn ports_of_others(config: &Config) -> Vec<Problem> {
    let Some(switchboard) = &config.switchboard else {
        return Vec::new();
    };
    let admin = config.admin.listen.map(|listen| {
        let by = format!("the admin listener at {}", config.admin.origin);
        (listen.port(), by)
    });
    let lookup = switchboard.lookup.map(|lookup| {
        let by = format!("the lookup listener at {}", switchboard.lookup_origin);
        (lookup.port(), by)
    });
    let mappings = config.mappings.iter().filter_map(|mapping| {
        let mut ports = mapping.pairs.iter().map(|(listen, _)| listen.port());
        // One port says it: a range is one statement.
        let port = ports.find(|port| switchboard.ports.contains(*port))?;
        let by = format!("mapping {:?} at {}", mapping.name, mapping.origin);
        Some((port, by))
    });
    let taken = admin.into_iter().chain(lookup).chain(mappings);
    let taken = taken.filter(|(port, _)| switchboard.ports.contains(*port));
    taken
        .map(|(port, by)| Problem::Key {
            origin: switchboard.ports_origin.clone(),
            key: "switchboard.ports".to_owned(),
            fault: Fault::Contradiction(format!("contains port {port}, which belongs to {by}")),
        })
        .collect()
}
