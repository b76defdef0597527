//! Several proxies that tell each other through a PostgreSQL what can be reached through each of them,
//! so that any of them can be asked.
//!
//! Values go in and come out: what this proxy serves, what is known of others. Nobody waits for the
//! database but the one task here that asks it, and while it cannot be asked the last that was read
//! stays. No port, session or reload depends on any of this.

mod caller;
mod database;
mod entry;
mod instance;
mod member;
mod migrate;
mod region;
mod settings;
mod status;

pub use entry::{Entries, Entry, Key, reread_entries, target_told};
pub use member::{Own, run};
pub use migrate::{Deed, Migrated, SchemaError, carry_out, examine, migrate};
pub use region::reread_ports;
pub use settings::{Access, DatabaseUrl, Fleet, FleetName};
pub use status::{Contact, Elsewhere, FleetProxy, FleetStatus, FleetView};
