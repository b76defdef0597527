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

/// Sessions whose way to the target is looked at in one sample.
const SAMPLES: usize = 32;

impl EventLoop {
    pub(super) fn survey(&mut self, from: usize, filter: &SessionFilter) -> SurveyPage {
        let (keys, next) = self.sessions.keys_from(from, SLOTS);
        let now = self.now;
        let sessions: Vec<SessionView> = keys
            .into_iter()
            .filter_map(|key| {
                let session = &self.sessions.get_mut(key)?.session;
                filter.means(session).then(|| session.view(now))
            })
            .collect();
        SurveyPage { sessions, next }
    }

    /// Has the sessions meant end soon, one by one; returns how many had not been told before.
    pub(super) fn kill(&mut self, filter: &SessionFilter) -> usize {
        let mut killed = 0;
        for key in self.sessions.keys() {
            if let Some(entry) = self.sessions.get_mut(key)
                && filter.means(&entry.session)
            {
                let at = self.now + PACE * killed;
                if entry.session.kill(at) {
                    killed += 1;
                    self.timers.arm(key.index(), at);
                }
            }
        }
        killed as usize
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
