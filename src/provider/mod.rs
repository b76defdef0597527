//! Where mappings come from that no configuration lists, and what this machine is called.
//!
//! A provider hands over whole sets of mappings, never changes to a set: what changed is for
//! [`table::diff`](crate::table::diff()) to find. A set is complete and valid or it is not handed
//! over at all.

mod local;
pub mod switchboard;

pub(crate) use local::{AddressChanges, LocalAddresses};
