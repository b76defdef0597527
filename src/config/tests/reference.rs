//! `config/tml-proxy.toml` is what the program does, not what somebody remembers of it.

use std::path::Path;

use super::{Admin, Config, ConfigErrors, Fault, Log, Problem, Process, Targets, parse};
use crate::{
    fleet::Fleet,
    limit::Limits,
    resolve::Asking,
    table::{Policy, Table},
};

const REFERENCE: &str = include_str!("../../../config/tml-proxy.toml");

/// The reference with its examples live: a `#` right before a setting hides an example, one before
/// a space begins a remark.
pub(super) fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(example) if example.starts_with(|c: char| !c.is_whitespace()) => {
            format!("{example}\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn config(text: &str) -> Config {
    parse(text, Path::new("config/tml-proxy.toml")).expect("the reference is valid")
}

#[test]
fn the_reference_as_it_stands_changes_nothing() {
    let config = config(REFERENCE);
    assert_eq!(config.process, Process::default());
    assert_eq!(config.admin.listen, Admin::default().listen);
    assert_eq!(config.log, Log::default());
    assert_eq!(config.targets, Targets::default());
    assert_eq!(config.resolver, Asking::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.defaults, Policy::default());
    assert!(config.mappings.is_empty());
    assert!(config.switchboard.is_none() && config.fleet.is_none());
}

#[test]
fn the_examples_of_the_reference_are_valid() {
    let draft = super::file::read_text(&uncommented(REFERENCE), Path::new("reference"));
    let (config, table) = draft
        .build(&Table::default(), &|_| false)
        .expect("the examples are valid");
    assert!(config.mappings.len() > 1 && table.routes().len() > 1);
}

#[test]
fn the_defaults_in_the_switchboard_section_are_those_of_the_program() {
    let whole = config(&uncommented(REFERENCE));
    let least = "version = 1\n[switchboard]\nurl = \"https://switchboard.example.org\"\n\
        token_file = \"/etc/tml-proxy/switchboard-token\"\n\
        public_host = \"us-east-1.proxy.example.org\"\nports = \"40000-49999\"\n\
        targets = { allow = [\"fd9d:773b:e6f8::/48\"] }\n\
        [[switchboard.expose]]\nname = \"ssh\"\nport = 22\n";
    let least = config(least).switchboard.expect("it is there");
    let mut whole = whole.switchboard.expect("it is there");
    whole.expose.truncate(1);
    whole.addresses.clear();
    whole.ports_origin = least.ports_origin.clone();
    whole.lookup_origin = least.lookup_origin.clone();
    assert_eq!(whole, least);
}

#[test]
fn the_defaults_in_the_fleet_section_are_those_of_the_program() {
    let whole = config(&uncommented(REFERENCE)).fleet.expect("it is there");
    let least = "version = 1\n[fleet]\n\
        database = \"postgresql://tml_proxy@db-1.example.org,db-2.example.org/tml\"\n\
        name = \"us-east-1-a\"\nregion = \"us-east-1\"\npublic_host = \"p.example.org\"\n";
    let least = config(least).fleet.expect("it is there");
    let (public_host, nearest) = (None, whole.nearest.clone());
    let least = Fleet {
        public_host,
        nearest,
        ..least
    };
    assert_eq!(whole, least);
}

#[test]
fn every_key_occurs_in_the_reference() {
    for key in known_keys() {
        let written = REFERENCE.contains(&format!("{key} ="))
            || REFERENCE.contains(&format!("[{key}]"))
            || REFERENCE.contains(&format!("[[{key}]]"))
            || REFERENCE.contains(&format!(".{key}]"));
        assert!(written, "{key} is not in the reference");
    }
}

/// Every key there is: the program names them when it finds one that is none.
fn known_keys() -> Vec<&'static str> {
    let texts = [
        "x = 1\nprocess.x = 1\nadmin.x = 1\nlog.x = 1\ntargets.x = 1\n\
         limits = { x = 1, ban = { x = 1 } }\n\
         defaults = { x = 1, new_sessions_per_second = { x = 1 }, keepalive = { x = 1 }, on_remove = { x = 1 } }\n",
        "switchboard = { x = 1, targets = { x = 1 }, expose = [{ x = 1 }] }\n\
         fleet.x = 1\nmapping = [{ x = 1 }]\n",
    ];
    let errors = texts.map(|text| {
        let text = format!("version = 1\n{text}");
        parse(&text, Path::new("f")).expect_err("no key is called x")
    });
    let keys = errors
        .iter()
        .flat_map(ConfigErrors::problems)
        .filter_map(|problem| match problem {
            Problem::Key {
                fault: Fault::UnknownKey { allowed, .. },
                ..
            } => Some(allowed.clone()),
            _ => None,
        });
    let keys: Vec<_> = keys.collect();
    assert_eq!(keys.len(), 16, "a section was not asked");
    keys.concat()
}
