use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::target::{TargetAddr, TargetSettings};

fn listen(text: &str) -> ListenAddr {
    match text.strip_prefix("*:") {
        Some(port) => ListenAddr::new(ListenHost::Any, port.parse().expect("a port")),
        None => text.parse::<SocketAddr>().expect("an address").into(),
    }
}

fn spec(name: &str, pairs: &[(&str, &str)]) -> MappingSpec {
    MappingSpec {
        name: MappingName::new(name),
        pairs: pairs
            .iter()
            .map(|(from, to)| {
                (
                    listen(from),
                    to.parse::<SocketAddr>().expect("a target").into(),
                )
            })
            .collect(),
        policy: Arc::default(),
        origin: Origin::Argument(name.into()),
    }
}

fn build(specs: &[MappingSpec], previous: &Table) -> Result<Table, Vec<Conflict>> {
    let is_local = |ip: IpAddr| ip == IpAddr::from([192, 0, 2, 1]);
    let around = Surroundings {
        reserved: &[],
        departed: &[],
        is_local: &is_local,
        looping: &HashSet::new(),
    };
    Table::build(specs, previous, &around)
}

fn table(specs: &[MappingSpec]) -> Table {
    build(specs, &Table::default()).expect("no conflicts")
}

#[test]
fn an_equal_set_shares_every_route() {
    let specs = [spec("a", &[("*:1000", "[fd00::1]:22")])];
    let before = table(&specs);
    let after = build(&specs, &before).expect("no conflicts");
    let diff = diff(&before, &after);
    assert!(diff.is_empty());
    assert_eq!(diff.unchanged, 1);
}

#[test]
fn a_diff_names_what_came_what_went_and_what_moved() {
    let before = table(&[
        spec("stays", &[("*:1000", "[fd00::1]:22")]),
        spec("moves", &[("*:1001", "[fd00::1]:22")]),
        spec("goes", &[("*:1002", "[fd00::1]:22")]),
    ]);
    let after = build(
        &[
            spec("stays", &[("*:1000", "[fd00::1]:22")]),
            spec("moves", &[("*:1001", "[fd00::2]:22")]),
            spec("comes", &[("*:1003", "[fd00::1]:22")]),
        ],
        &before,
    )
    .expect("no conflicts");
    let diff = diff(&before, &after);
    assert_eq!(diff.unchanged, 1);
    assert_eq!(diff.added[0].listen, listen("*:1003"));
    assert_eq!(diff.removed[0].listen, listen("*:1002"));
    assert!(diff.changed[0].retargeted());
    assert_eq!(diff.changed.len(), 1);
}

#[test]
fn a_new_policy_changes_the_mapping_and_keeps_its_counters() {
    let mut specs = [spec("a", &[("*:1000", "[fd00::1]:22")])];
    let before = table(&specs);
    before
        .mappings()
        .next()
        .expect("there is one")
        .stats
        .add_up(7);
    Arc::make_mut(&mut specs[0].policy).max_sessions = Some(3);
    let after = build(&specs, &before).expect("no conflicts");
    let diff = diff(&before, &after);
    assert!(!diff.changed[0].retargeted());
    assert_eq!(
        after
            .mappings()
            .next()
            .expect("there is one")
            .stats
            .bytes_up(),
        7
    );
}

#[test]
fn a_rename_keeps_the_route_and_starts_new_counters() {
    let before = table(&[spec("old", &[("*:1000", "[fd00::1]:22")])]);
    let after = build(&[spec("new", &[("*:1000", "[fd00::1]:22")])], &before).expect("fits");
    let diff = diff(&before, &after);
    assert!(diff.changed[0].renamed() && !diff.changed[0].retargeted());
    assert!(diff.added.is_empty() && diff.removed.is_empty());
}

#[test]
fn overlaps_are_found_across_families_and_named_with_both_places() {
    for (first, second, overlap) in [
        ("*:1000", "*:1000", true),
        ("*:1000", "127.0.0.1:1000", true),
        ("0.0.0.0:1000", "127.0.0.1:1000", true),
        ("[::]:1000", "[::1]:1000", true),
        ("0.0.0.0:1000", "[::]:1000", false),
        ("127.0.0.1:1000", "127.0.0.2:1000", false),
        ("*:1000", "*:1001", false),
    ] {
        let specs = [
            spec("a", &[(first, "[fd00::1]:22")]),
            spec("b", &[(second, "[fd00::1]:22")]),
        ];
        let result = build(&specs, &Table::default());
        assert_eq!(result.is_err(), overlap, "{first} and {second}");
        if let Err(conflicts) = result {
            let text = conflicts[0].to_string();
            assert!(
                text.contains("argument \"a\"") && text.contains("argument \"b\""),
                "{text}"
            );
        }
    }
}

#[test]
fn a_target_that_leads_back_here_is_a_loop() {
    for (from, to, is_loop) in [
        ("*:1000", "127.0.0.1:1000", true),
        ("*:1000", "[::1]:1000", true),
        ("*:1000", "[::ffff:127.0.0.1]:1000", true),
        ("*:1000", "192.0.2.1:1000", true),
        ("*:1000", "192.0.2.2:1000", false),
        ("*:1000", "127.0.0.1:1001", false),
        ("127.0.0.1:1000", "127.0.0.1:1000", true),
        ("127.0.0.1:1000", "127.0.0.2:1000", false),
        ("127.0.0.1:1000", "0.0.0.0:1000", true),
        ("[::]:1000", "127.0.0.1:1000", false),
    ] {
        let result = build(&[spec("a", &[(from, to)])], &Table::default());
        assert_eq!(result.is_err(), is_loop, "{from} to {to}");
    }
}

#[test]
fn a_target_that_becomes_an_address_of_this_machine_leads_back_then() {
    let specs = [
        spec("loops", &[("*:1000", "[fd00::1]:1000")]),
        spec("other port", &[("*:1001", "[fd00::1]:22")]),
        spec("other address", &[("*:1002", "[fd00::2]:1000")]),
        spec("admin", &[("*:1003", "[fd00::1]:9422")]),
    ];
    let reserved = [Reserved {
        addr: listen("[::]:9422"),
        what: "the admin listener",
        origin: Origin::Argument("--admin".into()),
    }];
    let mut around = Surroundings {
        reserved: &reserved,
        departed: &[],
        is_local: &|_| false,
        looping: &HashSet::new(),
    };
    let before = Table::build(&specs, &Table::default(), &around).expect("nothing is local");
    let is_local = |ip: IpAddr| ip == IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    let looping = before.loops(&reserved, &is_local);
    let looping: HashSet<ListenAddr> = looping.map(|route| route.listen).collect();
    assert_eq!(looping, [listen("*:1000"), listen("*:1003")].into());
    // They are no reason against a change to others, but a new one is.
    around.is_local = &is_local;
    assert_eq!(
        Table::build(&specs, &before, &around)
            .map_err(|conflicts| conflicts.len())
            .err(),
        Some(2)
    );
    around.looping = &looping;
    Table::build(&specs, &before, &around).expect("they are known");
}

#[test]
fn a_loop_through_another_mapping_is_found_too() {
    let specs = [
        spec("a", &[("*:1000", "127.0.0.1:1001")]),
        spec("b", &[("*:1001", "[fd00::1]:22")]),
    ];
    assert!(matches!(
        build(&specs, &Table::default()).expect_err("a loop")[..],
        [Conflict::Loop { .. }]
    ));
}

#[test]
fn one_name_for_two_mappings_is_refused() {
    let specs = [
        spec("a", &[("*:1000", "[fd00::1]:22")]),
        spec("a", &[("*:1001", "[fd00::1]:22")]),
    ];
    assert!(matches!(
        build(&specs, &Table::default()).expect_err("two names")[..],
        [Conflict::Name { .. }]
    ));
}

mod sources {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> SourceRules {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().expect("a net")).collect();
        let (allow, deny): (Vec<_>, Vec<_>) = (nets(allow), nets(deny));
        let [allow, deny] = [allow, deny].map(|nets| Prefixes::new(nets, Vec::new()));
        SourceRules::new(allow, deny).expect("no conflict")
    }

    #[test]
    fn the_longest_match_decides() {
        let rules = rules(&["10.0.0.0/8", "10.1.2.0/24"], &["10.1.0.0/16"]);
        for (source, permitted) in [
            ("10.9.9.9", true),
            ("10.1.1.1", false),
            ("10.1.2.3", true),
            ("::ffff:10.1.1.1", false),
            ("192.0.2.1", false),
            ("fd00::1", false),
        ] {
            let ip = source.parse().expect("an address");
            assert_eq!(rules.permits(ip), permitted, "{source}");
        }
    }

    #[test]
    fn without_an_allow_list_only_the_denied_are_kept_out() {
        let rules = rules(&[], &["fd00:bad::/32"]);
        assert!(!rules.permits("fd00:bad::1".parse().expect("an address")));
        assert!(rules.permits("192.0.2.1".parse().expect("an address")));
    }

    #[test]
    fn a_file_counts_like_the_list_that_names_it() {
        let file = |nets: &[&str]| {
            let nets = nets.iter().map(|net| net.parse().expect("a net"));
            vec![Arc::new(PrefixFile::new("f".into(), nets.collect()))]
        };
        let own = ["10.1.2.0/24".parse().expect("a net")];
        let allow = Prefixes::new(own, file(&["10.0.0.0/8", "192.0.2.0/24"]));
        let deny = Prefixes::new([], file(&["10.1.0.0/16", "192.0.2.0/24"]));
        let rules = SourceRules::new(allow, deny).expect("no conflict");
        for (source, permitted) in [
            ("10.9.9.9", true),
            ("::ffff:10.1.1.1", false),
            ("10.1.2.3", true),
            ("192.0.2.1", false),
            ("198.51.100.1", false),
        ] {
            let ip = source.parse().expect("an address");
            assert_eq!(rules.permits(ip), permitted, "{source}");
        }
    }

    #[test]
    fn one_prefix_cannot_be_both() {
        let net = "10.0.0.0/8".parse().expect("a net");
        let same = "10.1.2.3/8".parse().expect("a net");
        let [net, same] = [net, same].map(|net| Prefixes::new([net], Vec::new()));
        assert!(SourceRules::new(net, same).is_err());
    }
}

fn group(targets: &[(u8, u32)]) -> TargetSpec {
    let targets = targets.iter().map(|(number, weight)| TargetSettings {
        weight: *weight,
        ..TargetSettings::of(TargetAddr::Address(([10, 0, 0, *number], 22).into()))
    });
    TargetSpec::Group(Arc::new(GroupSettings {
        targets: targets.collect(),
    }))
}

#[test]
fn what_is_known_of_a_target_stays_known_when_others_come_and_go() {
    let with = |listens: &[&str], target: TargetSpec| {
        let pairs = listens.iter().map(|text| (listen(text), target.clone()));
        MappingSpec {
            pairs: pairs.collect(),
            ..spec("m", &[])
        }
    };
    let before = table(&[with(&["*:1000", "*:1001"], group(&[(1, 1), (2, 1)]))]);
    let groups: Vec<_> = before.groups().collect();
    let [(_, old)] = groups[..] else {
        panic!("both addresses share one group");
    };
    let client = IpAddr::from([127, 0, 0, 1]);
    let place = old.choose(Default::default(), client, &[], Default::default());
    let place = place.expect("there is room");
    for (listens, targets, retargeted) in [
        (["*:1000", "*:1001"], &[(1, 1), (2, 9)][..], false),
        (["*:1000", "*:1001"], &[(3, 1), (1, 1)], true),
        // The only one it had, whatever its ports are.
        (["*:2000", "*:2001"], &[(1, 1)], false),
    ] {
        let after = build(&[with(&listens, group(targets))], &before).expect("no conflict");
        let (_, group) = after.groups().next().expect("there is one");
        let known = group.member(place.member().address).expect("it is there");
        assert_eq!(known.sessions(), 1);
        let diff = diff(&before, &after);
        assert!(
            diff.changed
                .iter()
                .all(|change| change.retargeted() == retargeted)
        );
    }
}

#[test]
fn every_one_of_several_targets_may_lead_back_here() {
    let looping = MappingSpec {
        pairs: [(listen("*:22"), group(&[(1, 1), (2, 1)]))].into(),
        ..spec("m", &[])
    };
    let around = Surroundings {
        reserved: &[],
        departed: &[],
        is_local: &|ip| ip == IpAddr::from([10, 0, 0, 2]),
        looping: &HashSet::new(),
    };
    let found = Table::build(&[looping], &Table::default(), &around).expect_err("it loops");
    let [Conflict::Loop { target, .. }] = &found[..] else {
        panic!("one loop: {found:?}");
    };
    assert_eq!(target.to_string(), "10.0.0.2:22");
}

/// What a table says, in the order of the addresses.
fn content(table: &Table) -> Vec<String> {
    let mut routes: Vec<_> = table.routes().collect();
    routes.sort_by_key(|route| route.listen);
    let line = |route: &&Arc<Route>| {
        let mapping = &route.mapping;
        let known = table.mappings().filter(|m| Arc::ptr_eq(m, mapping));
        let (listen, target, backlog) = (route.listen, &route.target, mapping.policy.backlog);
        format!(
            "{listen} {target} {} {backlog} {}",
            mapping.name,
            known.count()
        )
    };
    routes.iter().map(line).collect()
}

/// The addresses of a difference: added, removed, changed.
fn addresses(diff: &Diff) -> [Vec<ListenAddr>; 3] {
    let sorted = |listens: &mut dyn Iterator<Item = ListenAddr>| {
        let mut listens: Vec<_> = listens.collect();
        listens.sort();
        listens
    };
    [
        sorted(&mut diff.added.iter().map(|route| route.listen)),
        sorted(&mut diff.removed.iter().map(|route| route.listen)),
        sorted(&mut diff.changed.iter().map(|change| change.new.listen)),
    ]
}

/// An address, or a few of them.
fn any_target(number: u8, port: u16) -> TargetSpec {
    let address = |number: u8| SocketAddr::from(([10, 0, 0, number], port));
    match number {
        1 | 2 => address(number).into(),
        _ => {
            let targets = (1..=number).map(|number| TargetAddr::Address(address(number)));
            TargetSpec::Group(Arc::new(GroupSettings {
                targets: targets.map(TargetSettings::of).collect(),
            }))
        }
    }
}

/// A set of mappings out of few names, ports, targets and policies, so that all of them recur.
fn any_specs() -> impl Strategy<Value = Vec<MappingSpec>> {
    let spec = (0..8_u8, 0..8_u16, 1..4_u16, 1..5_u8, 1..3_u32).prop_map(
        |(name, port, ports, target, backlog)| MappingSpec {
            name: MappingName::new(format!("m{name}")),
            pairs: (0..ports)
                .map(|offset| {
                    let listen = ListenAddr::new(ListenHost::Any, 1000 + 2 * port + offset);
                    (listen, any_target(target, 22 + offset))
                })
                .collect(),
            policy: Arc::new(Policy {
                backlog,
                ..Policy::default()
            }),
            origin: Origin::BuiltIn,
        },
    );
    proptest::collection::vec(spec, 0..7)
}

/// Those of the specs that contradict none before them.
fn without_conflicts(specs: Vec<MappingSpec>) -> Vec<MappingSpec> {
    let mut fit = Vec::new();
    for spec in specs {
        fit.push(spec);
        if build(&fit, &Table::default()).is_err() {
            fit.pop();
        }
    }
    fit
}

proptest! {
    #[test]
    fn a_table_is_the_same_whatever_was_before(
        sets in proptest::collection::vec((any_specs(), 0..4_u8), 1..6)
    ) {
        let mut before = Table::default();
        for (specs, valid) in sets {
            let specs = if valid == 0 { specs } else { without_conflicts(specs) };
            let new = build(&specs, &Table::default());
            let next = build(&specs, &before);
            prop_assert_eq!(
                next.as_ref().map(content).map_err(Clone::clone),
                new.as_ref().map(content).map_err(Clone::clone)
            );
            let Ok(next) = next else { continue };
            let found = diff(&before, &next);
            let was = |listen| before.route(listen);
            let expected = |wanted: fn(Option<&Arc<Route>>, &Arc<Route>) -> bool| {
                let routes = next.routes().filter(|route| wanted(was(&route.listen), route));
                let mut listens: Vec<_> = routes.map(|route| route.listen).collect();
                listens.sort();
                listens
            };
            let mut gone: Vec<_> = before.routes().map(|route| route.listen).collect();
            gone.retain(|listen| next.route(listen).is_none());
            gone.sort();
            let same = |old: &Route, new: &Route| {
                let (old, new) = ((&old.target, &old.mapping), (&new.target, &new.mapping));
                old.0 == new.0 && old.1.name == new.1.name && old.1.policy == new.1.policy
            };
            prop_assert_eq!(
                addresses(&found),
                [
                    expected(|old, _| old.is_none()),
                    gone,
                    expected(|old, new| old.is_some_and(|old| !Arc::ptr_eq(old, new))),
                ]
            );
            prop_assert!(found.changed.iter().all(|change| !same(&change.old, &change.new)));
            let touched = found.added.len() + found.changed.len();
            prop_assert_eq!(found.unchanged + touched, next.routes().len());
            before = next;
        }
    }
}

#[test]
fn neighbouring_ports_are_told_as_a_range() {
    let addrs = [
        "7007",
        "127.0.0.1:22",
        "22101",
        "22100",
        "22102",
        "[::1]:22103",
    ];
    let addrs = addrs.map(|text| ListenAddr::parse(text).expect("an address"));
    let told = ListenAddr::in_ranges(addrs.to_vec()).join(" ");
    assert_eq!(told, "*:7007 *:22100-22102 127.0.0.1:22 [::1]:22103");
}
