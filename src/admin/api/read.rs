//! What can be read.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use tokio::time::timeout;

use super::{error::ApiError, fleet, model, view};
use crate::{
    admin::{
        Sources,
        metrics::{self, Format},
        slots::{Slot, Stage},
    },
    config::Document,
    provider::switchboard::JobId,
    session::{SessionFilter, SessionId, SessionView},
    table::MappingName,
};

/// Sessions listed unless asked for more.
const SESSIONS: usize = 1000;

/// The longest wait for an event, in seconds.
const LONGEST_WAIT: u64 = 30;

type Answer<T> = Result<Json<T>, ApiError>;

pub async fn livez() -> &'static str {
    "ok\n"
}

pub async fn readyz(State(sources): State<Arc<Sources>>) -> impl IntoResponse {
    let ready = view::ready(&sources);
    let status = match ready.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(ready))
}

pub async fn metrics(State(sources): State<Arc<Sources>>, headers: HeaderMap) -> impl IntoResponse {
    let format = Format::wanted_by(&headers);
    let media_type = [(header::CONTENT_TYPE, format.media_type())];
    (media_type, metrics::text(&sources, format))
}

pub async fn status(State(sources): State<Arc<Sources>>) -> Json<model::Status> {
    Json(view::status(&sources))
}

pub async fn mappings(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<model::MappingQuery>, QueryRejection>,
) -> Answer<model::Mappings> {
    let Query(query) = query?;
    let only = query.mapping.map(MappingName::new);
    let mappings = view::mappings(&sources, only.as_ref());
    Ok(Json(model::Mappings { mappings }))
}

pub async fn config(State(sources): State<Arc<Sources>>) -> Json<Document> {
    Json(Document::from(&**sources.config.load()))
}

pub async fn sessions(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<model::SessionQuery>, QueryRejection>,
) -> Answer<model::Sessions> {
    let Query(query) = query?;
    let filter = filter(
        query.session,
        query.mapping,
        query.job.as_deref(),
        query.source.as_deref(),
    )?;
    let mut found = Vec::new();
    sources
        .workers
        .list_sessions(&filter, |session| found.push(session))
        .await;
    sort(&mut found, query.sort);
    let limit = query.limit.unwrap_or(SESSIONS);
    let upgrades = &sources.shared.upgrade_marks;
    let listed = found.iter().take(limit);
    Ok(Json(model::Sessions {
        total: found.len() as u64,
        sessions: listed
            .map(|session| view::session(session, upgrades))
            .collect(),
    }))
}

/// Brings sessions in an order.
pub fn sort(sessions: &mut [SessionView], by: model::Sort) {
    let bytes = |session: &SessionView| session.bytes_up + session.bytes_down;
    // One sort: each takes 8 KB of the program.
    sessions.sort_by(|one, other| match by {
        model::Sort::Age => other.age.cmp(&one.age),
        model::Sort::Bytes => bytes(other).cmp(&bytes(one)),
        model::Sort::Quiet => other.quiet.cmp(&one.quiet),
        model::Sort::Client => one.client.cmp(&other.client),
        model::Sort::Mapping => one.route.mapping.name.cmp(&other.route.mapping.name),
    });
}

/// Sessions with that number, of that mapping, of that job, and from that address or prefix.
pub fn filter(
    session: Option<u64>,
    mapping: Option<String>,
    job: Option<&str>,
    source: Option<&str>,
) -> Result<SessionFilter, ApiError> {
    let source = source.map(|text| {
        let address = || text.parse().map(|ip: std::net::IpAddr| ip.into());
        text.parse().or_else(|_| address()).map_err(|_| {
            ApiError::bad_request(format!("source {text:?} is no address and no prefix"))
        })
    });
    let job = job.map(job_id).transpose()?;
    Ok(SessionFilter {
        id: session.map(SessionId),
        mapping: mapping.map(MappingName::new),
        job: job.map(|job| job.as_arc()),
        source: source.transpose()?,
    })
}

const JOBS_AT_ONCE: usize = 64;

/// Whose endpoints are asked for.
#[derive(Debug)]
pub enum Asked {
    All,
    One(JobId),
    Several(Vec<JobId>),
}

impl Asked {
    pub fn by(query: &model::EndpointQuery) -> Result<Self, ApiError> {
        match (&query.job, &query.jobs) {
            (None, None) => Ok(Self::All),
            (Some(job), None) => job_id(job).map(Self::One),
            (None, Some(jobs)) => match jobs.split(',').count() {
                ..=JOBS_AT_ONCE => {
                    let jobs: Result<_, _> = jobs.split(',').map(job_id).collect();
                    jobs.map(Self::Several)
                }
                count => Err(ApiError::bad_request(format!(
                    "jobs: found {count} ids, allowed: at most {JOBS_AT_ONCE}"
                ))),
            },
            (Some(_), Some(_)) => Err(ApiError::bad_request(
                "found job and jobs, allowed: one of them",
            )),
        }
    }
}

pub async fn endpoints(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<model::EndpointQuery>, QueryRejection>,
) -> Answer<model::Endpoints> {
    let Query(query) = query?;
    Ok(Json(match Asked::by(&query)? {
        Asked::All => view::endpoints(&sources),
        Asked::One(job) => view::endpoints_of(&sources, &[job]),
        Asked::Several(jobs) => view::endpoints_of(&sources, &jobs),
    }))
}

pub async fn fleet(State(sources): State<Arc<Sources>>) -> Json<model::Fleet> {
    Json(fleet::fleet(&sources))
}

fn job_id(text: &str) -> Result<JobId, ApiError> {
    JobId::parse(text).ok_or_else(|| {
        let allowed = "the id of a job, a UUID with hyphens";
        ApiError::bad_request(format!("found {text:?}, allowed: {allowed}"))
    })
}

pub async fn events(
    State(sources): State<Arc<Sources>>,
    Extension(slot): Extension<Arc<Slot>>,
    query: Result<Query<model::EventQuery>, QueryRejection>,
) -> Answer<model::Events> {
    let Query(query) = query?;
    let wait = Duration::from_secs(query.wait.min(LONGEST_WAIT));
    if !wait.is_zero() {
        slot.waits_for(Stage::Idle);
        // No event is an answer too.
        let _ = timeout(wait, sources.events.wait_after(query.after)).await;
        slot.waits_for(Stage::Answer);
    }
    let events = sources.events.after(query.after);
    Ok(Json(model::Events {
        events: events.into_iter().map(view::event).collect(),
    }))
}
