//! The configuration: TOML text in, a validated [`Config`] or every problem of the text out.
//!
//! A problem names the file, line, column and key, what was found there and what is allowed. What
//! contradicts what between mappings is the [`table`](crate::table)'s to say; a provider adds it
//! to the same list. Nothing here opens a socket. What is
//! remembered of an earlier reading ([`Memory`]) saves work and changes no outcome.

mod address;
mod args;
mod blocks;
pub mod demo;
mod document;
mod draft;
mod each_port;
mod file;
mod limits;
mod listing;
mod mapping;
mod memory;
mod notes;
mod policy;
mod problem;
mod reader;
mod report;
mod sections;
mod settings;
mod similar;
mod source;
mod switchboard;
mod values;

use std::path::Path;

pub use crate::auto_or::AutoOr;
pub(crate) use address::own_listen;
pub use document::{Document, RouteRange, route_ranges};
pub(crate) use draft::{Draft, reserved};
pub(crate) use file::{read, read_text};
pub use listing::{Setting, Settings};
pub use memory::Memory;
pub use notes::notes;
pub use problem::{ConfigErrors, Fault, Problem, Problems};
pub use settings::{Admin, Config, Log, LogFormat, LogLevel, Process, Targets, UnknownWord};
pub use source::{Content, Overrides, Source};
pub(crate) use values::SOCKET_PATH_AT_MOST;

/// The version of the file format; every file says which it is written in.
pub const VERSION: u32 = 1;

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
