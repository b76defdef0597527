//! Mappings from a running Treadmill switchboard.
//!
//! What is known of its jobs ([`Knowledge`]) becomes public ports in three steps, each a value in
//! and a value out: [`expose`] says what of which job may be exposed, [`ports`] who gets which port,
//! [`state`] keeps that over a restart.

pub mod expose;
mod job;
mod moment;
mod owner;
pub mod ports;
mod stable;
pub mod state;

pub use job::{Job, JobId, JobState, Knowledge, Service};
pub use moment::{Moment, boot};
pub use owner::Owner;
