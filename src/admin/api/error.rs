//! Answers that say no, with whose fault it is: 4xx the request's, 5xx ours.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::model::Failure;
use crate::orders::OrderError;

#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error: String,
}

impl ApiError {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    /// The request makes no sense.
    pub fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// What the request names does not exist.
    pub fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }
}

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        let status = match error {
            OrderError::UnknownMapping(_) => StatusCode::NOT_FOUND,
            OrderError::Refused(_) => StatusCode::CONFLICT,
            OrderError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(error: JsonRejection) -> Self {
        Self::new(error.status(), error.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(error: QueryRejection) -> Self {
        Self::bad_request(error.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(Failure { error: self.error })).into_response()
    }
}
