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
use tokio::sync::Notify;

use super::{
    Exposure, Job, JobId, KnownJobs, Owner, Remembered, SwitchboardStatus,
    client::{Availability, SavedAvailability},
    exposer::Plan,
    publish::{Publisher, SavedWritten},
    region::Role,
    stats::{FollowStats, SavedFollowStats},
    token_file::{Known, TokenState},
};
use crate::{
    handover::LoadError,
    shared_map::SharedMap,
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
    followed_as: Role,
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

fn owned<V: Copy>(map: &SharedMap<JobId, V>) -> BTreeMap<JobId, V> {
    map.iter()
        .map(|(job, value)| (job.clone(), *value))
        .collect()
}

impl SavedKnowledge {
    /// What is known, and what was last proposed to be open.
    pub fn new(known: &KnownJobs, open: &Plan) -> Self {
        let KnownJobs {
            jobs,
            remembered,
            silent,
            complete,
            followed_as,
        } = known;
        let open = open.iter();
        Self {
            jobs: jobs.values().map(|job| Job::clone(job)).collect(),
            remembered: owned(remembered),
            silent: owned(silent),
            complete: *complete,
            followed_as: *followed_as,
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
            followed_as,
            open,
        } = self;
        let mut known = KnownJobs {
            jobs: SharedMap::default(),
            remembered: remembered.into_iter().collect(),
            silent: silent.into_iter().collect(),
            complete,
            followed_as,
        };
        for job in jobs {
            if let Some(twice) = known.jobs.insert(job.id.clone(), Arc::new(job)) {
                return Err(LoadError::value("job", format!("{} twice", twice.id)));
            }
        }
        let mut plan = Plan::default();
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
            replaced: _,
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
            replaced: Notify::new(),
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;
    use crate::provider::switchboard::{
        Contact, Endpoint, Endpoints, HostId, JobState, Refusals, RuleName, Service,
        client::{Failure, FailureKind},
        expose::{Reason, Refused},
        stats::Request,
    };

    fn id(number: u32) -> JobId {
        JobId::parse(&format!("10b00000-0000-7000-8000-{number:012}")).expect("an id")
    }

    fn owner(number: u32) -> Owner {
        Owner {
            job: id(number),
            rule: RuleName::parse("ssh").expect("a name"),
            host: None,
        }
    }

    fn target() -> SocketAddr {
        (Ipv4Addr::new(10, 0, 0, 1), 22).into()
    }

    /// A job of which everything is known.
    fn job(number: u32) -> Job {
        Job {
            id: id(number),
            state: JobState::Ready,
            address: Some(target().ip()),
            services: vec![Service {
                name: "web".into(),
                protocol: "http".into(),
            }],
            host: HostId::parse("40000000-0000-4000-8000-000000000001"),
            host_name: Some("lab-1".into()),
            host_live: Some(true),
        }
    }

    fn through_json<T: Serialize + for<'de> Deserialize<'de>>(value: &T) -> T {
        let text = serde_json::to_vec(value).expect("plain values");
        serde_json::from_slice(&text).expect("as it was written")
    }

    #[test]
    fn what_is_known_of_jobs_and_where_they_are_open_survives() {
        let remembered = Remembered {
            asked: true,
            listed: Some(JobState::Unknown),
        };
        let known = KnownJobs {
            jobs: [(id(1), Arc::new(job(1)))].into(),
            remembered: [(id(2), remembered)].into(),
            silent: [(id(1), Duration::from_millis(1500))].into(),
            complete: Some(SystemTime::now()),
            followed_as: Role::Leading { term: 3 },
        };
        let open = Plan::from([
            (owner(1), (40_000, target())),
            (owner(2), (40_001, target())),
        ]);
        let saved = through_json(&SavedKnowledge::new(&known, &open));
        assert_eq!(saved.load(), Ok((known, open)));
        let nothing: SavedKnowledge = serde_json::from_str("{\"later\":1}").expect("values");
        assert_eq!(nothing.load(), Ok((KnownJobs::default(), Plan::default())));
    }

    #[test]
    fn two_jobs_of_one_id_and_two_owners_of_one_port_are_refused() {
        let load = |saved: SavedKnowledge| saved.load().expect_err("it cannot be").to_string();
        let twice = SavedKnowledge {
            jobs: vec![job(1), job(1)],
            ..SavedKnowledge::default()
        };
        assert!(load(twice).ends_with(" twice"));
        let open = vec![(owner(1), 40_000, target()), (owner(2), 40_000, target())];
        let twice = SavedKnowledge {
            open,
            ..SavedKnowledge::default()
        };
        assert!(load(twice).starts_with("port of a job: 40000 of "));
        for text in [r#"{"jobs":[{"id":"x"}]}"#, r#"{"open":[["x",1,"y"]]}"#] {
            assert!(serde_json::from_str::<SavedKnowledge>(text).is_err());
        }
    }

    fn exposure() -> Exposure {
        Exposure {
            host: "p.example.org".into(),
            endpoints: Endpoints::from_iter([Endpoint {
                owner: owner(1),
                port: Some(40_000),
                target: target(),
                closed: Some(Reason::HostGone),
                since: Some(SystemTime::now()),
            }]),
            refused: Refusals::from_iter([Refused {
                job: id(2),
                rule: None,
                reason: Reason::NotAllowed,
                address: Some(target().ip()),
                state: None,
            }]),
            jobs: 2,
            complete: Some(SystemTime::now()),
            unconfirmed: 1,
            not_kept: Some("a full disk".to_owned()),
            ..Exposure::default()
        }
    }

    #[test]
    fn how_a_switchboard_is_doing_survives() {
        let status = SwitchboardStatus::default();
        status.set(Some(exposure()));
        status.set_unusable(Some("no token".to_owned()));
        status.reachable.observe(Duration::from_millis(3));
        let stats = &status.stats;
        stats.count(Request::Job, &Ok(()));
        stats.count::<()>(Request::Jobs, &Err(Failure::Forbidden));
        stats.episode_began(FailureKind::Forbidden);
        stats.polled();
        stats.walked();
        stats.set_jobs_active(7);
        stats.set_held(3);
        stats.listing_fails(true);
        stats.finished.add(&id(9));
        stats.new_job_latency.observe(Duration::from_secs(1));
        status.availability.heard();
        let saved = status.save();
        let again = SwitchboardStatus::load(through_json(&saved));
        // What is under way does not go on.
        assert_eq!(again.stats.episodes(FailureKind::Forbidden), 1);
        assert_eq!(again.stats.episodes_open(FailureKind::Forbidden), 0);
        assert_eq!(again.stats.failed(Request::Jobs, FailureKind::Forbidden), 1);
        assert!(again.stats.finished.contains(&id(9)));
        assert_eq!(again.contact(), Contact::Away("no token".to_owned()));
        assert!(again.availability.heard_ago().is_some() && again.stats.knowledge_age().is_some());
        assert_eq!(
            format!("{:?}", again.read()),
            format!("{:?}", status.read())
        );
        assert_eq!(again.save(), saved);
    }

    #[test]
    fn an_outage_goes_on_and_words_of_a_later_version_are_forgotten() {
        let outage = |failure| {
            json!({
                "availability": { "outage": 1_000_000_000, "failure": failure },
                "exposure": { "refused": [{ "job": id(1), "reason": "of a later version" }] },
                "stats": { "succeeded": [["later", 1]], "failed": [["job", "later", 1]], "rights": "later" },
            })
        };
        let load = |value| {
            let saved: SavedStatus = serde_json::from_value(value).expect("values");
            SwitchboardStatus::load(saved)
        };
        let failure = serde_json::to_value(Failure::Server { status: 500 }).expect("values");
        let status = load(outage(failure));
        let outage_now = status.availability.outage().expect("it goes on");
        assert_eq!(outage_now.failure, Failure::Server { status: 500 });
        assert!(status.read().is_none());
        assert_eq!(status.stats.requests(), []);
        let status = load(outage(json!("of a later version")));
        assert_eq!(status.availability.outage(), None);
    }
}
