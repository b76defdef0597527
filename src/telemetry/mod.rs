//! Counters, their names, the session log and the log set-up.
//!
//! Called by every other module and calls none of them. What is counted on the data path is a
//! plain atomic reached through a handle the caller already holds; names and text come in only
//! when somebody asks.

pub mod log;
mod queue;
mod reason;
mod stats;

pub use queue::LogQueue;
pub use reason::EndReason;
pub use stats::{ConnectFailure, MappingStats, ProcessStats};
