//! What is known of a switchboard, as it is handed over to the next image of the program.
//!
//! Who follows and exposes there goes on from it as from what a task before it has left: nothing that is
//! open is closed or moved for it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use super::{
    Exposure, Job, JobId, KnownJobs, Owner, Remembered, SwitchboardStatus,
    client::{Availability, SavedAvailability},
    exposer::Plan,
    publish::{Publisher, SavedWritten},
    stats::{FollowStats, SavedFollowStats},
    token_file::{Known, TokenState},
};
use crate::{
    handover::LoadError,
    telemetry::{Histogram, SavedHistogram, metric::REACHABLE_BUCKETS},
};

/// What is known of the jobs, and which of them are open where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SavedKnowledge {
    jobs: Vec<Job>,
    remembered: BTreeMap<JobId, Remembered>,
    silent: BTreeMap<JobId, Duration>,
    complete: Option<SystemTime>,
    open: Vec<(Owner, u16, SocketAddr)>,
}

/// How the switchboard is doing, and what was counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SavedStatus {
    /// What the next image cannot read of it, it finds out anew.
    exposure: Option<serde_json::Value>,
    unusable: Option<String>,
    written: SavedWritten,
    reachable: SavedHistogram,
    stats: SavedFollowStats,
    availability: SavedAvailability,
    token: Known,
}
impl SavedKnowledge {
    /// What is known, and what was last proposed to be open.
    pub fn new(known: &KnownJobs, open: &Plan) -> Self {
        let KnownJobs {
            jobs,
            remembered,
            silent,
            complete,
        } = known;
        let open = open.iter();
        Self {
            jobs: jobs.values().map(|job| Job::clone(job)).collect(),
            remembered: remembered.clone(),
            silent: silent.clone(),
            complete: *complete,
            open: open
                .map(|(owner, (port, target))| (owner.clone(), *port, *target))
                .collect(),
        }
    }

    /// The same again.
    ///
    /// # Errors
    ///
    /// A job is there twice, or two owners have one port.
    pub fn load(self) -> Result<(KnownJobs, Plan), LoadError> {
        let Self {
            jobs,
            remembered,
            silent,
            complete,
            open,
        } = self;
        let mut known = KnownJobs {
            jobs: BTreeMap::new(),
            remembered,
            silent,
            complete,
        };
        for job in jobs {
            if let Some(twice) = known.jobs.insert(job.id.clone(), Arc::new(job)) {
                return Err(LoadError::value("job", format!("{} twice", twice.id)));
            }
        }
        let mut plan = Plan::new();
        let mut ports = BTreeMap::new();
        for (owner, port, target) in open {
            if let Some(other) = ports.insert(port, owner.clone()) {
                let why = format!("{port} of {other} and of {owner}");
                return Err(LoadError::value("port of a job", why));
            }
            plan.insert(owner, (port, target));
        }
        Ok((known, plan))
    }
}

impl SwitchboardStatus {
    /// How the switchboard is doing, and what was counted.
    pub(crate) fn save(&self) -> SavedStatus {
        let Self {
            exposure,
            unusable,
            publisher,
            written: _,
            reachable,
            stats,
            availability,
            token,
        } = self;
        let exposure = exposure.load();
        let exposure = exposure.as_deref();
        let publisher = publisher.load();
        let publisher = publisher.as_deref().map(Publisher::save);
        SavedStatus {
            exposure: exposure.and_then(|exposure| serde_json::to_value(exposure).ok()),
            unusable: unusable.load().as_ref().map(|why| why.to_string()),
            // It may not have been there long enough to take it over.
            written: publisher.unwrap_or_else(|| self.written().clone()),
            reachable: reachable.save(),
            stats: stats.save(),
            availability: availability.save(),
            token: token.known(),
        }
    }

    /// The same again.
    pub(crate) fn load(saved: SavedStatus) -> Self {
        let SavedStatus {
            exposure,
            unusable,
            written,
            reachable,
            stats,
            availability,
            token,
        } = saved;
        let exposure =
            exposure.and_then(|exposure| serde_json::from_value::<Exposure>(exposure).ok());
        Self {
            exposure: ArcSwapOption::from_pointee(exposure),
            unusable: ArcSwapOption::from_pointee(unusable),
            publisher: ArcSwapOption::empty(),
            written: Mutex::new(written),
            reachable: Histogram::load(&REACHABLE_BUCKETS, &reachable),
            stats: Arc::new(FollowStats::load(stats)),
            availability: Arc::new(Availability::load(availability)),
            token: Arc::new(TokenState::load(token)),
        }
    }
}

/// Text that is shared, as serde has it.
pub(super) mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        text[..].serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }

    /// The same for an [`Option`].
    pub mod option {
        use super::{Arc, Deserialize, Deserializer, Serialize, Serializer};

        pub fn serialize<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
            text.as_deref().serialize(to)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Arc<str>>, D::Error> {
            Ok(Option::<String>::deserialize(from)?.map(Arc::from))
        }
    }
}
