//! Mappings from a running Treadmill switchboard.
//!
//! [`following`] keeps a [client] and a [follower](follow) at work, who keep what is known of
//! the jobs ([`KnownJobs`]) up to date: the client asks, the [reader](read) understands, [watches](watch)
//! say when to ask again. The [`exposer`] makes public ports of that: [`expose`] says what of which job
//! may be exposed by which [rule](Rule), [`ports`] who gets which port, [`state`] keeps that over a
//! restart, and the set of mappings is proposed to whoever opens them. What comes of it is in the
//! [status](SwitchboardStatus), and where users look for endpoints they can be [published](publish).

mod boot_instant;
pub mod client;
pub mod expose;
pub(crate) mod exposer;
pub mod finished;
pub mod follow;
pub(crate) mod following;
mod job;
mod owner;
mod port_ranges;
pub mod ports;
pub mod publish;
pub mod read;
pub mod region;
pub mod reserve;
mod rule;
mod saved;
mod settings;
pub mod state;
pub mod stats;
mod status;
pub mod token_file;
pub mod watch;

pub use boot_instant::{BootInstant, boot};
pub use job::{HostId, Job, JobId, JobState, KnownJobs, Remembered, Service};
use owner::Holder;
pub use owner::Owner;
pub use port_ranges::PortRanges;
pub use rule::{Allocate, Condition, Rule, RuleName};
pub(crate) use saved::{SavedKnowledge, SavedStatus};
pub use settings::{PublicHost, Switchboard};
pub use status::{Contact, Endpoint, Endpoints, Exposure, Refusals, RegionView, SwitchboardStatus};
