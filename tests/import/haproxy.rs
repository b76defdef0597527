//! HAProxy's configurations.

use std::{env, fs, process::Command};

use serde_json::Value;

use crate::{
    cases, checked,
    harness::{
        TempDir,
        require::{Need, require},
    },
    import, said, written,
};

/// Whether HAProxy takes the file `haproxy.cfg` of a directory for valid.
fn haproxy_takes(directory: &TempDir, files: &[&str]) -> (bool, String) {
    let mut command = Command::new("haproxy");
    command.arg("-c").current_dir(directory.path());
    for file in files {
        command.args(["-f", file]);
    }
    let output = command.output().expect("it is installed");
    (output.status.success(), said(&output))
}

/// The mappings, with what is a set in one and the same order.
fn in_any_order(all: Value) -> Vec<Value> {
    let mut mappings = all["mappings"].as_array().expect("a list").clone();
    for mapping in &mut mappings {
        mapping["origin"] = Value::Null;
        for key in ["allow", "deny", "accept_proxy"] {
            let set = mapping["policy"][key].as_array_mut().expect("a list");
            set.sort_by_key(Value::to_string);
        }
    }
    mappings
}

#[test]
fn each_case_becomes_what_it_was() {
    for case in cases() {
        let name = case.display();
        let output = import(&case, &["haproxy.cfg", "--partial"]);
        let errors = said(&output);
        assert_eq!(output.status.code(), Some(0), "{name}: {errors}");
        let dir = TempDir::new();
        let file = dir.write("tml-proxy.toml", written(&output));
        let expected = checked(&case.join("expected.toml"));
        let found = checked(&file);
        for section in ["process", "admin", "log", "targets", "limits"] {
            assert_eq!(found[section], expected[section], "{name}");
        }
        let [found, expected] = [found, expected].map(in_any_order);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{name}:\n{}", written(&output));
        }
        assert_eq!(found.len(), expected.len(), "{name}");
        let file = case.join("said");
        if env::var_os("UPDATE").is_some() {
            fs::write(&file, &errors).expect("a file of the repository");
        }
        assert_eq!(
            errors,
            fs::read_to_string(&file).expect("it is there"),
            "{name}"
        );
        // Where `check` does not show all of it, and for comments.
        let file = case.join("written.toml");
        if let Ok(exactly) = fs::read_to_string(file) {
            assert_eq!(written(&output), exactly);
        }
    }
}

/// What is tested here is what people have: HAProxy would start with it.
#[test]
fn haproxy_takes_each_case() {
    if !require(&[Need::Tool("haproxy")]) {
        return;
    }
    for case in cases() {
        let dir = TempDir::new();
        fs::copy(case.join("haproxy.cfg"), dir.join("haproxy.cfg")).expect("a small file");
        let (takes, why) = haproxy_takes(&dir, &["haproxy.cfg"]);
        assert!(takes, "{}: {why}", case.display());
    }
}

/// Lines that make a front end none of ours, in a `listen` with one server: what of them is named, and why.
#[test]
fn what_cannot_be_kept_leaves_its_port_to_haproxy_with_file_line_and_reason() {
    for (lines, named, why) in [
        (
            "option mysql-check\n server t 192.0.2.2:22 check",
            "option mysql-check",
            "the protocol of MySQL",
        ),
        (
            "option httpchk\n server t 192.0.2.2:22 check",
            "server s",
            "whatever a check says",
        ),
        (
            "option httpchk\n http-check expect string up\n default-server check\n server t 192.0.2.2:22",
            "http-check expect string up",
            "no list of statuses",
        ),
        (
            "option httpchk\n http-check disable-on-404\n server t 192.0.2.2:22 check",
            "disable-on-404",
            "leaves it those it has",
        ),
        (
            "option httpchk GET / HTTP/1.0\\r\\nX-Key:\\ 1\n server t 192.0.2.2:22 check",
            "option httpchk GET /",
            "a header of its own",
        ),
        (
            "option tcp-check\n tcp-check expect string a\n tcp-check send b\n tcp-check expect string c\n \
             server t 192.0.2.2:22 check",
            "expect string c",
            "more than one answer",
        ),
        (
            "option tcp-check\n tcp-check expect ! string a\n server t 192.0.2.2:22 check",
            "expect ! string a",
            "has to be in the answer",
        ),
        (
            "option httpchk\n server t 192.0.2.2:22 check check-send-proxy\n server u 192.0.2.3:22 check",
            "server u",
            "another PROXY header",
        ),
        (
            "server t 192.0.2.2:22 track b/s",
            "server t",
            "track b/s has another place say",
        ),
        (
            "server t 192.0.2.2:22 check addr 192.0.2.9",
            "server t",
            "addr 192.0.2.9",
        ),
        (
            "server t 192.0.2.2:22 check port 99\n server u 192.0.2.3:22 check port 98",
            "server u",
            "another port than others",
        ),
        (
            "balance url_param x\n server t 192.0.2.2:22",
            "balance url_param x",
            "by what they send",
        ),
        (
            "server t 192.0.2.2:22 source 192.0.2.9",
            "server s",
            "a source of its own",
        ),
        (
            "option transparent",
            "option transparent",
            "what the client asked for",
        ),
        ("bind :7001 ssl crt /x", "bind :7001 ssl", "TLS"),
        (
            "bind :7001 interface eth0",
            "bind :7001 interface eth0",
            "eth0",
        ),
        ("bind unix@/run/x", "bind unix@/run/x", "no address of TCP"),
        ("bind /run/x", "bind /run/x", "no address of TCP"),
        ("bind abns@x", "bind abns@x", "no address of TCP"),
        (
            "bind board.invalid:7001",
            "bind board.invalid:7001",
            "is a name",
        ),
        (
            "server-template t 3 _ssh._tcp.x.invalid:22",
            "server-template",
            "SRV records",
        ),
        ("mode http", "mode http", "only TCP"),
        (
            "use_backend b if { src 192.0.2.7 }",
            "use_backend b",
            "by the client's address",
        ),
        (
            "use_backend b if { req.ssl_sni -i a.example }",
            "use_backend b",
            "the name in TLS",
        ),
        (
            "use_backend b if { dst_port 22 }",
            "use_backend b",
            "known of the connection",
        ),
        ("use_backend %[src]", "use_backend %[src]", "computed"),
        (
            "tcp-request content set-dst src",
            "set-dst src",
            "computes the target",
        ),
        (
            "tcp-request content reject if { req.len gt 3 }",
            "req.len",
            "cannot be known",
        ),
        (
            "tcp-request content accept if { req.len gt 3 }\n tcp-request content reject",
            "req.len",
            "what they send",
        ),
        (
            "bind :7001 accept-proxy\n tcp-request connection reject if { src 192.0.2.1 }",
            "listen m",
            "PROXY header",
        ),
        ("some-day on", "some-day on", "not known here"),
        ("option some-day", "option some-day", "not known here"),
    ] {
        let dir = TempDir::new();
        let text = format!(
            "defaults\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n\
             backend b\n server s 192.0.2.9:22 check\n\
             listen m\n bind 203.0.113.1:7000\n server s 192.0.2.1:22\n {lines}\n\
             listen fine\n bind 203.0.113.1:7999\n server s 192.0.2.1:22\n"
        );
        dir.write("haproxy.cfg", text);
        let output = import(dir.path(), &["haproxy.cfg"]);
        let errors = said(&output);
        assert_eq!(output.status.code(), Some(1), "{lines}: {errors}");
        assert_eq!(written(&output), "", "{lines}");
        let says = |line: &str| {
            line.starts_with("haproxy.cfg:")
                && line.contains("left out: ")
                && line.contains(named)
                && line.contains(why)
        };
        assert!(errors.lines().any(says), "{lines}: {errors}");
        let kept = "haproxy.cfg:7: left to HAProxy: listen m: 203.0.113.1:7000";
        assert!(errors.contains(kept), "{lines}: {errors}");
        assert!(
            errors.contains("1 front end would be lost"),
            "{lines}: {errors}"
        );
        let output = import(dir.path(), &["haproxy.cfg", "--partial"]);
        let text = written(&output);
        assert_eq!(output.status.code(), Some(0), "{lines}: {errors}");
        assert_eq!(text.matches("[[mapping]]").count(), 1, "{lines}: {text}");
        assert!(text.contains("name = \"fine\""), "{lines}: {text}");
        assert!(
            text.contains("# Not here: listen m (203.0.113.1:7000"),
            "{lines}: {text}"
        );
    }
}

/// Servers that are none of ours.
#[test]
fn a_server_that_cannot_be_a_target_is_named_with_the_reason() {
    for (server, why) in [
        ("192.0.2.1:22 ssl verify none", "TLS"),
        ("192.0.2.1:22 socks4 192.0.2.2:1080", "SOCKS"),
        ("192.0.2.1:22 source 192.0.2.3 interface eth0", "eth0"),
        ("0.0.0.0:22", "the client came to"),
        ("*:22", "the client came to"),
        ("_ssh._tcp.x.invalid resolvers dns", "SRV records"),
        (
            "192.0.2.1:22\n server t 192.0.2.1:22",
            "an earlier server is at the same place",
        ),
        ("/run/x", "no address of TCP"),
        ("192.0.2.1:+65000", "are no ports"),
    ] {
        let dir = TempDir::new();
        let text = format!(
            "defaults\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n\
             listen m\n bind 203.0.113.1:7000\n server s {server}\n"
        );
        dir.write("haproxy.cfg", text);
        let output = import(dir.path(), &["haproxy.cfg"]);
        let errors = said(&output);
        assert_eq!(output.status.code(), Some(1), "{server}: {errors}");
        let at = format!(
            "haproxy.cfg:{}: left out: ",
            7 + server.matches('\n').count()
        );
        let says = |line: &str| line.starts_with(&at) && line.contains(why);
        assert!(errors.lines().any(says), "{server}: {errors}");
    }
}

/// Texts, and whether HAProxy 2.6 takes them. What it refuses is refused, and what it takes is not called
/// invalid.
const VALIDITY: &[(&str, bool)] = &[
    ("listen m\n bind :7000\n server s 192.0.2.1:22\n", true),
    (
        "listen m\r\n bind :7000\r\n server s 192.0.2.1:22\r\n",
        true,
    ),
    (
        "listen m\n bind :7000 # x\n server s 192.0.2.1:22#y\n",
        true,
    ),
    ("listen m\n bind :7000\n server s 192.0.2.1:22", false),
    (
        "\u{feff}listen m\n bind :7000\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "bind :7000\nlisten m\n bind :7001\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "defaults\n bind :7000\nlisten m\n bind :7001\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "defaults\n server s 192.0.2.1:22\nlisten m\n bind :7001\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "listen m\n bind :7000,7001\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "listen m\n bind :7000,:7001\n server s 192.0.2.1:22\n",
        true,
    ),
    ("listen m\n bind 127.0.0.1\n server s 192.0.2.1:22\n", false),
    ("listen m\n bind :70000\n server s 192.0.2.1:22\n", false),
    (
        "listen m\n bind :7010-7000\n server s 192.0.2.1:22\n",
        false,
    ),
    ("listen m\n bind :7000\n server s 192.0.2.1:20-29\n", false),
    ("listen m\n bind :7000\n server s fd00::14\n", false),
    ("listen m\n bind :7000\n server s fd00::14:22\n", true),
    ("listen m\n bind :7000\n server s [fd00::14]\n", true),
    ("listen m :7000\n server s 192.0.2.1:22\n", false),
    (
        "listen m\n bind :7000\n timeout client 1w\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "listen m\n bind :7000\n timeout client 25d\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "listen m\n bind :7000\n timeout client 1m30s\n server s 192.0.2.1:22\n",
        true,
    ),
    (
        "listen m\n bind :7000\n no timeout client\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "listen m\n bind :7000\n no option tcpka\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "listen m\n bind :7000\n no option redispatch\n server s 192.0.2.1:22\n",
        true,
    ),
    (
        "listen m\n bind :7000\n contimeout 5000\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "listen m\n bind :7000\n mode health\n server s 192.0.2.1:22\n",
        false,
    ),
    ("listen m\n bind :7000\n default_backend gone\n", false),
    (
        "listen m from gone\n bind :7000\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "listen m from later\n bind :7000\n server s 192.0.2.1:22\ndefaults later\n mode tcp\n",
        false,
    ),
    (
        "defaults a\n mode tcp\ndefaults a\n mode tcp\nlisten m from a\n bind :7000\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "frontend m\n bind :7000\n default_backend m\nbackend m\n server s 192.0.2.1:22\n",
        true,
    ),
    (
        "listen m\n bind :7000\n server s 192.0.2.1:22\nlisten m\n bind :7001\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "defaults\n tcp-request connection reject\nlisten m\n bind :7000\n server s 192.0.2.1:22\n",
        false,
    ),
    ("listen m\n bind :7000\n server s \"192.0.2.1:22\n", false),
    (
        "listen m\n bind :7000\n server s \"${UNSET:-192.0.2.1:22}\"\n",
        false,
    ),
    (
        "listen m\n bind :7000\n server s \"${UNSET-192.0.2.1:22}\"\n",
        true,
    ),
    (
        ".if 1\nlisten m\n bind :7000\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        ".if 1\nlisten m\n bind :7000\n server s 192.0.2.1:22\n.endif\n",
        true,
    ),
    (
        ".if 1\n.alert stop\n.endif\nlisten m\n bind :7000\n server s 192.0.2.1:22\n",
        false,
    ),
    (
        "[scope]\nlisten m\n bind :7000\n server s 192.0.2.1:22\n",
        true,
    ),
    (
        "listen m\n bind ipv4@[::1]:7000\n server s 192.0.2.1:22\n",
        false,
    ),
];

#[test]
fn haproxy_decides_what_is_valid() {
    let is_there = require(&[Need::Tool("haproxy")]);
    for (text, valid) in VALIDITY {
        let dir = TempDir::new();
        dir.write("haproxy.cfg", text);
        if is_there {
            let (takes, why) = haproxy_takes(&dir, &["haproxy.cfg"]);
            assert_eq!(takes, *valid, "HAProxy on {text:?}: {why}");
        }
        let output = import(dir.path(), &["haproxy.cfg", "--partial"]);
        let errors = said(&output);
        assert_eq!(
            !errors.contains("not valid: "),
            *valid,
            "{text:?}: {errors}"
        );
        let code = if *valid { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{text:?}: {errors}");
        assert_eq!(written(&output).is_empty(), !*valid, "{text:?}");
    }
}

#[test]
fn a_directory_is_read_in_the_order_of_haproxy_and_defaults_go_on_from_file_to_file() {
    let dir = TempDir::new();
    fs::create_dir_all(dir.join("conf.d/deeper")).expect("a fresh directory");
    let listen = |name: &str, port| {
        format!("listen {name}\n bind 203.0.113.1:{port}\n server s 192.0.2.1:22\n")
    };
    dir.write(
        "first.cfg",
        "defaults\n timeout connect 3s\n timeout client 1h\n timeout server 1h\n",
    );
    dir.write("conf.d/Z.cfg", listen("z", 7001));
    dir.write("conf.d/20-b.cfg", listen("b", 7002));
    dir.write("conf.d/10-a.cfg", listen("a", 7003));
    dir.write("conf.d/.hidden.cfg", "what");
    dir.write("conf.d/old.cfg.bak", "what");
    dir.write("conf.d/deeper/x.cfg", "what");
    let output = import(dir.path(), &["first.cfg", "conf.d"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let file = dir.write("tml-proxy.toml", written(&output));
    let all = checked(&file);
    let mappings = all["mappings"].as_array().expect("a list");
    let names: Vec<&str> = mappings
        .iter()
        .filter_map(|mapping| mapping["name"].as_str())
        .collect();
    assert_eq!(names, ["a", "b", "z"]);
    assert_eq!(mappings[2]["policy"]["connect_timeout"], "3s");
    if require(&[Need::Tool("haproxy")]) {
        let (takes, why) = haproxy_takes(&dir, &["first.cfg", "conf.d"]);
        assert!(takes, "{why}");
    }
    // A section ends with its file.
    dir.write(
        "first.cfg",
        "listen m\n bind 203.0.113.1:7009\n server s 192.0.2.1:22\n",
    );
    dir.write("conf.d/10-a.cfg", " timeout connect 3s\n");
    let output = import(dir.path(), &["first.cfg", "conf.d"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("conf.d/10-a.cfg:1: not valid"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_variable_that_is_not_set_is_asked_for() {
    let dir = TempDir::new();
    dir.write(
        "haproxy.cfg",
        "listen m\n bind 203.0.113.1:7000\n server s \"$TML_PROXY_TEST_HOST:22\"\n",
    );
    let output = import(dir.path(), &["haproxy.cfg"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = said(&output);
    assert!(errors.contains("haproxy.cfg:3: not valid: "), "{errors}");
    assert!(errors.contains("TML_PROXY_TEST_HOST=VALUE"), "{errors}");
}

#[test]
fn a_name_is_written_as_the_address_it_has_now_if_that_is_wanted() {
    let dir = TempDir::new();
    dir.write(
        "haproxy.cfg",
        "listen m\n bind localhost:7000\n server s localhost:22\n\
         listen n\n bind 203.0.113.1:7000\n server s ip6-localhost-is-nowhere.invalid:22\n",
    );
    let output = import(dir.path(), &["haproxy.cfg", "--partial", "--resolve"]);
    let text = written(&output);
    assert!(
        text.contains("listen = \"127.0.0.1:7000\"\ntarget = \"127.0.0.1:22\""),
        "{text}"
    );
    assert!(
        text.contains("target = \"ip6-localhost-is-nowhere.invalid:22\""),
        "{text}"
    );
    let errors = said(&output);
    assert!(
        errors.contains("ip6-localhost-is-nowhere.invalid is not known now"),
        "{errors}"
    );
}

#[test]
fn programs_get_the_same_as_json_and_a_file_is_not_written_over() {
    let dir = TempDir::new();
    let text = "listen m\n bind 203.0.113.1:7000\n log /dev/log local0\n server s 192.0.2.1:22\nlisten web\n mode http\n bind :80\n server s 192.0.2.1:80\n";
    dir.write("haproxy.cfg", text);
    for (arguments, code) in [
        (&["haproxy.cfg", "--json"][..], 1),
        (&["haproxy.cfg", "--json", "--partial"], 0),
    ] {
        let output = import(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert_eq!(said(&output), "");
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(json["config"].is_null(), code == 1);
        let left = &json["left"][0];
        assert_eq!(
            (left["line"].as_u64(), left["listen"][0].as_str()),
            (Some(5), Some(":80"))
        );
        let remarks = json["remarks"].as_array().expect("a list");
        let of_log = remarks
            .iter()
            .find(|remark| remark["kind"] == "dropped")
            .expect("the log");
        assert_eq!(
            (&of_log["line"], &of_log["file"]),
            (&3.into(), &"haproxy.cfg".into())
        );
        for part in ["what", "why", "instead"] {
            assert!(of_log[part].is_string());
        }
    }
    let target = ["haproxy.cfg", "--partial", "--output", "new.toml"];
    assert_eq!(import(dir.path(), &target).status.code(), Some(0));
    checked(&dir.join("new.toml"));
    let again = import(dir.path(), &target);
    assert_eq!(again.status.code(), Some(4));
    assert!(said(&again).contains("new.toml: "), "{}", said(&again));

    let target = [
        "haproxy.cfg",
        "--partial",
        "--json",
        "--output",
        "json.toml",
    ];
    let output = import(dir.path(), &target);
    assert_eq!(output.status.code(), Some(0));
    checked(&dir.join("json.toml"));
    let again = import(dir.path(), &target);
    assert_eq!(again.status.code(), Some(4));
    let json: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    let problem = json["problems"][0].as_str().expect("a problem");
    assert!(problem.starts_with("json.toml: "), "{problem}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = TempDir::new();
    let output = import(dir.path(), &["nowhere.cfg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).starts_with("nowhere.cfg: not valid: this file: "),
        "{}",
        said(&output)
    );
}

/// What came with 2.7: a limit that the connections of a source share, and one of each.
#[test]
fn a_limit_of_bandwidth_is_kept_where_a_source_has_it_and_said_where_each_connection_does() {
    let dir = TempDir::new();
    dir.write(
        "haproxy.cfg",
        "backend counts\n stick-table type ip size 100 store bytes_out_rate(10s)\n\
         listen shared\n bind 203.0.113.1:7000\n filter bwlim-out mine limit 10m key src table counts\n \
         tcp-response content set-bandwidth-limit mine\n server s 192.0.2.1:22\n\
         listen each\n bind 203.0.113.1:7001\n filter bwlim-in one default-limit 2m default-period 2s\n \
         tcp-request content set-bandwidth-limit one\n server s 192.0.2.1:22\n\
         listen unused\n bind 203.0.113.1:7002\n filter bwlim-in one default-limit 1m default-period 1s\n \
         server s 192.0.2.1:22\n",
    );
    let output = import(dir.path(), &["haproxy.cfg"]);
    let (text, errors) = (written(&output), said(&output));
    let limit = "bandwidth_per_source = { rate = \"10MiB\", per = \"10s\" }";
    assert_eq!(text.matches("bandwidth").count(), 1, "{text}{errors}");
    assert!(text.contains(limit), "{text}{errors}");
    for said in [
        "haproxy.cfg:5: different: filter bwlim-out mine",
        "haproxy.cfg:10: dropped: filter bwlim-in one",
        "bandwidth_per_source = \"1MiB\" is the same",
        "haproxy.cfg:15: dropped: filter bwlim-in one default-limit 1m default-period 1s: no rule",
    ] {
        assert!(errors.contains(said), "{said}: {errors}");
    }
}

/// What is in a file goes on to be kept there.
#[test]
fn a_list_of_clients_in_a_file_stays_in_the_file() {
    let dir = TempDir::new();
    let office = dir.write("office.lst", "# us\n198.51.100.0/24\n\n2001:db8::7\n");
    let odd = dir.write("odd.lst", "198.51.100.0/255.255.255.0\n");
    let (office, odd) = (office.display(), odd.display());
    for (rules, expected) in [
        (
            format!("tcp-request connection reject unless {{ src -f {office} }}"),
            format!("allow = [{{ file = \"{office}\" }}]"),
        ),
        (
            format!("tcp-request connection reject if {{ src -f {office} }}"),
            format!("deny = [{{ file = \"{office}\" }}]"),
        ),
        (
            format!(
                "acl us src -f {office}\n tcp-request content accept if us\n tcp-request content reject"
            ),
            format!("allow = [{{ file = \"{office}\" }}]"),
        ),
        (
            format!(
                "tcp-request connection reject unless {{ src -f {office} }} || {{ src 192.0.2.1 }}"
            ),
            "allow = [\"192.0.2.1\", \"198.51.100.0/24\", \"2001:db8::7\"]".to_owned(),
        ),
        (
            format!("tcp-request connection reject unless {{ src -f {odd} }}"),
            "allow = [\"198.51.100.0/24\"]".to_owned(),
        ),
    ] {
        let text = format!("listen m\n bind 203.0.113.1:7000\n {rules}\n server s 192.0.2.1:22\n");
        dir.write("haproxy.cfg", text);
        let output = import(dir.path(), &["haproxy.cfg"]);
        let text = written(&output);
        assert!(text.contains(&expected), "{rules}: {text}{}", said(&output));
    }
}
