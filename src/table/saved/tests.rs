use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU64,
    time::Duration,
};

use super::*;
use crate::{
    end_reason::EndReason,
    health::{Check, OnDown},
    limit::{OnRefuse, Rate, SessionLimits},
    proxy_protocol::Version,
    resolve::{Family, Refresh},
    setting::AutoOr,
    table::{
        Congestion, JobRule, Keepalive, ListenHost, MappingSpec, Origin, PrefixFile,
        PrefixFileSaver, Prefixes, RelayMode, RemovalPolicy, SourceRules, Surroundings,
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
    let departed = gone.mappings().cloned().collect::<Vec<_>>();
    let saved = SavedTable::new(&table, &departed);
    assert_eq!(
        saved.counted_since(&table, &departed),
        SavedCounters::default()
    );
    let first = table.mappings().next().expect("there is one");
    first.stats.refuse(EndReason::NoResources);
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
    let counted = &before.mappings().next().expect("there is one").stats;
    assert!(counted.try_open(None) && counted.try_open(None));
    counted.close(EndReason::Closed);
    counted.add_up(7);
    counted.connect_latency.observe(Duration::from_millis(3));
    let gone = Arc::new(Mapping::new(MappingName::new("gone"), Arc::clone(&plain)));
    gone.stats.add_down(8);
    let known = handed_over(&before, std::slice::from_ref(&gone));
    let after = &known.table;
    let [a, b, c] = after.mappings().collect::<Vec<_>>()[..] else {
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
