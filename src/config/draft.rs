//! A configuration that may have problems: kept together until every problem is known.

use std::net::IpAddr;

use super::{
    problem::{ConfigErrors, Problem, problems_of},
    settings::Config,
};
use crate::table::{Surroundings, Table};

/// What could be read, with the built-in value where something could not, and what is wrong. A
/// mapping name used twice is among the problems.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub config: Config,
    pub problems: Vec<Problem>,
}

impl Draft {
    /// Nothing could be read.
    pub fn of_problems(problems: Vec<Problem>) -> Self {
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
        let admin = &self.config.admin;
        let reserved: Vec<_> = admin
            .listen
            .map(|addr| (addr, admin.origin.clone()))
            .into_iter()
            .collect();
        let around = Surroundings {
            reserved: &reserved,
            is_local,
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
