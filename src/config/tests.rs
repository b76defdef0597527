use std::{net::SocketAddr, num::NonZeroU64, path::Path, time::Duration};

use super::*;
use crate::{
    limit::{Limits, OnRefuse, Penalty, Rate, SessionLimits},
    proxy_protocol::Version,
    table::{Departure, Keepalive, Policy, RelayMode},
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
        per_second: number(per_second),
        burst: number(burst),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

mod accepted {
    use super::*;

    #[test]
    fn a_version_alone_is_a_configuration_of_defaults() {
        let config = config("");
        assert_eq!(config.process, Process::default());
        assert_eq!(config.admin, Admin::default());
        assert_eq!(config.log, Log::default());
        assert_eq!(config.targets, Targets::default());
        assert_eq!(config.defaults, Policy::default());
        assert!(config.mappings.is_empty());
    }

    #[test]
    fn every_setting_of_the_process_can_be_set() {
        let config = config(
            "[process]\nworkers = 2\nbulk_nice = 0\nshutdown_timeout = \"off\"\n\
             splice = false\npipe_size = \"64KiB\"\npipes = 7\n\
             [admin]\nlisten = \"[::1]:9\"\n\
             socket = \"/run/s\"\nsocket_mode = \"0600\"\nsocket_group = \"adm\"\n\
             [log]\nformat = \"json\"\nlevel = \"trace\"\nsessions = false\n\
             session_openings = true\nsession_every = \"1h\"\nrefusals_per_second = \"off\"\n\
             [targets]\nallow = [\"fd00::/8\", \"10.0.0.1\"]\n",
        );
        let some = |number| AutoOr::Value(std::num::NonZero::new(number).expect("not 0"));
        let process = Process {
            workers: some(2),
            bulk_nice: 0,
            shutdown_timeout: None,
            splice: false,
            pipe_size: 64 << 10,
            pipes: AutoOr::Value(7),
        };
        let log = Log {
            format: LogFormat::Json,
            level: LogLevel::Trace,
            sessions: false,
            session_openings: true,
            session_every: Some(Duration::from_secs(3600)),
            refusals_per_second: None,
        };
        assert_eq!(config.process, process);
        assert_eq!(config.log, log);
        assert_eq!(
            config.admin.listen,
            Some("[::1]:9".parse().expect("an address"))
        );
        assert_eq!(config.admin.origin.to_string(), "f:10:10");
        assert_eq!(config.admin.socket, Some("/run/s".into()));
        assert_eq!(config.admin.socket_mode, 0o600);
        assert_eq!(config.admin.socket_group.as_deref(), Some("adm"));
        let allow: Vec<_> = ["fd00::/8", "10.0.0.1/32"].map(|net| net.parse()).into();
        assert_eq!(
            config.targets.allow.into_iter().map(Ok).collect::<Vec<_>>(),
            allow
        );
    }

    #[test]
    fn every_setting_of_a_mapping_can_be_set() {
        let policy = policy(
            "",
            "connect_timeout = \"1s\"\nidle_timeout = \"1h 30m\"\nhalf_close_timeout = \"off\"\n\
             keepalive = \"off\"\nuser_timeout = 0\nbacklog = 5\nallow = [\"10.0.0.0/8\"]\n\
             deny = [\"10.1.0.0/16\"]\nmax_sessions = 3\n\
             max_sessions_per_source = 2\nnew_sessions_per_second = { rate = 20, burst = 40 }\n\
             new_sessions_per_second_per_source = 5\nmax_dialling = 8\non_refuse = \"close\"\n\
             accept_proxy = [\"10.2.0.0/16\"]\nproxy_header_timeout = \"2s\"\n\
             send_proxy = \"v2\"\nbandwidth = \"10MiB\"\n\
             bandwidth_per_source = { rate = \"1024KiB\", burst = \"1GiB\" }\non_remove = \"kill\"\n\
             on_retarget = { drain = \"5s\" }\nrelay = \"copy\"\nbind = \"10.0.0.9\"\n\
             freebind = true\n",
        );
        let expected = Policy {
            connect_timeout: seconds(1),
            idle_timeout: Some(seconds(5400)),
            half_close_timeout: None,
            keepalive: None,
            user_timeout: None,
            backlog: 5,
            accept_proxy: vec!["10.2.0.0/16".parse().expect("a prefix")],
            proxy_header_timeout: seconds(2),
            send_proxy: Some(Version::V2),
            sources: policy.sources.clone(),
            max_sessions: Some(3),
            limits: SessionLimits {
                max_sessions_per_source: Some(2),
                new_sessions: Some(rate(20, 40)),
                new_sessions_per_source: Some(rate(5, 5)),
                max_dialling: Some(8),
            },
            bandwidth: Some(rate(10 << 20, 10 << 20)),
            bandwidth_per_source: Some(rate(1 << 20, 1 << 30)),
            on_refuse: OnRefuse::Close,
            on_remove: Departure::Kill,
            on_retarget: Departure::Drain(seconds(5)),
            relay: RelayMode::Copy,
            bind: Some([10, 0, 0, 9].into()),
            transparent: false,
            freebind: true,
        };
        assert_eq!(policy, expected);
        assert!(policy.sources.permits([10, 0, 0, 1].into()));
        assert!(!policy.sources.permits([10, 1, 0, 1].into()));
    }

    #[test]
    fn every_limit_of_the_process_can_be_set() {
        let config = config(
            "[limits]\nmax_sessions = 9\nmax_sessions_per_source = 3\n\
             new_sessions_per_second = 100\nmax_dialling = 50\n\
             new_sessions_per_second_per_source = { rate = 2, burst = 10 }\n\
             source_prefix_v4 = 24\nsource_prefix_v6 = 56\nexempt = [\"10.0.0.0/8\"]\n\
             penalty = { after = 20, within = \"1m\", lasts = \"10m\" }\n",
        );
        let expected = Limits {
            sessions: SessionLimits {
                max_sessions_per_source: Some(3),
                new_sessions: Some(rate(100, 100)),
                new_sessions_per_source: Some(rate(2, 10)),
                max_dialling: Some(50),
            },
            source_prefix_v4: 24,
            source_prefix_v6: 56,
            penalty: Some(Penalty {
                after: 20,
                within: seconds(60),
                lasts: seconds(600),
            }),
            exempt: vec!["10.0.0.0/8".parse().expect("a prefix")],
        };
        assert_eq!(config.limits, expected);
        let nine = std::num::NonZero::new(9).expect("not 0");
        assert_eq!(config.max_sessions, AutoOr::Value(nine));
    }

    #[test]
    fn a_mapping_turns_off_a_limit_of_the_defaults() {
        let keys = [
            "max_sessions_per_source",
            "new_sessions_per_second",
            "new_sessions_per_second_per_source",
            "max_dialling",
        ];
        let on = keys.map(|key| format!("{key} = 7\n")).concat();
        let off = keys.map(|key| format!("{key} = \"off\"\n")).concat();
        assert_ne!(policy(&on, "").limits, SessionLimits::default());
        assert_eq!(policy(&on, &off).limits, SessionLimits::default());
    }

    #[test]
    fn a_mapping_overrides_the_defaults_key_by_key() {
        let policy = policy(
            "idle_timeout = \"1h\"\nuser_timeout = \"9s\"\ndeny = [\"10.0.0.0/8\"]",
            "user_timeout = \"8s\"\nallow = [\"10.1.0.0/16\"]",
        );
        assert_eq!(policy.idle_timeout, Some(seconds(3600)));
        assert_eq!(policy.user_timeout, Some(seconds(8)));
        assert_eq!(policy.backlog, Policy::default().backlog);
        assert!(policy.sources.permits([10, 1, 0, 1].into()));
        assert!(!policy.sources.permits([10, 2, 0, 1].into()));
    }

    #[test]
    fn a_missing_key_of_keepalive_is_as_in_the_defaults() {
        let keepalive = |idle, interval, count| {
            Some(Keepalive {
                idle: seconds(idle),
                interval: seconds(interval),
                count,
            })
        };
        let own = "keepalive = { count = 9 }";
        for (defaults, expected) in [
            ("", keepalive(60, 15, 9)),
            ("keepalive = { idle = \"5s\" }", keepalive(5, 15, 9)),
            ("keepalive = \"off\"", keepalive(60, 15, 9)),
        ] {
            assert_eq!(policy(defaults, own).keepalive, expected, "{defaults}");
        }
    }

    #[test]
    fn zero_is_off_where_off_is_allowed() {
        let policy = policy(
            "idle_timeout = \"1h\"",
            "idle_timeout = 0\nmax_sessions = 0",
        );
        assert_eq!(policy.idle_timeout, None);
        assert_eq!(policy.max_sessions, None);
        let pipes = |value: &str| config(&format!("[process]\npipes = {value}")).process.pipes;
        assert_eq!(pipes("0"), AutoOr::Value(0));
        assert_eq!(pipes("\"off\""), AutoOr::Value(0));
    }

    #[test]
    fn listens_may_be_a_port_a_text_or_a_list_of_both() {
        for (listen, count) in [
            ("1000", 1),
            ("\"127.0.0.1:1000\"", 1),
            ("[1000, \"[::1]:1001\", \"2000-2009\"]", 12),
        ] {
            let config = config(&format!(
                "[[mapping]]\nname = \"a\"\nlisten = {listen}\ntarget = \"10.0.0.1:22\""
            ));
            assert_eq!(config.mappings[0].pairs.len(), count, "{listen}");
        }
    }

    #[test]
    fn a_mapping_remembers_where_it_listens() {
        let config = config(MAPPING);
        assert_eq!(config.mappings[0].origin.to_string(), "f:4:10");
        let target: SocketAddr = "10.0.0.1:22".parse().expect("an address");
        assert_eq!(config.mappings[0].pairs[0].1, target);
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_do_no_harm() {
        let text = format!("\u{feff}version = 1\n{MAPPING}").replace('\n', "\r\n");
        let config = read(&text).expect("valid");
        assert_eq!(config.mappings[0].origin.to_string(), "f:4:10");
    }
}

mod refused {
    use super::*;

    #[test]
    fn every_problem_is_reported_in_the_order_of_the_file() {
        let text = "[process]\nworkers = 65\n\
                    [[mapping]]\nname = \"a\"\nlisten = 70000\ntarget = \"10.0.0.1:22\"\nlisten6 = 1\n\
                    [log]\nlevel = \"loud\"\n";
        let lines: Vec<_> = problems(text).lines().map(str::to_owned).collect();
        assert_eq!(
            lines[0],
            "f:3:11: process.workers: found 65, allowed: \"auto\" or a number from 1 to 64"
        );
        assert_eq!(
            lines[1],
            "f:6:10: mapping \"a\": listen: found 70000, allowed: a port from 1 to 65535"
        );
        assert!(lines[2].starts_with(
            "f:8:1: mapping \"a\": listen6: unknown key (did you mean \"listen\"?), allowed: name, listen, target,"
        ));
        assert_eq!(
            lines[3],
            "f:10:9: log.level: found \"loud\", allowed: \"error\", \"warn\", \"info\", \"debug\" or \"trace\""
        );
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn the_version_must_be_there_and_known() {
        let text = |version: &str| {
            read(&format!("{version}\nx = 1"))
                .expect_err("refused")
                .to_string()
        };
        assert!(text("").starts_with("f:1:1: version: missing, needed: 1\nf:2:1: x: unknown key"));
        assert!(
            text("version = \"1\"").starts_with("f:1:11: version: found \"1\", allowed: 1\nf:2:1:")
        );
        assert_eq!(text("version = 2"), "f:1:11: version: found 2, allowed: 1");
    }

    #[test]
    fn an_empty_file_is_called_empty() {
        for text in ["", "\n \r\n", "\u{feff}"] {
            let errors = read(text).expect_err("empty");
            assert_eq!(
                errors.to_string(),
                "f:1:1: the file is empty, needed at least: version = 1"
            );
        }
    }

    #[test]
    fn what_is_not_toml_is_reported_with_its_place() {
        assert_eq!(
            problems("x ="),
            "f:2:4: not TOML: string values must be quoted, expected literal string"
        );
        let text = problems("a = [\nb = 1\n[[c]\n");
        assert!(text.lines().count() > 1, "{text}");
    }

    #[test]
    fn a_key_given_twice_does_not_hide_other_problems() {
        let text = problems("[process]\nsplice = true\nsplice = false\nworkers = 0");
        assert_eq!(
            text,
            "f:4:1: not TOML: duplicate key\n\
             f:5:11: process.workers: found 0, allowed: \"auto\" or a number from 1 to 64"
        );
    }

    #[test]
    fn what_makes_a_mapping_must_be_there() {
        let text = problems("[[mapping]]\n[[mapping]]\nname = \"b\"\n");
        let missing: Vec<_> = text
            .lines()
            .map(|line| line.split(": missing").next().unwrap_or_default())
            .collect();
        assert_eq!(
            missing,
            [
                "f:2:1: mapping number 1: name",
                "f:2:1: mapping number 1: listen",
                "f:2:1: mapping number 1: target",
                "f:3:1: mapping \"b\": listen",
                "f:3:1: mapping \"b\": target",
            ]
        );
    }

    #[test]
    fn a_transparent_mapping_needs_clients_of_its_targets_family() {
        let of = |listen: &str, more: &str| {
            let target = "target = \"[fd00::1]:22\"";
            let text = format!("[[mapping]]\nname = \"a\"\nlisten = {listen}\n{target}\n{more}");
            read(&format!("version = 1\n{text}transparent = true\n"))
        };
        assert!(of("\"[::]:1000\"", "").is_ok());
        assert!(of("1000", "accept_proxy = [\"10.0.0.1\"]\n").is_ok());
        for listen in [
            "1000",
            "\"0.0.0.0:1000\"",
            "[\"[::]:1000\", \"10.0.0.1:1001\"]",
        ] {
            assert_eq!(
                of(listen, "").expect_err(listen).to_string(),
                "f:6:15: mapping \"a\": transparent: transparent needs clients of the target's \
                 family, IPv6: listen on \"[::]:PORT\" or on such an address"
            );
        }
        let bound = of("\"[::]:1000\"", "bind = \"fd00::9\"\n").expect_err("both");
        assert_eq!(
            bound.to_string(),
            "f:7:15: mapping \"a\": transparent: transparent connects from the client's address \
             and bind from fd00::9"
        );
    }

    #[test]
    fn a_name_used_twice_is_reported_with_both_places() {
        let text = problems(&format!("{MAPPING}{}", MAPPING.replace("1000", "1001")));
        assert_eq!(text, "f:7:8: mapping \"a\": name: already used at f:3:8");
    }

    #[test]
    fn a_name_that_could_break_a_line_is_not_one() {
        for name in ["", "a b", "a\\nb", "a\\\"b", "é", &"a".repeat(65)] {
            let text = problems(&MAPPING.replace("\"a\"", &format!("\"{name}\"")));
            assert!(
                text.starts_with("f:3:8: mapping number 1: name: found"),
                "{text}"
            );
            assert_eq!(text.lines().count(), 1);
        }
    }

    /// Each value is wrong for its key, and the message says so.
    #[test]
    fn a_wrong_value_is_shown_with_what_is_allowed() {
        for (line, message) in [
            (
                "connect_timeout = \"off\"",
                "found \"off\", allowed: a duration from 1ms to 1year",
            ),
            (
                "new_sessions_per_second = true",
                "found true, allowed: \"off\", a number from 1 to 1000000 or { rate = 20, burst = 20 }",
            ),
            (
                "new_sessions_per_second = { burst = 2 }",
                "missing, needed: how much in a second, such as 20",
            ),
            (
                "bandwidth = \"10MB\"",
                "found \"10MB\", allowed: \"off\", bytes from \"1KiB\" to \"1024GiB\", such as \"10MiB\" or { rate = \"10MiB\", burst = \"10MiB\" }",
            ),
            (
                "max_dialling = -1",
                "found -1, allowed: \"off\" or a number from 1 to 4294967295",
            ),
            (
                "on_refuse = \"drop\"",
                "found \"drop\", allowed: \"reset\" or \"close\"",
            ),
            (
                "connect_timeout = \"0s\"",
                "found \"0s\", allowed: a duration from 1ms",
            ),
            (
                "idle_timeout = 90",
                "found 90, allowed: \"off\" or a duration with its unit, such as \"90s\"",
            ),
            (
                "idle_timeout = \"90\"",
                "found \"90\", allowed: \"off\" or a duration from",
            ),
            ("idle_timeout = \"2years\"", "found \"2years\", allowed"),
            (
                "idle_timeout = true",
                "found true, allowed: \"off\" or a duration",
            ),
            (
                "user_timeout = \"25days\"",
                "allowed: \"off\" or a duration from 1ms to 24days",
            ),
            (
                "keepalive = \"on\"",
                "allowed: \"off\" or a table such as { idle",
            ),
            (
                "keepalive = { idle = \"1500ms\" }",
                "keepalive.idle: found \"1500ms\", allowed: whole seconds from \"1s\" to \"32767s\"",
            ),
            (
                "keepalive = { interval = \"9h 6m 8s\" }",
                "keepalive.interval: found",
            ),
            (
                "keepalive = { count = 128 }",
                "keepalive.count: found 128, allowed: a number from 1 to 127",
            ),
            (
                "keepalive = { idl = \"1s\" }",
                "keepalive.idl: unknown key (did you mean \"idle\"?), allowed: idle, interval, count",
            ),
            ("backlog = 0", "found 0, allowed: a number from 1 to 65535"),
            ("backlog = 4096.0", "found 4096.0, allowed: a number"),
            (
                "allow = \"10.0.0.0/8\"",
                "found \"10.0.0.0/8\", allowed: a list",
            ),
            (
                "allow = [\"10.0.0.0/33\"]",
                "allow (item 1): found \"10.0.0.0/33\", allowed: a prefix such as",
            ),
            (
                "deny = [\"::ffff:10.0.0.0/104\"]",
                "allowed: an IPv4 prefix written as IPv4",
            ),
            (
                "max_sessions = -1",
                "found -1, allowed: \"off\" or a number from 1",
            ),
            (
                "on_remove = \"drain\"",
                "allowed: \"keep\", \"kill\" or { drain = \"30s\" }",
            ),
            (
                "on_remove = { }",
                "on_remove.drain: missing, needed: the time that sessions have left",
            ),
            (
                "on_remove = { drain = 30 }",
                "on_remove.drain: found 30, allowed: a duration with its unit",
            ),
            (
                "relay = \"zerocopy\"",
                "allowed: \"auto\", \"copy\" or \"splice\"",
            ),
            (
                "bind = \"0.0.0.0\"",
                "allowed: \"off\" or an IP address of this machine",
            ),
            (
                "freebind = \"yes\"",
                "found \"yes\", allowed: true or false",
            ),
            (
                "freebind = 1979-05-27",
                "found 1979-05-27, allowed: true or false",
            ),
        ] {
            let text = problems(&format!("{MAPPING}{line}"));
            assert!(text.starts_with("f:6:") && text.contains(message), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn a_section_must_be_a_table_and_a_mapping_headed_by_two_brackets() {
        assert_eq!(problems("log = 1"), "f:2:7: log: found 1, allowed: a table");
        assert_eq!(
            problems("[mapping]"),
            "f:2:1: mapping: found a table, allowed: tables, each headed [[mapping]]"
        );
        assert_eq!(
            problems("mapping = [7]"),
            "f:2:12: mapping number 1: found 7, allowed: a table"
        );
    }

    #[test]
    fn one_prefix_both_allowed_and_denied_is_reported_where_it_was_added() {
        let net = "[\"10.0.0.0/8\"]";
        let both = "10.0.0.0/8 is in both allow and deny";
        for (defaults, keys, place) in [
            (
                format!("deny = {net}"),
                format!("allow = {net}"),
                "f:8:9: mapping \"a\": allow",
            ),
            (
                String::new(),
                format!("allow = {net}\ndeny = {net}"),
                "f:9:8: mapping \"a\": deny",
            ),
        ] {
            let text = problems(&format!("[defaults]\n{defaults}\n{MAPPING}{keys}"));
            assert_eq!(text, format!("{place}: {both}"));
        }
    }

    #[test]
    fn a_target_must_be_in_an_allowed_prefix() {
        let text = problems(&format!("[targets]\nallow = [\"fd00::/8\"]\n{MAPPING}"));
        assert_eq!(
            text,
            "f:7:10: mapping \"a\": target: found \"10.0.0.1:22\", \
             allowed: an address in fd00::/8 (targets.allow)"
        );
    }

    #[test]
    fn a_source_address_must_be_of_the_family_of_the_target() {
        let why = "bind ::1 is IPv6 and target 10.0.0.1 is IPv4";
        assert_eq!(
            problems(&format!("{MAPPING}bind = \"::1\"")),
            format!("f:6:8: mapping \"a\": bind: {why}")
        );
        assert_eq!(
            problems(&format!("[defaults]\nbind = \"::1\"\n{MAPPING}")),
            format!("f:7:10: mapping \"a\": target: {why}")
        );
    }

    #[test]
    fn a_list_of_no_listens_is_not_enough() {
        let text = problems(&MAPPING.replace("1000", "[]"));
        assert_eq!(
            text,
            "f:4:10: mapping \"a\": listen: found a list, allowed: at least one public address"
        );
    }

    #[test]
    fn more_public_addresses_than_there_are_descriptors_are_refused() {
        let listens: Vec<_> = (1..=5)
            .map(|host| format!("\"127.0.0.{host}:1-65535\""))
            .collect();
        let text = problems(
            &MAPPING
                .replace("1000", &format!("[{}]", listens.join(", ")))
                .replace(":22", ":1"),
        );
        assert!(
            text.contains("makes 327675 public addresses up to here, at most 262144 are allowed"),
            "{text}"
        );
    }

    #[test]
    fn a_long_value_is_cut_and_stays_on_one_line() {
        let text = problems(&format!(
            "[log]\nlevel = \"\"\"{}\"\"\"",
            "x\n".repeat(1000)
        ));
        assert_eq!(text.lines().count(), 1);
        assert!(text.len() < 250, "{text}");
    }
}

mod unreadable {
    use super::*;

    fn cause(path: &str) -> String {
        load(Path::new(path)).expect_err("unreadable").to_string()
    }

    #[test]
    fn the_cause_is_named() {
        assert!(cause("/nonexistent/f").contains("/nonexistent/f: No such file"));
        assert!(cause("/").contains("/: Is a directory"));
        assert!(cause("/dev/zero").contains("/dev/zero: longer than 64 MiB"));
    }

    #[test]
    fn bytes_that_are_not_text_are_reported_where_they_stand() {
        let draft = file::read_bytes(
            b"version = 1\nx = \"\xff\"\n",
            Path::new("f"),
            &mut Memory::default(),
        );
        let errors = draft.finish().expect_err("not text");
        assert_eq!(errors.to_string(), "f:2:6: not UTF-8 text (byte 0xff)");
    }
}

mod again;
mod hostile;
mod reference;

mod switchboard {
    use super::*;

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
    fn every_setting_can_be_set() {
        let keys = "ca_file = \"/ca\"\nstates = [\"ready\", \"terminating\"]\ncooldown = \"off\"\n\
            max_per_job = 2\nmax_total = 50\nhost_gone = \"5m\"\nrefresh = \"30s\"\npoll = \"1s\"\n\
            state_dir = \"/s\"\npublish = \"endpoint\"\nlookup = \"[::]:9423\"\n\
            on_remove = { drain = \"5s\" }\nidle_timeout = \"1h\"\n";
        let config = config(&format!("{LEAST}{keys}{RULE}service = \"web\"\n"));
        let own = config.switchboard.expect("it is there");
        assert_eq!(own.cooldown, Duration::ZERO);
        assert_eq!(own.host_gone, Some(seconds(300)));
        assert_eq!((own.max_per_job, own.max_total), (2, Some(50)));
        assert_eq!(
            own.publish.map(|key| key.to_string()).as_deref(),
            Some("endpoint")
        );
        assert_eq!(own.policy.on_remove, Departure::Drain(seconds(5)));
        assert_eq!(own.policy.on_retarget, Departure::Kill);
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
        assert_eq!(own.policy.on_remove, Departure::Kill);
        assert_eq!(config.defaults.on_remove, Departure::Keep);
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
    }

    #[test]
    fn names_of_jobs_are_no_names_for_the_file() {
        let mapping = MAPPING.replace("\"a\"", "\"job/a/ssh\"");
        let text = refused(&format!("{LEAST}{RULE}{mapping}"));
        assert!(
            text.contains("are those of the switchboard's jobs"),
            "{text}"
        );
        assert!(read(&format!("version = 1\n{mapping}")).is_ok());
    }
}
