//! Mappings and routes, as they are handed over to the next image of the program.
//!
//! Policies are shared by many mappings, so they are written once and named by their place. Those who
//! hold a route of their own, as sessions do, leave it with a [`RouteSaver`] and get it back from
//! [`SavedRoutes`]: what is in the table they share with it.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{
    ListenAddr, Mapping, MappingName, Origin, Policy, PrefixFile, PrefixFileSaver, Route,
    SavedPrefixFile, Table, sources::SavedSources,
};
use crate::{
    handover::LoadError,
    limit::{MappingGate, SavedMappingGate, SessionLimits},
    target::{LoadedGroups, SavedGroups, SavedTarget},
    telemetry::{MappingStats, SavedStats},
};

/// A policy with what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPolicy {
    policy: Policy,
    #[serde(default)]
    sources: SavedSources,
    #[serde(default)]
    limits: SessionLimits,
}

impl SavedPolicy {
    /// Leaves the files with prefixes that it names with `files`.
    pub fn new(policy: &Policy, files: &mut PrefixFileSaver) -> Self {
        Self {
            policy: policy.clone(),
            sources: SavedSources::new(&policy.sources, files),
            limits: policy.limits.clone(),
        }
    }

    /// The policy with those files.
    ///
    /// # Errors
    ///
    /// One of them is missing.
    pub fn load(self, files: &[Arc<PrefixFile>]) -> Result<Policy, LoadError> {
        let Self {
            policy,
            sources,
            limits,
        } = self;
        Ok(Policy {
            sources: sources.load(files)?,
            limits,
            ..policy
        })
    }
}

/// Writes each policy once, and equal ones as one: most mappings share theirs, and of those with keys
/// of their own, many have the same.
#[derive(Debug, Default)]
struct Policies {
    /// By where they are in memory.
    known: HashMap<usize, u32>,
    by_value: HashMap<Arc<Policy>, u32>,
    saved: Vec<SavedPolicy>,
    files: PrefixFileSaver,
}

impl Policies {
    /// The place of a policy.
    fn save(&mut self, policy: &Arc<Policy>) -> u32 {
        let Self {
            known,
            by_value,
            saved,
            files,
        } = self;
        let place = known.entry(Arc::as_ptr(policy) as usize);
        *place.or_insert_with(|| {
            *by_value.entry(Arc::clone(policy)).or_insert_with(|| {
                saved.push(SavedPolicy::new(policy, files));
                u32::try_from(saved.len() - 1).unwrap_or(u32::MAX)
            })
        })
    }
}

fn load_policies(
    saved: Vec<SavedPolicy>,
    files: Vec<SavedPrefixFile>,
) -> Result<Vec<Arc<Policy>>, LoadError> {
    let files = SavedPrefixFile::load(files);
    let saved = saved.into_iter();
    saved
        .map(|saved| saved.load(&files).map(Arc::new))
        .collect()
}

fn policy_at(policies: &[Arc<Policy>], place: u32) -> Result<Arc<Policy>, LoadError> {
    let policy = policies.get(place as usize);
    policy.cloned().ok_or_else(|| {
        let why = format!("number {place} of {}", policies.len());
        LoadError::value("policy of a mapping", why)
    })
}

/// Every mapping of a table, and those that have left it and may have sessions yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedTable {
    #[serde(default)]
    policies: Vec<SavedPolicy>,
    #[serde(default, skip_serializing_if = "SavedGroups::is_empty")]
    groups: SavedGroups,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prefix_files: Vec<SavedPrefixFile>,
    #[serde(default)]
    mappings: Vec<SavedMapping>,
    #[serde(default)]
    departed: Vec<SavedMapping>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedMapping {
    name: MappingName,
    policy: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pairs: SavedPairs,
    #[serde(default, skip_serializing_if = "SavedStats::is_empty")]
    stats: SavedStats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gate: Option<SavedMappingGate>,
}

/// What mappings have counted since their table was saved: by the place of each, those that have left the
/// table after those in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedCounters(Vec<SavedCounter>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedCounter {
    place: usize,
    #[serde(default)]
    stats: SavedStats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gate: Option<SavedMappingGate>,
}

/// Public addresses with what each leads to.
type SavedPairs = Vec<(ListenAddr, SavedTarget)>;

impl SavedMapping {
    fn new(mapping: &Mapping, policies: &mut Policies, pairs: SavedPairs) -> Self {
        let Mapping {
            name,
            policy,
            stats,
            gate,
        } = mapping;
        Self {
            name: name.clone(),
            policy: policies.save(policy),
            pairs,
            stats: stats.save(),
            gate: gate.as_deref().map(MappingGate::save),
        }
    }

    fn load(self, policies: &[Arc<Policy>]) -> Result<(Arc<Mapping>, SavedPairs), LoadError> {
        let Self {
            name,
            policy,
            pairs,
            stats,
            gate,
        } = self;
        let gate = gate.map(MappingGate::load).transpose()?;
        let policy = policy_at(policies, policy)?;
        let mapping = Mapping::counting(name, policy, MappingStats::load(stats), gate);
        Ok((Arc::new(mapping), pairs))
    }
}

impl SavedTable {
    /// Of the table in force and those that have left it.
    pub fn new(table: &Table, departed: &[Arc<Mapping>]) -> Self {
        let mut policies = Policies::default();
        let mut groups = SavedGroups::default();
        let Table {
            routes,
            mappings,
            pairs,
        } = table;
        let mappings = mappings.iter().zip(pairs);
        let mappings = mappings.map(|(mapping, pairs)| {
            let routes = pairs.iter().filter_map(|(listen, _)| routes.get(listen));
            let pairs = routes.map(|route| (route.listen, groups.save(&route.target)));
            let pairs = pairs.collect();
            SavedMapping::new(mapping, &mut policies, pairs)
        });
        let mappings = mappings.collect();
        let departed = departed
            .iter()
            .map(|mapping| SavedMapping::new(mapping, &mut policies, Vec::new()));
        Self {
            groups,
            mappings,
            departed: departed.collect(),
            policies: policies.saved,
            prefix_files: policies.files.finish(),
        }
    }

    /// What has changed since, while the table and those that have left it stayed the same.
    pub fn counted_since(&self, table: &Table, departed: &[Arc<Mapping>]) -> SavedCounters {
        let saved = self.mappings.iter().chain(&self.departed);
        let now = table.mappings.iter().chain(departed);
        let counted = saved
            .zip(now)
            .enumerate()
            .filter_map(|(place, (saved, now))| {
                let stats = now.stats.save();
                let gate = now.gate.as_deref().map(MappingGate::save);
                let is_news = stats != saved.stats || gate != saved.gate;
                is_news.then_some(SavedCounter { place, stats, gate })
            });
        SavedCounters(counted.collect())
    }

    /// The same with what has changed.
    ///
    /// # Errors
    ///
    /// There is no such mapping.
    pub fn with(mut self, SavedCounters(counters): SavedCounters) -> Result<Self, LoadError> {
        for SavedCounter { place, stats, gate } in counters {
            let mapping = match place.checked_sub(self.mappings.len()) {
                None => self.mappings.get_mut(place),
                Some(place) => self.departed.get_mut(place),
            };
            let Some(mapping) = mapping else {
                let why = format!("number {place} has counted something and is not there");
                return Err(LoadError::value("mapping", why));
            };
            (mapping.stats, mapping.gate) = (stats, gate);
        }
        Ok(self)
    }

    /// How many mappings are in the table.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// The same again, without a look at what contradicts what: it was in force.
    ///
    /// # Errors
    ///
    /// Two mappings have one name or one public address.
    pub fn load(self) -> Result<KnownMappings, LoadError> {
        let policies = load_policies(self.policies, self.prefix_files)?;
        let groups = self.groups.load();
        let mut table = Table {
            routes: HashMap::with_capacity(self.mappings.len()),
            mappings: Vec::with_capacity(self.mappings.len()),
            pairs: Vec::with_capacity(self.mappings.len()),
        };
        let mut by_name = HashMap::with_capacity(self.mappings.len());
        let mut know = |mapping: &Arc<Mapping>| {
            let name = mapping.name.clone();
            match by_name.insert(name, Arc::clone(mapping)) {
                None => Ok(()),
                Some(twice) => Err(LoadError::value(
                    "name of a mapping",
                    format!("{:?} twice", twice.name),
                )),
            }
        };
        for saved in self.mappings {
            let (mapping, pairs) = saved.load(&policies)?;
            know(&mapping)?;
            let mut specs = Vec::with_capacity(pairs.len());
            for (listen, target) in pairs {
                let mapping = Arc::clone(&mapping);
                let target = groups.target(target)?;
                specs.push((listen, target.spec()));
                let route = Route {
                    listen,
                    target,
                    mapping,
                };
                if table.routes.insert(listen, Arc::new(route)).is_some() {
                    return Err(LoadError::value(
                        "public address",
                        format!("{listen} twice"),
                    ));
                }
            }
            table.mappings.push(mapping);
            table.pairs.push(specs.into());
        }
        let mut departed = Vec::with_capacity(self.departed.len());
        for saved in self.departed {
            let (mapping, _) = saved.load(&policies)?;
            know(&mapping)?;
            departed.push(mapping);
        }
        Ok(KnownMappings {
            table: Arc::new(table),
            departed,
            by_name,
        })
    }
}

/// A table that was handed over, and the mappings that are no longer in it. Whoever loads what holds a
/// route finds its mapping here, so that each is counted in one place.
#[derive(Debug)]
pub struct KnownMappings {
    /// The table.
    pub table: Arc<Table>,
    /// Mappings that have left it, those among them that only a session knew.
    pub departed: Vec<Arc<Mapping>>,
    by_name: HashMap<MappingName, Arc<Mapping>>,
}

impl KnownMappings {
    /// The mapping of a name as it is under a policy.
    fn mapping(&mut self, name: MappingName, policy: Arc<Policy>) -> Arc<Mapping> {
        match self.by_name.get(&name) {
            Some(known) if known.policy == policy => Arc::clone(known),
            Some(known) => Arc::new(known.with_policy(policy)),
            None => {
                let mapping = Arc::new(Mapping::new(name.clone(), policy));
                self.departed.push(Arc::clone(&mapping));
                self.by_name.insert(name, Arc::clone(&mapping));
                mapping
            }
        }
    }
}

/// A route that was left with a [`RouteSaver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouteNumber(u32);

/// Takes routes, each once.
#[derive(Debug)]
pub struct RouteSaver<'t> {
    table: &'t Table,
    /// By where they are in memory.
    known: HashMap<usize, RouteNumber>,
    routes: Vec<SavedRoute>,
    policies: Policies,
    /// Those that are in the table no more.
    groups: SavedGroups,
}

/// Routes that were handed over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedRoutes {
    #[serde(default)]
    policies: Vec<SavedPolicy>,
    #[serde(default, skip_serializing_if = "SavedGroups::is_empty")]
    groups: SavedGroups,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prefix_files: Vec<SavedPrefixFile>,
    #[serde(default)]
    routes: Vec<SavedRoute>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedRoute {
    listen: ListenAddr,
    /// Of a route of the table that leads to a group, only that it does counts.
    target: SavedTarget,
    /// Its mapping and the place of its policy, if it is not a route of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mapping: Option<(MappingName, u32)>,
}

impl<'t> RouteSaver<'t> {
    /// None yet; `table` is the one in force.
    pub fn new(table: &'t Table) -> Self {
        Self {
            table,
            known: HashMap::new(),
            routes: Vec::new(),
            policies: Policies::default(),
            groups: SavedGroups::default(),
        }
    }

    /// Takes a route.
    pub fn route(&mut self, route: &Arc<Route>) -> RouteNumber {
        let Self {
            table,
            known,
            routes,
            policies,
            groups,
        } = self;
        let number = known.entry(Arc::as_ptr(route) as usize);
        *number.or_insert_with(|| {
            let Route {
                listen,
                target,
                mapping,
            } = &**route;
            let now = table.route(listen);
            let is_current = now.is_some_and(|now| Arc::ptr_eq(now, route));
            let other = || (mapping.name.clone(), policies.save(&mapping.policy));
            let target = match is_current && target.group().is_some() {
                true => SavedTarget::Group(u32::MAX),
                false => groups.save(target),
            };
            routes.push(SavedRoute {
                listen: *listen,
                target,
                mapping: (!is_current).then(other),
            });
            RouteNumber(u32::try_from(routes.len() - 1).unwrap_or(u32::MAX))
        })
    }

    /// All of them.
    pub fn finish(self) -> SavedRoutes {
        SavedRoutes {
            policies: self.policies.saved,
            groups: self.groups,
            prefix_files: self.policies.files.finish(),
            routes: self.routes,
        }
    }
}

impl SavedRoutes {
    /// The routes, those of the table shared with it.
    ///
    /// # Errors
    ///
    /// One that should be in the table is not.
    pub fn load(self, known: &mut KnownMappings) -> Result<Routes, LoadError> {
        let policies = load_policies(self.policies, self.prefix_files)?;
        let groups: LoadedGroups = self.groups.load();
        let load = |saved: SavedRoute| {
            let SavedRoute {
                listen,
                target,
                mapping,
            } = saved;
            if let Some((name, policy)) = mapping {
                let mapping = known.mapping(name, policy_at(&policies, policy)?);
                return Ok(Arc::new(Route {
                    listen,
                    target: groups.target(target)?,
                    mapping,
                }));
            }
            let current = known.table.route(&listen);
            let current = current.filter(|route| match (target, route.target.address()) {
                (SavedTarget::Address(target), Some(now)) => target == now,
                (SavedTarget::Group(_), None) => true,
                _ => false,
            });
            current.cloned().ok_or_else(|| {
                let to = match target {
                    SavedTarget::Address(target) => target.to_string(),
                    SavedTarget::Group(_) => "several targets".to_owned(),
                };
                LoadError::value("route", format!("{listen} to {to} is not in the table"))
            })
        };
        let routes: Result<_, _> = self.routes.into_iter().map(load).collect();
        Ok(Routes(routes?))
    }
}

/// Routes that were handed over, by their numbers.
#[derive(Debug)]
pub struct Routes(Vec<Arc<Route>>);

impl Routes {
    /// The route of a number.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn get(&self, RouteNumber(number): RouteNumber) -> Result<Arc<Route>, LoadError> {
        let route = self.0.get(number as usize);
        route.cloned().ok_or_else(|| {
            let why = format!("number {number} of {}", self.0.len());
            LoadError::value("route", why)
        })
    }
}

impl Serialize for MappingName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MappingName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::of_text)
    }
}

impl Serialize for ListenAddr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        Self::parse(&text).map_err(|allowed| {
            D::Error::custom(format!(
                "{text:?} is no address of a listener, but for {allowed}"
            ))
        })
    }
}

/// An [`Origin`] as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum SavedOrigin {
    File(String, usize, usize),
    Argument(String),
    Switchboard,
    BuiltIn,
}

impl Serialize for Origin {
    /// The name of a file is only said to people.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let saved = match self {
            Self::File { path, line, column } => {
                SavedOrigin::File(path.to_string_lossy().into_owned(), *line, *column)
            }
            Self::Argument(text) => SavedOrigin::Argument(text.to_string()),
            Self::Switchboard => SavedOrigin::Switchboard,
            Self::BuiltIn => SavedOrigin::BuiltIn,
        };
        saved.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match SavedOrigin::deserialize(from)? {
            SavedOrigin::File(path, line, column) => Self::File {
                path: Arc::new(PathBuf::from(path)),
                line,
                column,
            },
            SavedOrigin::Argument(text) => Self::Argument(text.into()),
            SavedOrigin::Switchboard => Self::Switchboard,
            SavedOrigin::BuiltIn => Self::BuiltIn,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddr},
        num::NonZeroU64,
        time::Duration,
    };

    use super::*;
    use crate::{
        end_reason::EndReason,
        health::{Check, OnDown},
        limit::{OnRefuse, Rate},
        proxy_protocol::Version,
        resolve::{Family, Refresh},
        setting::AutoOr,
        table::{
            Congestion, JobRule, Keepalive, ListenHost, MappingSpec, Prefixes, RelayMode,
            RemovalPolicy, SourceRules, Surroundings,
        },
        target::{Balance, QueueSettings},
    };

    fn rate(per_second: u64, burst: u64) -> Option<Rate> {
        Some(Rate {
            burst: NonZeroU64::new(burst)?,
            ..Rate::even(NonZeroU64::new(per_second)?)
        })
    }

    /// A policy of which nothing is as it is when it is left out.
    fn policy() -> Policy {
        let seconds = Duration::from_secs;
        let prefixes = vec!["198.51.100.0/24".parse().expect("a prefix")];
        let file = Arc::new(PrefixFile::new("/f".into(), prefixes));
        Policy {
            balance: Balance::Source,
            retries: AutoOr::Value(3),
            queue: Some(QueueSettings {
                max: 17,
                timeout: seconds(18),
            }),
            connect_timeout: seconds(1),
            idle_timeout: Some(seconds(2)),
            max_duration: Some(seconds(9)),
            half_close_timeout: Some(Duration::from_micros(2_000_001)),
            keepalive: Some(Keepalive {
                idle: seconds(3),
                interval: seconds(4),
                count: 5,
            }),
            user_timeout: Some(seconds(6)),
            backlog: 7,
            accept_proxy: vec!["10.0.0.0/8".parse().expect("a prefix")],
            proxy_header_timeout: seconds(8),
            send_proxy: Some(Version::V2),
            sources: SourceRules::new(
                Prefixes::new(
                    ["192.0.2.0/24".parse().expect("a prefix")],
                    vec![Arc::clone(&file)],
                ),
                Prefixes::new(["2001:db8::/32".parse().expect("a prefix")], vec![file]),
            )
            .expect("no conflict"),
            max_sessions: Some(9),
            limits: SessionLimits {
                max_sessions_per_source: Some(10),
                new_sessions: rate(11, 12),
                new_sessions_per_source: rate(13, 14),
                max_dialling: Some(15),
            },
            bandwidth: rate(1 << 10, 3 << 10),
            bandwidth_per_source: rate(5 << 20, 7 << 20),
            on_refuse: OnRefuse::Close,
            resolve: Some(Refresh::Ttl),
            family: Family::PreferIpv4,
            check: Some(Check {
                rise: 17,
                ..Check::default()
            }),
            on_down: OnDown::Kill,
            on_remove: RemovalPolicy::Drain(seconds(16)),
            on_retarget: RemovalPolicy::Kill,
            relay: RelayMode::Splice,
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            congestion: Some(Congestion {
                client: Some("reno".into()),
                target: None,
            }),
            transparent: true,
            freebind: true,
            each_port: true,
        }
    }

    fn spec(name: MappingName, port: u16, policy: &Arc<Policy>) -> MappingSpec {
        let listen = ListenAddr::new(ListenHost::Any, port);
        MappingSpec {
            name,
            pairs: [(listen, SocketAddr::from((Ipv4Addr::LOCALHOST, 22)).into())].into(),
            policy: Arc::clone(policy),
            origin: Origin::BuiltIn,
        }
    }

    fn table(specs: &[MappingSpec], previous: &Table) -> Table {
        let around = Surroundings {
            reserved: &[],
            departed: &[],
            is_local: &|_| false,
            looping: &Default::default(),
        };
        Table::build(specs, previous, &around).expect("no conflict")
    }

    fn job() -> MappingName {
        MappingName::of_job(JobRule {
            job: "10b00000-0000-7000-8000-000000000001".into(),
            rule: "ssh".into(),
        })
    }

    fn through_json<T: Serialize + for<'de> Deserialize<'de>>(value: &T) -> T {
        let text = serde_json::to_vec(value).expect("plain values");
        serde_json::from_slice(&text).expect("as it was written")
    }

    #[test]
    fn what_is_counted_after_a_table_was_saved_is_handed_over_as_well() {
        let policy = Arc::new(policy());
        let specs = [(1000, "a"), (1001, "b")].map(|(port, name)| {
            let name = MappingName::new(name);
            spec(name, port, &policy)
        });
        let table = table(&specs[..1], &Table::default());
        let gone = self::table(&specs[1..], &Table::default());
        let departed = gone.mappings().to_vec();
        let saved = SavedTable::new(&table, &departed);
        assert_eq!(
            saved.counted_since(&table, &departed),
            SavedCounters::default()
        );
        table.mappings()[0].stats.refuse(EndReason::NoResources);
        departed[0].stats.refuse(EndReason::NoResources);
        let counted = through_json(&saved.counted_since(&table, &departed));
        assert_eq!(counted.0.len(), 2);
        let known = through_json(&saved).with(counted).expect("they are there");
        assert_eq!(known, through_json(&SavedTable::new(&table, &departed)));
        let none = SavedTable::default().with(known.counted_since(&gone, &[]));
        none.expect_err("there is no such mapping");
    }

    fn handed_over(table: &Table, departed: &[Arc<Mapping>]) -> KnownMappings {
        let saved = through_json(&SavedTable::new(table, departed));
        saved.load().expect("as it was written")
    }

    #[test]
    fn every_setting_of_a_policy_survives() {
        for policy in [policy(), Policy::default()] {
            let mut files = PrefixFileSaver::default();
            let saved = through_json(&SavedPolicy::new(&policy, &mut files));
            let files = through_json(&files.finish());
            assert!(files.len() <= 1, "it is named twice and written once");
            let files = SavedPrefixFile::load(files);
            assert_eq!(saved.clone().load(&files).expect("its files"), policy);
            assert_eq!(saved.load(&[]).is_ok(), files.is_empty());
        }
    }

    #[test]
    fn mappings_go_on_with_their_counters_and_share_policies() {
        let (limited, plain) = (Arc::new(policy()), Arc::default());
        let specs = [
            spec(MappingName::new("a"), 1000, &limited),
            spec(MappingName::new("b"), 1001, &limited),
            spec(job(), 1002, &plain),
        ];
        let before = table(&specs, &Table::default());
        let counted = &before.mappings()[0].stats;
        assert!(counted.try_open(None) && counted.try_open(None));
        counted.close(EndReason::Closed);
        counted.add_up(7);
        counted.connect_latency.observe(Duration::from_millis(3));
        let gone = Arc::new(Mapping::new(MappingName::new("gone"), Arc::clone(&plain)));
        gone.stats.add_down(8);
        let known = handed_over(&before, std::slice::from_ref(&gone));
        let after = &known.table;
        let [a, b, c] = after.mappings() else {
            panic!("three mappings");
        };
        assert_eq!(a.stats.open(), 0, "a session is counted where it is loaded");
        let ended = a.stats.ended(EndReason::Closed);
        assert_eq!(
            (a.stats.opened(), ended, a.stats.passed_on()),
            (2, 1, (7, 0))
        );
        assert_eq!(
            a.stats.connect_latency.read(),
            counted.connect_latency.read()
        );
        assert!(Arc::ptr_eq(&a.policy, &b.policy) && !Arc::ptr_eq(&a.policy, &c.policy));
        assert!(a.gate.is_some() && b.gate.is_some() && c.gate.is_none());
        assert_eq!(c.name.job(), job().job());
        assert_eq!(known.departed[0].stats.passed_on(), (0, 8));
        // The same configuration changes nothing.
        let again = table(&specs, after);
        assert!(crate::table::diff(after, &again).is_empty());
    }

    #[test]
    fn a_route_is_that_of_the_table_or_its_own_and_counts_for_its_mapping() {
        let plain = Arc::default();
        let name = || MappingName::new("a");
        let first = table(&[spec(name(), 1000, &plain)], &Table::default());
        let limited = Arc::new(policy());
        let now = table(&[spec(name(), 1000, &limited)], &first);
        let listen = ListenAddr::new(ListenHost::Any, 1000);
        let route = |table: &Table| Arc::clone(table.route(&listen).expect("it is there"));
        let (old, current) = (route(&first), route(&now));
        let unknown = Arc::new(Route {
            listen,
            target: old.target.clone(),
            mapping: Arc::new(Mapping::new(
                MappingName::new("long gone"),
                Arc::clone(&plain),
            )),
        });
        let mut saver = RouteSaver::new(&now);
        let numbers = [&old, &current, &unknown, &current].map(|route| saver.route(route));
        assert_eq!(numbers[1], numbers[3]);
        let saved = through_json(&saver.finish());
        let mut known = handed_over(&now, &[]);
        let routes = saved.load(&mut known).expect("as it was written");
        let [old, current, unknown, _] = numbers.map(|number| routes.get(number).expect("known"));
        assert!(Arc::ptr_eq(&current, &route(&known.table)));
        assert_eq!(
            (&*old.mapping.policy, &*current.mapping.policy),
            (&*plain, &*limited)
        );
        assert!(Arc::ptr_eq(&old.mapping.stats, &current.mapping.stats));
        assert_eq!(known.departed.len(), 1);
        assert!(Arc::ptr_eq(&known.departed[0], &unknown.mapping));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let load = |text: &str| {
            let saved: SavedTable = serde_json::from_str(text).expect("values");
            saved
                .load()
                .map(|_| ())
                .expect_err("it cannot be")
                .to_string()
        };
        let mapping = |name: &str, port: u16| {
            format!(
                r#"{{"name":"{name}","policy":0,"pairs":[["*:{port}","127.0.0.1:22"]],"later":{{}}}}"#
            )
        };
        let two = |one: &str, other: &str| {
            format!(r#"{{"policies":[{{"policy":{{}}}}],"mappings":[{one},{other}]}}"#)
        };
        assert_eq!(
            load(&two(&mapping("a", 1), &mapping("a", 2))),
            "name of a mapping: \"a\" twice"
        );
        assert_eq!(
            load(&two(&mapping("a", 1), &mapping("b", 1))),
            "public address: *:1 twice"
        );
        assert_eq!(
            load(&format!(r#"{{"mappings":[{}]}}"#, mapping("a", 1))),
            "policy of a mapping: number 0 of 0"
        );
        let text = r#"{"routes":[{"listen":"*:1","target":"127.0.0.1:22"}]}"#;
        let saved: SavedRoutes = serde_json::from_str(text).expect("values");
        let error = saved.load(&mut handed_over(&Table::default(), &[]));
        let error = error.expect_err("there is no such route").to_string();
        assert_eq!(error, "route: *:1 to 127.0.0.1:22 is not in the table");
        assert!(serde_json::from_str::<ListenAddr>("\"x\"").is_err());
    }

    #[test]
    fn a_place_where_something_was_asked_for_survives() {
        let file = Origin::File {
            path: Arc::new("/etc/p.toml".into()),
            line: 3,
            column: 4,
        };
        for origin in [
            file,
            Origin::Argument("a=b".into()),
            Origin::Switchboard,
            Origin::BuiltIn,
        ] {
            assert_eq!(through_json(&origin), origin);
        }
    }
}
