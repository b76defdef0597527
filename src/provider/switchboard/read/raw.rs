//! The keys that are read, in the shapes they have had.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// `GET /jobs`. Rows are read one by one, so that a bad one spoils no other.
#[derive(Deserialize)]
pub(super) struct RawPage<'a> {
    #[serde(borrow)]
    pub(super) jobs: Vec<&'a RawValue>,
    pub(super) next_cursor: Option<String>,
}

/// A row of it.
#[derive(Deserialize)]
pub(super) struct RawSummary {
    pub(super) job_id: String,
    pub(super) state: String,
    /// Of any shape: it spoils no row.
    pub(super) queued_at: Option<serde_json::Value>,
}

/// What is left of a row that is otherwise unreadable.
#[derive(Deserialize)]
pub(super) struct RawId {
    pub(super) job_id: String,
}

/// `GET /jobs/{id}`.
#[derive(Deserialize)]
pub(super) struct RawDetail<'a> {
    pub(super) job_id: String,
    pub(super) state: String,
    pub(super) dispatched_on_host_id: Option<String>,
    pub(super) job_ip_address: Option<String>,
    #[serde(borrow)]
    pub(super) services: Option<Vec<&'a RawValue>>,
}

/// A service of it.
#[derive(Deserialize)]
pub(super) struct RawService {
    pub(super) name: String,
    pub(super) protocol: Option<String>,
}

/// `GET /jobs/{id}`, for its annotations.
#[derive(Deserialize)]
pub(super) struct RawAnnotated {
    pub(super) job_id: String,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// A row of `GET /hosts`.
#[derive(Deserialize)]
pub(super) struct RawHost {
    pub(super) host_id: String,
    pub(super) live: Option<bool>,
    pub(super) name: Option<String>,
}

/// `GET /users/me`.
#[derive(Deserialize)]
pub(super) struct RawAccount {
    pub(super) groups: Vec<RawGroup>,
}

/// A group of it.
#[derive(Deserialize)]
pub(super) struct RawGroup {
    pub(super) group_id: String,
}

/// A row of `GET /users/me/tokens`.
#[derive(Deserialize)]
pub(super) struct RawToken {
    pub(super) current: Option<bool>,
    pub(super) expires_at: Option<String>,
}
