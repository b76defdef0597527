//! Whether an accepted client gets a session, decided before anything is spent on it.

use crate::{listen::Accepted, table::Route, telemetry::EndReason};

/// Counts a client in, or says why not. `room` is whether the process can bear another session.
///
/// # Errors
///
/// The reason for which the client is refused; it has been counted.
pub fn admit(accepted: &Accepted, route: &Route, room: bool) -> Result<(), EndReason> {
    let mapping = &route.mapping;
    let refusal = if !mapping.policy.sources.permits(accepted.client.ip()) {
        EndReason::Denied
    } else if !room {
        EndReason::NoResources
    } else if !mapping.stats.try_open(mapping.policy.max_sessions) {
        EndReason::MappingFull
    } else {
        return Ok(());
    };
    mapping.stats.refuse(refusal);
    Err(refusal)
}
