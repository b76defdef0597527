//! A configuration that may have problems: kept together until every problem is known.

use std::{collections::HashSet, net::IpAddr};

use super::{
    problem::{ConfigErrors, Problems, problems_of},
    settings::Config,
    switchboard,
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
        self.problems.extend(switchboard::problems(&self.config));
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
