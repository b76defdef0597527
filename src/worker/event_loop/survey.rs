//! Answering control's questions about live sessions, and ending those it names.
//!
//! A question is answered in pieces, so that a worker with many sessions serves them between two
//! pieces.

use super::*;
use crate::{
    session::{SessionFilter, SessionView},
    telemetry::PathInfo,
    worker::{PathSample, SurveyPage},
};

/// Slots looked at for one piece of an answer.
const SLOTS: usize = 512;

/// Where in a survey the connections come whose header is awaited. Sessions number fewer.
const GREETINGS: usize = 1 << 32;

/// Sessions whose way to the target is looked at in one sample.
const SAMPLES: usize = 32;

impl EventLoop {
    pub(super) fn survey(&mut self, from: usize, filter: &SessionFilter) -> SurveyPage {
        let now = self.now;
        if let Some(from) = from.checked_sub(GREETINGS) {
            let (keys, next) = self.greetings.keys_from(from, SLOTS);
            let greetings = keys.into_iter().filter_map(|key| {
                let greeting = &self.greetings.get_mut(key)?.greeting;
                let client = greeting.accepted().client;
                let meant = filter.means(greeting.id(), greeting.route(), client);
                meant.then(|| greeting.view(now))
            });
            return SurveyPage {
                sessions: greetings.collect(),
                next: next.map(|next| GREETINGS + next),
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
        let last = (self.greetings.len() > 0).then_some(GREETINGS);
        SurveyPage {
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
