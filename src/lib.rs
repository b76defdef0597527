//! A TCP port forwarder that reloads without dropping a session.
//!
//! Data flows one way: a [`config`] or a [`provider`] says what to forward, a [`table`] is the snapshot of it,
//! [`listen`] keeps sockets in step, a [`session`] is one client connection and its [`relay`]
//! moves the bytes. The threads that drive all of that are [`worker`]s.

#![forbid(unsafe_code)]

pub mod admin;
pub(crate) mod cli;
pub(crate) mod client_mask;
pub mod config;
pub mod end_reason;
pub(crate) mod file_pattern;
pub(crate) mod files;
pub(crate) mod fleet;
pub mod handover;
pub(crate) mod health;
pub(crate) mod host_port;
pub(crate) mod import;
pub(crate) mod lifecycle;
pub(crate) mod limit;
pub(crate) mod listen;
pub(crate) mod manual;
pub(crate) mod mutex;
pub(crate) mod orders;
pub(crate) mod os_error;
pub mod provider;
pub mod proxy_protocol;
pub mod relay;
pub(crate) mod resolve;
pub(crate) mod session;
pub(crate) mod setting;
pub(crate) mod shared_map;
pub(crate) mod socket;
pub mod table;
pub(crate) mod target;
pub mod telemetry;
pub(crate) mod text;
pub(crate) mod tls_roots;
pub(crate) mod units;
pub(crate) mod worker;

use std::process::ExitCode;

pub use fleet::{reread_entries, reread_ports};
pub use lifecycle::build_saved;
pub use session::{AckProbe, PeerState, acknowledged};

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    cli::main()
}
