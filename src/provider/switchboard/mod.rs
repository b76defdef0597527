//! Mappings from a running Treadmill switchboard.

mod job;

pub use job::{Job, JobId, JobState, Knowledge, Service};
