//! Whatever the bytes, reading ends with a configuration or with problems.

use std::path::Path;

use proptest::prelude::*;

use super::{Config, ConfigErrors, file};
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
    "ban = { after = ",
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
    file::read_bytes(bytes, Path::new("f")).build(&Table::default(), &|_| true)
}

fn ends_well(bytes: &[u8]) {
    if let Err(errors) = read(bytes) {
        assert!(!errors.problems().is_empty());
        let lines = errors.to_string().lines().count();
        let more = usize::from(errors.more() > 0);
        assert_eq!(lines, errors.problems().len() + more, "{errors}");
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

/// What is said of `text`, which is wrong in more places than anybody wants to read about.
fn told(text: &str) -> String {
    let errors = read(text.as_bytes()).expect_err("wrong");
    let said = errors.to_string();
    assert!(said.len() < 40_000, "{} bytes are told", said.len());
    assert_eq!(errors.problems().len(), 20);
    said
}

#[test]
fn of_fifty_thousand_unknown_keys_the_first_twenty_are_told() {
    let mut text = "version = 1\n[defaults]\n".to_owned();
    // In the order in which a sorted table does not have them.
    for number in (0..50_000).rev() {
        text.push_str(&format!("idle_timeout{number:06} = 1\n"));
    }
    let said = told(&text);
    let first = said.lines().next().expect("a line");
    assert!(
        first.starts_with("f:3:1: defaults.idle_timeout049999: unknown key"),
        "{first}"
    );
    assert!(said.ends_with("\nand 49980 more problems"), "{said}");
}

#[test]
fn a_line_as_long_as_its_file_with_as_many_mistakes_as_fit_is_read() {
    let mapping = "{ name = \"é\", listen = 0, target = \"x\" }, ";
    let text = format!("version = 1\nmapping = [{}]\n", mapping.repeat(5_000));
    let said = told(&text);
    assert!(said.ends_with("\nand 14980 more problems"), "{said}");
    assert!(said.starts_with("f:2:"), "{said}");
}

#[test]
fn a_line_with_all_mappings_of_a_large_file_is_read() {
    let mut text = "version = 1\nmapping = [".to_owned();
    for number in 0..5_000 {
        let port = 10_000 + number;
        let mapping =
            format!("{{ name = \"m{number}\", listen = {port}, target = \"192.0.2.1:22\" }}, ");
        text.push_str(&mapping);
    }
    text.push(']');
    let (config, _) = read(text.as_bytes()).expect("nothing is wrong with it");
    assert_eq!(config.mappings.len(), 5_000);
}

#[test]
fn a_key_or_a_value_as_long_as_the_file_is_not_repeated_in_full() {
    for long in [
        format!("{} = 1", "k".repeat(1 << 20)),
        format!("idle_timeout = \"{}\"", "v".repeat(1 << 20)),
        format!("idle_timeout = {}", "9".repeat(1 << 20)),
    ] {
        let text = format!("version = 1\n[defaults]\n{long}\n");
        let said = read(text.as_bytes()).expect_err("wrong").to_string();
        assert!(said.len() < 2000, "{} bytes are told", said.len());
    }
}

/// Each of them on an address of its own, and at the end one that takes them all; each leads back to
/// the one before.
#[test]
fn as_many_listeners_on_one_port_as_there_may_be_are_compared() {
    let mut text = "version = 1\n".to_owned();
    let address = |number: u32| std::net::Ipv4Addr::from(0x7f00_0001 + number);
    for number in 0..5_000 {
        text.push_str(&format!(
            "[[mapping]]\nname = \"m{number}\"\nlisten = \"{}:22\"\ntarget = \"{}:22\"\n",
            address(number + 1),
            address(number),
        ));
    }
    text.push_str("[[mapping]]\nname = \"all\"\nlisten = 22\ntarget = \"192.0.2.1:80\"\n");
    let said = told(&text);
    assert!(said.contains("connections would loop"), "{said}");
}
