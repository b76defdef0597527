//! Answering control's questions about live sessions, and ending those it names.
//!
//! A question is answered in pieces, so that a worker with many sessions serves them between two
//! pieces.

use super::*;
use crate::{
    session::{SessionFilter, SessionView},
    telemetry::PathInfo,
    worker::{PathSample, SessionPage},
};

/// Slots looked at for one piece of an answer.
const SLOTS: usize = 512;

/// Where in a survey the connections come whose header is awaited. Sessions number fewer.
const PENDING_HEADERS: usize = 1 << 32;

/// Sessions whose way to the target is looked at in one sample.
const SAMPLES: usize = 32;

impl EventLoop {
    pub(super) fn list_sessions(&mut self, from: usize, filter: &SessionFilter) -> SessionPage {
        let now = self.now;
        if let Some(from) = from.checked_sub(PENDING_HEADERS) {
            let (keys, next) = self.pending_headers.keys_from(from, SLOTS);
            let pending_headers = keys.into_iter().filter_map(|key| {
                let pending = &self.pending_headers.get_mut(key)?.pending;
                let client = pending.accepted().client;
                let meant = filter.means(pending.id(), pending.route(), client);
                meant.then(|| pending.view(now))
            });
            return SessionPage {
                sessions: pending_headers.collect(),
                next: next.map(|next| PENDING_HEADERS + next),
            };
        }
        let (keys, next) = self.sessions.keys_from(from, SLOTS);
        let sessions: Vec<SessionView> = keys
            .into_iter()
            .filter_map(|key| {
                let session = &self.sessions.get_mut(key)?.session;
                let meant = filter.means(session.id(), session.route(), session.client());
                meant.then(|| session.view(now))
            })
            .collect();
        let last = (self.pending_headers.len() > 0).then_some(PENDING_HEADERS);
        SessionPage {
            sessions,
            next: next.or(last),
        }
    }

    /// Looks at the next few sessions after those of the last sample.
    pub(super) fn sample_paths(&mut self) -> Vec<PathSample> {
        let (keys, next) = self.sessions.keys_from(self.sampled_up_to, SLOTS);
        self.sampled_up_to = next.unwrap_or(0);
        let mut samples = Vec::new();
        for key in keys {
            let Some(entry) = self.sessions.get_mut(key) else {
                continue;
            };
            let session = &entry.session;
            if !session.is_connected() {
                continue;
            }
            if samples.len() == SAMPLES {
                self.sampled_up_to = key.index();
                break;
            }
            let path: Option<PathInfo> = self.acks.path(session.socket(Side::Target));
            samples.extend(path.map(|path| PathSample {
                mapping: Arc::clone(&session.route().mapping),
                path,
            }));
        }
        samples
    }
}
