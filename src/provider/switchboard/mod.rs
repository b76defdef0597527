//! Mappings from a running Treadmill switchboard.
//!
//! The client asks, the reader understands, watches say when to ask again, and the follower keeps
//! what is known of the jobs up to date. That ([`Knowledge`]) becomes public ports in three steps,
//! each a value in and a value out: [`expose`] says what of which job may be exposed, [`ports`] who
//! gets which port, [`state`] keeps that over a restart. Where users look for them, endpoints can be
//! [published](publish).

mod board;
pub mod client;
pub mod expose;
pub mod finished;
pub mod follow;
mod job;
mod moment;
mod owner;
pub mod ports;
pub mod publish;
pub mod read;
mod stable;
pub mod state;
pub mod stats;
pub mod token_file;
pub mod watch;

pub use board::{Board, Contact, Endpoint, Exposure};
pub use job::{Job, JobId, JobState, Knowledge, Remembered, Service};
pub use moment::{Moment, boot};
pub use owner::Owner;
