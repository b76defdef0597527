//! The lookup listener: the endpoints of one job for whoever knows its id, and nothing else.
//!
//! It is meant to be open to everybody, so it has bounds of its own: a connection serves one short
//! request in a short time, and no source may ask often. There is no list, and internal addresses
//! are not told.

mod rate;

use std::{
    net::{IpAddr, SocketAddr},
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
    server::{self, Bounds},
};
use crate::provider::switchboard::JobId;
use rate::Rate;

/// What one connection may cost.
const BOUNDS: Bounds = Bounds {
    connections: 256,
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
    let with_peer = |peer: SocketAddr| router.clone().layer(Extension(peer.ip()));
    server::accept_all(listener, BOUNDS, with_peer).await;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    job: String,
}

async fn endpoints(
    State(desk): State<Desk>,
    Extension(peer): Extension<IpAddr>,
    query: Result<Query<Question>, QueryRejection>,
) -> Result<Json<model::Endpoints>, ApiError> {
    let allowed = {
        // Counting cannot panic.
        let mut rate = desk.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.allow(peer, Instant::now())
    };
    if !allowed {
        let busy = "too many questions, ask again in a moment";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, busy));
    }
    let needed = || ApiError::bad_request("needed: ?job= and the id of a job");
    let Query(question) = query.map_err(|_| needed())?;
    let job = JobId::parse(&question.job).ok_or_else(needed)?;
    let mut found = view::endpoints(&desk.sources, Some(&job));
    if found.endpoints.is_empty() {
        return Err(ApiError::not_found("there is no such job"));
    }
    for endpoint in &mut found.endpoints {
        endpoint.target = None;
    }
    Ok(Json(found))
}
