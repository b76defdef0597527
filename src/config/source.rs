//! Where a configuration comes from: a file, arguments, or the built-in example.

use std::{path::PathBuf, sync::Arc};

use super::{
    LogFormat, LogLevel, args, demo,
    draft::Draft,
    file,
    problem::{ConfigErrors, Problem, Problems},
    settings::Config,
};
use crate::{
    files::{self, FileError},
    provider::LocalAddresses,
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

/// What is in a source, as it was found.
#[derive(Debug)]
pub enum Content {
    /// What there was in its file.
    File(Result<Vec<u8>, FileError>),
    /// It is no file.
    Known,
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
        self.understand(self.content(), overrides, previous)
    }

    /// What is in it now. It takes as long as the file system does.
    pub fn content(&self) -> Content {
        match self {
            Self::File(path) => Content::File(files::read(path, file::LONGEST)),
            Self::Arguments(_) | Self::Demo => Content::Known,
        }
    }

    /// The configuration in its `content`, and the table that asks for, sharing with `previous` what
    /// did not change.
    ///
    /// # Errors
    ///
    /// Every problem of the source, contradictions between its mappings included.
    pub fn understand(
        &self,
        content: Content,
        overrides: &Overrides,
        previous: &Table,
    ) -> Result<(Config, Table), ConfigErrors> {
        let mut draft = self.draft(content);
        overrides.apply(&mut draft.config);
        let own = LocalAddresses::default();
        draft.build(previous, &|ip| own.contains(ip))
    }

    /// What there is to say where it could not be read.
    pub fn unreadable(&self, error: FileError) -> ConfigErrors {
        let path = match self {
            Self::File(path) => path.clone(),
            Self::Arguments(_) | Self::Demo => PathBuf::new(),
        };
        let path = Arc::new(path);
        ConfigErrors::from(Problems::from_iter([Problem::Unreadable { path, error }]))
    }

    fn draft(&self, content: Content) -> Draft {
        match (self, content) {
            (Self::File(path), Content::File(found)) => file::read_content(found, path),
            (Self::File(path), Content::Known) => file::read(path),
            (Self::Arguments(maps), _) => args::read(maps),
            (Self::Demo, _) => demo::read(),
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
