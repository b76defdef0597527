use std::{collections::BTreeSet, time::UNIX_EPOCH};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::provider::switchboard::{HostId, JobId, RuleName};

const COOLDOWN: Duration = Duration::from_secs(60);

fn owner(number: usize) -> Owner {
    Owner {
        job: JobId::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).expect("an id"),
        rule: RuleName::parse("ssh").expect("a name"),
        host: None,
    }
}

/// One whose port is that of a host.
fn on_host(number: usize, host: usize) -> Owner {
    let host = HostId::parse(&format!("{host:08x}-0000-4000-8000-000000000000"));
    Owner {
        host: Some(host.expect("an id")),
        ..owner(number)
    }
}

fn ranges(count: u16) -> PortRanges {
    PortRanges::new([40_000..=40_000 + count - 1]).expect("ports")
}

fn terms(ranges: &PortRanges) -> Terms<'_> {
    Terms {
        ranges,
        cooldown: COOLDOWN,
        left_alone: LEFT_ALONE,
        most: usize::MAX,
        gives: true,
    }
}

fn at(seconds: u64) -> BootInstant {
    BootInstant::from_millis(seconds * 1000)
}

fn settle(ports: &mut Ports, owners: &[Owner], ranges: &PortRanges, seconds: u64) {
    let wanted = Wanted {
        owners,
        everybody: true,
    };
    ports.settle(wanted, terms(ranges), at(seconds));
}

fn record(ports: &Ports) -> Record {
    let kept = Kept {
        address: [0; 16].into(),
        since: UNIX_EPOCH,
    };
    ports.record(Some("one".to_owned()), |_| Some(kept))
}

fn restarted(ports: &Ports, same_boot: bool, seconds: u64) -> Ports {
    let boot = if same_boot { "one" } else { "two" };
    Ports::restore(&record(ports), Some(boot), at(seconds))
}

/// An update must not move ports.
#[test]
fn a_name_leads_to_the_same_port_in_every_version() {
    let mut ports = Ports::default();
    settle(
        &mut ports,
        &[owner(1), owner(2), owner(3)],
        &ranges(1000),
        0,
    );
    let found = [1, 2, 3].map(|number| ports.port(&owner(number)));
    assert_eq!(found, [40063, 40394, 40301].map(Some));
}

#[test]
fn who_gets_which_port_depends_on_nothing_but_the_names() {
    let ranges = ranges(1000);
    let all: Vec<_> = (0..50).map(owner).collect();
    let mut at_once = Ports::default();
    settle(&mut at_once, &all, &ranges, 0);
    let mut one_by_one = Ports::default();
    for end in 1..=all.len() {
        settle(&mut one_by_one, &all[..end], &ranges, end as u64);
    }
    assert_eq!(record(&at_once).owned, record(&one_by_one).owned);
}

#[test]
fn a_port_that_was_left_goes_back_to_its_owner_at_once_and_to_others_after_the_cool_down() {
    let ranges = ranges(1);
    let mut ports = Ports::default();
    settle(&mut ports, &[owner(1)], &ranges, 0);
    settle(&mut ports, &[], &ranges, 10);
    settle(&mut ports, &[owner(1)], &ranges, 11);
    assert_eq!(ports.port(&owner(1)), Some(40_000));
    settle(&mut ports, &[owner(2)], &ranges, 20);
    settle(&mut ports, &[owner(2)], &ranges, 79);
    assert_eq!(ports.waiting(), [owner(2)]);
    assert_eq!(ports.next_free(terms(&ranges), at(79)), Some(at(80)));
    settle(&mut ports, &[owner(2)], &ranges, 80);
    assert_eq!(ports.port(&owner(2)), Some(40_000));
}

#[test]
fn the_port_of_a_host_goes_to_its_next_job_at_once_and_to_others_after_a_month() {
    let ranges = ranges(1);
    let mut ports = Ports::default();
    settle(&mut ports, &[on_host(1, 7)], &ranges, 0);
    assert_eq!(ports.port(&on_host(1, 7)), Some(40_000));
    settle(&mut ports, &[on_host(2, 7)], &ranges, 10);
    assert_eq!(ports.port(&on_host(2, 7)), Some(40_000));
    settle(&mut ports, &[], &ranges, 20);
    let mut ports = restarted(&ports, true, 30);
    let others = [owner(3), on_host(4, 8)];
    let month = HELD.as_secs();
    settle(&mut ports, &others, &ranges, 19 + month);
    assert_eq!(ports.waiting(), others);
    let free = ports.next_free(terms(&ranges), at(30));
    assert_eq!(free, Some(at(20 + month)));
    let mut same = ports.clone();
    settle(&mut same, &[on_host(5, 7)], &ranges, 19 + month);
    assert_eq!(same.port(&on_host(5, 7)), Some(40_000));
    settle(&mut ports, &others, &ranges, 20 + month);
    assert_eq!(ports.port(&owner(3)), Some(40_000));
    // What was held and is another's is no longer the host's.
    settle(&mut ports, &[owner(3), on_host(5, 7)], &ranges, 21 + month);
    assert_eq!(ports.waiting(), [on_host(5, 7)]);
}

#[test]
fn of_two_jobs_on_a_host_one_waits_for_the_others_port() {
    let ranges = ranges(10);
    let both = [on_host(1, 7), on_host(2, 7)];
    let mut ports = Ports::default();
    settle(&mut ports, &both, &ranges, 0);
    let port = ports.port(&both[0]);
    assert!(port.is_some());
    assert_eq!(ports.waiting(), &both[1..]);
    let mut ports = restarted(&ports, true, 1);
    settle(&mut ports, &both[1..], &ranges, 2);
    assert_eq!(ports.port(&both[1]), port);
    // One that cannot be bound is held for nobody.
    ports.block(port.expect("it has one"), terms(&ranges), at(3));
    settle(&mut ports, &both[1..], &ranges, 3);
    let other = ports.port(&both[1]);
    assert!(other.is_some() && other != port);
    settle(&mut ports, &both[..1], &ranges, 4);
    assert_eq!(ports.port(&both[0]), other);
    settle(&mut ports, &both[..1], &ranges, 1000);
    assert_eq!(ports.counts(terms(&ranges)).cooling, 0);
}

#[test]
fn a_job_that_has_a_port_keeps_it_when_ports_become_those_of_hosts() {
    let ranges = ranges(10);
    let mut ports = Ports::default();
    settle(&mut ports, &[owner(1)], &ranges, 0);
    let port = ports.port(&owner(1));
    settle(&mut ports, &[on_host(1, 7), on_host(2, 7)], &ranges, 1);
    assert_eq!(ports.port(&on_host(1, 7)), port);
    assert!(ports.port(&on_host(2, 7)).is_some());
}

#[test]
fn those_who_wait_are_served_in_the_order_of_coming() {
    let ranges = ranges(1);
    let mut ports = Ports::default();
    settle(&mut ports, &[owner(5)], &ranges, 0);
    settle(&mut ports, &[owner(5), owner(9)], &ranges, 1);
    settle(&mut ports, &[owner(1), owner(5), owner(9)], &ranges, 2);
    let mut ports = restarted(&ports, true, 3);
    settle(&mut ports, &[owner(1), owner(9)], &ranges, 4);
    settle(&mut ports, &[owner(1), owner(9)], &ranges, 64);
    assert_eq!(ports.port(&owner(9)), Some(40_000));
    assert_eq!(ports.waiting(), [owner(1)]);
}

#[test]
fn who_comes_twice_at_once_has_one_port() {
    let ranges = ranges(9);
    let mut ports = Ports::default();
    let changes = Changes {
        come: &[owner(1), owner(1)],
        gone: &[],
        wants: &|_| true,
        everybody: false,
    };
    ports.change(&changes, terms(&ranges), at(0));
    assert_eq!(ports.counts(terms(&ranges)).used, 1);
    assert_eq!(ports.waiting(), []);
}

#[test]
fn a_place_in_the_queue_outlives_a_time_in_which_not_everybody_is_known() {
    let ranges = ranges(1);
    let mut ports = Ports::default();
    settle(&mut ports, &[owner(5)], &ranges, 0);
    settle(&mut ports, &[owner(5), owner(9)], &ranges, 1);
    let few = Wanted {
        owners: &[owner(1), owner(5)],
        everybody: false,
    };
    ports.settle(few, terms(&ranges), at(2));
    assert_eq!(ports.waiting(), [owner(9), owner(1)]);
}

#[test]
fn a_port_that_cannot_be_bound_is_left_alone_for_a_while() {
    let ranges = ranges(2);
    let mut ports = Ports::default();
    settle(&mut ports, &[owner(1)], &ranges, 0);
    let first = ports.port(&owner(1)).expect("a port");
    ports.block(first, terms(&ranges), at(1));
    settle(&mut ports, &[owner(1)], &ranges, 1);
    let second = ports.port(&owner(1)).expect("another port");
    assert_ne!(first, second);
    let mut ports = restarted(&ports, true, 2);
    settle(&mut ports, &[owner(1), owner(2)], &ranges, 3);
    assert_eq!(ports.waiting(), [owner(2)]);
    settle(&mut ports, &[owner(1), owner(2)], &ranges, 601);
    assert_eq!(ports.port(&owner(2)), Some(first));
}

#[test]
fn other_ranges_move_only_what_must_move() {
    let wide = ranges(100);
    let all: Vec<_> = (0..40).map(owner).collect();
    let mut ports = Ports::default();
    settle(&mut ports, &all, &wide, 0);
    let before: Vec<_> = record(&ports).owned;
    let narrow = ranges(60);
    settle(&mut ports, &all, &narrow, 1);
    for OwnedPort { port, owner, .. } in before {
        let now = ports.port(&owner).expect("there is room for all");
        assert!(now == port || !narrow.contains(port), "{owner} moved");
        assert!(narrow.contains(now));
    }
}

#[test]
fn a_lower_limit_takes_ports_from_the_least_important() {
    let ranges = ranges(10);
    let all = [owner(1), owner(2), owner(3)];
    let mut ports = Ports::default();
    settle(&mut ports, &all, &ranges, 0);
    let few = Terms {
        most: 2,
        ..terms(&ranges)
    };
    let wanted = Wanted {
        owners: &all,
        everybody: true,
    };
    ports.settle(wanted, few, at(1));
    assert_eq!(ports.waiting(), [owner(3)]);
    assert!(ports.port(&owner(1)).is_some() && ports.port(&owner(2)).is_some());
}

#[test]
fn the_numbers_add_up() {
    let ranges = ranges(10);
    let mut ports = Ports::default();
    settle(&mut ports, &[owner(1), owner(2)], &ranges, 0);
    settle(&mut ports, &[owner(1)], &ranges, 1);
    let blocked = (40_000..40_010).find(|port| ports.owned().all(|(_, owned)| owned != *port));
    ports.block(blocked.expect("one of ten"), terms(&ranges), at(1));
    let counts = ports.counts(terms(&ranges));
    let sum = counts.used + counts.cooling + counts.blocked + counts.free;
    assert_eq!((counts.used, counts.blocked, sum), (1, 1, 10));
}

#[test]
fn a_cool_down_starts_again_after_a_reboot_and_never_ends_early() {
    let ranges = ranges(1);
    let mut ports = Ports::default();
    settle(&mut ports, &[owner(1)], &ranges, 0);
    settle(&mut ports, &[], &ranges, 10_000);
    // The clock since boot starts from nothing.
    let mut ports = restarted(&ports, false, 5);
    settle(&mut ports, &[owner(2)], &ranges, 64);
    assert_eq!(ports.port(&owner(2)), None);
    settle(&mut ports, &[owner(2)], &ranges, 65);
    assert_eq!(ports.port(&owner(2)), Some(40_000));
}

#[derive(Debug, Clone)]
enum Step {
    /// These want a port from now on.
    Want(BTreeSet<usize>),
    /// Time passes.
    Wait(u64),
    /// The process starts again, perhaps with the machine.
    Restart { same_boot: bool },
    /// A port turns out to be taken by somebody else.
    Block(u16),
    /// The operator gives other ranges.
    Ranges(u16),
}

/// Some of the ports are those of two hosts.
fn numbered(number: usize) -> Owner {
    match number {
        8.. => on_host(number, number % 2),
        _ => owner(number),
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::btree_set(0..12_usize, 0..10).prop_map(Step::Want),
        3 => (0..70_u64).prop_map(Step::Wait),
        1 => Just(Step::Wait(HELD.as_secs())),
        1 => any::<bool>().prop_map(|same_boot| Step::Restart { same_boot }),
        1 => (40_000..40_008_u16).prop_map(Step::Block),
        1 => (1..9_u16).prop_map(Step::Ranges),
    ]
}

proptest! {
    #[test]
    fn no_port_has_two_owners_none_is_given_away_warm_and_restarts_change_nothing(
        steps in vec(step(), 1..60)
    ) {
        let mut ports = Ports::default();
        let mut wanted: Vec<Owner> = Vec::new();
        let mut ranges = ranges(6);
        // The time that passed, and what the clock since boot shows.
        let (mut time, mut booted) = (1_000_u64, 0_u64);
        // Who had a port last, and when last.
        let mut last: BTreeMap<u16, (Owner, u64)> = BTreeMap::new();
        for step in steps {
            let before = ports.clone();
            let mut moves = true;
            match step {
                Step::Want(numbers) => wanted = numbers.into_iter().map(numbered).collect(),
                Step::Wait(seconds) => time += seconds,
                Step::Restart { same_boot } => {
                    moves = false;
                    if !same_boot {
                        booted = time;
                    }
                    ports = restarted(&ports, same_boot, time - booted);
                    prop_assert_eq!(record(&ports).owned, record(&before).owned);
                    prop_assert_eq!(ports.waiting(), before.waiting());
                }
                Step::Block(port) => ports.block(port, terms(&ranges), at(time - booted)),
                Step::Ranges(count) => ranges = super::tests::ranges(count),
            }
            settle(&mut ports, &wanted, &ranges, time - booted);
            let owned: Vec<_> = ports.owned().map(|(owner, port)| (owner.clone(), port)).collect();
            let owners: BTreeSet<_> = owned.iter().map(|(owner, _)| owner).collect();
            prop_assert_eq!(owners.len(), owned.len(), "an owner has two ports");
            for (owner, port) in &owned {
                prop_assert!(wanted.contains(owner));
                prop_assert!(ranges.contains(*port));
                if let Some((former, until)) = last.get(port)
                    && former != owner
                    && (former.host.is_none() || former.holder() != owner.holder())
                {
                    prop_assert!(time - until >= COOLDOWN.as_secs(), "port {port} is warm");
                }
            }
            if !moves {
                for (owner, port) in &owned {
                    prop_assert!(before.port(owner).is_none_or(|had| had == *port));
                }
            }
            for (owner, port) in owned {
                last.insert(port, (owner, time));
            }
            for owner in &wanted {
                let waits = ports.waiting().contains(owner);
                prop_assert_eq!(waits, ports.port(owner).is_none());
            }
            let held: BTreeSet<_> = ports.owned().filter_map(|(owner, _)| owner.holder()).collect();
            let waits = |owner: &Owner| owner.holder().is_none_or(|holder| !held.contains(&holder));
            if ports.waiting().iter().any(waits) {
                prop_assert_eq!(ports.counts(terms(&ranges)).free, 0);
            }
        }
    }
}

#[test]
fn what_others_say_of_a_port_goes_before_whatever_was_known() {
    let ranges = ranges(3);
    let for_ever = Terms {
        cooldown: Duration::MAX,
        left_alone: Duration::MAX,
        ..terms(&ranges)
    };
    let counts = |ports: &Ports| {
        let PortCounts {
            used,
            cooling,
            blocked,
            reserved,
            free,
        } = ports.counts(for_ever);
        assert_eq!(reserved, 0);
        [used, cooling, blocked, free]
    };
    let told = |ports: &mut Ports, port, told: Told<'_>| ports.told(port, told, &ranges, at(0));
    let mut ports = Ports::default();
    told(&mut ports, 40_000, Told::Owned(&owner(1)));
    told(&mut ports, 40_001, Told::Left(&owner(2)));
    told(&mut ports, 40_002, Told::Blocked);
    // One that is outside of the ranges counts for nothing.
    told(&mut ports, 50_000, Told::Blocked);
    assert_eq!(counts(&ports), [1, 1, 1, 0]);
    // However long it lasts, nobody else gets what was left.
    let owners = [owner(1), owner(2), owner(3)];
    let wanted = Wanted {
        owners: &owners,
        everybody: true,
    };
    ports.settle(wanted, for_ever, at(1_000_000));
    assert_eq!(ports.port(&owner(2)), Some(40_001));
    assert_eq!(ports.waiting(), [owner(3)]);
    // Who moves gives up the port before, and who lost one waits for none.
    told(&mut ports, 40_001, Told::Owned(&owner(1)));
    assert_eq!(ports.owner(40_000), None);
    assert_eq!(ports.port(&owner(2)), None);
    told(&mut ports, 40_000, Told::Owned(&owner(3)));
    assert_eq!(ports.waiting(), []);
    told(&mut ports, 40_002, Told::Free);
    told(&mut ports, 50_000, Told::Free);
    assert_eq!(counts(&ports), [2, 0, 0, 1]);
}

#[test]
fn what_is_held_for_a_host_stays_so_while_its_job_has_another_port_for_the_time_being() {
    let ranges = ranges(50);
    let for_ever = Terms {
        cooldown: Duration::MAX,
        left_alone: Duration::MAX,
        ..terms(&ranges)
    };
    for held in 40_000..40_050 {
        let mut ports = Ports::default();
        ports.told(held, Told::Left(&on_host(1, 7)), &ranges, at(0));
        let lent = if held == 40_025 { 40_026 } else { 40_025 };
        ports.lent(lent, &on_host(2, 7), &ranges, at(0));
        assert_eq!(ports.port(&on_host(2, 7)), Some(lent));
        ports.told(lent, Told::Left(&owner(2)), &ranges, at(0));
        let wanted = Wanted {
            owners: &[on_host(3, 7)],
            everybody: true,
        };
        ports.settle(wanted, for_ever, at(0));
        assert_eq!(ports.port(&on_host(3, 7)), Some(held));
    }
}
