//! What an answer of the switchboard says, in any of its generations.
//!
//! One reader for all: keys that are not needed are not looked at, an absent key is a null one, and
//! what has had several shapes (owner, image) is not read. An answer that is not complete JSON of
//! the expected shape is no answer. Inside a valid one, what a job wrote itself can only spoil what
//! belongs to that job.

mod hosts;

use std::{collections::BTreeMap, time::SystemTime};

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use strum::{IntoStaticStr, VariantArray};

use super::job::{HostId, Job, JobId, JobState, Service};
use crate::text::{in_query, printable};

pub use self::hosts::Hosts;

/// How many services of a job are kept.
pub const SERVICES_AT_MOST: usize = 64;

/// The longest name or protocol of a service that is kept, in bytes. Names have at most 16 where
/// the switchboard checks them.
pub const SERVICE_TEXT_AT_MOST: usize = 64;

/// The longest cursor that is sent back, in bytes. Usual is 150.
const CURSOR_AT_MOST: usize = 4096;

/// How much of an answer that makes no sense goes into an error, in characters.
const QUOTED_AT_MOST: usize = 240;

/// The group whose members may read every job; every switchboard is made with it.
const ADMINS: &str = "00000000-0000-0000-0000-000000000001";

/// An answer that makes no sense, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("the body makes no sense: {0}")]
pub struct Unreadable(Box<str>);

impl Unreadable {
    /// For `reason`, which may quote what was found.
    pub fn new(reason: &str) -> Self {
        Self(printable(reason, QUOTED_AT_MOST).into())
    }
}

/// Which jobs the account of a token may read.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Rights {
    /// The switchboard has not said.
    #[default]
    Unknown,
    /// Those of its own, of its groups, or granted one by one.
    Some,
    /// All jobs: it is one of the administrators.
    All,
}

impl Rights {
    /// Every value there is, in the order of their numbers.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The rights as a label.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// A place in the listing, which is sorted by it, newest first. A new job gets one above all there
/// are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    queued: SystemTime,
    id: JobId,
}

impl Position {
    /// Where the job `id` that was queued at `queued` stands.
    pub fn parse(queued: &str, id: &JobId) -> Option<Self> {
        Some(Self {
            queued: humantime::parse_rfc3339(queued).ok()?,
            id: id.clone(),
        })
    }
}

/// Where the next page of a listing begins. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(String);

impl Cursor {
    fn new(text: String) -> Result<Self, Unreadable> {
        match text.len() {
            0 => Err(Unreadable::new("next_cursor is empty")),
            1..=CURSOR_AT_MOST => Ok(Self(text)),
            found => Err(Unreadable::new(&format!(
                "next_cursor has {found} bytes, {CURSOR_AT_MOST} are allowed"
            ))),
        }
    }

    /// As the value of a parameter of a query.
    pub(super) fn in_query(&self) -> String {
        in_query(&self.0)
    }
}

/// A page of the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its rows, as they came.
    pub rows: Vec<Row>,
    /// Rows that do not even say whose they are: with one of them, no job can be said to be
    /// missing.
    pub lost: usize,
    /// What to ask the next page with, if there is one.
    pub next: Option<Cursor>,
}

/// A row of the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose row it is.
    pub id: JobId,
    /// Where that job is in its life; `None` if the row is unreadable but for the id.
    pub state: Option<JobState>,
    /// Where it stands; `None` if the row does not say when it was queued.
    pub position: Option<Position>,
}

/// A job in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// The job; nothing is known here of its host's name and health.
    pub job: Job,
    /// Things in it that were left out: services too many, too long or without a name, an address
    /// that is none.
    pub left_out: usize,
}

/// A job's annotations with their version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Annotated {
    /// The entity tag, as it came.
    pub(super) version: HeaderValue,
    pub(super) annotations: BTreeMap<String, String>,
}

impl Annotated {
    /// The body that puts these in the place of those the job has.
    pub(super) fn to_patch(&self) -> Vec<u8> {
        serde_json::json!({ "annotations": self.annotations })
            .to_string()
            .into_bytes()
    }
}

/// Reads a page of the listing, row by row, so that a bad one spoils no other.
///
/// # Errors
///
/// See [`Unreadable`].
pub fn page(body: &[u8]) -> Result<Page, Unreadable> {
    #[derive(Deserialize)]
    struct RawPage<'a> {
        #[serde(borrow)]
        jobs: Vec<&'a RawValue>,
        next_cursor: Option<String>,
    }
    let raw: RawPage<'_> = parse("a listing of jobs", body)?;
    let rows: Vec<_> = raw.jobs.iter().filter_map(|text| row(text)).collect();
    Ok(Page {
        lost: raw.jobs.len() - rows.len(),
        rows,
        next: raw.next_cursor.map(Cursor::new).transpose()?,
    })
}

fn row(text: &RawValue) -> Option<Row> {
    #[derive(Deserialize)]
    struct RawRow {
        job_id: JobId,
        state: JobState,
        /// Of any shape: it spoils no row.
        queued_at: Option<serde_json::Value>,
    }
    #[derive(Deserialize)]
    struct OnlyId {
        job_id: JobId,
    }
    if let Ok(raw) = serde_json::from_str::<RawRow>(text.get()) {
        let queued = raw.queued_at.as_ref().and_then(|at| at.as_str());
        return Some(Row {
            position: queued.and_then(|at| Position::parse(at, &raw.job_id)),
            id: raw.job_id,
            state: Some(raw.state),
        });
    }
    let raw: OnlyId = serde_json::from_str(text.get()).ok()?;
    Some(Row {
        id: raw.job_id,
        state: None,
        position: None,
    })
}

/// Reads the job `id` in detail.
///
/// # Errors
///
/// See [`Unreadable`]; also if it is another job.
pub fn detail(id: &JobId, body: &[u8]) -> Result<Detail, Unreadable> {
    #[derive(Deserialize)]
    struct RawDetail<'a> {
        job_id: JobId,
        state: JobState,
        dispatched_on_host_id: Option<String>,
        job_ip_address: Option<String>,
        #[serde(borrow)]
        services: Option<Vec<&'a RawValue>>,
    }
    let raw: RawDetail<'_> = parse("a job", body)?;
    is_about(id, &raw.job_id)?;
    let announced = raw.services.unwrap_or_default();
    let readable = announced.iter().filter_map(|text| service(text));
    let services: Vec<_> = readable.take(SERVICES_AT_MOST).collect();
    let address = raw.job_ip_address.as_deref().map(str::parse);
    let odd_address = matches!(address, Some(Err(_)));
    Ok(Detail {
        left_out: announced.len() - services.len() + usize::from(odd_address),
        job: Job {
            id: id.clone(),
            state: raw.state,
            address: address.and_then(Result::ok),
            services,
            host: raw.dispatched_on_host_id.as_deref().and_then(HostId::parse),
            host_name: None,
            host_live: None,
        },
    })
}

fn service(text: &RawValue) -> Option<Service> {
    #[derive(Deserialize)]
    struct RawService {
        name: Box<str>,
        protocol: Option<Box<str>>,
    }
    let raw: RawService = serde_json::from_str(text.get()).ok()?;
    let service = Service {
        name: raw.name,
        protocol: raw.protocol.unwrap_or_default(),
    };
    let fits = |text: &str| text.len() <= SERVICE_TEXT_AT_MOST;
    (fits(&service.name) && fits(&service.protocol)).then_some(service)
}

#[derive(Deserialize)]
struct RawAnnotated {
    job_id: JobId,
    annotations: Option<BTreeMap<String, String>>,
}

/// Reads the annotations of the job `id`.
///
/// # Errors
///
/// See [`Unreadable`]; also where there are none to be changed.
pub(super) fn annotations(
    id: &JobId,
    version: Option<HeaderValue>,
    body: &[u8],
) -> Result<Annotated, Unreadable> {
    let raw: RawAnnotated = parse("a job with annotations", body)?;
    is_about(id, &raw.job_id)?;
    let missing = |what| Unreadable::new(&format!("a job without {what}: too old a switchboard"));
    Ok(Annotated {
        version: version.ok_or_else(|| missing("an ETag"))?,
        annotations: raw.annotations.ok_or_else(|| missing("annotations"))?,
    })
}

/// The annotation `key` of a job, if it has it; nothing where jobs have none.
pub(super) fn annotation(body: &[u8], key: &str) -> Option<Option<String>> {
    let raw: RawAnnotated = serde_json::from_slice(body).ok()?;
    Some(raw.annotations?.remove(key))
}

/// Reads the whole set of hosts.
///
/// # Errors
///
/// See [`Unreadable`].
pub fn hosts(body: &[u8]) -> Result<Hosts, Unreadable> {
    let rows: Vec<&RawValue> = parse("a list of hosts", body)?;
    Ok(Hosts::of_rows(&rows))
}

/// Reads the account of the caller for what it may read.
///
/// # Errors
///
/// See [`Unreadable`].
pub fn rights(body: &[u8]) -> Result<Rights, Unreadable> {
    #[derive(Deserialize)]
    struct RawAccount {
        groups: Vec<RawGroup>,
    }
    #[derive(Deserialize)]
    struct RawGroup {
        group_id: String,
    }
    let account: RawAccount = parse("an account with its groups", body)?;
    let is_admin = account.groups.iter().any(|group| group.group_id == ADMINS);
    Ok(match is_admin {
        true => Rights::All,
        false => Rights::Some,
    })
}

/// Reads the caller's tokens for when the one that was used expires.
///
/// # Errors
///
/// See [`Unreadable`].
pub fn token_expiry(body: &[u8]) -> Result<Option<SystemTime>, Unreadable> {
    #[derive(Deserialize)]
    struct RawToken {
        current: Option<bool>,
        expires_at: Option<String>,
    }
    let rows: Vec<RawToken> = parse("a list of tokens", body)?;
    let current = rows.iter().find(|row| row.current == Some(true));
    let expires = current.and_then(|row| row.expires_at.as_deref());
    let unreadable = |error| Unreadable::new(&format!("expires_at: {error}"));
    expires
        .map(|at| humantime::parse_rfc3339(at).map_err(unreadable))
        .transpose()
}

fn parse<'a, T: Deserialize<'a>>(what: &str, body: &'a [u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(body)
        .map_err(|error| Unreadable::new(&format!("expected {what}: {error}")))
}

fn is_about(id: &JobId, found: &JobId) -> Result<(), Unreadable> {
    match found == id {
        true => Ok(()),
        false => Err(Unreadable::new(&format!(
            "expected job {id}: it is about {found}"
        ))),
    }
}

#[cfg(test)]
mod tests;
