//! Mappings from a running Treadmill switchboard.

pub mod client;
mod job;
pub mod read;

pub use job::{Job, JobId, JobState, Knowledge, Service};
