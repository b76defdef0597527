//! The HTTP interface: which paths there are, who may use them, and what answers.
//!
//! [`OPERATIONS`] is the one list of paths: the router is built from it and the OpenAPI document
//! is generated from it.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, any, on},
};
use tokio::time::timeout;

use super::{
    Sources,
    api::{change, error::ApiError, read},
    coalesce::{
        self, Coalescer,
        SameBy::{self, Path, Query},
    },
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
    shared: Option<SameBy>,
    handler: fn() -> MethodRouter<Arc<Sources>>,
}

/// Each operation in a line: method, path, access, sharing, handler and summary.
macro_rules! operations {
    ($($method:ident $path:literal $access:ident $shared:expr, $handler:path, $summary:literal)*) => {
        &[$(Operation {
            method: stringify!($method),
            path: $path,
            summary: $summary,
            access: Access::$access,
            shared: $shared,
            handler: || on(MethodFilter::$method, $handler),
        }),*]
    };
}

/// Every operation there is.
pub const OPERATIONS: &[Operation] = operations! {
    GET "/" Read Some(Query), page::serve, "The status page, for people"
    GET "/livez" Read None, read::livez, "Whether the process answers"
    GET "/readyz" Read None, read::readyz, "Whether it takes new sessions"
    GET "/metrics" Read Some(Path), read::metrics, "Every series, for Prometheus"
    GET "/api/v1/status" Read Some(Path), read::status, "How the proxy does as a whole"
    GET "/api/v1/mappings" Read Some(Query), read::mappings, "Every mapping in force"
    GET "/api/v1/sessions" Read Some(Query), read::sessions, "Live sessions"
    GET "/api/v1/config" Read Some(Path), read::config, "The configuration in force"
    GET "/api/v1/endpoints" Read Some(Query), read::endpoints,
        "Where jobs of the switchboard can be reached"
    GET "/api/v1/fleet" Read Some(Path), read::fleet,
        "The proxies that share a database, and the mappings of their files"
    GET "/api/v1/events" Read None, read::events, "What happened lately"
    POST "/api/v1/sessions/kill" Write None, change::kill, "End live sessions"
    POST "/api/v1/mappings/pause" Write None, change::pause, "Let new clients of a mapping wait"
    POST "/api/v1/mappings/drain" Write None, change::drain,
        "Refuse new clients of a mapping and let its sessions end"
    POST "/api/v1/mappings/resume" Write None, change::resume,
        "Serve a paused or drained mapping again"
    POST "/api/v1/reload" Write None, change::reload, "Read the configuration again"
    POST "/api/v1/upgrade" Write None, change::upgrade,
        "Have another build of the program take over, sessions and all"
    PUT "/api/v1/log/level" Write None, change::log_level, "Change the level of the log"
};

/// The operations that `access` allows; the others answer that they are not.
pub(super) fn router(sources: Arc<Sources>, access: Access) -> Router {
    let coalescer = Arc::new(Coalescer::default());
    let mut router = Router::new();
    for operation in OPERATIONS {
        let mut handler = match (operation.access, access) {
            (Access::Write, Access::Read) => any(read_only),
            _ => (operation.handler)(),
        };
        if let Some(same_by) = operation.shared {
            let state = (Arc::clone(&coalescer), same_by);
            handler = handler.layer(middleware::from_fn_with_state(state, coalesce::coalesce));
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
