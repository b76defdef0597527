//! What can be changed, on the unix socket only. Every change is an event and a line in the log, at
//! the level `info`, with the user and the process that asked for it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use tracing::Level;

use super::{error::ApiError, model, read, view};
use crate::{
    admin::{Sources, peer::Peer},
    client_mask::network_in_log,
    config::{LogLevel, word},
    orders::{Order, OrderError},
    session::SessionFilter,
    table::{MappingName, MappingOverride},
    units::parse_duration,
};

type Answer<T> = Result<Json<T>, ApiError>;

type Body<T> = Result<Json<T>, JsonRejection>;

pub async fn kill(
    State(sources): State<Arc<Sources>>,
    Extension(by): Extension<Peer>,
    kill: Body<model::Kill>,
) -> Answer<model::Killed> {
    let Json(kill) = kill?;
    let filter = read::filter(
        kill.session,
        kill.mapping,
        kill.job.as_deref(),
        kill.source.as_deref(),
    )?;
    if filter.is_empty() && !kill.all {
        return Err(ApiError::bad_request(
            "which sessions? Give session, mapping, job or source, or all = true",
        ));
    }
    let killed = sources.workers.kill(&filter).await;
    if killed == 0 {
        nobody_meant(&sources, &filter)?;
    }
    tracing::info!(
        sessions = killed,
        session = filter.id.map(tracing::field::display),
        mapping = filter.mapping.map(tracing::field::display),
        job = kill.job,
        source = filter
            .source
            .map(network_in_log)
            .map(tracing::field::display),
        uid = by.uid,
        pid = by.pid,
        "sessions killed by an operator"
    );
    Ok(Json(model::Killed {
        sessions: killed as u64,
    }))
}

/// That nobody was meant is an error where a name or a number has to be wrong.
fn nobody_meant(sources: &Sources, filter: &SessionFilter) -> Result<(), ApiError> {
    let table = sources.shared.table.load();
    if let Some(name) = &filter.mapping
        && !table.mappings().any(|known| known.name == *name)
    {
        return Err(OrderError::UnknownMapping(name.clone()).into());
    }
    match filter.id {
        Some(id) => Err(ApiError::not_found(format!(
            "no session {id} is open, or it is none of those meant"
        ))),
        None => Ok(()),
    }
}

pub async fn pause(
    State(sources): State<Arc<Sources>>,
    Extension(by): Extension<Peer>,
    body: Body<model::MappingChange>,
) -> Answer<model::MappingState> {
    set_state(&sources, by, body, Some(MappingOverride::Paused)).await
}

pub async fn drain(
    State(sources): State<Arc<Sources>>,
    Extension(by): Extension<Peer>,
    body: Body<model::MappingChange>,
) -> Answer<model::MappingState> {
    set_state(&sources, by, body, Some(MappingOverride::Drained)).await
}

pub async fn resume(
    State(sources): State<Arc<Sources>>,
    Extension(by): Extension<Peer>,
    body: Body<model::MappingChange>,
) -> Answer<model::MappingState> {
    set_state(&sources, by, body, None).await
}

async fn set_state(
    sources: &Sources,
    by: Peer,
    body: Body<model::MappingChange>,
    state: Option<MappingOverride>,
) -> Answer<model::MappingState> {
    let Json(body) = body?;
    let within = body.within.as_deref().map(duration).transpose()?;
    if within.is_some() && state != Some(MappingOverride::Drained) {
        return Err(ApiError::bad_request("only a drain has a time"));
    }
    let mapping = MappingName::new(body.mapping);
    let order = |reply| Order::SetState {
        mapping: mapping.clone(),
        state,
        sessions_within: within,
        reply,
    };
    sources.orders.ask(order).await?;
    let state = state.map_or("accepting", MappingOverride::word);
    tracing::info!(
        mapping = %mapping,
        state,
        sessions_within = body.within,
        uid = by.uid,
        pid = by.pid,
        "mapping set by an operator"
    );
    Ok(Json(view::mapping_state(sources, &mapping)))
}

fn duration(text: &str) -> Result<Duration, ApiError> {
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
    let parsed = parse_duration(text).ok();
    parsed.filter(|within| *within <= LONGEST).ok_or_else(|| {
        ApiError::bad_request(format!(
            "{text:?} is no duration up to 7days, such as \"30s\""
        ))
    })
}

pub async fn reload(
    State(sources): State<Arc<Sources>>,
    Extension(by): Extension<Peer>,
) -> Answer<model::Reloaded> {
    // The reload logs its outcome by itself.
    tracing::info!(
        uid = by.uid,
        pid = by.pid,
        "reload asked for by an operator"
    );
    let changed = sources.orders.ask(|reply| Order::Reload { reply }).await?;
    Ok(Json(changed))
}

pub async fn upgrade(
    State(sources): State<Arc<Sources>>,
    Extension(by): Extension<Peer>,
    body: Body<model::Upgrade>,
) -> Result<(StatusCode, axum::body::Body), ApiError> {
    let Json(body) = body?;
    if body.binary.is_some() && !may_name_a_binary(by) {
        let uid = by.uid;
        tracing::warn!(binary = body.binary, uid, "upgrade to another path refused");
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "only root and the user that the proxy runs as may name the binary; without one, that at \
             its own path takes over",
        ));
    }
    tracing::info!(
        binary = body.binary,
        uid = by.uid,
        pid = by.pid,
        "upgrade asked for by an operator"
    );
    let binary = body.binary.map(PathBuf::from);
    let order = |reply| Order::Upgrade { binary, reply };
    let begun = sources.orders.ask(order).await?;
    let answer = model::UpgradeBegun {
        upgrade: begun.number,
        from: begun.from,
        to: begun.to,
    };
    let text = serde_json::to_vec(&answer).expect("numbers and text are always JSON");
    // It is dropped when the connection has taken all of the answer.
    let told = begun.told;
    let body = Full::new(Bytes::from(text)).map_frame(move |frame| {
        let _ = &told;
        frame
    });
    Ok((StatusCode::ACCEPTED, axum::body::Body::new(body)))
}

/// Whoever may steer the proxy need not be allowed whatever its user is: what it keeps secret, ports
/// below 1024.
fn may_name_a_binary(by: Peer) -> bool {
    let own = rustix::process::geteuid().as_raw();
    by.uid.is_some_and(|uid| uid == 0 || uid == own)
}

pub async fn log_level(
    State(sources): State<Arc<Sources>>,
    Extension(by): Extension<Peer>,
    body: Body<model::Level>,
) -> Answer<model::Level> {
    let Json(body) = body?;
    let level = word::<LogLevel>(&body.level)
        .map_err(|unknown| ApiError::bad_request(format!("level {:?}: {unknown}", body.level)))?;
    let say = || tracing::info!(%level, uid = by.uid, pid = by.pid, "log level set by an operator");
    // Under whichever level lets it through.
    let before = sources.log.level() >= Level::INFO;
    if before {
        say();
    }
    sources.log.set_level(level.into());
    if !before {
        say();
    }
    Ok(Json(model::Level {
        level: level.to_string(),
    }))
}
