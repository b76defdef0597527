//! `tml-proxy check` as an operator meets it: exit codes, and the very text on both outputs.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output},
};

use tempfile::NamedTempFile;

/// A configuration file of its own for each test, gone with it.
fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::with_suffix(".toml").expect("a directory for temporary files");
    file.write_all(content).expect("space for a small file");
    file
}

fn check(path: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tml-proxy"));
    command.args(["check", "--config"]).arg(path).args(options);
    command.output().expect("the binary runs")
}

/// Standard error about a file that is not valid, with FILE in place of its path.
fn complaints(path: &Path) -> String {
    let output = check(path, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    text(output.stderr).replace(&path.display().to_string(), "FILE")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

const GOOD: &str = r#"
version = 1

[process]
shutdown_timeout = 0

[defaults]
idle_timeout = "1h"

[[mapping]]
name = "board-14"
listen = 22014
target = "[fd00::14]:22"

[[mapping]]
name = "farm"
listen = ["22100-22199", "127.0.0.1:23000-23099"]
target = "[fd00::10]:22000"
idle_timeout = "off"
on_remove = { drain = "90s" }
"#;

#[test]
fn a_valid_file_is_printed_with_ranges_as_ranges_and_off_spelled_out() {
    let file = file(GOOD.as_bytes());
    let output = check(file.path(), &["--all"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let expected = "\
FILE is valid

process.workers                              auto
process.bulk_nice                            2
process.shutdown_timeout                     off
process.splice                               true
process.pipe_size                            1MiB
process.pipes                                auto
admin.listen                                 127.0.0.1:9422
admin.hosts                                  []
admin.socket                                 auto
admin.socket_mode                            0660
admin.socket_group                           off
log.format                                   text
log.level                                    info
log.sessions                                 true
log.session_openings                         false
log.session_every                            off
log.syslog                                   off
log.syslog_facility                          daemon
log.syslog_name                              tml-proxy
log.mask_clients                             off
log.refusals_per_second                      20
targets.allow                                []
resolver.servers                             []
resolver.timeout                             5s
limits.max_sessions                          auto
limits.max_sessions_per_source               off
limits.new_sessions_per_second               off
limits.new_sessions_per_second_per_source    off
limits.max_dialling                          off
limits.source_prefix_v4                      32
limits.source_prefix_v6                      64
limits.ban                                   off
limits.exempt                                []
defaults.balance                             round-robin
defaults.retries                             auto
defaults.queue                               off
defaults.connect_timeout                     10s
defaults.idle_timeout                        1h
defaults.half_close_timeout                  off
defaults.max_duration                        off
defaults.keepalive                           { idle = 1m, interval = 1m, count = 120 }
defaults.user_timeout                        off
defaults.backlog                             4096
defaults.accept_proxy                        []
defaults.proxy_header_timeout                5s
defaults.send_proxy                          off
defaults.allow                               []
defaults.deny                                []
defaults.max_sessions                        off
defaults.max_sessions_per_source             off
defaults.new_sessions_per_second             off
defaults.new_sessions_per_second_per_source  off
defaults.max_dialling                        off
defaults.bandwidth                           off
defaults.bandwidth_per_source                off
defaults.on_refuse                           reset
defaults.resolve                             off
defaults.family                              both
defaults.check                               off
defaults.on_down                             keep
defaults.on_remove                           keep
defaults.on_retarget                         keep
defaults.relay                               auto
defaults.bind                                off
defaults.congestion                          off
defaults.transparent                         false
defaults.freebind                            false
defaults.each_port                           false

NAME      LISTEN                 TARGET                  NOT AS IN DEFAULTS
board-14  *:22014                [fd00::14]:22
farm      *:22100-22199          [fd00::10]:22000-22099  idle_timeout = off, on_remove = { drain = 1m 30s }
farm      127.0.0.1:23000-23099  [fd00::10]:22000-22099
";
    let printed = text(output.stdout).replace(&file.path().display().to_string(), "FILE");
    assert_eq!(printed, expected);
}

#[test]
fn a_valid_file_is_said_to_be_valid_with_what_is_not_as_when_left_out() {
    let file = file(GOOD.as_bytes());
    let output = check(file.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    let printed = text(output.stdout).replace(&file.path().display().to_string(), "FILE");
    let settings = "FILE is valid\n\n\
                    process.shutdown_timeout  off\n\
                    defaults.idle_timeout     1h\n\n\
                    NAME ";
    assert!(printed.starts_with(settings), "{printed}");
}

#[test]
fn json_has_the_same_under_stable_names() {
    let file = file(GOOD.as_bytes());
    let output = check(file.path(), &["--json"]);
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["process"]["shutdown_timeout"], "off");
    assert_eq!(json["admin"]["listen"], "127.0.0.1:9422");
    assert_eq!(json["defaults"]["keepalive"]["idle"], "1m");
    let farm = &json["mappings"][1];
    assert_eq!(farm["name"], "farm");
    assert_eq!(farm["routes"][0]["listen"], "*:22100-22199");
    assert_eq!(farm["routes"][0]["target"], "[fd00::10]:22000-22099");
    assert_eq!(farm["policy"]["idle_timeout"], "off");
    assert_eq!(farm["policy"]["on_remove"]["drain"], "1m 30s");
    assert_eq!(farm["policy"]["backlog"], 4096);
}

#[test]
fn every_error_of_a_file_is_reported_at_once() {
    let file = file(
        br#"version = 1

[process]
worker = 2
pipe_size = 262144

[admin]
listen = "127.0.0.1:9422"

[defaults]
idle_timeout = 90

[[mapping]]
name = "board-14"
listen = 70000
target = "[fd00::14]:22"

[[mapping]]
name = "board-14"
listen = 22015
target = "[fd00::15]:0"

[[mapping]]
name = "farm"
listen = "22000-22099"
target = "[fd00::10]:22000-22049"
bind = "192.0.2.1"

[[mapping]]
listen = 22020
target = "127.0.0.1:22020"

[[mapping]]
name = "admin"
listen = 9422
target = "[fd00::1]:22"

[[mapping]]
name = "loop"
listen = 22030
target = "127.0.0.1:22030"

[[mapping]]
name = "again"
listen = "127.0.0.1:22030"
target = "[fd00::1]:22"
"#,
    );
    let expected = "\
FILE:4:1: process.worker: unknown key, did you mean \"workers\"?
FILE:5:13: process.pipe_size: found 262144, allowed: a power of two from \"4KiB\" to \"1MiB\", such as \"256KiB\"
FILE:11:16: defaults.idle_timeout: found 90, allowed: \"off\" or a duration with its unit, such as \"90s\" or \"90m\"
FILE:15:10: mapping \"board-14\": listen: found 70000, allowed: a port from 1 to 65535
FILE:19:8: mapping \"board-14\": name: already used at FILE:14:8
FILE:21:10: mapping \"board-14\": target: found \"[fd00::15]:0\", allowed: a port from 1 to 65535
FILE:26:10: mapping \"farm\": target: listen has 100 ports (22000-22099) and target has 50 ports (22000-22049): both must have the same number, or target only its first port
FILE:27:8: mapping \"farm\": bind: bind 192.0.2.1 is IPv4 and target fd00::10 is IPv6
FILE:29:1: mapping number 4: name: missing, needed: 1 to 64 letters, digits and any of - _ . : / @
FILE:35:10: mapping \"admin\" listens on *:9422, which overlaps 127.0.0.1:9422 of the admin listener at FILE:8:10
FILE:40:10: mapping \"loop\" has the target 127.0.0.1:22030, which is this proxy's own listener *:22030 at FILE:40:10: connections would loop
FILE:40:10: mapping \"loop\" has the target 127.0.0.1:22030, which is this proxy's own listener 127.0.0.1:22030 at FILE:45:10: connections would loop
FILE:45:10: mapping \"again\" listens on 127.0.0.1:22030, which overlaps *:22030 of mapping \"loop\" at FILE:40:10
";
    assert_eq!(complaints(file.path()), expected);
}

#[test]
fn several_slips_of_syntax_are_reported_at_once() {
    let file = file(b"version = \n[process\nworkers = 2\n[log]\nlevel = 'info\n");
    let expected = "\
FILE:1:11: not TOML: string values must be quoted, expected literal string
FILE:2:9: not TOML: unclosed table, expected `]`
FILE:5:14: not TOML: invalid literal string, expected `'`
";
    assert_eq!(complaints(file.path()), expected);
}

#[test]
fn what_is_not_text_is_reported_where_it_stands() {
    let file = file(b"version = 1\n# caf\xe9\n");
    assert_eq!(
        complaints(file.path()),
        "FILE:2:6: not UTF-8 text (byte 0xe9)\n"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_cause() {
    for (path, cause) in [
        ("/", "found a directory, allowed: a regular file"),
        ("/nonexistent/tml-proxy.toml", "No such file or directory"),
    ] {
        let output = check(Path::new(path), &[]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(output.stderr), format!("{path}: {cause}\n"));
    }
}

/// What the kernel makes of a setting is said, and the file stays valid.
#[test]
fn a_time_that_the_kernel_cuts_short_is_said_to_be() {
    let file = file(b"version = 1\n[defaults]\nuser_timeout = \"1h\"\n\
          [[mapping]]\nname = \"a\"\nlisten = 1\ntarget = \"10.0.0.1:22\"\n\
          [[mapping]]\nname = \"b\"\nlisten = 2\ntarget = \"10.0.0.1:22\"\nuser_timeout = \"2h\"\n\
          [[mapping]]\nname = \"c\"\nlisten = 3\ntarget = \"10.0.0.1:22\"\nuser_timeout = \"10m\"\n",
    );
    let output = check(file.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    let notes = text(output.stderr);
    let lines: Vec<&str> = notes.lines().collect();
    assert_eq!(lines.len(), 2, "{notes}");
    assert!(
        lines[0].starts_with("note: defaults.user_timeout = 1h: "),
        "{notes}"
    );
    assert!(
        lines[1].starts_with("note: mapping \"b\": user_timeout = 2h: "),
        "{notes}"
    );
    assert!(notes.contains("net.ipv4.tcp_retries2"), "{notes}");
}

#[test]
fn the_reference_and_the_demo_are_valid() {
    for file in ["config/tml-proxy.toml", "config/demo.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        assert_eq!(check(&path, &[]).status.code(), Some(0), "{file}");
    }
}

#[test]
fn a_wrong_command_line_is_another_exit_code() {
    let status = Command::new(env!("CARGO_BIN_EXE_tml-proxy"))
        .arg("check")
        .output()
        .expect("the binary runs")
        .status;
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_key_of_an_earlier_version_is_read_and_said_to_be_outdated() {
    let file =
        file(b"version = 1\n[limits]\npenalty = { after = 2, within = \"1m\", lasts = \"1h\" }\n");
    let output = check(file.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    let place = format!(
        "warning: {}:3:11: limits.penalty is called limits.ban now",
        file.path().display()
    );
    let said = text(output.stderr);
    assert!(said.starts_with(&place), "{said}");
    assert!(text(output.stdout).contains("{ after = 2, within = 1m, lasts = 1h }"));
}
