//! How much of the proxy a mapping or a source may take: counts, rates, and bans.
//!
//! A [`Gate`] holds what is counted for the process and a [`MappingGate`] what is counted for one
//! mapping; an [`Admission`] is one session's share of both, given back when it is dropped. Rates are
//! [`Bucket`]s, which are a single number and need no timer. Sources are counted by network in a
//! [`SourceTable`] of bounded size; bandwidth is shared by [`Throttle`]s.
//! Nothing here does I/O, reads a clock or knows a session; what has no limit is not counted and
//! costs nothing.

mod bucket;
mod gate;
mod policy;
mod saved;
mod sources;
mod throttle;
mod tick;

pub use bucket::{Bucket, Rate};
pub use gate::{Admission, Arrival, Dialling, Gate, MappingGate};
pub(crate) use policy::RateOf;
pub use policy::{Ban, Limits, OnRefuse, SessionLimits};
pub use saved::{SavedAdmission, SavedGate, SavedLimits, SavedMappingGate, SavedMeter};
pub use sources::{SourceNet, SourceTable};
pub use throttle::{Meter, Quota, Throttle};
pub use tick::Tick;
