//! What is refused, and in which words.

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
    assert_eq!(
        lines[2],
        "f:8:1: mapping \"a\": listen6: unknown key, did you mean \"listen\"?"
    );
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
            "found \"off\", allowed: a duration from 1ms to 366days",
        ),
        (
            "new_sessions_per_second = true",
            "found true, allowed: \"off\", a number from 1 to 1000000 or { rate = 20, per = \"1m\", burst = 20 }",
        ),
        (
            "new_sessions_per_second = { burst = 2 }",
            "missing, needed: how much in a second, or in \"per\", such as 20",
        ),
        (
            "bandwidth = \"10MB\"",
            "found \"10MB\", allowed: \"off\", bytes from \"1KiB\" to \"1024GiB\", such as \"10MiB\" or { rate = \"10MiB\", per = \"1m\", burst = \"10MiB\" }",
        ),
        (
            "max_dialling = -1",
            "found -1, allowed: \"off\" or a number from 1 to 4294967295",
        ),
        (
            "on_refuse = \"silent\"",
            "found \"silent\", allowed: \"reset\", \"close\" or \"drop\"",
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
            "keepalive.idl: unknown key, did you mean \"idle\"?",
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
            "bind = \"fe80::1%eth0\"",
            "allowed: \"off\" or an address that is not link-local",
        ),
        (
            "bind = \"255.255.255.255\"",
            "allowed: \"off\" or an IP address of this machine",
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
fn an_admin_listener_is_written_as_that_of_a_mapping() {
    let found = |value: &str| problems(&format!("[admin]\nlisten = {value}"));
    for (value, allowed) in [
        ("\"[fe80::1]:9422\"", "an address that is not link-local"),
        ("\"[fe80::1%2]:9422\"", "an address that is not link-local"),
        (
            "\"[::ffff:127.0.0.1]:9422\"",
            "an IPv4 address written as IPv4",
        ),
        ("\"127.0.0.1:0\"", "a port from 1 to 65535"),
        ("70000", "a port from 1 to 65535"),
        ("\"9422-9423\"", "a port (9422), or an address and a port"),
        (
            "\"localhost:9422\"",
            "a port (9422), or an address and a port",
        ),
    ] {
        let text = found(value);
        assert!(text.starts_with("f:3:10: admin.listen: found "), "{text}");
        assert!(text.contains(allowed), "{text}");
    }
}

/// What the kernel would not take is an error of the file, not of the start.
#[test]
fn a_path_that_no_file_can_have_is_refused() {
    let long = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    let deep = "/xxxxxxxxx".repeat(410);
    for (path, allowed) in [
        ("run/s", "a path from the root"),
        ("/run/s\\u0000", "none of them 0"),
        (&*long(108), "of at most 107 bytes"),
        (&*long(300), "255 between two slashes"),
        (&*deep, "at most 4095 bytes"),
        ("/", "the path of a file"),
        ("/run/..", "the path of a file"),
        ("/run/s/", "the path of a file"),
    ] {
        let text = problems(&format!("[admin]\nsocket = \"{path}\""));
        assert!(text.contains(allowed), "{text}");
    }
    let longest = format!("version = 1\n[admin]\nsocket = \"{}\"", long(107));
    assert!(read(&longest).is_ok());
}

#[test]
fn a_name_of_the_admin_address_has_no_port() {
    for name in ["", "a:1", "[::1]", "a b", "-a", "a.", "*"] {
        let text = problems(&format!("[admin]\nhosts = [\"{name}\"]"));
        assert!(text.contains("a name without a port"), "{text}");
    }
}

#[test]
fn a_group_that_cannot_be_is_refused() {
    for group in ["", "a:b", "a b", "4294967295", "99999999999"] {
        let text = problems(&format!("[admin]\nsocket_group = \"{group}\""));
        assert!(text.contains("the name or the number of a group"), "{text}");
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
fn what_is_wrong_with_one_of_several_targets_is_said_where_it_stands() {
    for (targets, said) in [
        (
            "[\"10.0.0.1:22\", \"10.0.0.2:22\", \"10.0.0.1:22\"]",
            "f:7:41: mapping \"a\": target (item 3): leads to the same place as item 1",
        ),
        (
            "[\"10.0.0.1:22\", \"10.9.0.2:22\"]",
            "f:7:26: mapping \"a\": target (item 2): found 10.9.0.2, allowed: an address in \
             10.0.0.0/16 (targets.allow)",
        ),
        (
            "[\"10.0.0.1:22\", \"10.0.0.2:22-23\"]",
            "f:7:26: mapping \"a\": target (item 2): listen has 1 port (1000) and target has 2 \
             ports (22-23): both must have the same number, or target only its first port",
        ),
        (
            "[{ address = \"10.0.0.1:22\", weight = 0 }]",
            "f:7:47: mapping \"a\": target (item 1).weight: found 0, allowed: a number from 1 to 256",
        ),
        (
            "[{ adress = \"10.0.0.1:22\" }]",
            "f:7:13: mapping \"a\": target (item 1).adress: unknown key, did you mean \"address\"?",
        ),
        (
            "[{ address = \"10.0.0.1:22\", backup = true }]",
            "f:7:10: mapping \"a\": target: every target is a backup: at least one must not be",
        ),
        (
            "[]",
            "f:7:10: mapping \"a\": target: found a list, allowed: at least one target",
        ),
    ] {
        let mapping = MAPPING.replace("\"10.0.0.1:22\"", targets);
        let text = problems(&format!("[targets]\nallow = [\"10.0.0.0/16\"]\n{mapping}"));
        assert!(text.lines().any(|line| line == said), "{targets}\n{text}");
    }
}

#[test]
fn targets_of_both_families_need_no_address_of_one() {
    let targets = "[\"10.0.0.1:22\", \"[fd00::1]:22\"]";
    let mapping = MAPPING.replace("\"10.0.0.1:22\"", targets);
    assert_eq!(
        problems(&format!("{mapping}bind = \"::1\"")),
        "f:6:8: mapping \"a\": bind: bind ::1 is IPv6 and target 10.0.0.1 is IPv4"
    );
    assert_eq!(
        problems(&format!("{mapping}transparent = true")),
        "f:6:15: mapping \"a\": transparent: transparent needs clients of the target's family, and \
         there are targets of both"
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
