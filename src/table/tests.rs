use std::net::IpAddr;

use super::*;

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
            .map(|(from, to)| (listen(from), to.parse().expect("a target")))
            .collect(),
        policy: Policy::default(),
        origin: Origin::Argument(name.into()),
    }
}

fn build(specs: &[MappingSpec], previous: &Table) -> Result<Table, Vec<Conflict>> {
    let is_local = |ip: IpAddr| ip == IpAddr::from([192, 0, 2, 1]);
    let around = Surroundings {
        reserved: &[],
        is_local: &is_local,
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
    before.mappings()[0].stats.add_up(7);
    specs[0].policy.max_sessions = Some(3);
    let after = build(&specs, &before).expect("no conflicts");
    let diff = diff(&before, &after);
    assert!(!diff.changed[0].retargeted());
    assert_eq!(after.mappings()[0].stats.bytes_up(), 7);
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
    use super::SourceRules;

    fn rules(allow: &[&str], deny: &[&str]) -> SourceRules {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().expect("a net")).collect();
        let (allow, deny): (Vec<_>, Vec<_>) = (nets(allow), nets(deny));
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
    fn one_prefix_cannot_be_both() {
        let net = "10.0.0.0/8".parse().expect("a net");
        let same = "10.1.2.3/8".parse().expect("a net");
        assert!(SourceRules::new([net], [same]).is_err());
    }
}
