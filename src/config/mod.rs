//! The configuration: TOML text in, a validated [`Config`] or every problem of the text out.
//!
//! A problem names the file, line, column and key, what was found there and what is allowed. What
//! contradicts what between mappings is the [`table`](crate::table)'s to say; a provider adds it
//! to the same list. Nothing here opens a socket.

mod address;
mod args;
pub mod demo;
mod draft;
mod each_port;
mod file;
mod include;
mod listing;
mod mapping;
mod notes;
mod prefix_files;
mod problem;
mod reader;
mod report;
mod saved;
mod sections;
mod settings;
mod similar;
mod source;
mod variables;

use std::path::Path;

pub use crate::setting::AutoOr;
pub(crate) use draft::{Draft, reserved};
pub(crate) use file::{read, read_text};
pub use listing::{Document, RouteRange, route_ranges};
pub(crate) use listing::{line, of_policy, runs, shown};
pub use notes::notes;
pub use problem::{ConfigErrors, Fault, Problem, Problems};
pub(crate) use saved::SavedConfig;
pub(crate) use settings::word;
pub use settings::{Admin, Config, Daemon, Log, LogFormat, LogLevel, Process, Targets};
pub use source::{Content, Overrides, Source};

/// The version of the file format; every file says which it is written in.
pub const VERSION: u32 = 1;

/// What a configuration may have in it, as a JSON schema: generated from the structs it is read into.
pub const SCHEMA: &str = include_str!("../../config/tml-proxy.schema.json");

/// Reads the configuration file `path`.
///
/// # Errors
///
/// Every problem of the file, or why it cannot be read.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    read(path).finish()
}

/// Reads a configuration from `text`; problems name `path` as its file.
///
/// # Errors
///
/// Every problem of the text.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigErrors> {
    read_text(text, path).finish()
}

#[cfg(test)]
mod tests;
