//! The lookup listener: the endpoints of jobs for whoever knows their ids, and nothing else.
//!
//! It is meant to be open to everybody, so it has bounds of its own: a connection serves one short
//! request in a short time, a source has few of them at a time and may not ask often. There is no
//! list, and internal addresses are not told.

mod rate;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    routing::get,
};
use serde::Deserialize;
use tokio::net::TcpListener;

use super::{
    Sources,
    api::{error::ApiError, model, view},
    places,
    server::{self, Bounds, Peer},
};
use crate::provider::switchboard::JobId;
use rate::Rate;

/// Connections at a time.
pub const CONNECTIONS: usize = 128;

/// What connections may cost.
const BOUNDS: Bounds = Bounds {
    connections: CONNECTIONS,
    per_source: 8,
    head_bytes: 8 * 1024,
    within: Duration::from_secs(10),
    keep_alive: false,
};

/// What answers need.
#[derive(Debug, Clone)]
struct Desk {
    sources: Arc<Sources>,
    rate: Arc<Mutex<Rate>>,
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    let desk = Desk {
        sources,
        rate: Arc::default(),
    };
    let router = Router::new()
        .route("/api/v1/endpoints", get(endpoints))
        .fallback(async || ApiError::not_found("there is nothing at this path"))
        .with_state(desk);
    let router = super::api::within_time_and_guarded(router);
    server::accept_all(listener, BOUNDS, &router, |_, client| Peer::at(*client)).await;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    job: Option<String>,
    /// Several, with commas between them.
    jobs: Option<String>,
}

/// Jobs that may be asked for at once.
const JOBS: usize = 64;

impl Question {
    /// Whose endpoints are asked for; one alone is answered with a status of its own.
    fn jobs(&self) -> Result<(Vec<JobId>, bool), String> {
        let (text, alone) = match (&self.job, &self.jobs) {
            (Some(job), None) => (job, true),
            (None, Some(jobs)) => (jobs, false),
            _ => return Err("needed: ?job= and the id of a job".to_owned()),
        };
        let parse = |id: &str| JobId::parse(id).ok_or("needed: ids of jobs, UUIDs with hyphens");
        let jobs: Vec<_> = match alone {
            true => vec![parse(text)?],
            false => text.split(',').map(parse).collect::<Result<_, _>>()?,
        };
        match jobs.len() <= JOBS {
            true => Ok((jobs, alone)),
            false => Err(format!("{} jobs; allowed at once: {JOBS}", jobs.len())),
        }
    }
}

async fn endpoints(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<Question>, QueryRejection>,
) -> Result<Json<model::Endpoints>, ApiError> {
    let allowed = |source| {
        // Counting cannot panic.
        let mut rate = desk.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.allow(source, Instant::now())
    };
    if !peer.address.map(places::source).is_none_or(allowed) {
        let busy = "too many questions, ask again in a moment";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, busy));
    }
    let needed = || ApiError::bad_request("needed: ?job= and the id of a job");
    let Query(question) = query.map_err(|_| needed())?;
    let (jobs, alone) = question.jobs().map_err(ApiError::bad_request)?;
    let mut found = view::endpoints_of(&desk.sources, &jobs);
    if alone {
        let reason = found
            .endpoints
            .first()
            .and_then(|one| one.reason.as_deref());
        let status = match reason {
            None if found.endpoints.is_empty() => Some(StatusCode::NOT_FOUND),
            Some("unknown") => Some(StatusCode::NOT_FOUND),
            Some("finished") => Some(StatusCode::GONE),
            Some("not_heard_of") => Some(StatusCode::SERVICE_UNAVAILABLE),
            _ => None,
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
