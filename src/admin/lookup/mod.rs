//! The lookup listener: the endpoints of jobs for whoever knows their ids, and nothing else.
//!
//! It is meant to be open to everybody, so it has bounds of its own: a connection serves one short
//! request in a short time, a source has few of them at a time and may not ask often. There is no
//! list, and internal addresses are not told.

mod rate;

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    routing::get,
};
use tokio::net::TcpListener;

use super::{
    Sources,
    api::{
        error::ApiError,
        model::{self, Absence},
        read::Asked,
        view,
    },
    peer::Peer,
    server::{self, Bounds},
    slots,
};
use crate::{mutex::lock, telemetry::Task};
use rate::RateLimit;

pub const CONNECTIONS: usize = 128;

/// What connections may cost.
const BOUNDS: Bounds = Bounds {
    connections: CONNECTIONS,
    per_source: 8,
    head_bytes: 8 * 1024,
    within: Duration::from_secs(10),
    keep_alive: false,
};

#[derive(Debug, Clone)]
struct Lookup {
    sources: Arc<Sources>,
    rate: Arc<Mutex<RateLimit>>,
}

/// Serves until nothing can come from the listener any more, and says why.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>) -> io::Error {
    let of = (Task::Lookup, Arc::clone(&sources.failures));
    let lookup = Lookup {
        sources,
        rate: Arc::default(),
    };
    let router = Router::new()
        .route("/api/v1/endpoints", get(endpoints))
        .fallback(async || ApiError::not_found("there is nothing at this path"))
        .with_state(lookup);
    let router = super::router::within_time_and_guarded(router);
    server::accept_all(listener, BOUNDS, &router, of).await
}

async fn endpoints(
    State(lookup): State<Lookup>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<model::EndpointQuery>, QueryRejection>,
) -> Result<Json<model::Endpoints>, ApiError> {
    let allowed = |source| lock(&lookup.rate).allow(source, Instant::now());
    if !peer.address.map(slots::source).is_none_or(allowed) {
        let busy = "too many questions, ask again in a moment";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, busy));
    }
    let needed = || {
        ApiError::bad_request(
            "needed: ?job= and the id of a job, or ?jobs= and several with commas between them",
        )
    };
    let Query(query) = query.map_err(|_| needed())?;
    let (jobs, alone) = match Asked::by(&query)? {
        Asked::All => return Err(needed()),
        // It is answered with a status of its own.
        Asked::One(job) => (vec![job], true),
        Asked::Several(jobs) => (jobs, false),
    };
    let mut found = view::endpoints_of(&lookup.sources, &jobs);
    if alone {
        let status = match found.endpoints.first().map(model::Endpoint::absence) {
            None | Some(Some(Absence::Unknown)) => Some(StatusCode::NOT_FOUND),
            Some(Some(Absence::Finished)) => Some(StatusCode::GONE),
            Some(Some(Absence::NotHeardOf)) => Some(StatusCode::SERVICE_UNAVAILABLE),
            Some(None) => None,
        };
        if let Some(status) = status {
            let note = found.endpoints.pop().and_then(|one| one.note);
            return Err(ApiError::new(status, note.unwrap_or_default()));
        }
    }
    for endpoint in &mut found.endpoints {
        endpoint.target = None;
    }
    Ok(Json(found))
}
