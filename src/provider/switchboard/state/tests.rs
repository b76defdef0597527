use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::{
    config::RuleName,
    provider::switchboard::{
        JobId, Owner,
        moment::Moment,
        ports::{BlockedRecord, LeftRecord, PortsRecord},
    },
};

/// A directory that is gone afterwards.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let process = std::process::id();
        Self(std::env::temp_dir().join(format!("tml-proxy-state-{process}-{name}")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn owner(number: usize) -> Owner {
    Owner {
        job: JobId::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).expect("an id"),
        rule: RuleName::parse("ssh").expect("a name"),
    }
}

fn record() -> Record {
    Record {
        boot: Some("one".to_owned()),
        ports: PortsRecord {
            owned: vec![(40_000, owner(1))],
            left: vec![LeftRecord {
                port: 40_001,
                owner: owner(2),
                at: Moment::from_millis(7),
            }],
            blocked: vec![BlockedRecord {
                port: 40_002,
                at: Moment::from_millis(8),
            }],
            waiting: vec![owner(3), owner(4)],
        },
        kept: vec![Kept {
            address: "fd00::1".parse().expect("an address"),
            since: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }],
    }
}

#[test]
fn what_was_kept_is_found_again() {
    let place = Place::new("found");
    let state = StateDir::open(&place.0).expect("a directory");
    assert_eq!(state.load().expect("readable"), Found::Nothing);
    state.save(&Record::default()).expect("writable");
    state.save(&record()).expect("writable");
    assert_eq!(state.load().expect("readable"), Found::Record(record()));
}

#[test]
fn a_directory_belongs_to_one_process_at_a_time() {
    let place = Place::new("one");
    let state = StateDir::open(&place.0).expect("a directory");
    assert!(matches!(
        StateDir::open(&place.0),
        Err(StateError::InUse(_))
    ));
    drop(state);
    StateDir::open(&place.0).expect("free again");
}

#[test]
fn a_damaged_file_is_put_aside_and_is_there_to_be_looked_at() {
    let place = Place::new("damaged");
    let state = StateDir::open(&place.0).expect("a directory");
    for (number, text) in [(1, "nonsense"), (2, "more nonsense\n")] {
        fs::write(place.0.join(FILE), text).expect("own file");
        let Found::Damaged { damage, aside } = state.load().expect("never fatal") else {
            panic!("nonsense was read");
        };
        assert_eq!(damage, Damage::Strange);
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
        .replacen(" 1 ", " 2 ", 1);
    assert_eq!(document::read(later.as_bytes()), Err(Damage::Version(2)));
}

#[test]
fn what_is_half_written_replaces_nothing() {
    let place = Place::new("half");
    let state = StateDir::open(&place.0).expect("a directory");
    state.save(&record()).expect("writable");
    fs::write(place.0.join(format!("{FILE}.new")), "half").expect("own file");
    assert_eq!(state.load().expect("readable"), Found::Record(record()));
    state.save(&Record::default()).expect("writable");
    assert_eq!(
        state.load().expect("readable"),
        Found::Record(Record::default())
    );
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
