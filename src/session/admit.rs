//! Whether an accepted client gets a session, decided before anything is spent on it.

use std::{net::SocketAddr, time::Instant};

use crate::{
    end_reason::EndReason,
    limit::{Admission, Arrival, Dialling, Gate},
    table::Route,
    telemetry::ProcessStats,
};

/// Keeps a place for a client's session, or says why not. The answer is what a session of a limited kind holds as
/// long as it lives.
///
/// # Errors
///
/// The reason for which the client is refused; it has been counted.
pub fn admit(
    client: SocketAddr,
    route: &Route,
    gate: &Gate,
    process: &ProcessStats,
    now: Instant,
) -> Result<Option<(Admission, Dialling)>, EndReason> {
    let mapping = &route.mapping;
    let permitted = || {
        if !mapping.policy.sources.permits(client.ip()) {
            return Err(EndReason::Denied);
        }
        if process.sessions_open() >= gate.max_sessions() {
            return Err(EndReason::NoResources);
        }
        let counted = gate.admit(&Arrival {
            client,
            limits: &mapping.policy.limits,
            gate: mapping.gate.as_deref(),
            metered: mapping.policy.bandwidth_per_source.is_some(),
            now: now.into(),
        })?;
        match mapping.stats.try_reserve(mapping.policy.max_sessions) {
            true => Ok(counted),
            false => Err(EndReason::MappingFull),
        }
    };
    permitted().inspect_err(|reason| mapping.stats.refuse(*reason))
}
