//! The life of the process: start, reload, drain, stop.
//!
//! [`run()`] is the control plane: one small runtime that loads the configuration, keeps listeners
//! and workers in step with it, serves the admin endpoint and answers signals and systemd. It
//! moves no bytes; a busy data path cannot starve it and it cannot stall the data path.

mod admin_listeners;
mod control;
mod echo;
mod forwarding;
mod jobs;
mod limits;
mod loading;
mod lost;
mod run;
mod setup;
mod signals;
mod systemd;
mod tasks;
mod ticker;
mod watchdog;

pub(crate) use limits::{Budget, pipe_memory, worker_count};
pub(crate) use run::{RunError, run};
