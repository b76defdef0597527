//! What is taken, and what it comes to.

use super::*;
use crate::{
    health::{Check, OnDown},
    resolve::{Family, Refresh},
};

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
             [admin]\nlisten = \"[::1]:9\"\nhosts = [\"Proxy.example.org\", \"10.0.0.1\"]\n\
             socket = \"/run/s\"\nsocket_mode = \"0600\"\nsocket_group = \"adm\"\n\
             [log]\nformat = \"json\"\nlevel = \"trace\"\nsessions = false\n\
             session_openings = true\nsession_every = \"1h\"\nrefusals_per_second = \"off\"\n\
             syslog = \"/dev/log\"\nsyslog_facility = \"local0\"\nsyslog_name = \"p\"\n\
             mask_clients = { ipv4 = 16, ipv6 = 0 }\n\
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
        syslog: Some(settings::Daemon::Socket("/dev/log".into())),
        syslog_facility: settings::Facility(16),
        syslog_name: "p".to_owned(),
        mask_clients: Some(crate::client_mask::ShownBits { ipv4: 16, ipv6: 0 }),
    };
    assert_eq!(config.process, process);
    assert_eq!(config.log, log);
    let listen = config.admin.listen.map(|addr| addr.to_string());
    assert_eq!(listen.as_deref(), Some("[::1]:9"));
    assert_eq!(config.admin.origin.to_string(), "f:10:10");
    assert_eq!(config.admin.hosts, ["proxy.example.org", "10.0.0.1"]);
    let socket = AutoOr::Value(Some("/run/s".into()));
    assert_eq!(config.admin.socket, socket);
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
        "balance = \"source\"\nretries = 3\nqueue = { max = 7, timeout = \"6s\" }\nconnect_timeout = \"1s\"\nidle_timeout = \"1h 30m\"\nhalf_close_timeout = \"off\"\n\
             max_duration = \"2days\"\n\
             keepalive = \"off\"\nuser_timeout = 0\nbacklog = 5\nallow = [\"10.0.0.0/8\"]\n\
             deny = [\"10.1.0.0/16\"]\nmax_sessions = 3\n\
             max_sessions_per_source = 2\nnew_sessions_per_second = { rate = 20, burst = 40 }\n\
             new_sessions_per_second_per_source = 5\nmax_dialling = 8\non_refuse = \"close\"\n\
             accept_proxy = [\"10.2.0.0/16\"]\nproxy_header_timeout = \"2s\"\n\
             send_proxy = \"v2\"\nbandwidth = \"10MiB\"\n\
             bandwidth_per_source = { rate = \"1024KiB\", burst = \"1GiB\" }\non_remove = \"kill\"\n\
             resolve = \"30s\"\nfamily = \"prefer-ipv6\"\ncheck = { every = \"1s\" }\non_down = \"kill\"\n\
             on_retarget = { drain = \"5s\" }\nrelay = \"copy\"\nbind = \"10.0.0.9\"\n\
             congestion = { client = \"bbr\", target = \"off\" }\n\
             freebind = true\neach_port = true\n",
    );
    let expected = Policy {
        balance: Balance::Source,
        retries: AutoOr::Value(3),
        queue: Some(QueueSettings {
            max: 7,
            timeout: seconds(6),
        }),
        connect_timeout: seconds(1),
        idle_timeout: Some(seconds(5400)),
        half_close_timeout: None,
        max_duration: Some(seconds(2 * 86_400)),
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
        resolve: Some(Refresh::Every(seconds(30))),
        family: Family::PreferIpv6,
        check: Some(Check {
            every: seconds(1),
            ..Check::default()
        }),
        on_down: OnDown::Kill,
        on_remove: RemovalPolicy::Kill,
        on_retarget: RemovalPolicy::Drain(seconds(5)),
        relay: RelayMode::Copy,
        bind: Some([10, 0, 0, 9].into()),
        congestion: Some(Congestion {
            client: Some("bbr".into()),
            target: None,
        }),
        transparent: false,
        freebind: true,
        each_port: true,
    };
    assert_eq!(policy, expected);
    assert!(policy.sources.permits([10, 0, 0, 1].into()));
    assert!(!policy.sources.permits([10, 1, 0, 1].into()));
}

#[test]
fn each_port_of_a_range_can_be_a_mapping_of_its_own() {
    let text = "[defaults]\neach_port = true\n\
         [[mapping]]\nname = \"lab\"\nlisten = [\"10.0.0.1:100-101\", \"[::1]:100-101\"]\n\
         target = \"10.1.0.1:200\"\n\
         [[mapping]]\nname = \"whole\"\nlisten = \"300-301\"\ntarget = \"10.1.0.1:300\"\n\
         each_port = false\n\
         [[mapping]]\nname = \"one\"\nlisten = 400\ntarget = \"10.1.0.1:400\"\n";
    let config = config(text);
    let found: Vec<_> = config
        .mappings
        .iter()
        .map(|spec| {
            let pair = |(listen, target): &(_, _)| format!("{listen} {target}");
            let pairs: Vec<String> = spec.pairs.iter().map(pair).collect();
            (spec.name.to_string(), pairs.join(", "))
        })
        .collect();
    let expected = [
        (
            "lab+100",
            "10.0.0.1:100 10.1.0.1:200, [::1]:100 10.1.0.1:200",
        ),
        (
            "lab+101",
            "10.0.0.1:101 10.1.0.1:201, [::1]:101 10.1.0.1:201",
        ),
        ("whole", "*:300 10.1.0.1:300, *:301 10.1.0.1:301"),
        ("one", "*:400 10.1.0.1:400"),
    ];
    assert_eq!(
        found,
        expected.map(|(name, pairs)| (name.to_owned(), pairs.to_owned()))
    );
}

#[test]
fn every_limit_of_the_process_can_be_set() {
    let config = config(
        "[limits]\nmax_sessions = 9\nmax_sessions_per_source = 3\n\
             new_sessions_per_second = 100\nmax_dialling = 50\n\
             new_sessions_per_second_per_source = { rate = 2, burst = 10 }\n\
             source_prefix_v4 = 24\nsource_prefix_v6 = 56\nexempt = [\"10.0.0.0/8\"]\n\
             ban = { after = 20, within = \"1m\", lasts = \"10m\" }\n",
    );
    let nine = std::num::NonZero::new(9).expect("not 0");
    let expected = Limits {
        max_sessions: AutoOr::Value(nine),
        sessions: SessionLimits {
            max_sessions_per_source: Some(3),
            new_sessions: Some(rate(100, 100)),
            new_sessions_per_source: Some(rate(2, 10)),
            max_dialling: Some(50),
        },
        source_prefix_v4: 24,
        source_prefix_v6: 56,
        ban: Some(Ban {
            after: 20,
            within: seconds(60),
            lasts: seconds(600),
        }),
        exempt: vec!["10.0.0.0/8".parse().expect("a prefix")],
    };
    assert_eq!(config.limits, expected);
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
        ("", keepalive(60, 60, 9)),
        ("keepalive = { idle = \"5s\" }", keepalive(5, 60, 9)),
        ("keepalive = \"off\"", keepalive(60, 60, 9)),
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
fn several_targets_may_be_texts_and_tables() {
    let of = |target: &str| {
        let config = config(&format!(
            "[[mapping]]\nname = \"a\"\nlisten = \"1000-1001\"\n{target}"
        ));
        let pairs = config.mappings[0].pairs.iter();
        pairs
            .map(|(_, target)| target.to_string())
            .collect::<Vec<_>>()
    };
    let both = ["10.0.0.1:22, [fd00::1]:80", "10.0.0.1:23, [fd00::1]:81"];
    assert_eq!(of("target = [\"10.0.0.1:22\", \"[fd00::1]:80-81\"]"), both);
    let tables = "[[mapping.target]]\naddress = \"10.0.0.1:22\"\n\
                  [[mapping.target]]\naddress = \"[fd00::1]:80\"\nbackup = true\n";
    assert_eq!(
        of(tables),
        both.map(|text| format!("{text} (backup)")),
        "the last is one"
    );
    assert_eq!(
        of("target = { address = \"10.0.0.1:22\", max_sessions = \"off\" }"),
        ["10.0.0.1:22", "10.0.0.1:23"]
    );
}

#[test]
fn one_target_of_which_nothing_is_said_is_no_choice() {
    for (target, is_choice) in [
        ("\"10.0.0.1:22\"", false),
        ("[\"10.0.0.1:22\"]", false),
        ("{ address = \"10.0.0.1:22\" }", false),
        ("{ address = \"10.0.0.1:22\", max_sessions = 3 }", true),
        ("{ address = \"10.0.0.1:22\", send_proxy = \"off\" }", true),
    ] {
        let config = config(&format!(
            "[[mapping]]\nname = \"a\"\nlisten = 1000\ntarget = {target}"
        ));
        let spec = &config.mappings[0].pairs[0].1;
        assert_eq!(spec.address().is_none(), is_choice, "{target}");
    }
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
    assert_eq!(config.mappings[0].pairs[0].1, target.into());
}

#[test]
fn a_byte_order_mark_and_carriage_returns_do_no_harm() {
    let text = format!("\u{feff}version = 1\n{MAPPING}").replace('\n', "\r\n");
    let config = read(&text).expect("valid");
    assert_eq!(config.mappings[0].origin.to_string(), "f:4:10");
}
