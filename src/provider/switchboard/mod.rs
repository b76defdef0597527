//! Mappings from a running Treadmill switchboard.
//!
//! The client asks, the reader understands, watches say when to ask again, and the follower keeps
//! what is known of the jobs up to date. That ([`KnownJobs`]) becomes public ports in three steps,
//! each a value in and a value out: [`expose`] says what of which job may be exposed, [`ports`] who
//! gets which port, [`state`] keeps that over a restart. Where users look for them, endpoints can be
//! [published](publish).

mod boot_instant;
pub mod client;
pub mod expose;
pub mod finished;
pub mod follow;
mod job;
mod owner;
mod port_ranges;
pub mod ports;
pub mod publish;
pub mod read;
mod rule;
mod settings;
pub mod state;
pub mod stats;
mod status;
pub mod token_file;
pub mod watch;

pub use boot_instant::{BootInstant, boot};
pub use job::{HostId, Job, JobId, JobState, KnownJobs, Remembered, Service};
pub use owner::Owner;
pub use port_ranges::PortRanges;
pub use rule::{Condition, Rule, RuleName};
pub use settings::{PublicHost, RESERVED, Switchboard};
pub use status::{Contact, Endpoint, Exposure, SwitchboardStatus};
