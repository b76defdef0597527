//! Which public port belongs to which job and rule.
//!
//! A port has one owner at most. It belongs to its owner until the owner does not want it any more,
//! whatever happens meanwhile; then it cools down, and until it has, nobody gets it but the owner
//! before. Where a port is free, who gets it depends on the owner and the ranges alone. A port that is held for
//! a host goes from one job there to the next at once, and to others only after a long time. Whoever finds no
//! port waits, and is served in the order of coming. A port that could not be bound is left alone
//! for a while.
//!
//! Where several proxies share their ports, somebody else decides when a port has cooled down or may be
//! tried again, and whose it is meanwhile: that is [told](Ports::told) port by port.
//!
//! Pure: time is told, nothing is opened or written. What has to outlive the process goes through
//! [`Ports::record`] and [`Ports::restore`].

mod record;
#[cfg(test)]
mod tests;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher,
    mem,
    time::Duration,
};

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

pub use record::{BlockedPort, Kept, LeftPort, OwnedPort, Record, Step};
pub use told::Told;

use super::{Holder, Owner, PortRanges, boot_instant::BootInstant};

/// How long a port that could not be bound is left alone.
pub const LEFT_ALONE: Duration = Duration::from_secs(600);

/// How long a port that is held for a host goes to nobody else after the last job there.
pub const HELD: Duration = Duration::from_secs(30 * 86_400);

/// What an operator asked of the allocation.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The ports there are.
    pub ranges: &'a PortRanges,
    /// How long a port goes to nobody else.
    pub cooldown: Duration,
    /// How long a port that could not be bound is left alone.
    pub left_alone: Duration,
    /// How many may be owned at once.
    pub most: usize,
    /// Whether anybody gets a port.
    pub gives: bool,
}

impl Terms<'_> {
    /// How long a port goes to nobody else after that owner.
    fn rest_after(&self, owner: &Owner) -> Duration {
        match owner.host {
            None => self.cooldown,
            Some(_) => self.cooldown.max(HELD),
        }
    }
}

/// Who wants a port.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The owners, the most important first.
    pub owners: &'a [Owner],
    /// Whether these are all there are.
    pub everybody: bool,
}

/// Who wants a port since, and who does not any more.
pub struct Changes<'a> {
    /// Those that came, the most important first.
    pub come: &'a [Owner],
    /// Those that went.
    pub gone: &'a [Owner],
    /// Whether somebody wants one now.
    pub wants: &'a dyn Fn(&Owner) -> bool,
    /// Whether everybody has been heard.
    pub everybody: bool,
}

/// The allocation.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    /// Ports that have an owner.
    owned: BTreeMap<u16, Owner>,
    /// Ports that have none and about which there is something to know.
    resting: BTreeMap<u16, Resting>,
    /// Resting ports in the order in which they were left, those that are held for hosts last; and in which
    /// they could not be bound.
    left: BTreeSet<(bool, BootInstant, u16)>,
    blocked: BTreeSet<(BootInstant, u16)>,
    /// Resting ports that proxies have beforehand.
    reserved: BTreeSet<u16>,
    /// Resting ports that are in none of the ranges.
    outside: usize,
    /// The port that an owner has, or had last and may have again.
    homes: BTreeMap<Owner, u16>,
    /// The port that is held for a host.
    held: BTreeMap<Holder, u16>,
    /// Who waits, the first to come first.
    queue: Vec<Owner>,
    /// Who got a port by the last change.
    served: BTreeSet<Owner>,
    /// Ports that got an owner or lost one since that was asked for last.
    touched: BTreeSet<u16>,
    is_queue_touched: bool,
}

/// What is known of a port without an owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Resting {
    /// Who had it last, and until when.
    left: Option<(Owner, BootInstant)>,
    /// When it could not be bound.
    blocked: Option<BootInstant>,
    /// Whether it is nobody's to have for a reason that is not known here.
    is_withheld: bool,
}

impl Resting {
    fn is_blocked(&self, left_alone: Duration, now: BootInstant) -> bool {
        self.blocked
            .is_some_and(|since| now.since(since) < left_alone)
    }

    fn is_cooling(&self, terms: Terms<'_>, now: BootInstant) -> bool {
        let left = self.left.as_ref();
        left.is_some_and(|(owner, since)| now.since(*since) < terms.rest_after(owner))
    }

    /// Whether `owner` may have it.
    fn is_free_for(&self, owner: &Owner, terms: Terms<'_>, now: BootInstant) -> bool {
        let is_same =
            |last: &Owner| last == owner || last.host.is_some() && last.holder() == owner.holder();
        let was_theirs = || self.left.as_ref().is_some_and(|(last, _)| is_same(last));
        let is_cooling = self.is_cooling(terms, now);
        let may = !self.is_withheld && !self.is_blocked(terms.left_alone, now);
        may && (!is_cooling || was_theirs())
    }
}

/// The ports in numbers; they add up to all there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortCounts {
    /// Owned.
    pub used: usize,
    /// Cooling down.
    pub cooling: usize,
    /// Left alone because they could not be bound.
    pub blocked: usize,
    /// Had by proxies beforehand.
    pub reserved: usize,
    /// To be had.
    pub free: usize,
}

impl Ports {
    /// Brings the allocation in step with who wants a port, the most important first. Where not
    /// everybody has been heard yet, whoever waits keeps the place in the queue.
    pub fn settle(&mut self, wanted: Wanted<'_>, terms: Terms<'_>, now: BootInstant) {
        let Wanted { owners, everybody } = wanted;
        let wants: BTreeSet<&Owner> = owners.iter().collect();
        let mut gone: BTreeSet<u16> = (self.owned.iter())
            .filter(|(port, owner)| !wants.contains(owner) || !terms.ranges.contains(**port))
            .map(|(port, _)| *port)
            .collect();
        // Beyond the limit, the least important give theirs back.
        let mut surplus = (self.owned.len() - gone.len()).saturating_sub(terms.most);
        for owner in owners.iter().rev() {
            if surplus == 0 {
                break;
            }
            if let Some(port) = self.port(owner)
                && gone.insert(port)
            {
                surplus -= 1;
            }
        }
        for port in gone {
            self.release(port, now);
        }
        self.count_outside(terms.ranges);
        if everybody {
            self.leave_queue(|owner| !wants.contains(owner));
        }
        self.forget(terms, now);
        self.line_up(owners);
        self.serve(&|owner| wants.contains(owner), terms, now);
    }

    /// The same, at the price of what has changed: everybody else wants what they wanted before, and the
    /// terms are as before.
    pub fn change(&mut self, changes: &Changes<'_>, terms: Terms<'_>, now: BootInstant) {
        for owner in changes.gone {
            if let Some(port) = self.port(owner) {
                self.release(port, now);
            }
        }
        if changes.everybody && !changes.gone.is_empty() {
            self.leave_queue(|owner| !(changes.wants)(owner));
        }
        self.forget(terms, now);
        self.line_up(changes.come);
        self.serve(changes.wants, terms, now);
    }

    /// Counts anew what is outside of ranges that may be others than before.
    pub fn count_outside(&mut self, ranges: &PortRanges) {
        let is_outside = |port: &&u16| !ranges.contains(**port);
        self.outside = self.resting.keys().filter(is_outside).count();
    }

    fn release(&mut self, port: u16, now: BootInstant) {
        if let Some(owner) = self.owned.remove(&port) {
            self.touched.insert(port);
            self.left.insert((owner.host.is_some(), now, port));
            self.resting.entry(port).or_default().left = Some((owner, now));
        }
    }

    fn leave_queue(&mut self, leaves: impl Fn(&Owner) -> bool) {
        let before = self.queue.len();
        self.queue.retain(|owner| !leaves(owner));
        self.is_queue_touched |= self.queue.len() != before;
    }

    /// Has those wait for a port that have none.
    fn line_up(&mut self, owners: &[Owner]) {
        let mut waiting: BTreeSet<&Owner> = self.queue.iter().collect();
        // Whoever lost a port and came back meanwhile is among them twice.
        let new: Vec<Owner> = owners
            .iter()
            .filter(|owner| self.port(owner).is_none() && waiting.insert(owner))
            .cloned()
            .collect();
        self.is_queue_touched |= !new.is_empty();
        self.queue.extend(new);
    }

    /// Lets go of what cannot matter any more.
    fn forget(&mut self, terms: Terms<'_>, now: BootInstant) {
        for (is_held, rest) in [(false, terms.cooldown), (true, terms.cooldown.max(HELD))] {
            let from = (is_held, BootInstant::default(), 0);
            while let Some((held, at, port)) = self.left.range(from..).next().copied()
                && held == is_held
                && now.since(at) >= rest
            {
                self.left.remove(&(held, at, port));
                let resting = self.resting.get_mut(&port);
                if let Some((owner, _)) = resting.and_then(|resting| resting.left.take()) {
                    self.leave_home(&owner, port);
                }
                self.forget_port(port, terms);
            }
        }
        while let Some((at, port)) = self.blocked.first().copied()
            && now.since(at) >= terms.left_alone
        {
            self.blocked.pop_first();
            if let Some(resting) = self.resting.get_mut(&port) {
                resting.blocked = None;
            }
            self.forget_port(port, terms);
        }
    }

    /// Lets go of who had or held a port.
    fn leave_home(&mut self, owner: &Owner, port: u16) {
        if self.homes.get(owner) == Some(&port) {
            self.homes.remove(owner);
        }
        if let Some(holder) = owner.holder()
            && self.held.get(&holder) == Some(&port)
        {
            self.held.remove(&holder);
        }
    }

    /// Notes who has a port.
    fn give(&mut self, port: u16, owner: Owner) {
        self.homes.insert(owner.clone(), port);
        if let Some(holder) = owner.holder() {
            self.held.insert(holder, port);
        }
        self.owned.insert(port, owner);
    }

    /// Lets go of a port about which there is nothing to know.
    fn forget_port(&mut self, port: u16, terms: Terms<'_>) {
        if self.resting.get(&port) == Some(&Resting::default()) {
            self.resting.remove(&port);
            self.outside -= usize::from(!terms.ranges.contains(port));
        }
    }

    fn serve(&mut self, wants: &dyn Fn(&Owner) -> bool, terms: Terms<'_>, now: BootInstant) {
        self.served.clear();
        if self.queue.is_empty() || !terms.gives {
            return;
        }
        let mut free = self.counts(terms).free;
        for owner in mem::take(&mut self.queue) {
            let port = match self.owned.len() < terms.most && wants(&owner) {
                true => self.find(&owner, free, terms, now),
                false => None,
            };
            let Some(port) = port else {
                self.queue.push(owner);
                continue;
            };
            match self.resting.remove(&port) {
                None => free -= 1,
                Some(Resting { left, blocked, .. }) => {
                    if let Some((last, at)) = left {
                        self.left.remove(&(last.host.is_some(), at, port));
                        self.leave_home(&last, port);
                    }
                    blocked.map(|at| self.blocked.remove(&(at, port)));
                }
            }
            self.touched.insert(port);
            self.is_queue_touched = true;
            self.served.insert(owner.clone());
            self.give(port, owner);
        }
    }

    /// A port for `owner`: the one it had, or the first free one from where its name leads.
    fn find(&self, owner: &Owner, free: usize, terms: Terms<'_>, now: BootInstant) -> Option<u16> {
        let fits = |port: &u16| {
            let resting = self.resting.get(port);
            let is_free = resting.is_none_or(|resting| resting.is_free_for(owner, terms, now));
            is_free && terms.ranges.contains(*port) && !self.owned.contains_key(port)
        };
        if let Some(home) = self.homes.get(owner).filter(|port| fits(port)) {
            return Some(*home);
        }
        let holder = owner.holder();
        match holder.as_ref().and_then(|holder| self.held.get(holder)) {
            // Another job on the host has it yet.
            Some(held)
                if self
                    .owned
                    .get(held)
                    .is_some_and(|one| one.holder() == holder) =>
            {
                return None;
            }
            Some(held) if fits(held) => return Some(*held),
            Some(_) | None => {}
        }
        if free == 0 {
            return None;
        }
        let count = terms.ranges.count();
        // The same in every run and every version.
        let mut hasher = FnvHasher::default();
        let name = holder.map_or_else(|| owner.to_string(), |holder| holder.to_string());
        hasher.write(name.as_bytes());
        let start = usize::try_from(hasher.finish() % count as u64).unwrap_or_default();
        (start..start + count)
            .map(|place| terms.ranges.nth(place))
            .find(fits)
    }

    /// Notes that a port could not be bound: it is left alone, and its owner is to find another.
    pub fn block(&mut self, port: u16, terms: Terms<'_>, now: BootInstant) {
        if let Some(mut owner) = self.owned.remove(&port) {
            self.leave_home(&owner, port);
            // Nobody holds what is of no use.
            owner.host = None;
            self.owned.insert(port, owner);
            self.release(port, now);
        } else if !self.resting.contains_key(&port) {
            self.outside += usize::from(!terms.ranges.contains(port));
        }
        self.touched.insert(port);
        self.blocked.insert((now, port));
        let resting = self.resting.entry(port).or_default();
        if let Some(before) = resting.blocked.replace(now)
            && before != now
        {
            self.blocked.remove(&(before, port));
        }
    }

    /// The port that `owner` has.
    pub fn port(&self, owner: &Owner) -> Option<u16> {
        let port = *self.homes.get(owner)?;
        (self.owned.get(&port) == Some(owner)).then_some(port)
    }

    /// Every port about which there is something to know.
    pub fn known(&self) -> impl Iterator<Item = u16> {
        self.owned.keys().chain(self.resting.keys()).copied()
    }

    /// Who has a port.
    pub fn owner(&self, port: u16) -> Option<&Owner> {
        self.owned.get(&port)
    }

    /// Every owner with its port.
    #[cfg(test)]
    pub fn owned(&self) -> impl Iterator<Item = (&Owner, u16)> {
        self.owned.iter().map(|(port, owner)| (owner, *port))
    }

    /// Who waits, the first to come first.
    pub fn waiting(&self) -> &[Owner] {
        &self.queue
    }

    /// Who got a port by the last change.
    pub fn take_served(&mut self) -> BTreeSet<Owner> {
        mem::take(&mut self.served)
    }

    /// Has a port among those that were touched, as something else is to be kept of its owner.
    pub fn touch(&mut self, port: u16) {
        self.touched.insert(port);
    }

    /// Ports that got an owner or lost one since they were last taken.
    pub fn touched(&self) -> &BTreeSet<u16> {
        &self.touched
    }

    /// Ports that got an owner or lost one since this was asked last.
    pub fn take_touched(&mut self) -> BTreeSet<u16> {
        mem::take(&mut self.touched)
    }

    /// Whether anybody has begun or ceased to wait since this was asked last.
    pub fn take_queue_touched(&mut self) -> bool {
        mem::take(&mut self.is_queue_touched)
    }

    /// The ports of the ranges in numbers, as they were at the last change.
    pub fn counts(&self, terms: Terms<'_>) -> PortCounts {
        let blocked = self.blocked.iter();
        let blocked = blocked.filter(|(_, port)| terms.ranges.contains(*port));
        let blocked = blocked.count();
        let reserved = self.reserved.iter();
        let reserved = reserved.filter(|port| terms.ranges.contains(**port));
        let reserved = reserved.count();
        let (used, resting) = (self.owned.len(), self.resting.len() - self.outside);
        PortCounts {
            used,
            blocked,
            reserved,
            cooling: resting - blocked - reserved,
            free: terms.ranges.count().saturating_sub(used + resting),
        }
    }

    /// When the next port comes free by itself.
    pub fn next_free(&self, terms: Terms<'_>, now: BootInstant) -> Option<BootInstant> {
        let resting = self.resting.iter();
        let resting = resting.filter(|(port, _)| terms.ranges.contains(**port));
        let free_at = resting.map(|(_, resting)| {
            let cooled = resting
                .left
                .as_ref()
                .map(|(owner, since)| since.after(terms.rest_after(owner)));
            let tried = resting.blocked.map(|since| since.after(terms.left_alone));
            cooled.max(tried).unwrap_or(now)
        });
        free_at.min()
    }
}
