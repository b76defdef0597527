//! The HTTP interface: which paths there are, who may use them, and what answers.
//!
//! [`OPERATIONS`] is the one list of paths: the router is built from it and the OpenAPI document
//! is generated from it.

mod change;
pub(super) mod error;
pub mod model;
#[cfg(test)]
mod openapi;
pub(super) mod read;
pub(super) mod view;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post, put},
};
use tokio::time::timeout;

use error::ApiError;

use super::{
    Sources,
    answers::{self, Alike, Answers},
    host, page,
};

/// Bytes a request's body may have.
const BODY_BYTES: usize = 16 * 1024;

/// How long an answer may take. Waiting for an event may take almost as long.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look.
    Read,
    /// Change things too.
    Write,
}

/// A path and what it is for.
#[derive(Debug)]
pub struct Operation {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What one has to be allowed to do.
    pub access: Access,
    /// Which requests at a time share an answer, which may be long or costly.
    shared: Option<Alike>,
    handler: fn() -> MethodRouter<Arc<Sources>>,
}

/// Every operation there is.
pub const OPERATIONS: &[Operation] = &[
    shared("/", "The status page, for people", || get(page::serve)),
    read("/livez", "Whether the process answers", || get(read::livez)),
    read("/readyz", "Whether it takes new sessions", || {
        get(read::readyz)
    }),
    shared("/metrics", "Every series, for Prometheus", || {
        get(read::metrics)
    }),
    shared("/api/v1/status", "How the proxy does as a whole", || {
        get(read::status)
    }),
    shared("/api/v1/mappings", "Every mapping in force", || {
        get(read::mappings)
    }),
    shared_by_query("/api/v1/sessions", "Live sessions", || get(read::sessions)),
    shared("/api/v1/config", "The configuration in force", || {
        get(read::config)
    }),
    shared_by_query(
        "/api/v1/endpoints",
        "Where jobs of the switchboard can be reached",
        || get(read::endpoints),
    ),
    read("/api/v1/events", "What happened lately", || {
        get(read::events)
    }),
    write("POST", "/api/v1/sessions/kill", "End live sessions", || {
        post(change::kill)
    }),
    write(
        "POST",
        "/api/v1/mappings/pause",
        "Let new clients of a mapping wait",
        || post(change::pause),
    ),
    write(
        "POST",
        "/api/v1/mappings/drain",
        "Refuse new clients of a mapping and let its sessions end",
        || post(change::drain),
    ),
    write(
        "POST",
        "/api/v1/mappings/resume",
        "Serve a paused or drained mapping again",
        || post(change::resume),
    ),
    write(
        "POST",
        "/api/v1/reload",
        "Read the configuration again",
        || post(change::reload),
    ),
    write(
        "PUT",
        "/api/v1/log/level",
        "Change the level of the log",
        || put(change::log_level),
    ),
];

const fn read(
    path: &'static str,
    summary: &'static str,
    handler: fn() -> MethodRouter<Arc<Sources>>,
) -> Operation {
    Operation {
        method: "GET",
        path,
        summary,
        access: Access::Read,
        shared: None,
        handler,
    }
}

const fn shared(
    path: &'static str,
    summary: &'static str,
    handler: fn() -> MethodRouter<Arc<Sources>>,
) -> Operation {
    Operation {
        shared: Some(Alike::Path),
        ..read(path, summary, handler)
    }
}

const fn shared_by_query(
    path: &'static str,
    summary: &'static str,
    handler: fn() -> MethodRouter<Arc<Sources>>,
) -> Operation {
    Operation {
        shared: Some(Alike::Query),
        ..read(path, summary, handler)
    }
}

const fn write(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    handler: fn() -> MethodRouter<Arc<Sources>>,
) -> Operation {
    Operation {
        method,
        path,
        summary,
        access: Access::Write,
        shared: None,
        handler,
    }
}

/// The operations that `access` allows; the others answer that they are not.
pub(super) fn router(sources: Arc<Sources>, access: Access) -> Router {
    let answers = Arc::new(Answers::default());
    let mut router = Router::new();
    for operation in OPERATIONS {
        let mut handler = match (operation.access, access) {
            (Access::Write, Access::Read) => axum::routing::any(read_only),
            _ => (operation.handler)(),
        };
        if let Some(alike) = operation.shared {
            let state = (Arc::clone(&answers), alike);
            handler = handler.layer(middleware::from_fn_with_state(state, answers::shared));
        }
        router = router.route(operation.path, handler);
    }
    let mut router = router
        .fallback(async || ApiError::not_found("there is nothing at this path"))
        .with_state(Arc::clone(&sources));
    // No browser can be led to the unix socket.
    if access == Access::Read {
        router = router.layer(middleware::from_fn_with_state(sources, host::check));
    }
    within_time_and_guarded(router)
}

/// What every router of ours has, whoever may ask it.
pub(super) fn within_time_and_guarded(router: Router) -> Router {
    router
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has another method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(within_time))
}

async fn read_only() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "this address is for looking only; changes are made on the unix socket (admin.socket)",
    )
}

/// Gives every answer a deadline and keeps browsers from guessing, framing and caching.
async fn within_time(request: Request, next: Next) -> Response {
    let mut response = match timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response()
        }
    };
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        let value = header::HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
