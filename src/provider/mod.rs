//! Where mappings come from.
//!
//! A provider hands over whole sets of mappings, never changes to a set: what changed is for
//! [`table::diff`](crate::table::diff()) to find. A set is complete and valid or it is not handed
//! over at all.

mod args;
pub mod demo;
mod local;
pub mod switchboard;

use std::path::PathBuf;

pub(crate) use local::is_local;

use crate::{
    config::{self, Config, ConfigErrors, Draft, LogFormat, LogLevel, Memory},
    table::{ListenAddr, Origin, Table},
};

/// Where a process has its configuration from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file; loading again reads it again.
    File(PathBuf),
    /// `LISTEN=TARGET` arguments, with the built-in value of every setting.
    Arguments(Vec<String>),
    /// The built-in example.
    Demo,
}

/// Settings of the command line that go before those of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Where the admin endpoint listens, `Some(None)` being nowhere.
    pub admin: Option<Option<ListenAddr>>,
    /// How a log line is written.
    pub log_format: Option<LogFormat>,
    /// The least important log lines still written.
    pub log_level: Option<LogLevel>,
}

impl Source {
    /// The configuration as it is now, and the table it asks for, sharing with `previous` what did
    /// not change.
    ///
    /// # Errors
    ///
    /// Every problem of the source, contradictions between its mappings included.
    pub fn load(
        &self,
        overrides: &Overrides,
        previous: &Table,
    ) -> Result<(Config, Table), ConfigErrors> {
        self.load_again(overrides, previous, &mut Memory::default())
    }

    /// The same, at the cost of what changed since `memory` was used last.
    ///
    /// # Errors
    ///
    /// Every problem of the source, contradictions between its mappings included.
    pub fn load_again(
        &self,
        overrides: &Overrides,
        previous: &Table,
        memory: &mut Memory,
    ) -> Result<(Config, Table), ConfigErrors> {
        let mut draft = self.draft(memory);
        overrides.apply(&mut draft.config);
        draft.build(previous, &is_local)
    }

    fn draft(&self, memory: &mut Memory) -> Draft {
        match self {
            Self::File(path) => config::read_again(path, memory),
            Self::Arguments(maps) => args::read(maps),
            Self::Demo => demo::read(),
        }
    }
}

impl Overrides {
    fn apply(&self, config: &mut Config) {
        if let Some(listen) = self.admin {
            let given = listen.map_or("off".to_owned(), |addr| addr.to_string());
            config.admin.listen = listen;
            config.admin.origin = Origin::Argument(format!("--admin {given}").into());
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        if let Some(level) = self.log_level {
            config.log.level = level;
        }
    }
}

#[cfg(test)]
mod tests;
