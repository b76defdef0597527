//! The admin endpoint: HTTP for Prometheus and for health checks, read-only.
//!
//! It reads the table and the counters and calls nothing on the data path.

mod metrics;

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

pub use metrics::ReloadStatus;

use crate::worker::Shared;

/// What the admin endpoint reads.
#[derive(Debug)]
pub struct Sources {
    /// The data path's table and counters.
    pub shared: Arc<Shared>,
    /// How reloads went.
    pub reload: ReloadStatus,
}

/// Opens the admin endpoint's socket.
///
/// # Errors
///
/// The kernel's reason.
pub async fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    let app = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .with_state(sources);
    // axum's own loop retries after errors of accept(2), with a pause where something ran out.
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the admin endpoint has failed");
    }
}

async fn metrics(State(sources): State<Arc<Sources>>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, OPEN_METRICS)],
        metrics::text(&sources),
    )
}
