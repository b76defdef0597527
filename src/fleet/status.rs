//! What is known of a fleet, for whoever wants to know: written by the one who asks the database, read by
//! the admin endpoint. Neither waits for the other.

use std::{
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use strum::{IntoStaticStr, VariantNames};

use super::{
    entry::{Entries, Entry, Key},
    settings::{Fleet, FleetName},
};
use crate::provider::switchboard::{JobId, RuleName, ports::PortCounts};

/// A proxy that was not heard of for so long is told as one that may be gone.
const SILENT: Duration = Duration::from_secs(30);

/// What is known of a fleet.
#[derive(Debug, Default)]
pub struct FleetStatus {
    /// None while there is none in the configuration.
    view: ArcSwapOption<FleetView>,
    /// Times the database was of no use.
    pub failures: AtomicU64,
}

/// What is known of a fleet at a time.
#[derive(Debug, Clone)]
pub struct FleetView {
    /// The settings in force.
    pub settings: Arc<Fleet>,
    /// How it stands with the database.
    pub contact: Contact,
    /// The server that is asked.
    pub server: Option<String>,
    /// When the database last answered: as of when it was asked.
    pub heard: Option<Instant>,
    /// Every proxy the database knows of, this one too, by name.
    pub proxies: Vec<FleetProxy>,
    /// Every region whose proxies share ports, by name.
    pub regions: Vec<FleetRegion>,
}

/// A region whose proxies share the ports of jobs.
#[derive(Debug, Clone, Deserialize)]
pub struct FleetRegion {
    /// Its name.
    pub name: FleetName,
    /// The generation of its ports: goes up with every change.
    pub generation: u64,
    /// The proxy that leads, if one does.
    pub leader: Option<String>,
    /// Whether every proxy has told what it serves since the database has lost commits.
    pub is_settled: bool,
    /// Its ports in numbers, as the leader has told them.
    pub counts: Option<PortCounts>,
}

/// How it stands with the database.
#[derive(Debug, Clone, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Contact {
    /// It was not asked yet.
    Starting,
    /// It answers.
    Connected,
    /// It cannot be asked for now; in words, why.
    Away(String),
    /// It will not have this proxy until somebody does something; in words, why.
    Refused(String),
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
            Self::Starting | Self::Connected => None,
            Self::Away(why) | Self::Refused(why) => Some(why),
        }
    }
}

/// A proxy of the fleet.
#[derive(Debug, Clone)]
pub struct FleetProxy {
    /// Its name.
    pub name: FleetName,
    /// Where it is.
    pub region: FleetName,
    /// The version of its program.
    pub version: String,
    /// When it was last heard of.
    pub seen: Instant,
    /// Its sessions then.
    pub sessions: u64,
    /// The generation of what it publishes.
    pub generation: u64,
    /// The generation of its region's ports that is in force there, if it shares them.
    pub applied: Option<u64>,
    /// Whether it has stopped.
    pub has_left: bool,
    /// Whether it was removed by an operator.
    pub is_fenced: bool,
    /// What it publishes, as far as that was read: the generation of that, and the entries.
    pub published: (u64, Arc<Entries>),
}

impl FleetProxy {
    /// Every word for how one is.
    pub const STATES: [&str; 4] = ["up", "silent", "stopped", "removed"];

    /// How it is, in a word.
    pub fn state(&self) -> &'static str {
        match self {
            _ if self.is_fenced => "removed",
            _ if self.has_left => "stopped",
            _ if self.is_silent() => "silent",
            _ => "up",
        }
    }

    /// Whether it was not heard of for long, though it has not said that it stops.
    pub fn is_silent(&self) -> bool {
        self.seen.elapsed() > SILENT
    }
}

/// An endpoint of a job at some proxy.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere<'a> {
    /// The proxy.
    pub proxy: &'a FleetProxy,
    /// The job.
    pub job: &'a JobId,
    /// The rule.
    pub rule: &'a RuleName,
    /// What it says.
    pub entry: &'a Entry,
}

impl FleetStatus {
    /// What is known; none if there is no fleet.
    pub fn read(&self) -> Option<Arc<FleetView>> {
        self.view.load_full()
    }

    /// There is no fleet any more.
    pub fn clear(&self) {
        self.view.store(None);
    }

    /// Begins anew with other settings, and keeps what is known of others if that is the same fleet.
    pub(super) fn begin(&self, settings: &Arc<Fleet>) {
        let known = self
            .read()
            .filter(|view| view.settings.database == settings.database);
        let (heard, proxies, regions) = known.map_or_else(Default::default, |view| {
            (view.heard, view.proxies.clone(), view.regions.clone())
        });
        self.view.store(Some(Arc::new(FleetView {
            settings: Arc::clone(settings),
            contact: Contact::Starting,
            server: None,
            heard,
            proxies,
            regions,
        })));
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut FleetView)) {
        if let Some(mut view) = self.read() {
            change(Arc::make_mut(&mut view));
            self.view.store(Some(view));
        }
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }
}

impl FleetView {
    /// How far a region is, for lookups here: nearest first.
    pub fn distance(&self, region: &str) -> usize {
        let Fleet {
            nearest,
            region: own,
            ..
        } = &*self.settings;
        match nearest.iter().position(|near| near.as_str() == region) {
            Some(place) => place + 1,
            None if own.as_str() == region => 0,
            None => usize::MAX,
        }
    }

    /// The other proxies that can be told of, those that may be gone last, then nearest first.
    pub fn others(&self) -> Vec<&FleetProxy> {
        let own = &self.settings.name;
        let proxies = self.proxies.iter();
        let is_other = |proxy: &&FleetProxy| proxy.name != *own && !proxy.is_fenced;
        let mut others: Vec<_> = proxies.filter(is_other).collect();
        others.sort_by_key(|proxy| self.place(proxy));
        others
    }

    fn place(&self, proxy: &FleetProxy) -> (bool, usize) {
        (proxy.is_silent(), self.distance(proxy.region.as_str()))
    }

    /// Where a job can be reached at other proxies, or all jobs, in the order of the proxies.
    pub fn elsewhere(&self, job: Option<&JobId>) -> Vec<Elsewhere<'_>> {
        let mut found = Vec::new();
        for proxy in self.others() {
            let entries = &*proxy.published.1;
            let from = match (job, RuleName::parse(LOWEST)) {
                (Some(job), Some(lowest)) => Bound::Included(Key::Job(job.clone(), lowest)),
                _ => Bound::Unbounded,
            };
            let entries = entries.range((from, Bound::Unbounded));
            let entries = entries.map_while(|(key, entry)| match key {
                Key::Job(of, rule) if job.is_none_or(|job| job == of) => Some(Elsewhere {
                    proxy,
                    job: of,
                    rule,
                    entry,
                }),
                _ => None,
            });
            found.extend(entries);
        }
        found
    }
}

/// No rule's name comes before this one.
const LOWEST: &str = "-";
