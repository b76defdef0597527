//! Configurations of nginx and of programs that forward a port in a line or two.

use std::process::Command;

use serde_json::Value;

use crate::{
    checked,
    harness::{
        TempDir,
        require::{Need, require},
    },
    import, said, written,
};

/// Name, public addresses, target and what is not as in a file without it, of each mapping.
fn mappings(from: &str, file: &str, text: &str, arguments: &[&str]) -> (Vec<String>, String) {
    let dir = TempDir::new();
    dir.write(file, text);
    let all = [&[file, "--from", from], arguments].concat();
    let output = import(dir.path(), &all);
    let errors = said(&output);
    if output.status.code() != Some(0) {
        assert_eq!(written(&output), "");
        return (Vec::new(), errors);
    }
    let result = dir.write("result.toml", written(&output));
    let plain = dir.write(
        "plain.toml",
        "version = 1\n[[mapping]]\nname = \"a\"\nlisten = 1\ntarget = \"192.0.2.1:1\"\n",
    );
    let [all, plain] = [result, plain].map(|file| checked(&file));
    let usual = &plain["mappings"][0]["policy"];
    let list = all["mappings"].as_array().expect("a list");
    let line = |mapping: &Value| {
        let routes = mapping["routes"].as_array().expect("a list").iter();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let routes =
            routes.map(|route| format!("{} {}", word(&route["listen"]), word(&route["target"])));
        let policy = mapping["policy"].as_object().expect("a table").iter();
        let own = policy.filter(|(key, value)| usual.get(key) != Some(value));
        let own = own.map(|(key, value)| format!("{key}={value}"));
        let parts = [word(&mapping["name"])]
            .into_iter()
            .chain(routes)
            .chain(own);
        parts.collect::<Vec<_>>().join(" ")
    };
    (list.iter().map(line).collect(), errors)
}

const NGINX: &str = "\
worker_processes 1;
events { }
stream {
    proxy_timeout 1h;                    # a meeting
    log_format basic '$remote_addr [$time_local]';
    upstream board { server 192.0.2.14:22; }
    server {
        # since the move
        listen 127.0.0.1:7001;
        proxy_pass board;
        proxy_connect_timeout 3s;
    }
    server {
        listen 7002;
        listen [::]:7002 ipv6only=on;
        allow 198.51.100.0/24;
        deny 198.51.0.0/16;
        allow all;
        proxy_pass [2001:db8::1]:22;
        proxy_timeout 10m 30s;
        proxy_protocol on;
    }
    server {
        listen [::]:7003 ipv6only=off;
        listen 127.0.0.1:7010-7012;
        proxy_pass 192.0.2.1:22;
        proxy_bind 192.0.2.9;
    }
    server {
        listen 127.0.0.1:7020-7029 proxy_protocol;
        proxy_pass 192.0.2.1:$server_port;
    }
    upstream many {
        least_conn;
        server 192.0.2.1:22 weight=3 max_fails=2;
        server 192.0.2.2:22 down;
        server 192.0.2.3:22 backup;
    }
    server {
        listen 127.0.0.1:7030;
        proxy_pass many;
    }
}
";

#[test]
fn the_servers_of_nginx_become_what_they_were() {
    let text = NGINX.replace("10m 30s", "10m");
    let (found, errors) = mappings("nginx", "nginx.conf", &text, &[]);
    assert_eq!(
        found,
        [
            "board 127.0.0.1:7001 192.0.2.14:22 connect_timeout=\"3s\" idle_timeout=\"1h\"",
            "port-7002 0.0.0.0:7002 [2001:db8::1]:22 [::]:7002 [2001:db8::1]:22 connect_timeout=\"1m\" \
             idle_timeout=\"10m\" send_proxy=\"v1\" allow=[\"0.0.0.0/0\",\"198.51.100.0/24\",\"::/0\"] \
             deny=[\"198.51.0.0/16\"]",
            "port-7003 *:7003 192.0.2.1:22 127.0.0.1:7010 192.0.2.1:22 127.0.0.1:7011 192.0.2.1:22 \
             127.0.0.1:7012 192.0.2.1:22 connect_timeout=\"1m\" idle_timeout=\"1h\" bind=\"192.0.2.9\"",
            "port-7020 127.0.0.1:7020-7029 192.0.2.1:7020-7029 connect_timeout=\"1m\" idle_timeout=\"1h\" \
             accept_proxy=[\"0.0.0.0/0\",\"::/0\"]",
            "many 127.0.0.1:7030 192.0.2.1:22, 192.0.2.3:22 (backup) balance=\"least-sessions\" \
             connect_timeout=\"1m\" idle_timeout=\"1h\"",
        ],
        "{errors}"
    );
    assert!(
        errors.contains("nginx.conf:5: dropped: log_format basic"),
        "{errors}"
    );
    assert!(errors.contains("proxy_half_close"), "{errors}");
    if require(&[Need::Tool("nginx")]) {
        let dir = TempDir::new();
        let modules = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n";
        let has_module =
            std::path::Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists();
        let head = format!("pid {};\nerror_log stderr;\n", dir.join("pid").display());
        let text = format!("{head}{}{text}", if has_module { modules } else { "" });
        let file = dir.write("nginx.conf", text);
        let output = Command::new("nginx").arg("-t").arg("-c").arg(file).output();
        let output = output.expect("it is installed");
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn what_nginx_does_and_we_do_not_is_left_to_it() {
    for (lines, why) in [
        ("listen 7001 udp; proxy_pass 192.0.2.1:53;", "it is UDP"),
        ("listen 7001 ssl; proxy_pass 192.0.2.1:22;", "TLS"),
        (
            "listen unix:/run/x; proxy_pass 192.0.2.1:22;",
            "a socket of this machine",
        ),
        ("listen 7001; proxy_pass two;", "random has no counterpart"),
        ("listen 7001; proxy_pass $name;", "computed"),
        (
            "listen 7001; proxy_pass 'board invalid:22';",
            "neither an address nor a name",
        ),
        ("listen 7001; return 'hello';", "nothing on to anybody"),
        ("listen 7001; proxy_pass 192.0.2.1:22; proxy_ssl on;", "TLS"),
        (
            "listen 7001; proxy_pass 192.0.2.1:22; some_day on;",
            "not known here",
        ),
        (
            "listen 7001 proxy_protocol; allow 192.0.2.1; deny all; proxy_pass 192.0.2.1:22;",
            "in front",
        ),
    ] {
        let text = format!(
            "stream {{\n upstream two {{ random; server 192.0.2.1:22; server 192.0.2.2:22; }}\n server {{ {lines} }}\n\
             server {{ listen 7999; proxy_pass 192.0.2.1:22; }}\n}}\n"
        );
        let (_, errors) = mappings("nginx", "nginx.conf", &text, &[]);
        let says = |line: &str| line.contains("left out: ") && line.contains(why);
        assert!(errors.lines().any(says), "{lines}: {errors}");
        assert!(
            errors.contains("left to nginx: server: "),
            "{lines}: {errors}"
        );
        let (found, _) = mappings("nginx", "nginx.conf", &text, &["--partial"]);
        assert_eq!(found.len(), 1, "{lines}: {errors}");
    }
}

#[test]
fn programs_of_a_line_a_port_become_what_they_were() {
    for (from, file, text, expected) in [
        (
            "rinetd",
            "rinetd.conf",
            "allow 192.0.2.*\n# the lab\n0.0.0.0 7001 198.51.100.1 22\n127.0.0.1 7002 198.51.100.2 22 [src=192.0.2.9]\n\
             deny 192.0.2.7\nlogfile /x\n127.0.0.1 7003 198.51.100.3 22\nallow 192.0.2.25?\nallow 10.*\ndeny 192.0.2.254\n",
            &[
                "port-7001 0.0.0.0:7001 198.51.100.1:22 allow=[\"192.0.2.0/24\"]",
                "port-7002 127.0.0.1:7002 198.51.100.2:22 allow=[\"192.0.2.0/24\"] deny=[\"192.0.2.7/32\"] bind=\"192.0.2.9\"",
                "port-7003 127.0.0.1:7003 198.51.100.3:22 allow=[\"192.0.2.250/32\",\"192.0.2.251/32\",\
                 \"192.0.2.252/32\",\"192.0.2.253/32\",\"192.0.2.255/32\"]",
            ][..],
        ),
        (
            "xinetd",
            "board",
            "# the board\nservice board\n{\n type = UNLISTED\n port = 7001\n bind = 127.0.0.1\n redirect = 198.51.100.1 22\n \
             only_from = 192.0.2.0 198.51.100.7\n no_access += 192.0.2.7\n instances = 5\n per_source = UNLIMITED\n cps = 10 30\n log_on_failure -= HOST\n}\n\
             service off\n{\n disable = yes\n}\n",
            &[
                "board 127.0.0.1:7001 198.51.100.1:22 allow=[\"192.0.2.0/24\",\"198.51.100.7/32\"] deny=[\"192.0.2.7/32\"] max_sessions=5 new_sessions_per_second={\"rate\":10,\"burst\":10}",
            ],
        ),
        (
            "realm",
            "realm.toml",
            "[dns]\nmode = \"ipv4_then_ipv6\"\nnameservers = [\"192.0.2.53:53\"]\n[network]\nuse_udp = true\n\n[[endpoints]]\nlisten = \"[::]:7001\"\nremote = \"198.51.100.1:22\"\n\
             [[endpoints]]\nlisten = \"0.0.0.0:7002\"\nremote = \"[2001:db8::1]:22\"\nthrough = \"2001:db8::9\"\n\
             [[endpoints]]\nlisten = \"[::]:7003\"\nremote = \"board.example:22\"\nnetwork = { send_proxy = true, \
             ipv6_only = true, tcp_timeout = 9, tcp_keepalive = 15 }\n\
             [[endpoints]]\nlisten = \"0.0.0.0:7004\"\nremote = \"192.0.2.1:22\"\nextra_remotes = [\"192.0.2.2:22\"]\n\
             balance = \"iphash: 2, 1\"\nnetwork = { accept_proxy = true }\n\
             [[endpoints]]\nlisten = \"0.0.0.0:7006\"\nremote = \"192.0.2.1:22\"\nextra_remotes = [\"192.0.2.2:22\"]\n\
             balance = \"roundrobin: 0, 4\"\n\
             [[endpoints]]\nlisten = \"0.0.0.0:7005\"\nremote = \"192.0.2.1:22\"\nextra_remotes = [\"192.0.2.2:22\"]\n",
            &[
                "port-7001 *:7001 198.51.100.1:22 connect_timeout=\"5s\"",
                "port-7002 0.0.0.0:7002 [2001:db8::1]:22 connect_timeout=\"5s\" bind=\"2001:db8::9\"",
                "port-7003 [::]:7003 board.example:22 balance=\"first\" connect_timeout=\"9s\" \
                 keepalive={\"idle\":\"15s\",\"interval\":\"15s\",\"count\":3} send_proxy=\"v2\" resolve=\"ttl\" family=\"prefer-ipv4\"",
                "port-7004 0.0.0.0:7004 192.0.2.1:22, 192.0.2.2:22 balance=\"source\" \
                 connect_timeout=\"5s\" accept_proxy=[\"0.0.0.0/0\",\"::/0\"]",
                "port-7006 0.0.0.0:7006 192.0.2.2:22 connect_timeout=\"5s\"",
                "port-7005 0.0.0.0:7005 192.0.2.1:22 connect_timeout=\"5s\"",
            ],
        ),
        (
            "socat",
            "board.service",
            "[Service]\nExecStart=/usr/bin/socat -T 3600 TCP-LISTEN:7001,fork,reuseaddr,bind=127.0.0.1,max-children=9 TCP:198.51.100.1:22\n\
             socat -T60 -b 8192 -t2 \"TCP4-LISTEN:7002,fork\" TCP:198.51.100.1:22,connect-timeout=3,bind=192.0.2.9,retry=2 >/dev/null 2>&1 &\n",
            &[
                "board 127.0.0.1:7001 198.51.100.1:22 idle_timeout=\"1h\" half_close_timeout=\"500ms\" max_sessions=9",
                "board-7002 0.0.0.0:7002 198.51.100.1:22 retries=2 connect_timeout=\"3s\" idle_timeout=\"1m\" \
                 half_close_timeout=\"2s\" bind=\"192.0.2.9\"",
            ],
        ),
    ] {
        let (found, errors) = mappings(from, file, text, &[]);
        assert_eq!(found, expected, "{from}: {errors}");
    }
}

#[test]
fn names_are_targets_and_looked_up_as_often_as_there() {
    for (from, file, text, expected) in [
        (
            "nginx",
            "nginx.conf",
            "stream {\n resolver 192.0.2.53 [2001:db8::53]:5353 valid=30s;\n upstream a { zone a 64k; server \
             a.example:22 resolve; server b.example:23 max_fails=3; }\n\
             server { listen 7001; proxy_pass a; proxy_next_upstream_tries 2; }\n\
             server { listen 7002; proxy_pass c.example:22; proxy_next_upstream off; }\n}\n",
            &[
                "a 0.0.0.0:7001 a.example:22, b.example:23 retries=1 connect_timeout=\"1m\" idle_timeout=\"10m\" \
                 resolve=\"30s\"",
                "port-7002 0.0.0.0:7002 c.example:22 retries=\"off\" connect_timeout=\"1m\" idle_timeout=\"10m\"",
            ][..],
        ),
        (
            "rinetd",
            "rinetd.conf",
            "0.0.0.0 7001 a.example 22\n",
            &["port-7001 0.0.0.0:7001 a.example:22 balance=\"first\""],
        ),
        (
            "xinetd",
            "x",
            "service x\n{\n port = 7001\n redirect = a.example 22\n}\n",
            &["x 0.0.0.0:7001 a.example:22 balance=\"first\""],
        ),
        (
            "socat",
            "x.service",
            "ExecStart=socat TCP-LISTEN:7001,fork TCP:a.example:22\n",
            &[
                "x 0.0.0.0:7001 a.example:22 balance=\"first\" half_close_timeout=\"500ms\" resolve=\"ttl\"",
            ],
        ),
    ] {
        let (found, errors) = mappings(from, file, text, &[]);
        assert_eq!(found, expected, "{from}: {errors}");
    }
}

#[test]
fn where_nginx_logs_to_a_daemon_so_do_we_and_a_limit_of_each_connection_is_said() {
    let dir = TempDir::new();
    dir.write(
        "nginx.conf",
        "error_log syslog:server=unix:/dev/log;\nstream {\n access_log syslog:server=192.0.2.5,facility=local3 main;\n\
         server {\n  listen 7001;\n  proxy_download_rate 1m;\n  proxy_pass 192.0.2.1:22;\n }\n}\n",
    );
    let output = import(dir.path(), &["nginx.conf", "--from", "nginx"]);
    let (text, errors) = (written(&output), said(&output));
    let log = "[log]\nsyslog = \"udp://192.0.2.5:514\"\nsyslog_facility = \"local3\"\n";
    assert!(text.contains(log), "{text}{errors}");
    let limit = "nginx.conf:6: dropped: proxy_download_rate 1m: it is of each connection";
    assert!(errors.contains(limit), "{errors}");
    assert!(
        errors.contains("bandwidth_per_source = \"1MiB\""),
        "{errors}"
    );
}

#[test]
fn what_such_a_program_does_and_we_do_not_is_left_to_it() {
    for (from, file, text, why) in [
        (
            "rinetd",
            "rinetd.conf",
            "0.0.0.0 7001/udp 192.0.2.1 53/udp\n",
            "it is UDP",
        ),
        (
            "rinetd",
            "rinetd.conf",
            "0.0.0.0 ssh 192.0.2.1 22\n",
            "a number",
        ),
        (
            "rinetd",
            "rinetd.conf",
            "0.0.0.0 7001 192.0.2.1 22 [some-day=1]\n",
            "some-day is not known here",
        ),
        (
            "xinetd",
            "x",
            "service x\n{\n port = 7001\n redirect = 192.0.2.1 ssh\n}\n",
            "ssh is the name of a service",
        ),
        (
            "xinetd",
            "x",
            "service x\n{\n port = 7001\n redirect = 192.0.2.1 22\n access_times = 8:00-18:00\n}\n",
            "access_times has no counterpart",
        ),
        (
            "xinetd",
            "x",
            "service x\n{\n port = 7001\n redirect = 192.0.2.1 22\n some_day = 1\n}\n",
            "some_day is not known here",
        ),
        (
            "socat",
            "x.service",
            "ExecStart=socat TCP-LISTEN:7001,fork TCP:192.0.2.1:22,so-bindtodevice=eth0\n",
            "so-bindtodevice is not known here",
        ),
        (
            "socat",
            "x.service",
            "ExecStart=socat -u TCP-LISTEN:7001,fork TCP:192.0.2.1:22\n",
            "in one direction",
        ),
        (
            "xinetd",
            "x",
            "service x\n{\n port = 7001\n redirect = board/invalid 22\n}\n",
            "neither an address nor a name",
        ),
        (
            "realm",
            "realm.toml",
            "[[endpoints]]\nlisten = \"0.0.0.0:1\"\nremote = \"192.0.2.1:1\"\nremote_transport = \"tls;sni=a\"\n",
            "remote_transport",
        ),
        ("realm", "realm.toml", "endpoints = [\n", "not valid"),
        (
            "socat",
            "x.service",
            "ExecStart=socat TCP-LISTEN:7001,fork OPENSSL:192.0.2.1:443\n",
            "TCP to another",
        ),
    ] {
        let (_, errors) = mappings(from, file, text, &[]);
        assert!(errors.contains(why), "{from}: {text}: {errors}");
        assert!(
            errors.contains("nothing is written"),
            "{from}: {text}: {errors}"
        );
    }
}

/// Directives that look alike and count something else, or had been passed over.
#[test]
fn limits_keepalive_and_weights_of_nginx_keep_their_meaning() {
    let text = "stream {\n limit_conn_zone $binary_remote_addr zone=one:1m;\n \
                limit_conn_zone $binary_remote_addr zone=many:1m;\n limit_conn_zone $server_addr zone=all:1m;\n\
                upstream heavy { least_conn; server 192.0.2.1:22 weight=1000; server 192.0.2.2:22 weight=500; }\n\
                upstream full { server a.example:22 max_conns=9; }\n\
                server { listen 7001 so_keepalive=30m::10; limit_conn one 5; proxy_pass heavy; }\n\
                server { listen 7002 so_keepalive=off; limit_conn many 6; proxy_pass full; }\n\
                server { listen 7003; limit_conn many 6; limit_conn all 7; proxy_pass 192.0.2.3:22; }\n\
                server { listen 7004; ssl_preread on; access_log off; proxy_pass $ssl_preread_server_name; }\n}\n";
    let (found, errors) = mappings("nginx", "nginx.conf", text, &["--partial"]);
    assert_eq!(
        found,
        [
            "heavy 0.0.0.0:7001 192.0.2.1:22, 192.0.2.2:22 balance=\"least-sessions\" connect_timeout=\"1m\" \
             idle_timeout=\"10m\" keepalive={\"idle\":\"30m\",\"interval\":\"1m\",\"count\":10} \
             max_sessions_per_source=5",
            "full 0.0.0.0:7002 a.example:22 connect_timeout=\"1m\" idle_timeout=\"10m\" keepalive=\"off\" \
             max_sessions_per_source=6",
            "port-7003 0.0.0.0:7003 192.0.2.3:22 connect_timeout=\"1m\" idle_timeout=\"10m\" \
             max_sessions_per_source=6",
        ],
        "{errors}"
    );
    for said in [
        "nginx.conf:8: different: limit_conn many 6: nginx counts over all servers",
        "nginx.conf:9: dropped: limit_conn all 7: its zone counts something else",
        "nginx.conf:10: left out: proxy_pass $ssl_preread_server_name",
    ] {
        assert!(errors.contains(said), "{said}: {errors}");
    }
    for unsaid in ["limit_conn one 5", "nginx.conf:10: dropped"] {
        assert!(!errors.contains(unsaid), "{unsaid}: {errors}");
    }
    let twice = "stream {\n upstream a { server 192.0.2.1:22; server 192.0.2.1:22; }\n server { listen 1; proxy_pass a; }\n}\n";
    let (_, errors) = mappings("nginx", "nginx.conf", twice, &[]);
    assert!(errors.contains("at the same place"), "{errors}");
}

/// A port that stays with rinetd keeps its rules to itself.
#[test]
fn rules_of_a_port_that_is_left_to_rinetd_are_not_those_of_the_one_before() {
    let text = "0.0.0.0 7001 192.0.2.1 22\n0.0.0.0 53/udp 192.0.2.1 53/udp\ndeny 10.*\n";
    let (found, errors) = mappings("rinetd", "rinetd.conf", text, &["--partial"]);
    assert_eq!(found, ["port-7001 0.0.0.0:7001 192.0.2.1:22"], "{errors}");
}
