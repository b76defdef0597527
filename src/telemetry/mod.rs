//! Counters, their names, the session log and the log set-up.
//!
//! Called by every other module and calls none of them. What is counted on the data path is a
//! plain atomic reached through a handle the caller already holds; names and text come in only
//! when somebody asks.

mod events;
mod histogram;
mod history;
mod lately;
mod line;
pub mod log;
pub mod metric;
mod path;
mod queue;
pub(crate) mod recorder;
mod reloads;
mod sampler;
mod saved;
mod stats;
mod syslog;
mod tally;
mod tasks;
mod upgrades;
mod usage;
mod writer;

pub use events::{Event, Events, SavedEvents};
pub use histogram::{Buckets, Distribution, Histogram, SCHEMA, SavedHistogram};
pub use history::{History, STEP as HISTORY_STEP, Totals};
pub use lately::Lately;
pub use line::{Line, LineFormat};
pub use log::LogControl;
pub use path::{PathInfo, PathStats, PathSummary};
pub use queue::LogQueue;
pub use reloads::{ReloadReport, Reloads};
pub use sampler::Sampler;
pub use saved::{LoadedTelemetry, SavedTelemetry, TelemetryParts};
pub use stats::{ConnectFailure, MappingStats, ProcessStats, SavedProcessStats, SavedStats};
pub use syslog::{Syslog, SyslogSettings, SyslogTo};
pub use tally::{Retired, SavedTally, Tally};
pub use tasks::{Failures, SavedTaskFailures, Task, TaskFailures};
pub use upgrades::{UpgradeOutcome, UpgradeReport, Upgrades};
pub use usage::{Usage, descriptor_limits, go_on_from};
pub use writer::Records;
