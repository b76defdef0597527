//! Mappings from a running Treadmill switchboard.
//!
//! The client asks, the reader understands, watches say when to ask again, and the follower keeps
//! what is known of the jobs up to date. Endpoints can be published where the switchboard's users see them.

pub mod client;
pub mod follow;
mod job;
pub mod publish;
pub mod read;
pub mod stats;
pub mod watch;

pub use job::{Job, JobId, JobState, Knowledge, Service};
