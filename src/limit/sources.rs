//! What is known of each source: sessions open, sessions begun lately, refusals.
//!
//! A source is a network, not an address, and is counted once for the process and once for each
//! mapping that limits sources. Entries of sources with sessions are as many as there are sessions;
//! of the others a fixed number is kept and the one unused for longest forgotten first. The table
//! is divided, so that workers seldom wait for each other, and is only used where a limit asks for
//! it.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::{Ban, Meter, SavedMeter, SessionLimits, Tick, bucket, tick::nanos};
use crate::{
    client_mask::network_in_log,
    end_reason::EndReason,
    setting::{As, Prefix},
};

/// Parts of the table, each with a lock of its own.
const PARTS: usize = 16;

/// Entries without a session that a part keeps.
const IDLE_AT_MOST: usize = 4096;

/// A network that counts as one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceNet {
    #[serde(with = "As::<Prefix>")]
    net: IpNet,
    /// The interface that a link-local address belongs to, 0 for any other.
    #[serde(default, skip_serializing_if = "is_none")]
    interface: u32,
}

fn is_none(interface: &u32) -> bool {
    *interface == 0
}

impl SourceNet {
    /// The network of so many bits that `client` is in.
    pub fn of(client: IpAddr, prefix_v4: u8, prefix_v6: u8) -> Self {
        let client = client.to_canonical();
        let len = match client {
            IpAddr::V4(_) => prefix_v4.min(32),
            IpAddr::V6(_) => prefix_v6.min(128),
        };
        Self {
            net: IpNet::new_assert(client, len).trunc(),
            interface: 0,
        }
    }

    /// The same for a client; a link-local address is a source by itself, and another one on another
    /// interface: all of a network's hosts share one such prefix.
    pub fn of_client(client: SocketAddr, prefix_v4: u8, prefix_v6: u8) -> Self {
        match client {
            SocketAddr::V6(client) if client.ip().is_unicast_link_local() => Self {
                interface: client.scope_id(),
                ..Self::of(IpAddr::V6(*client.ip()), prefix_v4, 128)
            },
            client => Self::of(client.ip(), prefix_v4, prefix_v6),
        }
    }
}

impl SourceNet {
    /// The same as the log shows it.
    pub(super) fn in_log(self) -> Self {
        Self {
            net: network_in_log(self.net),
            ..self
        }
    }
}

impl fmt::Display for SourceNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.interface {
            0 => self.net.fmt(f),
            interface => write!(
                f,
                "{}%{interface}/{}",
                self.net.addr(),
                self.net.prefix_len()
            ),
        }
    }
}

/// For whom a source is counted: 0 is the process, every other number a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Scope(pub u32);

impl Scope {
    pub(super) const PROCESS: Self = Self(0);
}

/// A source as counted for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SourceKey {
    pub scope: Scope,
    pub net: SourceNet,
}

/// Every source that has a session or had one lately.
#[derive(Debug)]
pub struct SourceTable {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    tracked: AtomicUsize,
    evicted: AtomicU64,
    banned: AtomicU64,
}

impl Default for SourceTable {
    fn default() -> Self {
        Self {
            parts: Default::default(),
            hasher: RandomState::new(),
            tracked: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            banned: AtomicU64::new(0),
        }
    }
}

impl SourceTable {
    pub fn tracked(&self) -> usize {
        self.tracked.load(Relaxed)
    }

    /// Entries forgotten to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    pub fn banned(&self) -> u64 {
        self.banned.load(Relaxed)
    }

    /// Counts a session of a source in, if `limits` allow one more.
    pub(super) fn enter(
        &self,
        key: SourceKey,
        limits: &SessionLimits,
        now: Tick,
    ) -> Result<(), EndReason> {
        self.with(key, |entry| {
            let full = |max| entry.open >= max;
            if limits.max_sessions_per_source.is_some_and(full) {
                return Err(EndReason::SourceFull);
            }
            if let Some(rate) = limits.new_sessions_per_source {
                let taken = rate.take(entry.begun, 1, now);
                entry.begun = taken.unwrap_or_else(|full| full);
                taken.map_err(|_| EndReason::SourceRate)?;
            }
            entry.open += 1;
            Ok(())
        })
    }

    /// The bytes of a source that has been counted in.
    pub(super) fn meter(&self, key: SourceKey) -> Arc<Meter> {
        self.with(key, |entry| Arc::clone(entry.meter.get_or_insert_default()))
    }

    /// Counts a session out that was counted in.
    pub(super) fn leave(&self, key: SourceKey) {
        self.with(key, |entry| entry.open = entry.open.saturating_sub(1));
    }

    pub(super) fn is_banned(&self, net: SourceNet, now: Tick) -> bool {
        let scope = Scope::PROCESS;
        let part = self.part(SourceKey { scope, net });
        let found = part.index.get(&SourceKey { scope, net });
        found.is_some_and(|&at| part.slots[at as usize].entry.banned_until > now)
    }

    /// Notes that a source ran into one of its limits; true if it is banned for that.
    pub(super) fn strike(&self, net: SourceNet, ban: Ban, now: Tick) -> bool {
        let scope = Scope::PROCESS;
        let banned = self.with(SourceKey { scope, net }, |entry| {
            let within = nanos(ban.within);
            let strike = within / u64::from(ban.after.max(1));
            match bucket::take(entry.struck, strike, within - strike, now) {
                Ok(full) => {
                    entry.struck = full;
                    false
                }
                Err(_) => {
                    entry.struck = Tick::default();
                    entry.banned_until = now.after(ban.lasts);
                    true
                }
            }
        });
        self.banned.fetch_add(banned.into(), Relaxed);
        banned
    }

    /// Counts a session in that was counted in by an earlier image.
    pub(super) fn enter_again(&self, key: SourceKey) {
        self.with(key, |entry| entry.open = entry.open.saturating_add(1));
    }

    /// What is known of each source but its sessions, those unused for longest first in each part.
    pub(super) fn save(&self) -> Vec<SavedSource> {
        let mut saved = Vec::new();
        for part in &self.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let mut at = part.oldest;
            while at != NONE {
                let slot = &part.slots[at as usize];
                saved.push(slot.save());
                at = slot.after;
            }
            let in_use = part.slots.iter().map(|(_, slot)| slot);
            saved.extend(in_use.filter(|slot| !slot.listed).map(Slot::save));
        }
        saved
    }

    /// Takes in what was known. Nothing is forgotten for it: sources whose sessions are yet to come
    /// look idle.
    pub(super) fn load(&self, saved: Vec<SavedSource>, evicted: u64, banned: u64) {
        for source in saved {
            let SavedSource {
                scope,
                net,
                begun,
                struck,
                banned_until,
                meter,
            } = source;
            let scope = Scope(scope);
            let key = SourceKey { scope, net };
            let mut part = self.part(key);
            let (at, made) = part.find_or_make(key);
            part.slots[at as usize].entry = Entry {
                open: 0,
                begun,
                struck,
                banned_until,
                meter: meter.map(|meter| Arc::new(Meter::load(meter))),
            };
            if made {
                part.list_as_newest(at);
                self.tracked.fetch_add(1, Relaxed);
            }
        }
        self.evicted.store(evicted, Relaxed);
        self.banned.store(banned, Relaxed);
    }

    fn part(&self, key: SourceKey) -> MutexGuard<'_, Part> {
        let number = self.hasher.hash_one(key) as usize % PARTS;
        // Each change of a part is made whole before anything can panic.
        self.parts[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the entry of a source, which is made if there is none.
    fn with<T>(&self, key: SourceKey, act: impl FnOnce(&mut Entry) -> T) -> T {
        let mut part = self.part(key);
        let (at, made) = part.find_or_make(key);
        let result = act(&mut part.slots[at as usize].entry);
        let evicted = part.put_in_order(at);
        drop(part);
        if made {
            self.tracked.fetch_add(1, Relaxed);
        }
        if evicted {
            self.tracked.fetch_sub(1, Relaxed);
            self.evicted.fetch_add(1, Relaxed);
        }
        result
    }
}

const NONE: u32 = u32::MAX;

/// A part of the table: entries in slots, found by key; those without a session in a list from the
/// one unused for longest to the one used last.
#[derive(Debug)]
struct Part {
    index: HashMap<SourceKey, u32>,
    slots: Slab<Slot>,
    oldest: u32,
    newest: u32,
    idle: usize,
}

#[derive(Debug)]
struct Slot {
    key: SourceKey,
    entry: Entry,
    listed: bool,
    before: u32,
    after: u32,
}

/// What is known of a source.
#[derive(Debug, Default)]
struct Entry {
    open: u32,
    begun: Tick,
    struck: Tick,
    banned_until: Tick,
    meter: Option<Arc<Meter>>,
}

/// What is known of a source, as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedSource {
    scope: u32,
    net: SourceNet,
    #[serde(default)]
    begun: Tick,
    #[serde(default)]
    struck: Tick,
    #[serde(default)]
    banned_until: Tick,
    #[serde(default)]
    meter: Option<SavedMeter>,
}

impl Slot {
    fn save(&self) -> SavedSource {
        let SourceKey { scope, net } = self.key;
        let Entry {
            open: _,
            begun,
            struck,
            banned_until,
            meter,
        } = &self.entry;
        SavedSource {
            scope: scope.0,
            net,
            begun: *begun,
            struck: *struck,
            banned_until: *banned_until,
            meter: meter.as_deref().map(Meter::save),
        }
    }
}

impl Default for Part {
    fn default() -> Self {
        Self {
            index: HashMap::new(),
            slots: Slab::new(),
            oldest: NONE,
            newest: NONE,
            idle: 0,
        }
    }
}

impl Part {
    /// Where the entry of `key` is, and whether it had to be made.
    fn find_or_make(&mut self, key: SourceKey) -> (u32, bool) {
        if let Some(&at) = self.index.get(&key) {
            return (at, false);
        }
        let slot = Slot {
            key,
            entry: Entry::default(),
            listed: false,
            before: NONE,
            after: NONE,
        };
        // Fewer than the sessions and idle entries there may be.
        let at = self.slots.insert(slot) as u32;
        self.index.insert(key, at);
        (at, true)
    }

    /// Puts an entry that was just used where it belongs; true if another was forgotten for it.
    fn put_in_order(&mut self, at: u32) -> bool {
        self.unlist(at);
        if self.slots[at as usize].entry.open > 0 {
            return false;
        }
        self.list_as_newest(at);
        if self.idle <= IDLE_AT_MOST {
            return false;
        }
        let oldest = self.oldest;
        self.unlist(oldest);
        let forgotten = self.slots.remove(oldest as usize);
        self.index.remove(&forgotten.key);
        true
    }

    fn list_as_newest(&mut self, at: u32) {
        let before = self.newest;
        let slot = &mut self.slots[at as usize];
        (slot.listed, slot.before, slot.after) = (true, before, NONE);
        match before {
            NONE => self.oldest = at,
            before => self.slots[before as usize].after = at,
        }
        self.newest = at;
        self.idle += 1;
    }

    fn unlist(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        if !std::mem::take(&mut slot.listed) {
            return;
        }
        let (before, after) = (slot.before, slot.after);
        match before {
            NONE => self.oldest = after,
            before => self.slots[before as usize].after = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.slots[after as usize].before = before,
        }
        self.idle -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn net(number: u32) -> SourceNet {
        SourceNet::of(IpAddr::from(std::net::Ipv4Addr::from(number)), 32, 64)
    }

    fn key(number: u32) -> SourceKey {
        SourceKey {
            scope: Scope::PROCESS,
            net: net(number),
        }
    }

    fn at_most(sessions: u32) -> SessionLimits {
        SessionLimits {
            max_sessions_per_source: Some(sessions),
            ..SessionLimits::default()
        }
    }

    #[test]
    fn a_source_is_a_network_and_mapped_addresses_are_ipv4() {
        let of = |text: &str| SourceNet::of(text.parse().expect("an address"), 24, 64);
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.200"));
        assert_eq!(of("192.0.2.1").to_string(), "192.0.2.0/24");
        assert_eq!(of("2001:db8::1"), of("2001:db8:0:0:ffff::9"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
        let all = SourceNet::of("2001:db8::1".parse().expect("an address"), 0, 0);
        assert_eq!(all.to_string(), "::/0");
        let all = SourceNet::of("192.0.2.1".parse().expect("an address"), 0, 0);
        assert_eq!(all.to_string(), "0.0.0.0/0");
    }

    #[test]
    fn hosts_that_share_the_link_local_prefix_are_sources_of_their_own() {
        let of = |text: &str| SourceNet::of_client(text.parse().expect("an address"), 24, 64);
        assert_eq!(of("[fe80::1%2]:1"), of("[fe80::1%2]:9"));
        assert_ne!(of("[fe80::1%2]:1"), of("[fe80::2%2]:1"));
        assert_ne!(of("[fe80::1%2]:1"), of("[fe80::1%3]:1"));
        assert_eq!(of("[fe80::1%2]:1").to_string(), "fe80::1%2/128");
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::2]:1"));
        assert_eq!(of("192.0.2.1:1"), of("192.0.2.2:1"));
    }

    #[test]
    fn a_full_source_gets_in_again_when_one_leaves() {
        let table = SourceTable::default();
        let limits = at_most(2);
        let enter = || table.enter(key(1), &limits, Tick(0));
        assert_eq!([enter(), enter()], [Ok(()), Ok(())]);
        assert_eq!(enter(), Err(EndReason::SourceFull));
        assert_eq!(table.enter(key(2), &limits, Tick(0)), Ok(()));
        table.leave(key(1));
        assert_eq!(enter(), Ok(()));
    }

    #[test]
    fn strikes_in_time_ban_a_source_and_strikes_long_apart_do_not() {
        let table = SourceTable::default();
        let ban = Ban {
            after: 3,
            within: Duration::from_secs(60),
            lasts: Duration::from_secs(600),
        };
        let at = |seconds: u64| Tick((1000 + seconds) * SECOND);
        for far in 0..10 {
            assert!(!table.strike(net(1), ban, at(far * 40)));
        }
        assert!(!table.strike(net(2), ban, at(0)));
        assert!(!table.strike(net(2), ban, at(1)));
        assert!(table.strike(net(2), ban, at(2)));
        assert!(table.is_banned(net(2), at(601)));
        assert!(!table.is_banned(net(2), at(602)));
        assert!(!table.is_banned(net(1), at(2)));
        assert_eq!(table.banned(), 1);
    }

    #[test]
    fn a_flood_of_sources_does_not_grow_the_table_and_leaves_those_in_use_alone() {
        let table = SourceTable::default();
        let limits = at_most(1);
        assert_eq!(table.enter(key(0), &limits, Tick(0)), Ok(()));
        for number in 1..200_000 {
            assert_eq!(table.enter(key(number), &limits, Tick(0)), Ok(()));
            table.leave(key(number));
        }
        assert!(table.tracked() <= PARTS * IDLE_AT_MOST + 1);
        assert_eq!(table.tracked() as u64 + table.evicted(), 200_000);
        assert_eq!(
            table.enter(key(0), &limits, Tick(0)),
            Err(EndReason::SourceFull)
        );
    }

    proptest! {
        /// Whatever comes and goes, the list holds exactly the entries without a session, in the
        /// order of their last use.
        #[test]
        fn the_list_of_idle_entries_is_in_order(
            steps in prop::collection::vec((0..20u32, any::<bool>()), 0..200),
        ) {
            let mut part = Part::default();
            let mut used: Vec<u32> = Vec::new();
            for (number, enters) in steps {
                let (at, _) = part.find_or_make(key(number));
                let entry = &mut part.slots[at as usize].entry;
                entry.open = if enters { entry.open + 1 } else { entry.open.saturating_sub(1) };
                part.put_in_order(at);
                used.retain(|other| *other != at);
                used.push(at);
            }
            used.retain(|at| part.slots[*at as usize].entry.open == 0);
            let mut listed = Vec::new();
            let mut at = part.oldest;
            while at != NONE {
                listed.push(at);
                at = part.slots[at as usize].after;
            }
            prop_assert_eq!(part.idle, listed.len());
            prop_assert_eq!(listed, used);
        }
    }
}
