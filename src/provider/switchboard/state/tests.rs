use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::{Duration, UNIX_EPOCH},
};

use proptest::prelude::*;

use super::*;
use crate::provider::switchboard::{
    JobId, Owner, RuleName,
    boot_instant::BootInstant,
    ports::{BlockedPort, Kept, LeftPort, OwnedPort},
};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for temporary files")
}

fn owner(number: usize) -> Owner {
    Owner {
        job: JobId::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).expect("an id"),
        rule: RuleName::parse("ssh").expect("a name"),
        host: None,
    }
}

fn record() -> Record {
    Record {
        boot: Some("one".to_owned()),
        owned: vec![OwnedPort {
            port: 40_000,
            owner: owner(1),
            kept: Kept {
                address: "fd00::1".parse().expect("an address"),
                since: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            },
        }],
        left: vec![LeftPort {
            port: 40_001,
            owner: owner(2),
            at: BootInstant::from_millis(7),
        }],
        blocked: vec![BlockedPort {
            port: 40_002,
            at: BootInstant::from_millis(8),
        }],
        waiting: vec![owner(3), owner(4)],
    }
}

/// As an earlier version of the proxy wrote it.
const VERSION_1: &str = "tml-proxy-ports 1 b74005c2d80139e2\n\
    {\"boot\":\"one\",\"owned\":[{\"port\":40000,\"job\":\"00000001-0000-4000-8000-000000000000\",\"rule\":\"ssh\",\"address\":\"fd00::1\",\"since\":1700000000}],\
    \"left\":[{\"port\":40001,\"job\":\"00000002-0000-4000-8000-000000000000\",\"rule\":\"ssh\",\"at\":7}],\
    \"blocked\":[{\"port\":40002,\"at\":8}],\
    \"waiting\":[{\"job\":\"00000003-0000-4000-8000-000000000000\",\"rule\":\"ssh\"},{\"job\":\"00000004-0000-4000-8000-000000000000\",\"rule\":\"ssh\"}]}";

#[test]
fn an_update_loses_no_port() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    fs::write(dir.path().join(FILE), VERSION_1).expect("own file");
    assert_eq!(state.load().expect("readable"), Found::Record(record()));
    let damaged = VERSION_1.replace("40000", "40003");
    assert_eq!(document::read(damaged.as_bytes()), Err(Damage::Checksum));
}

#[test]
fn what_was_kept_is_found_again() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    assert_eq!(state.load().expect("readable"), Found::Nothing);
    state.save(&Record::default()).expect("writable");
    state.save(&record()).expect("writable");
    assert_eq!(state.load().expect("readable"), Found::Record(record()));
}

#[test]
fn a_directory_belongs_to_one_process_at_a_time() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    assert!(matches!(
        StateDir::open(dir.path()),
        Err(StateError::InUse(_))
    ));
    drop(state);
    StateDir::open(dir.path()).expect("free again");
}

#[test]
fn a_damaged_file_is_put_aside_and_is_there_to_be_looked_at() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    for (number, text) in [(1, "nonsense"), (2, "more nonsense\n")] {
        fs::write(dir.path().join(FILE), text).expect("own file");
        let Found::Damaged { damage, aside } = state.load().expect("never fatal") else {
            panic!("nonsense was read");
        };
        assert!(matches!(damage, Damage::Content(_)), "{damage}");
        assert!(aside.ends_with(format!("{FILE}.damaged-{number}")));
        assert_eq!(fs::read_to_string(aside).expect("it is there"), text);
        assert_eq!(state.load().expect("readable"), Found::Nothing);
    }
}

#[test]
fn a_file_of_a_later_version_is_known_as_such() {
    let bytes = document::write(&record());
    let later = String::from_utf8(bytes)
        .expect("text")
        .replacen(":2,", ":3,", 1);
    assert_eq!(document::read(later.as_bytes()), Err(Damage::Version(3)));
}

#[test]
fn what_is_half_written_replaces_nothing() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    state.save(&record()).expect("writable");
    fs::write(dir.path().join(format!("{FILE}.new")), "half").expect("own file");
    assert_eq!(state.load().expect("readable"), Found::Record(record()));
    state.save(&Record::default()).expect("writable");
    assert_eq!(
        state.load().expect("readable"),
        Found::Record(Record::default())
    );
}

/// Port 40 001 is another's, nobody waits any more.
fn step() -> Step {
    let OwnedPort { kept, .. } = record().owned[0];
    Step {
        ports: [40_001].into(),
        owned: vec![OwnedPort {
            port: 40_001,
            owner: owner(3),
            kept,
        }],
        waiting: Some(Vec::new()),
        ..Step::default()
    }
}

#[test]
fn what_has_changed_since_is_found_again() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    assert!(!state.takes_steps());
    state
        .save_step(&step())
        .expect_err("there is nothing it goes on from");
    state.save(&record()).expect("writable");
    assert!(state.takes_steps());
    state.save_step(&step()).expect("writable");
    let freed = Step {
        ports: [40_000, 40_002].into(),
        ..Step::default()
    };
    state.save_step(&freed).expect("writable");
    let Found::Record(found) = state.load().expect("readable") else {
        panic!("nothing was found");
    };
    assert_eq!(found.owned, step().owned);
    assert_eq!(
        (found.left, found.blocked, found.waiting),
        Default::default()
    );
    // They mean nothing beside another record.
    state.save(&Record::default()).expect("writable");
    let none = Found::Record(Record::default());
    assert_eq!(state.load().expect("readable"), none);
}

#[test]
fn a_step_that_a_crash_cut_off_loses_nothing_that_was_kept_before() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    state.save(&record()).expect("writable");
    state.save_step(&step()).expect("writable");
    let kept = state.load().expect("readable");
    let steps = dir.path().join(STEPS_FILE);
    let whole = fs::read(&steps).expect("it is there");
    state.save_step(&Step::default()).expect("writable");
    let two = fs::read(&steps).expect("it is there");
    for len in whole.len()..two.len() {
        fs::write(&steps, &two[..len]).expect("own file");
        assert_eq!(state.load().expect("readable"), kept, "{len} bytes");
    }
    for len in 0..whole.len() {
        fs::write(&steps, &two[..len]).expect("own file");
        let before = Found::Record(record());
        assert_eq!(state.load().expect("readable"), before, "{len} bytes");
    }
}

#[test]
fn steps_that_somebody_removed_are_not_gone_on_with() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    state.save(&record()).expect("writable");
    state.save_step(&step()).expect("writable");
    fs::remove_file(dir.path().join(STEPS_FILE)).expect("own file");
    state.save_step(&step()).expect_err("nobody would find it");
    assert!(!state.takes_steps());
    state.save(&record()).expect("writable");
    state.save_step(&step()).expect("writable");
}

#[test]
fn steps_are_put_together_before_there_are_too_many() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    state.save(&record()).expect("writable");
    let mut steps = 0;
    while state.takes_steps() {
        state.save_step(&step()).expect("writable");
        steps += 1;
    }
    assert!((100..1000).contains(&steps), "{steps}");
}

#[test]
fn what_others_planted_is_not_written_through() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").expect("own file");
    symlink(&victim, dir.path().join(NEW_FILE)).expect("own directory");
    state.save(&record()).expect("writable");
    assert_eq!(fs::read_to_string(&victim).expect("there"), "precious");
    assert_eq!(state.load().expect("readable"), Found::Record(record()));
}

#[test]
fn what_is_no_file_is_put_aside_without_waiting_for_it() {
    let dir = directory();
    let state = StateDir::open(dir.path()).expect("a directory");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join(FILE), mode).expect("own directory");
    assert!(matches!(state.load(), Ok(Found::Damaged { .. })));
    assert_eq!(state.load().expect("readable"), Found::Nothing);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let dir = directory();
    drop(StateDir::open(dir.path()).expect("a directory"));
    for mode in [0o777, 0o1777, 0o702] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("own directory");
        let refused = StateDir::open(dir.path()).expect_err("others may write");
        let text = refused.to_string();
        assert!(text.contains(&format!("mode {mode:04o}")), "{text}");
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    StateDir::open(dir.path()).expect("private again");
}

#[test]
fn whose_a_directory_has_to_be() {
    let dir = directory();
    drop(StateDir::open(dir.path()).expect("a directory"));
    let mut found = stat(dir.path()).expect("it is there");
    let mut fits = |owner: u32, group: u32, mode: u32| {
        (found.st_uid, found.st_gid, found.st_mode) = (owner, group, mode);
        objection(&found, 7, 8).is_none()
    };
    for (owner, group, mode, expected) in [
        (7, 9, 0o700, true),
        (0, 9, 0o755, true),
        (6, 8, 0o700, false),
        (7, 8, 0o770, true),
        (0, 8, 0o2770, true),
        (0, 0, 0o775, true),
        (7, 9, 0o775, false),
    ] {
        assert_eq!(
            fits(owner, group, mode),
            expected,
            "{owner}:{group} {mode:o}"
        );
    }
}

#[test]
fn a_directory_that_is_made_again_is_still_one_processs() {
    let dir = directory();
    let first = StateDir::open(dir.path()).expect("a directory");
    first.save(&record()).expect("writable");
    fs::remove_dir_all(dir.path()).expect("own directory");
    let second = StateDir::open(dir.path()).expect("a new one");
    second.save(&Record::default()).expect("writable");
    assert!(matches!(first.save(&record()), Err(StateError::InUse(_))));
    let kept = second.load().expect("readable");
    assert_eq!(kept, Found::Record(Record::default()));
    drop(second);
    // Whoever is there alone goes on, and has the directory that is there now.
    first.save(&record()).expect("nobody else has it");
    assert!(matches!(
        StateDir::open(dir.path()),
        Err(StateError::InUse(_))
    ));
    fs::remove_dir_all(dir.path()).expect("own directory");
    first.save(&record()).expect("it is made again");
    assert_eq!(first.load().expect("readable"), Found::Record(record()));
}

proptest! {
    #[test]
    fn any_damage_is_noticed(
        place in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let whole = document::write(&record());
        let mut bytes = whole.clone();
        let place = place.index(bytes.len());
        match cut {
            true => bytes.truncate(place),
            false => bytes[place] = byte,
        }
        let read = document::read(&bytes);
        prop_assert!(read.is_err() || bytes == whole || read == Ok(record()));
    }
}
