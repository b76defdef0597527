//! What exposing is in a region whose proxies share their ports.
//!
//! One proxy leads: it decides as a proxy alone does, and has its decisions written into the map of the
//! region. All serve that map, each after checks of its own. Cool-downs and blocked ports are the map's,
//! so no clock here decides whose a port is. Whoever begins to lead knows what is in the map and closes
//! nothing until the switchboard has spoken.
//!
//! What jobs get while the database is away is in `reserved`.

mod reserved;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{ASK_FIRST, Changed, Exposer, GOOD_FOR, displaced::Displaced};
use crate::provider::switchboard::{
    BootInstant, JobId, KnownJobs, Owner, PortRanges, RegionView,
    expose::{Decision, Reason, Refused, add_told},
    ports::{Kept, PortCounts, Told},
    region::{
        PortChange, PortMap, PortOwner, PortRefused, RefusedWhy, RegionClient, RegionPort,
        RegionPorts, RegionRequest, Role,
    },
};

/// Changes that are asked for in one go.
const AT_ONCE: usize = 500;

/// Until what could not be written is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// How long a port is left alone that was refused for no reason that the map shows.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// How many ports this proxy may have the region leave alone at once because it cannot bind them, and after
/// how long one more: one that can bind none, such as a second one on a machine, would take those of all.
const BLOCKS: (u32, Duration) = (16, Duration::from_secs(600));

/// A region as an exposer knows it.
#[derive(Debug)]
pub(super) struct Region {
    client: RegionClient,
    /// What was last heard.
    latest: Arc<RegionPorts>,
    /// What this proxy was in the last round.
    role: Role,
    /// The map as it was last taken in.
    map: PortMap,
    /// The ports of the owners in it.
    ports: BTreeMap<Owner, u16>,
    /// Those whose port is blocked.
    displaced: Displaced,
    /// Ports of which the map may say something else than is decided here.
    unwritten: BTreeSet<u16>,
    /// When everything is to be looked at again.
    look_again: Option<Instant>,
    /// Ports that could not be bound here, with the generation of which that was told.
    blocked: BTreeMap<u16, u64>,
    /// When all of [`BLOCKS`] may be told of again.
    blocks_whole: Instant,
    /// Whether the log says that there were more.
    blocks_spent: bool,
    /// Whether the log says that all ports are used that this proxy has beforehand.
    reserve_spent: bool,
}

/// How a round goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Nothing changes.
    Hold,
    /// By what is known of the jobs.
    Decide,
    /// By what the map says.
    Serve,
}

impl Region {
    pub fn new(client: RegionClient) -> Self {
        Self {
            client,
            latest: Arc::default(),
            role: Role::Unknown,
            map: PortMap::default(),
            ports: BTreeMap::new(),
            displaced: Displaced::default(),
            unwritten: BTreeSet::new(),
            look_again: None,
            blocked: BTreeMap::new(),
            blocks_whole: Instant::now(),
            blocks_spent: false,
            reserve_spent: false,
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it is the region of that client.
    pub fn is_of(&self, client: &RegionClient) -> bool {
        self.client.ports.same_channel(&client.ports)
    }

    /// Waits until something else is known.
    pub async fn changed(&mut self) {
        if self.client.ports.changed().await.is_err() {
            // Whoever asks the database is started again, and comes with another channel.
            std::future::pending().await
        }
    }

    /// Whether the region knows that an owner has a port, or it is one that this proxy had beforehand.
    pub fn has(&self, owner: &Owner, port: u16) -> bool {
        self.is_owner(owner, port) || self.is_alone() && self.client.reserve.has_given(owner, port)
    }

    fn is_owner(&self, owner: &Owner, port: u16) -> bool {
        let map = self.latest.map.as_ref();
        let known = map.and_then(|map| map.ports.get(&port));
        matches!(known, Some(RegionPort::Owned { owner: known, .. }) if known == owner)
    }

    fn is_alone(&self) -> bool {
        matches!(self.role, Role::Alone { .. })
    }

    /// What is wanted of the region's ports, but not known there yet.
    pub fn note(&mut self, port: u16) {
        self.unwritten.insert(port);
    }

    /// When there is something to do without any change.
    pub fn next(&self) -> Option<Instant> {
        let leads = matches!(self.role, Role::Leading { .. });
        let write = (leads && !self.unwritten.is_empty()).then(|| Instant::now() + WRITE_AGAIN);
        let until = self.client.elsewhere_until;
        let close = until.filter(|_| self.role == Role::Unknown);
        let due = [write, self.look_again, close, self.displaced.next()];
        due.into_iter().flatten().min()
    }

    /// Tells that what the map said is in force here, and out of which ports it may have some beforehand.
    pub fn applied(&self, ranges: &PortRanges) {
        self.client.reserve.take_from(ranges);
        self.client.applied.send_if_modified(|applied| {
            let is_new = *applied != self.map.generation;
            *applied = self.map.generation;
            is_new
        });
    }

    /// Tells the ports of the region in numbers.
    pub fn counted(&self, counts: PortCounts) {
        let counts = Some(counts);
        self.client.counts.send_if_modified(|known| {
            let is_new = *known != counts;
            *known = counts;
            is_new
        });
    }

    /// Tells that a port cannot be bound here, unless there were many: it is closed here alone then.
    pub fn block(&mut self, port: u16) {
        let map = self.latest.map.as_ref();
        if let Some(RegionPort::Owned { generation, .. }) = map.and_then(|map| map.ports.get(&port))
        {
            let generation = *generation;
            if self.blocked.get(&port) != Some(&generation) {
                if !self.may_block(Instant::now()) {
                    return;
                }
                self.blocked.insert(port, generation);
            }
            // It is told again as long as it cannot be bound.
            let request = RegionRequest::Block { port, generation };
            let _ = self.client.requests.try_send(request);
        }
    }

    fn may_block(&mut self, now: Instant) -> bool {
        let (at_once, one_more) = BLOCKS;
        let whole = self.blocks_whole.max(now) + one_more;
        let may = whole <= now + one_more * at_once;
        if may {
            self.blocks_whole = whole;
        } else if !self.blocks_spent {
            tracing::error!(
                ports = at_once,
                "too many ports cannot be bound here for the region to do without: more of them stay closed on this \
                 proxy alone; is another proxy of the region on this machine?"
            );
        }
        self.blocks_spent = !may;
        may
    }

    /// It as everybody may see it.
    pub fn view(&self) -> RegionView {
        RegionView {
            role: self.latest.role,
            leader: self.latest.leader.clone(),
            generation: self.map.generation,
            applied: *self.client.applied.borrow(),
        }
    }

    /// Makes the latest map the one that is taken in. Says which ports may be others' since, and whose
    /// they were and are.
    fn take_in(&mut self, everything: bool) -> (BTreeSet<u16>, BTreeSet<Owner>) {
        let Some(mut new) = self.latest.map.clone() else {
            return Default::default();
        };
        let serves = !self.role.follows();
        let settled = (self.displaced).hold(&self.map, &mut new, serves, Instant::now());
        let before = std::mem::replace(&mut self.map, new);
        let ports: BTreeSet<u16> = match everything {
            true => before
                .ports
                .keys()
                .chain(self.map.ports.keys())
                .copied()
                .collect(),
            false => {
                let ports = self.map.ports.differences(&before.ports, PartialEq::eq);
                ports.into_iter().copied().collect()
            }
        };
        let mut owners: BTreeSet<_> = settled.into_iter().collect();
        for port in &ports {
            if let Some(RegionPort::Owned { owner, .. }) = before.ports.get(port) {
                self.ports.remove(owner);
                owners.insert(owner.clone());
            }
        }
        for port in &ports {
            if let Some(RegionPort::Owned { owner, .. }) = self.map.ports.get(port) {
                self.ports.insert(owner.clone(), *port);
                owners.insert(owner.clone());
            }
        }
        (ports, owners)
    }

    /// What a job has in the map: each owner with its port and where that leads.
    fn of_job<'a>(&'a self, job: &'a JobId) -> impl Iterator<Item = (&'a Owner, u16, SocketAddr)> {
        let own = self.ports.range(Owner::before(job)..);
        let own = own.take_while(move |(owner, _)| owner.job == *job);
        own.filter_map(|(owner, port)| match self.map.ports.get(port)? {
            RegionPort::Owned { target, .. } => Some((owner, *port, *target)),
            _ => None,
        })
    }
}

fn told(known: Option<&RegionPort>) -> Told<'_> {
    match known {
        Some(RegionPort::Owned { owner, .. }) => Told::Owned(owner),
        Some(RegionPort::Left { owner }) => Told::Left(owner),
        Some(RegionPort::Cooling) => Told::Cooling,
        Some(RegionPort::Blocked) => Told::Blocked,
        Some(RegionPort::Reserved) => Told::Reserved,
        None => Told::Free,
    }
}

impl Exposer {
    /// How a round goes, by what this proxy is now.
    pub(super) fn course(&mut self, known_jobs: &KnownJobs) -> Course {
        let Some(region) = &mut self.region else {
            // What was heard on behalf of a region says nothing here.
            return match known_jobs.followed_as {
                Role::Unknown => Course::Decide,
                _ => Course::Hold,
            };
        };
        region.latest = Arc::clone(&region.client.ports.borrow_and_update());
        let role = match region.latest.role {
            Role::Unknown if region.client.is_elsewhere() => Role::Expired,
            role => role,
        };
        let is_begun = !role.follows() || known_jobs.followed_as == role;
        if role == Role::Unknown || !is_begun {
            return Course::Hold;
        }
        let look_again = region.look_again.take_if(|at| *at <= Instant::now());
        if role != region.role || look_again.is_some() {
            self.decided = None;
        }
        if role != region.role {
            region.role = role;
            region.reserve_spent = false;
            self.trusting_from = Instant::now() + ASK_FIRST;
        }
        match role.follows() {
            true => Course::Decide,
            false => Course::Serve,
        }
    }

    /// Brings the allocation in step with the map. Says whose ports may be others since.
    pub(super) fn take_in_map(&mut self) -> BTreeSet<Owner> {
        let Some(region) = &mut self.region else {
            return BTreeSet::new();
        };
        let everything = self.decided.is_none();
        let (mut ports, mut owners) = region.take_in(everything);
        let (ranges, now) = (&self.settings.ports, BootInstant::now());
        let follows = region.role.follows();
        let given: BTreeMap<_, _> = match region.is_alone() {
            true => region.client.reserve.given().into_iter().collect(),
            false => BTreeMap::new(),
        };
        if everything && region.latest.map.is_some() {
            self.ports.count_outside(ranges);
            ports.extend(self.ports.known());
            region.unwritten.clone_from(&ports);
        }
        if everything {
            ports.extend(given.keys());
        }
        for port in ports {
            let known = region.map.ports.get(&port);
            if let Some(RegionPort::Owned {
                owner,
                target,
                since,
                ..
            }) = known
            {
                let address = target.ip();
                let kept = Kept {
                    address,
                    since: *since,
                };
                self.kept.insert(owner.clone(), kept);
            }
            let here = self.ports.owner(port);
            let is_same = match known {
                // That it is somebody's by now only this proxy knows.
                _ if given.contains_key(&port) => given.get(&port) == here,
                Some(RegionPort::Owned { owner, .. }) => here == Some(owner),
                // Who leads may have given it out before there was a region.
                None => here.is_some() && follows,
                Some(_) => false,
            };
            if !is_same {
                // The map may never have been read in which it was theirs.
                owners.extend(here.cloned());
                let told = given.get(&port).map_or(told(known), Told::Owned);
                self.ports.told(port, told, ranges, now);
            }
        }
        if !follows {
            let known = &region.ports;
            match everything && region.latest.map.is_some() {
                true => self.kept.retain(|owner, _| known.contains_key(owner)),
                false => {
                    for owner in owners.iter().filter(|owner| !known.contains_key(owner)) {
                        self.kept.remove(owner);
                    }
                }
            }
        } else if everything {
            self.decisions.begin_after(&self.kept);
        }
        owners
    }

    /// Notes whose ports were taken or given by others than who leads here.
    pub(super) fn note_displaced(&self, owners: BTreeSet<Owner>, changed: &mut Changed) {
        for owner in owners {
            let wants = self.decisions.desired(&owner).is_some();
            match (wants, self.ports.port(&owner)) {
                (true, None) => changed.come.push(owner.clone()),
                (false, Some(_)) => changed.gone.push(owner.clone()),
                _ => {}
            }
            changed.owners.insert(owner);
        }
    }

    /// Decides by what the map says, for the jobs of which it says something else, or for all.
    pub(super) fn serve(&mut self, now: Instant) -> Changed {
        self.own.forget(now);
        let fresh = |at: &Instant| now.duration_since(*at) < GOOD_FOR;
        self.decided.take_if(|(_, at)| !fresh(at));
        let everything = self.decided.is_none();
        let owners = self.take_in_map();
        let mut changed = Changed {
            owners: std::mem::take(&mut self.unsettled),
            everything,
            ..Changed::default()
        };
        if let Some(region) = &self.region {
            let mut jobs: BTreeSet<JobId> = owners.iter().map(|owner| owner.job.clone()).collect();
            let lost: BTreeMap<_, _> = match region.role {
                Role::Expired => {
                    let open = self.proposed.iter();
                    let open = open.map(|(owner, (_, target))| (owner.clone(), *target));
                    open.collect()
                }
                _ => BTreeMap::new(),
            };
            if everything {
                jobs.extend(self.decisions.jobs().cloned());
                jobs.extend(region.ports.keys().map(|owner| owner.job.clone()));
                jobs.extend(lost.keys().map(|owner| owner.job.clone()));
            }
            let is_own = |ip| self.own.contains(ip, now);
            for job in jobs {
                let mut decision = Decision::default();
                if region.role == Role::Expired {
                    let open = lost.range(Owner::before(&job)..);
                    let open = open.take_while(|(owner, _)| owner.job == job);
                    let mut targets: BTreeMap<_, _> = open.collect();
                    let known: Vec<_> = region.of_job(&job).collect();
                    targets.extend(known.iter().map(|(owner, _, target)| (*owner, target)));
                    let targets = targets.into_iter();
                    let refused = targets.map(|of| refused(of, Reason::LeaseOver));
                    decision.refused = refused.collect();
                } else {
                    for known in region.of_job(&job) {
                        add_told(known, &self.settings, &is_own, &mut decision);
                    }
                    let waits = region.displaced.of_job(&job);
                    let waits = waits.map(|of| refused(of, Reason::NoPort));
                    decision.refused.extend(waits);
                }
                if let Some(before) = self.decisions.decided(&job, decision) {
                    let wanted = before.wanted.iter();
                    changed.owners.extend(wanted.map(|one| one.owner.clone()));
                    changed.jobs.insert(job, before);
                }
            }
        }
        changed.owners.extend(owners);
        if everything {
            self.look_at_all(&mut changed);
            self.decided = Some((Arc::default(), now));
        }
        changed
    }

    /// What is to be written into the map, if this proxy leads.
    pub(super) fn unwritten(&mut self) -> Vec<PortChange> {
        let Some(region) = &mut self.region else {
            return Vec::new();
        };
        if !matches!(region.role, Role::Leading { .. }) {
            return Vec::new();
        }
        let map = region.latest.map.as_ref();
        let (mut released, mut owned) = (Vec::new(), Vec::new());
        region.unwritten.retain(|port| {
            let there = map.and_then(|map| map.ports.get(port));
            let there = there.and_then(|known| match known {
                RegionPort::Owned { owner, target, .. } => Some((owner, *target)),
                _ => None,
            });
            let here = self.ports.owner(*port);
            let here = here.and_then(|owner| {
                let desired = self.decisions.desired(owner)?;
                Some((owner, desired.target))
            });
            let port = *port;
            match (here, there) {
                (Some(here), Some(there)) if here == there => return false,
                (Some((owner, target)), there) => {
                    if let Some((former, _)) = there
                        && former != owner
                        && owner.host.is_some()
                        && former.holder() == owner.holder()
                    {
                        let owner = former.clone();
                        let to = PortOwner::Released { owner };
                        released.push(PortChange { port, to });
                    }
                    let owner = owner.clone();
                    let to = PortOwner::Owned { owner, target };
                    owned.push(PortChange { port, to });
                }
                (None, Some((owner, _))) => {
                    let owner = owner.clone();
                    let to = PortOwner::Released { owner };
                    released.push(PortChange { port, to });
                }
                (None, None) => return false,
            }
            true
        });
        // Whoever moves has only one port at any time.
        released.append(&mut owned);
        released
    }

    /// Has changes written. What is refused is taken back, and its owners look elsewhere; whether there are
    /// any.
    pub(super) async fn write(&mut self, changes: Vec<PortChange>, changed: &mut Changed) -> bool {
        let mut is_refused = false;
        for changes in changes.chunks(AT_ONCE) {
            let terms = self.terms();
            let counts = self.ports.counts(terms);
            let Some(region) = &mut self.region else {
                break;
            };
            let Role::Leading { term } = region.role else {
                break;
            };
            let (reply, answer) = oneshot::channel();
            let request = RegionRequest::Write {
                term,
                changes: changes.to_vec(),
                cooldown: self.settings.cooldown,
                counts,
                reply,
            };
            if region.client.requests.send(request).await.is_err() {
                break;
            }
            let refused = match answer.await {
                Ok(Ok(refused)) => refused,
                Ok(Err(why)) => {
                    tracing::debug!(why, "ports of jobs are not written yet");
                    break;
                }
                Err(_) => break,
            };
            region.latest = Arc::clone(&region.client.ports.borrow());
            for change in changes {
                region.unwritten.remove(&change.port);
            }
            for one in refused {
                is_refused |= self.take_back(one, changed);
            }
        }
        is_refused
    }

    /// Lets go of a port that was refused; whether its owner is to look for another at once.
    fn take_back(&mut self, refused: PortRefused, changed: &mut Changed) -> bool {
        let PortRefused { port, owner, why } = refused;
        let Some(region) = &mut self.region else {
            return false;
        };
        if why == RefusedWhy::Unsettled {
            region.unwritten.insert(port);
            return false;
        }
        tracing::debug!(%owner, port, ?why, "port refused");
        let (ranges, now) = (&self.settings.ports, BootInstant::now());
        let map = region.latest.map.as_ref();
        let known = |port: u16| told(map.and_then(|map| map.ports.get(&port)));
        let said = match known(port) {
            // The map does not say why.
            Told::Free => {
                region.look_again = Some(Instant::now() + REFUSED_FOR);
                Told::Blocked
            }
            said => said,
        };
        self.ports.told(port, said, ranges, now);
        if let RefusedWhy::HasPort(other) = why {
            self.ports.told(other, known(other), ranges, now);
        }
        if self.decisions.desired(&owner).is_some() {
            changed.come.push(owner.clone());
        }
        changed.owners.insert(owner);
        true
    }
}

fn refused((owner, target): (&Owner, &SocketAddr), reason: Reason) -> Refused {
    Refused {
        job: owner.job.clone(),
        rule: Some(owner.rule.clone()),
        reason,
        address: Some(target.ip()),
        state: None,
    }
}
