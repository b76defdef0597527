//! Ports of a region that this proxy has beforehand, for jobs that come while the database cannot be asked.
//!
//! Whoever asks the database says which they are, and from when on they may be given away: only where nobody
//! can tell whose another port is. Whoever exposes gives each of them away once at most; what has become of
//! them the database is told before anything else is read of it. All of it outlives both, and an upgrade.

use std::{collections::BTreeMap, net::SocketAddr, sync::Mutex, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{Owner, PortRanges};
use crate::mutex::lock;

/// The ports, as they are handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedReserve {
    /// Every port, with the generation of the map since which it is held.
    ports: BTreeMap<u16, u64>,
    /// What has become of some of them, of which the database has not heard.
    used: BTreeMap<u16, Use>,
}

/// What has become of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// It was given to somebody.
    Given {
        /// To whom.
        owner: Owner,
        /// Where its sessions go.
        target: SocketAddr,
        /// Since when.
        since: SystemTime,
    },
    /// It is nobody's any more.
    Left {
        /// Who had it.
        owner: Owner,
    },
    /// It was given to somebody and could not be bound.
    Unfit {
        /// To whom.
        owner: Owner,
        /// Whether the whole region is to leave it alone.
        is_blocked: bool,
    },
    /// It is given back as it was.
    Unused,
}

impl Use {
    /// To whom it was given.
    pub const fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Given { owner, .. } | Self::Left { owner } | Self::Unfit { owner, .. } => {
                Some(owner)
            }
            Self::Unused => None,
        }
    }
}

/// The ports that this proxy has beforehand.
#[derive(Debug, Default)]
pub struct Reserve(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    saved: SavedReserve,
    /// Whether they may be given away.
    is_open: bool,
    /// Out of which ports there may be more.
    ranges: Option<PortRanges>,
}

impl Reserve {
    /// As it was handed over.
    pub fn load(saved: SavedReserve) -> Self {
        Self(Mutex::new(State {
            saved,
            ..State::default()
        }))
    }

    /// It for the next image of the program.
    pub fn saved(&self) -> SavedReserve {
        lock(&self.0).saved.clone()
    }

    /// Says out of which ports there may be more.
    pub fn take_from(&self, ranges: &PortRanges) {
        let mut state = lock(&self.0);
        if state.ranges.as_ref() != Some(ranges) {
            state.ranges = Some(ranges.clone());
        }
    }

    /// Out of which ports there may be more, once somebody has said that.
    pub fn ranges(&self) -> Option<PortRanges> {
        lock(&self.0).ranges.clone()
    }

    /// Has them given away from now on, or no more; whether that is news.
    pub fn open(&self, is_open: bool) -> bool {
        std::mem::replace(&mut lock(&self.0).is_open, is_open) != is_open
    }

    /// Gives the lowest one to somebody, or the one that was theirs before.
    pub fn give(
        &self,
        owner: &Owner,
        target: SocketAddr,
        since: SystemTime,
        fits: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let mut state = lock(&self.0);
        if !state.is_open {
            return None;
        }
        let SavedReserve { ports, used } = &mut state.saved;
        let was_theirs =
            |port: &u16| matches!(used.get(port), Some(Use::Left { owner: last }) if last == owner);
        let mut fit = ports.keys().filter(|port| fits(**port));
        let port = fit.clone().find(|port| was_theirs(port));
        let port = *port.or_else(|| fit.find(|port| !used.contains_key(port)))?;
        let owner = owner.clone();
        let given = Use::Given {
            owner,
            target,
            since,
        };
        used.insert(port, given);
        Some(port)
    }

    /// Every port that was given to somebody who has it.
    pub fn given(&self) -> Vec<(u16, Owner)> {
        let state = lock(&self.0);
        let given = state
            .saved
            .used
            .iter()
            .filter_map(|(port, what)| match what {
                Use::Given { owner, .. } => Some((*port, owner.clone())),
                _ => None,
            });
        given.collect()
    }

    /// Whether a port was given to that owner, who has it.
    pub fn has_given(&self, owner: &Owner, port: u16) -> bool {
        matches!(lock(&self.0).saved.used.get(&port), Some(Use::Given { owner: given, .. }) if given == owner)
    }

    /// Notes where a port leads by now that was given to somebody, or that it is nobody's any more.
    pub fn leads(&self, port: u16, to: Option<SocketAddr>) {
        let mut state = lock(&self.0);
        let Some(what) = state.saved.used.get_mut(&port) else {
            return;
        };
        if let Use::Given { owner, target, .. } = what {
            match to {
                Some(to) => *target = to,
                None => {
                    let owner = owner.clone();
                    *what = Use::Left { owner };
                }
            }
        }
    }

    /// Notes that a port cannot be bound that was given to somebody: nobody gets it again, in the whole region if
    /// it is to be blocked.
    pub fn spoil(&self, port: u16, is_blocked: bool) {
        if let Some(what) = lock(&self.0).saved.used.get_mut(&port)
            && let Use::Given { owner, .. } = what
        {
            let owner = owner.clone();
            *what = Use::Unfit { owner, is_blocked };
        }
    }

    /// Notes that none is anybody's any more, as everything is closed.
    pub fn leave_all(&self) {
        for (port, _) in self.given() {
            self.leads(port, None);
        }
    }

    /// Takes in what the map says of ports: since which generation this proxy has them beforehand, if it
    /// does. `is_whole` if that is all there is.
    pub fn read(&self, is_whole: bool, rows: impl Iterator<Item = (u16, Option<u64>)>) {
        let ports = &mut lock(&self.0).saved.ports;
        if is_whole {
            ports.clear();
        }
        for (port, since) in rows {
            match since {
                Some(since) => _ = ports.insert(port, since),
                None => _ = ports.remove(&port),
            }
        }
    }

    /// Every port, with the generation since which it is held.
    pub fn ports(&self) -> Vec<(u16, u64)> {
        let state = lock(&self.0);
        let ports = state.saved.ports.iter();
        ports.map(|(port, since)| (*port, *since)).collect()
    }

    /// How many there are that were not used.
    pub fn left(&self) -> usize {
        let SavedReserve { ports, used } = &lock(&self.0).saved;
        ports.keys().filter(|port| !used.contains_key(port)).count()
    }

    /// Has those given back that are too many; not one of them is given to anybody from now on.
    pub fn shrink(&self, most: usize) {
        let SavedReserve { ports, used } = &mut lock(&self.0).saved;
        let left = ports.keys().filter(|port| !used.contains_key(port));
        let too_many: Vec<_> = left.copied().skip(most).collect();
        used.extend(too_many.into_iter().map(|port| (port, Use::Unused)));
    }

    /// What has become of ports, for the database.
    pub fn used(&self) -> Vec<(u16, Use)> {
        let state = lock(&self.0);
        let used = state.saved.used.iter();
        used.map(|(port, what)| (*port, what.clone())).collect()
    }

    /// Notes that the database knows what has become of ports.
    pub fn told(&self, ports: impl Iterator<Item = u16>) {
        let used = &mut lock(&self.0).saved.used;
        for port in ports {
            used.remove(&port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::switchboard::{JobId, RuleName};

    fn owner(number: usize) -> Owner {
        let job = JobId::parse(&format!("{number:08}-0000-4000-8000-000000000000"));
        Owner {
            job: job.expect("an id"),
            rule: RuleName::parse("ssh").expect("a name"),
            host: None,
        }
    }

    fn give(reserve: &Reserve, number: usize) -> Option<u16> {
        let target = "192.0.2.1:22".parse().expect("an address");
        let fits = |port| port != 1;
        reserve.give(&owner(number), target, SystemTime::UNIX_EPOCH, fits)
    }

    #[test]
    fn each_port_is_given_away_once_until_the_database_knows() {
        let reserve = Reserve::default();
        reserve.read(true, (1..=4).map(|port| (port, Some(7))));
        assert_eq!(give(&reserve, 1), None, "others can be asked");
        reserve.open(true);
        reserve.shrink(3);
        let ports = [1, 2, 3, 4].map(|number| give(&reserve, number));
        assert_eq!(ports, [Some(2), Some(3), None, None]);
        reserve.leads(2, None);
        assert_eq!(give(&reserve, 4), None);
        let reserve = Reserve::load(reserve.saved());
        assert_eq!(give(&reserve, 1), None, "it is not known yet");
        reserve.open(true);
        assert_eq!(give(&reserve, 1), Some(2), "it is the one it had");
        reserve.spoil(3, true);
        assert_eq!(give(&reserve, 2), None, "it is of no use");
        reserve.leave_all();
        let left = Use::Left { owner: owner(1) };
        let unfit = Use::Unfit {
            owner: owner(2),
            is_blocked: true,
        };
        let used = reserve.used();
        assert_eq!(used, [(2, left), (3, unfit), (4, Use::Unused)]);
        assert_eq!((reserve.ports().len(), reserve.left()), (4, 1));
        reserve.told(used.iter().map(|(port, _)| *port));
        reserve.read(false, [(2, None), (4, None)].into_iter());
        assert_eq!(reserve.ports(), [(1, 7), (3, 7)]);
        assert_eq!(give(&reserve, 3), Some(3));
    }
}
