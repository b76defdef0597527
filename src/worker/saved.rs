//! What a worker hands over to the next image of the program, and how it is taken up there.
//!
//! Each worker has a part of its own. There may be more workers afterwards, or fewer: who gets what is
//! decided when it is given out.

use serde::{Deserialize, Serialize};

use super::WorkerContext;
use crate::{
    handover::{LoadError, Loader},
    session::{Loading, PendingProxyHeader, SavedPendingHeader, SavedSession, Session},
    table::{KnownMappings, SavedRoutes},
};

/// How the names of workers' parts begin.
pub const PART: &str = "worker-";

/// All that a worker has.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SavedWorker {
    pub(super) routes: SavedRoutes,
    pub(super) sessions: Vec<SavedSession>,
    /// Connections whose header is awaited.
    pub(super) headers: Vec<SavedPendingHeader>,
}

/// What a worker has handed over, taken up and given to no worker yet.
#[derive(Debug, Default)]
pub struct Adopted {
    pub(super) sessions: Vec<Session>,
    pub(super) headers: Vec<PendingProxyHeader>,
}

impl Adopted {
    /// How many sessions there are, those among them whose header is awaited.
    pub fn sessions(&self) -> usize {
        self.sessions.len() + self.headers.len()
    }
}

/// Takes up the part of a worker, and counts what is in it.
///
/// # Errors
///
/// What cannot be.
pub fn load(
    values: &[u8],
    loader: &mut Loader,
    known: &mut KnownMappings,
    context: &WorkerContext,
) -> Result<Adopted, LoadError> {
    let saved = serde_json::from_slice(values);
    let saved: SavedWorker =
        saved.map_err(|error| LoadError::value("worker", error.to_string()))?;
    let SavedWorker {
        routes,
        sessions,
        headers,
    } = saved;
    let mut from = Loading {
        loader,
        routes: &routes.load(known)?,
        gate: &context.gate,
        pipes: &context.pipes,
    };
    let sessions = sessions
        .into_iter()
        .map(|saved| Session::load(saved, &mut from));
    let sessions = sessions.collect::<Result<Vec<_>, _>>()?;
    let headers = headers
        .into_iter()
        .map(|saved| PendingProxyHeader::load(saved, &mut from));
    let headers = headers.collect::<Result<Vec<_>, _>>()?;
    let adopted = Adopted { sessions, headers };
    for _ in 0..adopted.sessions() {
        context.stats.session_opened();
    }
    Ok(adopted)
}
