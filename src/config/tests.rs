use std::{net::SocketAddr, num::NonZeroU64, path::Path, time::Duration};

use super::*;
use crate::{
    limit::{Ban, Limits, OnRefuse, Rate, SessionLimits},
    proxy_protocol::Version,
    table::{Congestion, Keepalive, Policy, RelayMode, RemovalPolicy},
    target::{Balance, QueueSettings},
};

const MAPPING: &str = "[[mapping]]\nname = \"a\"\nlisten = 1000\ntarget = \"10.0.0.1:22\"\n";

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse(text, Path::new("f"))
}

fn config(text: &str) -> Config {
    read(&format!("version = 1\n{text}")).expect(text)
}

/// The policy of a mapping with `keys`, below `[defaults]` with `defaults`.
fn policy(defaults: &str, keys: &str) -> Policy {
    let config = config(&format!("[defaults]\n{defaults}\n{MAPPING}{keys}"));
    (*config.mappings[0].policy).clone()
}

/// What is wrong with `text`, which starts on line 2.
fn problems(text: &str) -> String {
    let errors = read(&format!("version = 1\n{text}")).expect_err(text);
    errors.to_string()
}

fn rate(per_second: u64, burst: u64) -> Rate {
    let number = |number| NonZeroU64::new(number).expect("not 0");
    Rate {
        burst: number(burst),
        ..Rate::even(number(per_second))
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

mod unreadable {
    use super::*;

    fn cause(path: &str) -> String {
        load(Path::new(path)).expect_err("unreadable").to_string()
    }

    #[test]
    fn the_cause_is_named() {
        assert!(cause("/nonexistent/f").contains("/nonexistent/f: No such file"));
        assert!(cause("/").contains("/: found a directory, allowed: a regular file"));
        assert!(cause("/dev/zero").contains("/dev/zero: found a device, allowed: a regular file"));
    }

    #[test]
    fn bytes_that_are_not_text_are_reported_where_they_stand() {
        let draft = file::read_bytes(b"version = 1\nx = \"\xff\"\n", Path::new("f"));
        let errors = draft.finish().expect_err("not text");
        assert_eq!(errors.to_string(), "f:2:6: not UTF-8 text (byte 0xff)");
    }
}

mod accepted;
mod hostile;
mod include;
mod reference;
mod refused;
mod schema;
mod source;

mod switchboard {
    use super::*;
    use crate::provider::switchboard::Condition;

    const LEAST: &str = "[switchboard]\nurl = \"https://sb.example.org\"\ntoken_file = \"/t\"\n\
        public_host = \"p.example.org\"\nports = \"40000-40099\"\n\
        targets = { allow = [\"fd00::/8\"] }\n";
    const RULE: &str = "[[switchboard.expose]]\nname = \"ssh\"\nport = 22\n";

    /// What is wrong with a whole file, mappings and all.
    fn refused(text: &str) -> String {
        let text = format!("version = 1\n{text}");
        let draft = crate::config::read_text(&text, Path::new("f"));
        let built = draft.build(&crate::table::Table::default(), &|_| false);
        built.expect_err(&text).to_string()
    }

    #[test]
    fn what_makes_a_switchboard_must_be_there() {
        let text = problems("[switchboard]\n");
        for key in [
            "url",
            "token_file",
            "public_host",
            "ports",
            "targets",
            "expose",
        ] {
            assert!(
                text.contains(&format!("f:2:1: switchboard.{key}: missing")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_time_for_a_host_to_be_gone_that_no_two_readings_can_tell_is_refused() {
        let text = refused(&format!("{LEAST}host_gone = \"5s\"\n{RULE}"));
        assert!(text.contains("switchboard.host_gone"), "{text}");
        assert!(text.contains("at least \"15s\""), "{text}");
        for keys in [
            "host_gone = \"15s\"\n",
            "host_gone = \"5s\"\npoll = \"1s\"\n",
        ] {
            config(&format!("{LEAST}{keys}{RULE}"));
        }
    }

    #[test]
    fn the_address_of_a_board_must_be_one_that_jobs_may_have() {
        let table = |line: &str| format!("{LEAST}{RULE}[switchboard.addresses]\n{line}\n");
        let own = config(&table("\"board 14\" = \"fd00::14\"")).switchboard;
        let own = own.expect("it is there");
        assert_eq!(
            own.addresses["board 14"],
            "fd00::14".parse::<std::net::IpAddr>().expect("one")
        );
        for (line, words) in [
            (
                "b = \"2001:db8::1\"",
                "2001:db8::1 is in no prefix of switchboard.targets.allow",
            ),
            (
                "b = \"fe80::14\"",
                "fe80::14 can be no job's (link_local_address)",
            ),
            ("b = \"::1\"", "::1 can be no job's (loopback_address)"),
            ("b = \"board\"", "the IP address of the jobs on this host"),
            ("b = 14", "switchboard.addresses.b"),
            ("\"\" = \"fd00::1\"", "name or id"),
        ] {
            let text = refused(&table(line));
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn every_setting_can_be_set() {
        let keys = "ca_file = \"/ca\"\nstates = [\"ready\", \"terminating\"]\ncooldown = \"off\"\n\
            max_per_job = 2\nmax_total = 50\nhost_gone = \"5m\"\nrefresh = \"30s\"\npoll = \"1s\"\n\
            state_dir = \"/s\"\npublish = \"endpoint\"\n\
            publish_name = \"us-east\"\npublish_on_stop = \"keep\"\nlookup = \"[::]:9423\"\n\
            on_remove = { drain = \"5s\" }\nidle_timeout = \"1h\"\n";
        let config = config(&format!("{LEAST}{keys}{RULE}service = \"web\"\n"));
        let own = config.switchboard.expect("it is there");
        assert_eq!(own.cooldown, Duration::ZERO);
        assert_eq!(own.host_gone, Some(seconds(300)));
        assert_eq!((own.max_per_job, own.max_total), (2, Some(50)));
        assert_eq!(
            own.annotation().map(|key| key.to_string()).as_deref(),
            Some("endpoint/us-east")
        );
        assert!(!own.withdraw);
        assert_eq!(own.policy.on_remove, RemovalPolicy::Drain(seconds(5)));
        assert_eq!(own.policy.on_retarget, RemovalPolicy::Kill);
        assert_eq!(own.policy.idle_timeout, Some(seconds(3600)));
        assert_eq!(
            own.expose[0].condition,
            Condition::Service("web".to_owned())
        );
    }

    #[test]
    fn sessions_of_jobs_are_killed_unless_the_section_itself_says_otherwise() {
        let config = config(&format!("[defaults]\non_remove = \"keep\"\n{LEAST}{RULE}"));
        let own = config.switchboard.expect("it is there");
        assert_eq!(own.policy.on_remove, RemovalPolicy::Kill);
        assert_eq!(config.defaults.on_remove, RemovalPolicy::Keep);
    }

    #[test]
    fn a_wrong_value_is_shown_with_what_is_allowed() {
        for (from, to, told) in [
            (
                "https://sb.example.org",
                "sb.example.org",
                "switchboard.url: found \"sb.example.org\"",
            ),
            ("\"/t\"", "\"t\"", "switchboard.token_file: found \"t\""),
            ("40000-40099", "40099-40000", "switchboard.ports: found"),
            ("40000-40099", "0-5", "switchboard.ports: found"),
            (
                "p.example.org",
                "-oX",
                "switchboard.public_host: found \"-oX\"",
            ),
            (
                "[\"fd00::/8\"]",
                "[]",
                "switchboard.targets.allow: found a list",
            ),
            ("name = \"ssh\"", "name = \"a/b\"", "name: found \"a/b\""),
            ("port = 22", "port = 0", "port: found 0"),
            (
                "port = 22",
                "port = 22\nservice = \"a\"\nprotocol = \"b\"",
                "both service and protocol",
            ),
        ] {
            let text = format!("{LEAST}{RULE}").replacen(from, to, 1);
            let found = problems(&text);
            assert!(found.contains(told), "{found}");
        }
        let twice = problems(&format!("{LEAST}{RULE}{RULE}"));
        assert!(twice.contains("two rules called \"ssh\""), "{twice}");
        let keys = format!("{LEAST}states = [\"finalized\"]\n{RULE}");
        assert!(problems(&keys).contains("allowed: \"queued\""));
    }

    #[test]
    fn a_url_that_could_not_be_asked_is_refused_and_no_password_shown() {
        for (url, allowed) in [
            ("https://[::1", "allowed: a URL with a host: a name,"),
            ("https://a%zz", "allowed: a URL with a host: a name,"),
            (
                "https://[fe80::1]",
                "allowed: a URL with an address that can be connected to",
            ),
            (
                "https://224.0.0.1:443",
                "allowed: a URL with an address that can be connected to",
            ),
            (
                "https://sb.example.org:99999",
                "allowed: a URL with a port from 1 to 65535",
            ),
            (
                "ftp://sb.example.org",
                "allowed: an http or https URL such as",
            ),
            ("https://sb.example.org?x", "allowed: a URL without a query"),
        ] {
            let text =
                problems(&format!("{LEAST}{RULE}").replacen("https://sb.example.org", url, 1));
            let expected = format!("f:3:7: switchboard.url: found {url:?}, {allowed}");
            assert!(text.starts_with(&expected), "{text}");
        }
        let url = "https://me:sesame@sb.example.org";
        let text = problems(&format!("{LEAST}{RULE}").replacen("https://sb.example.org", url, 1));
        assert!(text.contains("has a user or a password"), "{text}");
        assert!(!text.contains("sesame"), "{text}");
    }

    #[test]
    fn ports_that_belong_to_somebody_else_are_refused_with_whose_they_are() {
        let mapping = MAPPING.replace("1000", "40007");
        let text = refused(&format!("{LEAST}{RULE}{mapping}"));
        let expected =
            "f:6:9: switchboard.ports: contains port 40007, which belongs to mapping \"a\"";
        assert!(text.contains(expected), "{text}");
        let admin = "[admin]\nlisten = \"127.0.0.1:40001\"\n";
        let text = refused(&format!("{LEAST}{RULE}{admin}"));
        assert!(text.contains("the admin listener at f:"), "{text}");
        let lookup = format!("{LEAST}lookup = \"[::]:40002\"\n{RULE}");
        assert!(refused(&lookup).contains("the lookup listener at f:"));
        let mapping = MAPPING.replace("1000", "9423");
        let lookup = format!("{LEAST}lookup = \"[::]:9423\"\n{RULE}{mapping}");
        let text = refused(&lookup);
        assert!(
            text.contains("overlaps [::]:9423 of the lookup listener"),
            "{text}"
        );
        let lookup = format!("{LEAST}lookup = 9422\n{RULE}");
        let text = refused(&lookup);
        let expected = "the lookup listener listens on *:9422, which overlaps 127.0.0.1:9422 of the \
                        admin listener at its built-in default";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn clients_of_both_families_cannot_be_the_source_of_connections_to_one() {
        let why = "transparent needs clients of the target's family, and ports of jobs take both";
        let text = problems(&format!("{LEAST}transparent = true\n{RULE}"));
        assert_eq!(text, format!("f:8:15: switchboard.transparent: {why}"));
        let defaults = "[defaults]\ntransparent = true\n";
        let text = problems(&format!("{defaults}{LEAST}{RULE}"));
        let expected = format!("f:4:1: switchboard.transparent: {why} (true in [defaults])");
        assert_eq!(text, expected);
        let own = format!("{defaults}{LEAST}transparent = false\n{RULE}");
        assert!(read(&format!("version = 1\n{own}")).is_ok());
        let fronted = format!("{LEAST}transparent = true\naccept_proxy = [\"10.0.0.1\"]\n{RULE}");
        assert!(read(&format!("version = 1\n{fronted}")).is_ok());
        let text = problems(&format!(
            "{LEAST}transparent = true\nbind = \"fd00::9\"\n{RULE}"
        ));
        assert!(text.contains("and bind from fd00::9"), "{text}");
    }

    #[test]
    fn names_of_jobs_are_no_names_for_the_file() {
        let mapping = MAPPING.replace("\"a\"", "\"job/a/ssh\"");
        let text = problems(&mapping);
        let expected = "f:3:8: mapping \"job/a/ssh\": name: names that begin with \"job/\" are those \
                        of a switchboard's jobs";
        assert_eq!(text, expected);
        let text = refused(&format!("{LEAST}{RULE}{mapping}"));
        assert!(text.contains("those of a switchboard's jobs"), "{text}");
        assert!(
            read(&format!(
                "version = 1\n{}",
                MAPPING.replace("\"a\"", "\"jobs/a\"")
            ))
            .is_ok()
        );
    }
}

mod fleet {
    use super::*;

    const LEAST: &str = "[fleet]\nname = \"a\"\nregion = \"b\"\npublic_host = \"p\"\n";

    #[test]
    fn what_makes_a_fleet_must_be_there() {
        let text = problems("[fleet]\nnearest = []\n");
        for key in ["database", "name", "region"] {
            assert!(text.contains(&format!("fleet.{key}: missing")), "{text}");
        }
        let text =
            problems("[fleet]\ndatabase = \"postgresql://u@h/d\"\nname = \"a\"\nregion = \"b\"\n");
        assert!(
            text.contains("fleet.public_host: nobody could be told"),
            "{text}"
        );
    }

    #[test]
    fn a_password_in_the_database_is_refused_and_not_told() {
        for url in [
            "postgresql://u:sesame@h/d",
            "postgresql://u@h/d?password=sesame",
            "password=sesame host=h",
        ] {
            let text = problems(&format!("{LEAST}database = \"{url}\"\n"));
            assert!(
                text.contains("f:6:12: fleet.database: a password does not belong here"),
                "{text}"
            );
            assert!(!text.contains("sesame"), "{text}");
        }
    }
}
