//! What is exposed right now, for whoever wants to know.
//!
//! Written by whoever exposes, read by the admin endpoint; neither waits for the other.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};
use tokio::sync::Notify;

use super::{
    JobId, Owner, RuleName,
    client::{Availability, FailureKind},
    expose::{Closing, Reason, Refused},
    ports::PortCounts,
    publish::{Publisher, SavedWritten},
    region::Role,
    saved::shared_text,
    stats::FollowStats,
    token_file::TokenState,
};
use crate::{
    mutex::lock,
    shared_map::SharedMap,
    telemetry::{
        Histogram,
        metric::{self, REACHABLE_BUCKETS},
    },
};

/// What is exposed, and what was counted since the start.
#[derive(Debug)]
pub struct SwitchboardStatus {
    /// `None` as long as there is no switchboard in the configuration.
    pub(super) exposure: ArcSwapOption<Exposure>,
    /// Whenever that is replaced; one may wait for it.
    pub replaced: Notify,
    /// Why nobody can be asked, if that is so.
    pub(super) unusable: ArcSwapOption<String>,
    /// Who writes endpoints where users look for them, if somebody does.
    pub publisher: ArcSwapOption<Publisher>,
    /// What such a publisher of an earlier image of the program has written.
    pub(super) written: Mutex<SavedWritten>,
    /// From a job being known to its port being open.
    pub reachable: Histogram,
    /// How following goes.
    pub stats: Arc<FollowStats>,
    /// Whether the switchboard answers.
    pub availability: Arc<Availability>,
    /// What is known of the token.
    pub token: Arc<TokenState>,
}

/// How the switchboard is doing, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Contact {
    /// It has not told of all jobs yet.
    Starting,
    /// It answers.
    Following,
    /// Another proxy of the region follows it, of that name if it is known.
    Elsewhere(Option<String>),
    /// Some of its answers are of no use; in words, how.
    Troubled(String),
    /// It cannot be asked, or not as ourselves; in words, why.
    Away(String),
}

impl Contact {
    /// Every word for it.
    pub const WORDS: &[&str] = Self::VARIANTS;

    /// It in one word.
    pub fn word(&self) -> &'static str {
        self.into()
    }

    /// What goes wrong, if anything does.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Starting | Self::Following | Self::Elsewhere(_) => None,
            Self::Troubled(words) | Self::Away(words) => Some(words),
        }
    }
}

/// Endpoints by their owners.
pub type Endpoints = SharedMap<Owner, Endpoint>;

/// What is not exposed, by job and rule, or by the job as a whole.
pub type Refusals = SharedMap<(JobId, Option<RuleName>), Refused>;

/// Everything that is exposed at a time. A clone costs nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Exposure {
    /// The name that users connect to.
    #[serde(with = "shared_text")]
    pub host: Arc<str>,
    /// Every endpoint there is or should be, by job and rule.
    #[serde(with = "shared_values")]
    pub endpoints: Endpoints,
    /// What is not exposed otherwise, and why.
    #[serde(with = "shared_values")]
    pub refused: Refusals,
    /// The ports in numbers.
    pub ports: PortCounts,
    /// Jobs known.
    pub jobs: usize,
    /// When a complete listing was last had.
    pub complete: Option<SystemTime>,
    /// Endpoints that nobody has confirmed since the start.
    pub unconfirmed: usize,
    /// Why allocations cannot be kept, if they cannot.
    pub not_kept: Option<String>,
    /// The region whose ports these are, where several proxies share them.
    pub region: Option<RegionView>,
}

/// A region whose proxies share their ports, and this proxy's part in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionView {
    /// What this proxy is.
    pub role: Role,
    /// The proxy that follows the switchboard, if one is known to.
    pub leader: Option<String>,
    /// The generation of the map that is known here.
    pub generation: u64,
    /// That of the map that is in force here.
    pub applied: u64,
}

/// One public port of a job, or the wish for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The job and the rule.
    pub owner: Owner,
    /// The port, unless it waits for one.
    pub port: Option<u16>,
    /// Where its sessions go.
    pub target: SocketAddr,
    /// Why it is not open, if it is not.
    pub closed: Option<Reason>,
    /// Since when it has its port.
    pub since: Option<SystemTime>,
}

impl Exposure {
    /// The endpoints of one job.
    pub fn of_job<'a>(&'a self, job: &'a JobId) -> impl Iterator<Item = &'a Endpoint> {
        let from = self.endpoints.range_from(&Owner::before(job));
        let own = from.take_while(move |(owner, _)| owner.job == *job);
        own.map(|(_, endpoint)| endpoint)
    }

    /// What is not exposed of one job.
    pub fn refused_of<'a>(&'a self, job: &'a JobId) -> impl Iterator<Item = &'a Refused> {
        let from = self.refused.range_from(&(job.clone(), None));
        let own = from.take_while(move |((of, _), _)| of == job);
        own.map(|(_, refused)| refused)
    }

    /// How many endpoints are open.
    pub fn open(&self) -> usize {
        let open = |endpoint: &&Endpoint| endpoint.closed.is_none();
        self.endpoints.values().filter(open).count()
    }

    /// How many things are not exposed for that reason.
    pub fn closed(&self, reason: Reason) -> usize {
        let endpoints = self.endpoints.values();
        let closed = endpoints.filter(|endpoint| endpoint.closed == Some(reason));
        let refused = self.refused.values();
        closed.count() + refused.filter(|one| one.reason == reason).count()
    }
}

impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        let endpoints = endpoints.into_iter();
        endpoints.map(|one| (one.owner.clone(), one)).collect()
    }
}

impl FromIterator<Refused> for Refusals {
    fn from_iter<I: IntoIterator<Item = Refused>>(refused: I) -> Self {
        let refused = refused.into_iter();
        refused.map(|one| (one.subject(), one)).collect()
    }
}

/// A map whose values say what they belong to, as serde has it: a list.
mod shared_values {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::shared_map::SharedMap;

    pub fn serialize<K, V: Serialize, S: Serializer>(
        map: &SharedMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map.values())
    }

    pub fn deserialize<'de, K, V, D>(from: D) -> Result<SharedMap<K, V>, D::Error>
    where
        V: Deserialize<'de>,
        SharedMap<K, V>: FromIterator<V>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<V>::deserialize(from)?.into_iter().collect())
    }
}

impl Default for SwitchboardStatus {
    fn default() -> Self {
        Self {
            exposure: ArcSwapOption::empty(),
            replaced: Notify::new(),
            unusable: ArcSwapOption::empty(),
            publisher: ArcSwapOption::empty(),
            written: Mutex::default(),
            reachable: Histogram::new(&REACHABLE_BUCKETS),
            stats: Arc::default(),
            availability: Arc::default(),
            token: Arc::default(),
        }
    }
}

impl SwitchboardStatus {
    /// What is exposed; `None` if there is no switchboard.
    pub fn read(&self) -> Option<Arc<Exposure>> {
        self.exposure.load_full()
    }

    /// Replaces what is exposed.
    pub fn set(&self, exposure: Option<Exposure>) {
        self.exposure.store(exposure.map(Arc::new));
        self.replaced.notify_one();
    }

    pub(super) fn written(&self) -> MutexGuard<'_, SavedWritten> {
        lock(&self.written)
    }

    /// Notes why nobody can be asked, or that somebody can.
    pub fn set_unusable(&self, why: Option<String>) {
        self.unusable.store(why.map(Arc::new));
    }

    /// How the switchboard is doing, as seen from here.
    pub fn contact(&self) -> Contact {
        let exposure = self.exposure.load();
        let region = exposure.as_ref().and_then(|now| now.region.as_ref());
        match region.map(|region| region.role) {
            None | Some(Role::Leading { .. } | Role::Alone { .. }) => {}
            Some(Role::Unknown) => return Contact::Starting,
            Some(Role::Serving | Role::Expired) => {
                let leader = region.and_then(|region| region.leader.clone());
                return Contact::Elsewhere(leader);
            }
        }
        if let Some(why) = self.unusable.load_full() {
            return Contact::Away((*why).clone());
        }
        if let Some(outage) = self.availability.outage() {
            let why = outage.failure.in_short();
            return match outage.is_away() {
                true => Contact::Away(why),
                false => Contact::Troubled(why),
            };
        }
        let failing = FailureKind::ALL
            .iter()
            .copied()
            .filter(|kind| self.stats.episodes_open(*kind) > 0);
        let failing: Vec<_> = failing.collect();
        let words: Vec<_> = failing.iter().map(|kind| kind.word()).collect();
        let complete = (exposure.as_ref()).is_some_and(|now| now.complete.is_some());
        match () {
            () if !failing.is_empty() => Contact::Troubled(words.join(", ")),
            () if !complete => Contact::Starting,
            () => Contact::Following,
        }
    }

    /// Notes that something began not to be exposed.
    pub fn refused(&self, reason: Reason) {
        metric::SWITCHBOARD_REFUSALS.add(&[reason.word()], 1);
    }

    /// Notes that something that was open no longer is.
    pub fn closed(&self, why: Closing) {
        metric::SWITCHBOARD_CLOSINGS.add(&[why.word()], 1);
    }

    /// Notes an attempt to keep the state.
    pub fn kept(&self, succeeded: bool) {
        // Both are there from the first attempt on, so that the first failure is an increase.
        metric::SWITCHBOARD_KEPT.add(&["success"], succeeded.into());
        metric::SWITCHBOARD_KEPT.add(&["failure"], (!succeeded).into());
    }
}
