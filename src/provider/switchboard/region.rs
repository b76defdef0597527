//! The ports of a region, which several proxies share: what passes between the one who exposes jobs and
//! the one who asks the database where those ports are kept.
//!
//! Plain values and the two ends of a channel. Nobody here knows of a database: whoever exposes reads a
//! map and a role, asks for changes, and says what of the map is in force.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};
use tokio::sync::{mpsc, oneshot, watch};

use super::{BootInstant, Owner, ports::PortCounts, reserve::Reserve};
use crate::{shared_map::SharedMap, table::JobLease, units::millis};

/// Requests that may wait for the database.
const WAITING: usize = 64;

/// The ports of a region as this proxy knows them, and what it is in that region. A clone costs nothing.
#[derive(Debug, Clone, Default)]
pub struct RegionPorts {
    /// The map as it was last read; none until then.
    pub map: Option<PortMap>,
    /// What this proxy is.
    pub role: Role,
    /// The name of the proxy that follows the switchboard, if one is known to.
    pub leader: Option<String>,
}

/// A map, and of which epoch of the database it is: another one begins when commits were lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownMap {
    /// The epoch.
    pub epoch: String,
    /// The map.
    pub map: PortMap,
}

/// Whose the ports of a region are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// Goes up with every change.
    pub generation: u64,
    /// Every port about which there is something to know; free ones are not there.
    pub ports: SharedMap<u16, RegionPort>,
}

impl PortMap {
    /// Everybody who has a port.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.ports.values().filter_map(|port| match port {
            RegionPort::Owned { owner, .. } => Some(owner),
            _ => None,
        })
    }
}

/// What there is to know of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum RegionPort {
    /// It belongs to somebody.
    Owned {
        /// To whom.
        owner: Owner,
        /// Where its sessions go.
        target: SocketAddr,
        /// Since when it is theirs.
        since: SystemTime,
        /// That of its last change.
        generation: u64,
    },
    /// It had an owner, and nobody else may have it yet.
    Left {
        /// Who had it.
        owner: Owner,
    },
    /// A proxy had it beforehand that is gone, and nobody else may have it yet.
    Cooling,
    /// A proxy has it beforehand, for jobs that come while it cannot ask.
    Reserved,
    /// A proxy could not bind it, or it is nobody's to have for a reason that is not known here.
    #[serde(other)]
    Blocked,
}

/// What a proxy is in its region.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Nothing was heard since this process began: nothing is opened or closed.
    #[default]
    Unknown,
    /// It serves what another one decides.
    Serving,
    /// It follows the switchboard and decides for all.
    Leading {
        /// Goes up whenever another one begins to lead.
        term: u64,
    },
    /// The database is not heard of: it follows the switchboard to close what has ended, and gives what
    /// is new a port that it has beforehand.
    Alone {
        /// When it was last heard of.
        heard: BootInstant,
    },
    /// It was not heard of for so long that others may have the ports, or it has removed this proxy:
    /// everything is closed.
    Expired,
}

impl Role {
    /// Every word for it.
    pub const WORDS: &[&str] = Self::VARIANTS;

    /// It in one word.
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// Whether it takes following the switchboard.
    pub const fn follows(self) -> bool {
        matches!(self, Self::Leading { .. } | Self::Alone { .. })
    }
}

/// What whoever exposes asks of the one who asks the database.
#[derive(Debug)]
pub enum RegionRequest {
    /// Changes of the map, by the one who leads. The answer comes once they are in the database and in
    /// the map that is watched; meanwhile nobody asks for more.
    Write {
        /// That of the role in which they were decided.
        term: u64,
        /// What changes.
        changes: Vec<PortChange>,
        /// How long a port that is released goes to nobody else.
        cooldown: Duration,
        /// The ports of the region in numbers, with these changes.
        counts: PortCounts,
        /// What was refused of them. An error, in words: nothing has changed, or nobody knows whether it
        /// has.
        reply: oneshot::Sender<Result<Vec<PortRefused>, String>>,
    },
    /// This proxy could not bind a port.
    Block {
        /// The port.
        port: u16,
        /// Which its entry in the map has.
        generation: u64,
    },
}

/// A port and whose it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortChange {
    /// The port.
    pub port: u16,
    /// Whose it becomes.
    pub to: PortOwner,
}

/// Whose a port becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortOwner {
    /// An owner's, or it stays theirs and leads elsewhere.
    Owned {
        /// To whom.
        owner: Owner,
        /// Where its sessions go.
        target: SocketAddr,
    },
    /// Nobody's; nothing changes if it is not this one's.
    Released {
        /// Who had it.
        owner: Owner,
    },
}

/// A change that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRefused {
    /// The port.
    pub port: u16,
    /// Who was to have it.
    pub owner: Owner,
    /// Why not.
    pub why: RefusedWhy,
}

/// Why an owner does not get a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedWhy {
    /// It belongs to another.
    Taken,
    /// It belonged to another until lately, is open somewhere yet, or a proxy has it beforehand.
    Cooling,
    /// A proxy could not bind it.
    Blocked,
    /// It is not known yet what the proxies of the region serve, after the database has lost changes.
    Unsettled,
    /// The owner has this port already.
    HasPort(u16),
}

/// When the database was last heard of, as of when it was asked, and what it said. It outlives whoever asks, and
/// an upgrade.
#[derive(Debug)]
pub struct Heard {
    /// 0 if it never was.
    at: AtomicU64,
    /// How long a lease it may have been told since, in milliseconds: the shortest.
    lease: AtomicU64,
    /// The map as it was last read. It says whether the database has lost changes, and what they were.
    map: Mutex<Option<KnownMap>>,
}

impl Default for Heard {
    fn default() -> Self {
        Self::at(None, None, None)
    }
}

impl Heard {
    /// As it was heard of before, and told a lease, with the map that it gave.
    pub fn at(
        instant: Option<BootInstant>,
        lease: Option<Duration>,
        map: Option<KnownMap>,
    ) -> Self {
        Self {
            map: Mutex::new(map),
            at: AtomicU64::new(instant.map_or(0, BootInstant::as_millis)),
            lease: AtomicU64::new(lease.map_or(u64::MAX, millis)),
        }
    }

    /// When that was; none if it never was.
    pub fn last(&self) -> Option<BootInstant> {
        let millis = self.at.load(Relaxed);
        (millis > 0).then(|| BootInstant::from_millis(millis))
    }

    /// Notes that it has answered what was asked then, and was told that lease.
    pub fn note(&self, asked: BootInstant, lease: Duration) {
        self.at.fetch_max(asked.as_millis(), Relaxed);
        self.lease.store(millis(lease), Relaxed);
    }

    /// The lease that it was told; none if it never was.
    pub fn lease(&self) -> Option<Duration> {
        let lease = self.lease.load(Relaxed);
        (lease < u64::MAX).then(|| Duration::from_millis(lease))
    }

    /// Notes that it may be told that lease, and no answer may come. How long the lease is until it answers: a
    /// longer one counts only once it knows of it.
    pub fn may_be_told(&self, lease: Duration) -> Duration {
        let lease = millis(lease);
        Duration::from_millis(self.lease.fetch_min(lease, Relaxed).min(lease))
    }

    /// The map as it was last read; none if it never was.
    pub fn map(&self) -> Option<KnownMap> {
        self.known().clone()
    }

    /// Notes what was read.
    pub fn note_map(&self, epoch: &str, map: &PortMap) {
        let (epoch, map) = (epoch.to_owned(), map.clone());
        *self.known() = Some(KnownMap { epoch, map });
    }

    fn known(&self) -> MutexGuard<'_, Option<KnownMap>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that what was heard is worth nothing any more.
    pub fn forget(&self) {
        *self.known() = None;
        self.at.store(0, Relaxed);
        self.lease.store(u64::MAX, Relaxed);
    }
}

/// The end of whoever exposes.
#[derive(Debug, Clone)]
pub struct RegionClient {
    /// What is known.
    pub ports: watch::Receiver<Arc<RegionPorts>>,
    /// Takes requests.
    pub requests: mpsc::Sender<RegionRequest>,
    /// The generation of the map that is in force here: what was to be closed by it is closed.
    pub applied: Arc<watch::Sender<u64>>,
    /// The ports of the region in numbers, as of the map that is in force.
    pub counts: Arc<watch::Sender<Option<PortCounts>>>,
    /// When the database was last heard of.
    pub heard: Arc<Heard>,
    /// The ports that this proxy has beforehand.
    pub reserve: Arc<Reserve>,
    /// Until when that stays open which is of another place, whose database is told that it is closed.
    pub elsewhere_until: Option<Instant>,
}

impl RegionClient {
    /// Whether what is open is to be closed, as others may have it in another place by now.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere_until
            .is_some_and(|until| until <= Instant::now())
    }
}

/// The end of the one who asks the database.
#[derive(Debug)]
pub struct RegionServer {
    /// What is known.
    pub ports: watch::Sender<Arc<RegionPorts>>,
    /// What is asked for.
    pub requests: mpsc::Receiver<RegionRequest>,
    /// The generation of the map that is in force here; 0 if none is.
    pub applied: watch::Receiver<u64>,
    /// The ports of the region in numbers, once they are known.
    pub counts: watch::Receiver<Option<PortCounts>>,
    /// When the database was last heard of.
    pub heard: Arc<Heard>,
    /// The ports that this proxy has beforehand.
    pub reserve: Arc<Reserve>,
    /// Until when workers accept for jobs.
    pub lease: Arc<JobLease>,
}

/// The two ends; nothing is known yet but what was heard before.
pub fn channel(
    heard: Arc<Heard>,
    reserve: Arc<Reserve>,
    lease: Arc<JobLease>,
) -> (RegionClient, RegionServer) {
    let (ports, watched) = watch::channel(Arc::new(RegionPorts {
        map: heard.map().map(|known| known.map),
        ..RegionPorts::default()
    }));
    let (requests, asked) = mpsc::channel(WAITING);
    let (applied, in_force) = watch::channel(0);
    let (counts, counted) = watch::channel(None);
    let client = RegionClient {
        ports: watched,
        requests,
        applied: Arc::new(applied),
        counts: Arc::new(counts),
        heard: Arc::clone(&heard),
        reserve: Arc::clone(&reserve),
        elsewhere_until: None,
    };
    let server = RegionServer {
        ports,
        requests: asked,
        applied: in_force,
        counts: counted,
        heard,
        reserve,
        lease,
    };
    (client, server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_is_handed_over_is_the_same_and_what_a_later_version_says_of_a_port_is_kept_from_all()
     {
        const OWNED: &str = r#"{"is":"owned","owner":{"job":"00000001-0000-4000-8000-000000000000",
            "rule":"ssh"},"target":"[2001:db8::1]:22","generation":7,
            "since":{"secs_since_epoch":3,"nanos_since_epoch":0}}"#;
        let text = format!(
            r#"{{"epoch":"e","map":{{"generation":9,"ports":{{"1":{OWNED},"2":{{"is":"cooling"}},
                "3":{{"is":"lent","to":["x"]}}}}}}}}"#
        );
        let known: KnownMap = serde_json::from_str(&text).expect("a map");
        let ports = &known.map.ports;
        assert!(matches!(
            ports.get(&1),
            Some(RegionPort::Owned { generation: 7, .. })
        ));
        assert_eq!(ports.get(&2), Some(&RegionPort::Cooling));
        assert_eq!(ports.get(&3), Some(&RegionPort::Blocked));
        let again = serde_json::to_string(&known).expect("JSON");
        assert_eq!(
            serde_json::from_str::<KnownMap>(&again).expect("a map"),
            known
        );
    }
}
