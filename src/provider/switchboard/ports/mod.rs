//! Which public port belongs to which job and rule.
//!
//! A port has one owner at most. It belongs to its owner until the owner does not want it any more,
//! whatever happens meanwhile; then it cools down, and until it has, nobody gets it but the owner
//! before. Where a port is free, who gets it depends on the owner and the ranges alone. Whoever finds no
//! port waits, and is served in the order of coming. A port that could not be bound is left alone
//! for a while.
//!
//! Pure: time is told, nothing is opened or written. What has to outlive the process goes through
//! [`Ports::record`] and [`Ports::restore`].

mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher,
    mem,
    time::Duration,
};

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

pub use record::{BlockedPort, Kept, LeftPort, OwnedPort, Record};

use super::{Owner, PortRanges, boot_instant::BootInstant};

/// How long a port that could not be bound is left alone.
pub const LEFT_ALONE: Duration = Duration::from_secs(600);

/// What an operator asked of the allocation.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The ports there are.
    pub ranges: &'a PortRanges,
    /// How long a port goes to nobody else.
    pub cooldown: Duration,
    /// How many may be owned at once.
    pub most: usize,
}

/// Who wants a port.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The owners, the most important first.
    pub owners: &'a [Owner],
    /// Whether these are all there are.
    pub everybody: bool,
}

/// The allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// Every port about which there is something to know.
    places: BTreeMap<u16, Place>,
    /// The port that an owner has, or had last and may have again.
    homes: BTreeMap<Owner, u16>,
    /// Who waits, the first to come first.
    queue: Vec<Owner>,
}

/// What is known of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    owner: Option<Owner>,
    /// Who had it last, and until when.
    left: Option<(Owner, BootInstant)>,
    /// When it could not be bound.
    blocked: Option<BootInstant>,
}

impl Place {
    fn is_blocked(&self, now: BootInstant) -> bool {
        self.blocked
            .is_some_and(|since| now.since(since) < LEFT_ALONE)
    }

    fn is_cooling(&self, cooldown: Duration, now: BootInstant) -> bool {
        self.left
            .as_ref()
            .is_some_and(|(_, since)| now.since(*since) < cooldown)
    }

    /// Whether anybody may have it.
    fn is_free(&self, cooldown: Duration, now: BootInstant) -> bool {
        self.owner.is_none() && !self.is_blocked(now) && !self.is_cooling(cooldown, now)
    }

    /// Whether `owner` may have it.
    fn is_free_for(&self, owner: &Owner, cooldown: Duration, now: BootInstant) -> bool {
        let was_theirs = || self.left.as_ref().is_some_and(|(last, _)| last == owner);
        self.owner.is_none()
            && !self.is_blocked(now)
            && (!self.is_cooling(cooldown, now) || was_theirs())
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
    /// To be had.
    pub free: usize,
}

impl Ports {
    /// Brings the allocation in step with who wants a port, the most important first. Where not
    /// everybody has been heard yet, whoever waits keeps the place in the queue.
    pub fn settle(&mut self, wanted: Wanted<'_>, terms: Terms<'_>, now: BootInstant) {
        let Wanted {
            owners: wanted,
            everybody,
        } = wanted;
        let wants: BTreeSet<&Owner> = wanted.iter().collect();
        self.release(
            |port, owner| wants.contains(owner) && terms.ranges.contains(port),
            now,
        );
        self.keep_within(wanted, terms.most, now);
        self.forget(terms, now);
        self.queue
            .retain(|owner| !everybody || wants.contains(owner));
        let waiting: BTreeSet<&Owner> = self.queue.iter().collect();
        let new: Vec<Owner> = wanted
            .iter()
            .filter(|owner| !waiting.contains(owner) && self.port(owner).is_none())
            .cloned()
            .collect();
        self.queue.extend(new);
        self.serve(&wants, terms, now);
    }

    fn release(&mut self, stays: impl Fn(u16, &Owner) -> bool, now: BootInstant) {
        for (port, place) in &mut self.places {
            if let Some(owner) = place.owner.take_if(|owner| !stays(*port, owner)) {
                place.left = Some((owner, now));
            }
        }
    }

    /// Takes ports away until there are no more than `most`, from the least important on.
    fn keep_within(&mut self, wanted: &[Owner], most: usize, now: BootInstant) {
        let mut surplus = self.used().saturating_sub(most);
        for owner in wanted.iter().rev() {
            if surplus == 0 {
                break;
            }
            if self.port(owner).is_some() {
                self.release(|_, other| other != owner, now);
                surplus -= 1;
            }
        }
    }

    /// Lets go of what cannot matter any more.
    fn forget(&mut self, terms: Terms<'_>, now: BootInstant) {
        self.places
            .retain(|_, place| !place.is_free(terms.cooldown, now));
        let places = &self.places;
        self.homes.retain(|owner, port| {
            let place = places.get(port);
            place.is_some_and(|place| {
                let left = place.left.as_ref().map(|(last, _)| last);
                place.owner.as_ref() == Some(owner) || left == Some(owner)
            })
        });
    }

    fn serve(&mut self, wants: &BTreeSet<&Owner>, terms: Terms<'_>, now: BootInstant) {
        if self.queue.is_empty() {
            return;
        }
        let mut used = self.used();
        let mut free = self.counts(terms, now).free;
        for owner in mem::take(&mut self.queue) {
            let port = match used < terms.most && wants.contains(&owner) {
                true => self.find(&owner, free, terms, now),
                false => None,
            };
            let Some(port) = port else {
                self.queue.push(owner);
                continue;
            };
            let place = self.places.entry(port).or_default();
            free -= usize::from(place.is_free(terms.cooldown, now));
            used += 1;
            place.owner = Some(owner.clone());
            place.left = None;
            place.blocked = None;
            self.homes.insert(owner, port);
        }
    }

    /// A port for `owner`: the one it had, or the first free one from where its name leads.
    fn find(&self, owner: &Owner, free: usize, terms: Terms<'_>, now: BootInstant) -> Option<u16> {
        let unknown = Place::default();
        let fits = |port: &u16| {
            let place = self.places.get(port).unwrap_or(&unknown);
            terms.ranges.contains(*port) && place.is_free_for(owner, terms.cooldown, now)
        };
        if let Some(home) = self.homes.get(owner).filter(|port| fits(port)) {
            return Some(*home);
        }
        if free == 0 {
            return None;
        }
        let count = terms.ranges.count();
        // The same in every run and every version.
        let mut hasher = FnvHasher::default();
        hasher.write(owner.to_string().as_bytes());
        let start = usize::try_from(hasher.finish() % count as u64).unwrap_or_default();
        (start..start + count)
            .map(|place| terms.ranges.nth(place))
            .find(fits)
    }

    /// Notes that a port could not be bound: it is left alone, and its owner is to find another.
    pub fn block(&mut self, port: u16, now: BootInstant) {
        let place = self.places.entry(port).or_default();
        place.blocked = Some(now);
        if let Some(owner) = place.owner.take() {
            self.homes.remove(&owner);
            place.left = Some((owner, now));
        }
    }

    /// The port that `owner` has.
    pub fn port(&self, owner: &Owner) -> Option<u16> {
        let port = *self.homes.get(owner)?;
        let place = self.places.get(&port)?;
        (place.owner.as_ref() == Some(owner)).then_some(port)
    }

    /// Every owner with its port.
    pub fn owned(&self) -> impl Iterator<Item = (&Owner, u16)> {
        let each = self.places.iter();
        each.filter_map(|(port, place)| Some((place.owner.as_ref()?, *port)))
    }

    /// Who waits, the first to come first.
    pub fn waiting(&self) -> &[Owner] {
        &self.queue
    }

    fn used(&self) -> usize {
        self.owned().count()
    }

    /// The ports of the ranges in numbers.
    pub fn counts(&self, terms: Terms<'_>, now: BootInstant) -> PortCounts {
        let mut counts = PortCounts::default();
        for (_, place) in self
            .places
            .iter()
            .filter(|(port, _)| terms.ranges.contains(**port))
        {
            match () {
                () if place.owner.is_some() => counts.used += 1,
                () if place.is_blocked(now) => counts.blocked += 1,
                () if place.is_cooling(terms.cooldown, now) => counts.cooling += 1,
                () => {}
            }
        }
        let known = counts.used + counts.cooling + counts.blocked;
        counts.free = terms.ranges.count() - known;
        counts
    }

    /// When the next port comes free by itself.
    pub fn next_free(&self, terms: Terms<'_>, now: BootInstant) -> Option<BootInstant> {
        let places = self
            .places
            .iter()
            .filter(|(port, place)| place.owner.is_none() && terms.ranges.contains(**port));
        let free_at = places.map(|(_, place)| {
            let cooled = place
                .left
                .as_ref()
                .map(|(_, since)| since.after(terms.cooldown));
            let tried = place.blocked.map(|since| since.after(LEFT_ALONE));
            cooled.max(tried).unwrap_or(now)
        });
        free_at.min()
    }
}
