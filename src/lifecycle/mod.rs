//! The life of the process: start, reload, upgrade, drain, stop.
//!
//! [`run()`] is the control plane: one small runtime that loads the configuration, keeps listeners
//! and workers in step with it, serves the admin endpoint and answers signals and systemd. It
//! moves no bytes; a busy data path cannot starve it and it cannot stall the data path.

mod admin_listeners;
mod adopt;
mod candidate;
mod checking;
mod control;
mod echo;
mod fleet;
mod forwarding;
mod invocation;
mod jobs;
mod leading;
mod limits;
mod loading;
mod lookups;
mod lost;
mod on_demand;
mod rehearse;
mod run;
mod running;
mod saved;
mod saved_control;
mod setup;
mod signals;
mod start;
mod stop;
mod store;
mod systemd;
mod tasks;
mod ticker;
mod upgrade;
mod watchdog;

pub(crate) use invocation::{How, Invocation};
pub(crate) use leading::{Judges, lead, names};
pub(crate) use limits::{Budget, pipe_memory, worker_count};
pub(crate) use lookups::all_of;
pub use rehearse::build_saved;
pub(crate) use rehearse::rehearse;
pub(crate) use run::{RunError, run};
