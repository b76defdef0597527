use std::net::SocketAddr;

use super::*;
use crate::{
    config::source::{Overrides, Source},
    table::{Table, diff},
};

fn load(source: &Source) -> Result<(Config, Table), ConfigErrors> {
    source.load(&Overrides::default(), &Table::default())
}

fn arguments(maps: &[&str]) -> Source {
    Source::Arguments(maps.iter().map(|map| (*map).to_owned()).collect())
}

#[test]
fn the_demo_leads_to_the_echo() {
    let (config, table) = load(&Source::Demo).expect("valid");
    assert_eq!(config.mappings[0].name.as_str(), "demo");
    let targets: Vec<_> = table
        .routes()
        .map(|route| route.target.addresses()[0])
        .collect();
    assert_eq!(targets, [demo::ECHO]);
}

#[test]
fn loading_again_shares_what_did_not_change() {
    let (_, before) = load(&Source::Demo).expect("valid");
    let (_, after) = Source::Demo
        .load(&Overrides::default(), &before)
        .expect("valid");
    assert!(diff(&before, &after).is_empty());
}

#[test]
fn an_argument_is_a_mapping_with_the_defaults() {
    let source = arguments(&["22014=[fd00::1]:22", "[::1]:1000-1009=10.0.0.1:2000"]);
    let (config, table) = load(&source).expect("valid");
    assert_eq!(table.routes().len(), 11);
    assert_eq!(config.mappings[1].name.as_str(), "[::1]:1000-1009");
    assert_eq!(*config.mappings[0].policy, config.defaults);
}

#[test]
fn every_bad_argument_is_quoted() {
    let source = arguments(&["22014", "70000=10.0.0.1:0", "1-2=10.0.0.1:1-3"]);
    let errors = load(&source).expect_err("bad").to_string();
    let lines: Vec<_> = errors.lines().collect();
    assert!(lines[0].starts_with("argument \"22014\": missing, needed: \"=\" between LISTEN"));
    for (line, expected) in lines[1..].iter().zip([
        "argument \"70000=10.0.0.1:0\": listen: found \"70000\", allowed: a port from 1 to 65535",
        "argument \"70000=10.0.0.1:0\": target: found \"10.0.0.1:0\", allowed: a port from 1 to 65535",
        "argument \"1-2=10.0.0.1:1-3\": target: listen has 2 ports (1-2) and target has 3 ports (1-3): \
         both must have the same number, or target only its first port",
    ]) {
        assert_eq!(*line, expected);
    }
    assert_eq!(lines.len(), 4);
}

#[test]
fn an_argument_given_twice_is_refused() {
    let errors = load(&arguments(&["1000=10.0.0.1:1", "1000=10.0.0.1:1"])).expect_err("twice");
    assert!(
        errors
            .to_string()
            .starts_with("argument \"1000=10.0.0.1:1\": there are two mappings on 1000")
    );
}

#[test]
fn a_mapping_on_the_admin_address_is_refused_wherever_that_comes_from() {
    let source = arguments(&["9422=10.0.0.1:1"]);
    let with_admin = |admin| {
        let overrides = Overrides {
            admin,
            ..Overrides::default()
        };
        let loaded = source.load(&overrides, &Table::default());
        loaded.map(|_| ()).map_err(|errors| errors.to_string())
    };
    let refused = with_admin(None).expect_err("the default admin address");
    assert!(
        refused.ends_with("127.0.0.1:9422 of the admin listener at its built-in default"),
        "{refused}"
    );
    let elsewhere: SocketAddr = "[::1]:9422".parse().expect("an address");
    let refused = with_admin(Some(Some(elsewhere.into()))).expect_err("the given admin address");
    assert!(
        refused.ends_with("at argument \"--admin [::1]:9422\""),
        "{refused}"
    );
    assert_eq!(with_admin(Some(None)), Ok(()));
}

#[test]
fn the_command_line_goes_before_the_source() {
    let overrides = Overrides {
        admin: Some(None),
        log_format: Some(LogFormat::Json),
        log_level: Some(LogLevel::Debug),
    };
    let (config, _) = Source::Demo
        .load(&overrides, &Table::default())
        .expect("valid");
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, LogLevel::Debug);
}

#[test]
fn overlapping_ranges_are_one_problem() {
    let source = arguments(&["1000-1999=10.0.0.1:1", "1500-2499=10.0.0.1:1"]);
    let errors = load(&source).expect_err("overlap");
    assert_eq!(errors.problems().len(), 1);
    assert!(
        errors.to_string().ends_with("(and 499 more ports)"),
        "{errors}"
    );
}
