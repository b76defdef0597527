//! Whatever the bytes, reading ends with a configuration or with problems.

use std::path::Path;

use proptest::prelude::*;

use super::{Config, ConfigErrors, Memory, file};
use crate::table::Table;

const REFERENCE: &str = include_str!("../../../config/tml-proxy.toml");

/// Pieces that are right somewhere and wrong elsewhere.
const PIECES: [&str; 28] = [
    "version = 1\n",
    "[process]\n",
    "[defaults]\n",
    "[[mapping]]\n",
    "[mapping.keepalive]\n",
    "name = ",
    "listen = ",
    "target = ",
    "idle_timeout = ",
    "on_remove = { drain = ",
    "[limits]\n",
    "penalty = { after = ",
    "bandwidth = { rate = ",
    "\"99999999999999999GiB\"",
    "\"1-65535\"",
    "\"[::1]:22\"",
    "\"18446744073709551615s 1000ms\"",
    "\"1844674407 3709551615s 1000ms\"",
    "\"off\"",
    "99999999999999999999",
    "-0x1",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\n",
    "é = '\u{0}'",
];

fn read(bytes: &[u8]) -> Result<(Config, Table), ConfigErrors> {
    file::read_bytes(bytes, Path::new("f"), &mut Memory::default())
        .build(&Table::default(), &|_| true)
}

fn ends_well(bytes: &[u8]) {
    if let Err(errors) = read(bytes) {
        assert!(!errors.problems().is_empty());
        let lines = errors.to_string().lines().count();
        assert_eq!(lines, errors.problems().len(), "{errors}");
    }
}

proptest! {
    #[test]
    fn random_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        ends_well(&bytes);
    }

    #[test]
    fn random_pieces_are_survived(
        pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..40)
    ) {
        ends_well(pieces.concat().as_bytes());
    }

    #[test]
    fn a_mutilated_reference_is_survived(
        cut in any::<proptest::sample::Index>(),
        length in 0..40_usize,
        inserted in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = super::reference::uncommented(REFERENCE).into_bytes();
        let start = cut.index(bytes.len());
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, inserted);
        ends_well(&bytes);
    }
}

#[test]
fn a_duration_at_the_end_of_time_is_refused() {
    for text in [
        "18446744073709551615s 1000ms",
        "1844674407 3709551615s 1000ms",
        "584542046090y 31556815s 1000ms",
    ] {
        let text = format!("version = 1\n[defaults]\nidle_timeout = \"{text}\"");
        assert!(read(text.as_bytes()).is_err());
    }
}
