//! This proxy as a member of a fleet: what it tells of itself, gathered from what is in force, and the
//! task that tells it, started and ended as the configuration says.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::timeout};

use super::tasks::{Ended, Tasks, end, why_ended};
use crate::{
    admin::Sources,
    config::{Config, runs},
    fleet::{self, DatabaseUrl, Entries, Entry, Fleet, FleetName, Key, Own, target_told},
    provider::switchboard::{
        Exposure,
        expose::Reason,
        region::{self, Heard, RegionClient, RegionServer},
        reserve::{Reserve, SavedReserve},
    },
    table::{JobLease, ListenHost, MappingOverride, MappingOverrides},
    telemetry::Task,
};

/// Between two looks whether mappings of the file have changed; jobs are told of at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a change of the settings waits for the name to be let go of.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// How long ports of another region, or of the proxy by another name, stay open until it is known whose they are
/// here: less than anybody waits for who has left.
const ELSEWHERE_FOR: Duration = Duration::from_secs(10);

/// The member, if there is a fleet.
#[derive(Debug)]
pub(super) struct Member {
    tasks: Tasks,
    settings: Option<Arc<Fleet>>,
    running: Option<Running>,
    /// Whoever exposes jobs by the ports of the region, if somebody does.
    region: Option<RegionClient>,
    /// What is for the next to ask the database, with the settings that it is for.
    next: Option<(Fleet, RegionServer)>,
    /// When the database was last heard of, for the sake of those ports.
    heard: Arc<Heard>,
    /// Those of them that this proxy has beforehand.
    reserve: Arc<Reserve>,
}

#[derive(Debug)]
struct Running {
    own: Arc<Own>,
    task: JoinHandle<String>,
    /// Whether it asks for the ports of the region.
    shares: bool,
}

impl Member {
    /// Takes part nowhere yet.
    pub fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            settings: None,
            running: None,
            region: None,
            next: None,
            heard: Arc::default(),
            reserve: Arc::default(),
        }
    }

    /// Goes on from when the database was last heard of, with ports that this proxy has beforehand.
    pub fn heard(&mut self, heard: Heard, reserve: SavedReserve) {
        self.heard = Arc::new(heard);
        self.reserve = Arc::new(Reserve::load(reserve));
    }

    /// Has the ports of jobs be those of the region from the next [`Member::set`] or start on, if these
    /// settings share them. Returns what whoever exposes goes by.
    pub fn share(&mut self, wanted: Option<&Fleet>, lease: &Arc<JobLease>) -> Option<RegionClient> {
        let Some(wanted) = wanted.filter(|wanted| wanted.shares_ports()) else {
            self.region = None;
            self.next = None;
            // When ports are shared again, they are those of this proxy, whose lease is not over.
            self.heard = Arc::default();
            self.reserve = Arc::default();
            lease.ends_at(None);
            return None;
        };
        let known = match &self.next {
            Some((settings, _)) => Some(settings),
            None => self.settings.as_deref(),
        };
        // That nobody asks any more is so after a failure.
        let is_asked = |region: &RegionClient| region.ports.has_changed().is_ok();
        if known != Some(wanted) || !self.region.as_ref().is_some_and(is_asked) {
            let moves =
                known.is_some_and(|known| known.shares_ports() && place(known) != place(wanted));
            if moves {
                self.heard = Arc::default();
                self.reserve = Arc::default();
            }
            let (heard, reserve) = (Arc::clone(&self.heard), Arc::clone(&self.reserve));
            let (mut client, server) = region::channel(heard, reserve, Arc::clone(lease));
            let known = self.region.as_ref();
            let arrives = known.filter(|known| known.ports.borrow().map.is_none());
            client.elsewhere_until = match moves {
                true => Some(Instant::now() + ELSEWHERE_FOR),
                false => arrives.and_then(|known| known.elsewhere_until),
            };
            self.region = Some(client);
            self.next = Some((wanted.clone(), server));
        }
        self.region.clone()
    }

    /// Puts settings into force. Nothing about them can fail: what cannot be had is tried again.
    pub async fn set(&mut self, wanted: Option<&Fleet>, sources: &Arc<Sources>) {
        let shares = |running: &Running| running.shares == self.region.is_some();
        let is_same = self.settings.as_deref() == wanted && self.next.is_none();
        if is_same && self.running.as_ref().is_none_or(shares) {
            return self.start(sources);
        }
        if let Some(Running {
            own,
            mut task,
            shares,
        }) = self.running.take()
        {
            let known = self.settings.as_deref();
            let stays = known.zip(wanted).is_some_and(|(known, wanted)| {
                shares && self.region.is_some() && place(known) == place(wanted)
            });
            // Whoever leaves says that ports are closed, which they are not for other settings.
            if !stays {
                own.leaves.notify_one();
            }
            if stays || timeout(LEAVE_WITHIN, &mut task).await.is_err() {
                end(task).await;
            }
        }
        self.settings = wanted.cloned().map(Arc::new);
        if self.settings.is_none() {
            sources.fleet.clear();
        }
        self.start(sources);
    }

    /// Starts, if there is a fleet and nobody takes part.
    pub fn start(&mut self, sources: &Arc<Sources>) {
        let Some(settings) = &self.settings else {
            return;
        };
        if self.running.is_some() {
            return;
        }
        let own = Arc::new(Own::default());
        let region = self.next.take().map(|(_, server)| server);
        let shares = region.is_some();
        let (settings, sources) = (Arc::clone(settings), Arc::clone(sources));
        let work = {
            let own = Arc::clone(&own);
            async move {
                let status = Arc::clone(&sources.fleet);
                tokio::select! {
                    biased;
                    () = look(&settings, &own, &sources) => {}
                    () = fleet::run(Arc::clone(&settings), Arc::clone(&own), status, region) => {}
                }
                "it has left".to_owned()
            }
        };
        let task = self.tasks.spawn(work);
        self.running = Some(Running { own, task, shares });
    }

    /// What has ended by itself.
    pub async fn take_ended(&mut self) -> Option<Ended> {
        let running = self.running.take_if(|running| running.task.is_finished())?;
        Some(Ended {
            task: Task::Fleet,
            what: "taking part in the fleet".to_owned(),
            why: why_ended(running.task).await,
        })
    }

    /// Has the name let go of and what was told taken back, without waiting for it.
    pub fn stop(&mut self) {
        self.settings = None;
        if let Some(running) = &self.running {
            running.own.leaves.notify_one();
        }
    }

    /// Waits until that is done, but not for long.
    pub async fn left(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = timeout(LEAVE_WITHIN, running.task).await;
        }
    }
}

/// What makes it the same proxy of the same region.
fn place(fleet: &Fleet) -> (&DatabaseUrl, &FleetName, &FleetName) {
    (&fleet.database, &fleet.region, &fleet.name)
}

type InForce = (Arc<Config>, Arc<MappingOverrides>, Option<Arc<Exposure>>);

/// Keeps what is told as it is in force. What is in force changes as a whole, so that it takes no more
/// than to see whether it is another.
async fn look(settings: &Fleet, own: &Own, sources: &Sources) {
    let mut before = None;
    loop {
        own.sessions
            .store(sources.shared.stats.sessions_open().into(), Relaxed);
        let config = sources.config.load_full();
        let overrides = sources.shared.overrides.load_full();
        let exposure = sources.switchboard.read();
        let is_same = before.as_ref().is_some_and(|before: &InForce| {
            Arc::ptr_eq(&before.0, &config)
                && Arc::ptr_eq(&before.1, &overrides)
                && match (&before.2, &exposure) {
                    (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                    (before, now) => before.is_none() && now.is_none(),
                }
        });
        if !is_same {
            let entries = entries(settings, &config, &overrides, exposure.as_deref());
            own.entries.send_if_modified(|known| {
                let is_new = **known != entries;
                if is_new {
                    *known = Arc::new(entries);
                }
                is_new
            });
            // Kept, so that nothing else is at its place in memory.
            before = Some((config, overrides, exposure));
        }
        // Either way it is looked at everything.
        let _ = timeout(LOOK_EVERY, sources.switchboard.replaced.notified()).await;
    }
}

/// Everything that can be reached through this proxy.
fn entries(
    settings: &Fleet,
    config: &Config,
    overrides: &MappingOverrides,
    exposure: Option<&Exposure>,
) -> Entries {
    let mut entries = Entries::new();
    for one in exposure
        .iter()
        .flat_map(|exposure| exposure.endpoints.values())
    {
        let held = overrides.get(&one.owner.mapping()).copied();
        let held = held.map_or("open", MappingOverride::word);
        let state = match one.closed {
            None => held,
            Some(Reason::NoPort) => "waiting",
            Some(_) => "closed",
        };
        let entry = Entry {
            host: exposure.map_or_else(String::new, |exposure| exposure.host.to_string()),
            port: one.port,
            last: None,
            target: Some(one.target.to_string()),
            state: state.to_owned(),
            reason: one.closed.map(|reason| reason.word().to_owned()),
            since: one
                .since
                .map(|since| humantime::format_rfc3339_millis(since).to_string()),
        };
        let key = Key::Job(one.owner.job.clone(), one.owner.rule.clone());
        entries.insert(key, entry);
    }
    let of_jobs = config.switchboard.as_ref().map(|own| &own.public_host);
    let Some(host) = settings.public_host.as_ref().or(of_jobs) else {
        return entries;
    };
    for spec in &config.mappings {
        let state = overrides.get(&spec.name).copied();
        let state = state.map_or("open", MappingOverride::word);
        for run in runs(&spec.pairs) {
            let (Some((first, target)), Some((last, last_target))) = (run.first(), run.last())
            else {
                continue;
            };
            // Nobody else can get there.
            let is_private = match first.host() {
                ListenHost::Any => false,
                ListenHost::V4(address) => address.is_loopback(),
                ListenHost::V6(address) => address.is_loopback(),
            };
            if is_private {
                continue;
            }
            let key = Key::Mapping(spec.name.to_string(), first.port());
            entries.entry(key).or_insert_with(|| Entry {
                host: host.to_string(),
                port: Some(first.port()),
                last: (first != last).then(|| last.port()),
                target: Some(target_told(&target.up_to(last_target))),
                state: state.to_owned(),
                reason: None,
                since: None,
            });
        }
    }
    entries
}
