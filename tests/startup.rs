//! How the proxy starts, and how it says that it cannot.

mod harness;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::Signal,
};

use harness::{
    Peer, Proxy, Setup, Target, TempDir, config,
    hung::HungDir,
    lab::Netns,
    mapping, ports, process,
    proxy::{PROGRAM, as_user, wrapped},
    require::{Need, is_root, require},
    sandbox::{Lack, without},
    wait_until,
};

const NOT_VALID: i32 = 1;
const USAGE: i32 = 2;
const CANNOT_START: i32 = 3;

/// Runs the proxy with those arguments to its end.
#[track_caller]
fn run(arguments: &[&str]) -> Output {
    process::output(Command::new(PROGRAM).args(arguments))
}

/// It ended with that code, and told why on standard error in those words.
#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{stderr}\n{stdout}");
    for word in words {
        assert!(stderr.contains(word), "nothing about {word:?} in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Runs it with a file in vain.
#[track_caller]
fn run_file(content: impl AsRef<[u8]>) -> Output {
    let dir = TempDir::new();
    let file = dir.write("proxy.toml", content);
    run(&["run", "--admin", "off", "--config", text(&file)])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn one_mapping(listen: u16) -> String {
    config([mapping("board-14", listen, "[fd9d::10]:22", "")])
}

#[test]
fn a_port_in_use_is_named_with_its_mapping() {
    let taken = Target::bind_to(([0, 0, 0, 0], ports::free()).into());
    let output = run_file(one_mapping(taken.port()));
    let port = taken.port().to_string();
    says(&output, CANNOT_START, &["board-14", &port, "in use"]);
}

#[test]
fn every_port_in_use_is_named() {
    let taken = [0; 2].map(|_| Target::bind_to(([0, 0, 0, 0], ports::free()).into()));
    let [first, second] = [taken[0].port(), taken[1].port()];
    let text = config([
        mapping("one", first, "[fd9d::10]:22", ""),
        mapping("two", second, "[fd9d::11]:22", ""),
    ]);
    let words = ["one", &first.to_string(), "two", &second.to_string()];
    says(&run_file(text), CANNOT_START, &words);
}

#[test]
fn an_admin_address_in_use_is_named() {
    let taken = Target::bind_to(([127, 0, 0, 1], 0).into());
    let dir = TempDir::new();
    let file = dir.write("proxy.toml", one_mapping(ports::free()));
    let admin = taken.addr().to_string();
    let output = run(&["run", "--admin", &admin, "--config", text(&file)]);
    says(&output, CANNOT_START, &[&admin]);
}

#[test]
fn a_privileged_port_names_the_capability_it_needs() {
    let usual = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if usual.is_ok_and(|port| port.trim() == "0") || !require(&[Need::Tool("setpriv")]) {
        return;
    }
    let dir = TempDir::new();
    let file = dir.write("proxy.toml", one_mapping(81));
    let output = process::output(
        unprivileged(&dir)
            .args(["run", "--admin", "off", "--config"])
            .arg(file),
    );
    says(
        &output,
        CANNOT_START,
        &["board-14", "81", "CAP_NET_BIND_SERVICE"],
    );
}

/// How to start a proxy in a kernel that lacks something.
fn lacking(lack: Lack) -> Setup<'static> {
    Setup {
        lack: Some(lack),
        ..Setup::default()
    }
}

/// What a port of every address is without IPv6 in the kernel.
#[test]
fn without_ipv6_in_the_kernel_a_port_is_listened_on_with_ipv4_alone() {
    let target = Target::bind_to(([127, 0, 0, 1], 0).into());
    let port = ports::free();
    let text = config([mapping("m", port, target.addr(), "")]);
    let proxy = Proxy::start_with(&lacking(Lack::Ipv6), &text);
    let said = |line: &harness::Line| line.message().contains("this kernel has no IPv6");
    assert_eq!(proxy.said(said).len(), 1);
    let mut client = Peer::connect_to(([127, 0, 0, 1], port).into());
    client.exchange(&mut target.accept(), b"hello");
    drop(client);
    proxy.settles();
}

#[test]
fn an_ipv6_address_in_a_kernel_without_is_named_with_what_would_do() {
    let port = ports::free();
    let text = config([mapping(
        "board-14",
        format!("[::1]:{port}"),
        "10.0.0.1:22",
        "",
    )]);
    let output = without(Lack::Ipv6, || run_file(text));
    let words = [
        "board-14",
        "this kernel has no IPv6: listen on an IPv4 address",
    ];
    says(&output, CANNOT_START, &words);
}

/// A sandbox may keep the question from the kernel; whatever came back then was taken for the limit.
#[test]
fn a_limit_on_files_that_may_not_be_asked_for_is_the_one_in_force() {
    let target = Target::bind();
    let text = config([mapping("m", ports::free(), target.addr(), "")]);
    let usual = Proxy::start(&text);
    let limit = usual.wait_for_line(0, "listening").number("descriptors");
    drop(usual);
    let text = config([mapping("m", ports::free(), target.addr(), "")]);
    let proxy = Proxy::start_with(&lacking(Lack::Prlimit), &text);
    let line = proxy.wait_for_line(0, "listening");
    assert_eq!(line.number("descriptors"), limit);
    proxy.settles();
}

#[test]
fn a_kernel_that_does_not_tell_what_was_acknowledged_is_warned_of() {
    let target = Target::bind();
    let text = config([mapping("m", ports::free(), target.addr(), "")]);
    let proxy = Proxy::start_with(&lacking(Lack::SockDiag), &text);
    let warned = |line: &harness::Line| line.message().contains("(sock_diag)");
    assert_eq!(proxy.said(warned).len(), 1);
    let doctor = without(Lack::SockDiag, || {
        let file = proxy.file();
        run(&["doctor", "--no-targets", "--config", self::text(&file)])
    });
    let findings = String::from_utf8_lossy(&doctor.stdout);
    assert!(findings.contains("warn  sock_diag: "), "{findings}");
    let text = config([mapping("m", ports::free(), target.addr(), "")]);
    let usual = Proxy::start(&text);
    assert!(usual.said(warned).is_empty());
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    if is_root() && !require(&[Need::Tool("setpriv")]) {
        return;
    }
    let dir = TempDir::new();
    let file = dir.write("proxy.toml", one_mapping(ports::free()));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("own file");
    let output = process::output(
        unprivileged(&dir)
            .args(["run", "--admin", "off", "--config"])
            .arg(&file),
    );
    says(&output, NOT_VALID, &[text(&file), "ermission denied"]);
}

/// The proxy's command as an ordinary user.
fn unprivileged(dir: &TempDir) -> Command {
    let through = match is_root() {
        true => as_user(process::lone_user()),
        false => Vec::new(),
    };
    let setup = Setup {
        through,
        ..Setup::default()
    };
    wrapped(&setup, dir, Path::new(PROGRAM))
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let dir = TempDir::new();
    let file = dir.join("proxy.toml");
    let output = run(&["run", "--config", text(&file)]);
    says(&output, NOT_VALID, &[text(&file)]);
}

#[test]
fn a_directory_is_no_file() {
    let dir = TempDir::new();
    let output = run(&["run", "--config", text(dir.path())]);
    says(&output, NOT_VALID, &[text(dir.path()), "directory"]);
}

#[test]
fn an_empty_file_lacks_its_version() {
    says(&run_file(""), NOT_VALID, &["version"]);
}

#[test]
fn a_fifo_is_no_file_and_not_waited_for() {
    let dir = TempDir::new();
    let file = dir.join("proxy.toml");
    mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).expect("own directory");
    for command in ["run", "check"] {
        let output = run(&[command, "--config", text(&file)]);
        says(&output, NOT_VALID, &[text(&file), "FIFO"]);
    }
}

/// A SIGHUP that nobody has asked to be told of ends a process.
#[test]
fn signals_are_heard_before_the_first_file_is_read() {
    if !require(&[Need::Root, Need::Tool("mount")]) {
        return;
    }
    let dir = TempDir::new();
    let file = dir.write("proxy.toml", one_mapping(ports::free()));
    let Some(_hung) = HungDir::over(dir.path()) else {
        return;
    };
    let mut proxy = process::Running::start(Command::new(PROGRAM).args([
        "run",
        "--admin",
        "off",
        "--config",
        text(&file),
    ]));
    wait_until("the file to be read", || {
        process::has_thread(proxy.id(), "files")
    });
    proxy.signal(Signal::HUP);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    says(&run_file([0xff, 0xfe, 0, 1]), NOT_VALID, &["UTF-8"]);
}

#[test]
fn all_mistakes_are_told_at_once_with_their_lines() {
    let port = ports::free();
    let file = config([
        mapping("a", port, "[fd9d::10]:22", "colour = \"blue\""),
        mapping("b", port, "nowhere", ""),
    ]);
    let output = run_file(file);
    says(&output, NOT_VALID, &["colour", "proxy.toml"]);

    let file = config([
        mapping("a", port, "[fd9d::10]:22", ""),
        mapping("b", port, "nowhere", "connect_timeout = 10"),
    ]);
    let output = run_file(file);
    says(&output, NOT_VALID, &["nowhere", "connect_timeout", "unit"]);
}

#[test]
fn line_ends_and_marks_of_other_systems_do_not_matter() {
    let target = Target::bind();
    let port = ports::free();
    let plain = config([mapping("m", port, target.addr(), "")]);
    for text in [
        plain.replace('\n', "\r\n"),
        format!("\u{feff}{plain}"),
        plain.trim_end().to_owned(),
    ] {
        let proxy = Proxy::start(&text);
        let mut client = Peer::connect(port);
        client.exchange(&mut target.accept(), b"hello");
        drop(client);
        proxy.settles();
    }
}

#[test]
fn without_a_file_mappings_are_given_as_arguments() {
    let targets = [Target::bind(), Target::bind()];
    let [one, two] = [ports::free(), ports::free()];
    let arguments: Vec<String> = [
        format!("--map={one}={}", targets[0].addr()),
        format!("--map=127.0.0.1:{two}={}", targets[1].addr()),
    ]
    .into();
    let proxy = Proxy::start_without_file(&Setup::default(), &arguments);
    Peer::connect(one).exchange(&mut targets[0].accept(), b"one");
    Peer::connect(two).exchange(&mut targets[1].accept(), b"two");
    proxy.settles();
    assert_eq!(proxy.metrics().sum("tml_proxy_mappings", &[]), 2);
    assert_eq!(proxy.stop().code(), Some(0));
}

#[test]
fn a_mapping_given_as_an_argument_that_is_none_is_explained() {
    let output = run(&["run", "--map", "nonsense"]);
    says(&output, USAGE, &["nonsense", "LISTEN"]);
}

#[test]
fn a_range_given_as_an_argument_is_a_range() {
    let first_target = ports::range(3);
    let targets = [0, 1, 2].map(|n| Target::bind_to(([127, 0, 0, 1], first_target + n).into()));
    let first = ports::range(3);
    let argument = format!("--map={first}-{}=127.0.0.1:{first_target}", first + 2);
    let proxy = Proxy::start_without_file(&Setup::default(), &[argument]);
    for (port, target) in (first..).zip(&targets) {
        Peer::connect(port).exchange(&mut target.accept(), b"hello");
    }
    proxy.settles();
}

/// The ports of the embedded default are fixed, so it gets a network of its own.
#[test]
fn without_anything_a_demonstration_echoes() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let netns = Netns::new("demo");
    let setup = Setup {
        netns: Some(&netns),
        ..Setup::default()
    };
    let proxy = Proxy::start_without_file(&setup, &[]);
    let mut client = netns.run(|| Peer::connect(7007));
    client.send(b"hello, hello");
    client.expect(b"hello, hello");
    client.finish();
    client.expect_end();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "closed");
    assert_eq!(line.text("mapping"), "demo");
    proxy.settles();
    assert_eq!(proxy.stop().code(), Some(0));
}

#[test]
fn wrong_arguments_are_a_matter_of_usage() {
    says(&run(&["run", "--colour"]), USAGE, &["--colour"]);
    says(&run(&["fly"]), USAGE, &["fly"]);
    says(
        &run(&["run", "--config", "a.toml", "--map", "1=[::1]:2"]),
        USAGE,
        &["--map"],
    );
}

#[test]
fn a_check_tells_without_starting_anything() {
    let dir = TempDir::new();
    let port = ports::free();
    let file = dir.write("good.toml", one_mapping(port));
    // Whether the port is free is none of its business.
    let _taken = Target::bind_to(([0, 0, 0, 0], port).into());
    let output = run(&["check", "--config", text(&file)]);
    says(&output, 0, &[]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["board-14", &port.to_string(), "[fd9d::10]:22"] {
        assert!(table.contains(word), "{table}");
    }
    let output = run(&["check", "--json", "--config", text(&file)]);
    says(&output, 0, &[]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(value.to_string().contains("board-14"));

    let file = dir.write("bad.toml", "version = 1\ncolour = 3\n");
    says(
        &run(&["check", "--config", text(&file)]),
        NOT_VALID,
        &["bad.toml", "colour"],
    );
}

#[test]
fn the_version_is_told() {
    let output = run(&["--version"]);
    says(&output, 0, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

#[test]
fn the_admin_address_answers_and_can_be_off() {
    let target = Target::bind();
    let port = ports::free();
    let proxy = Proxy::start(&config([mapping("m", port, target.addr(), "")]));
    let (status, body) = proxy.page("/livez");
    assert!(status.contains(" 200 "), "{status}");
    assert_eq!(body.trim(), "ok");
    let (status, _) = proxy.page("/nothing-here");
    assert!(status.contains(" 404 "), "{status}");
    let metrics = proxy.metrics();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(metrics.sum("tml_proxy_build_info", &version), 1);
    assert_eq!(metrics.sum("tml_proxy_mappings", &[]), 1);

    let free = SocketAddr::from(([127, 0, 0, 1], 9422));
    let unused = Peer::try_connect_to(free).is_err();
    let arguments = [format!("--map={}={}", ports::free(), target.addr())];
    let off = Proxy::start_without_admin(&arguments);
    assert_eq!(unused, Peer::try_connect_to(free).is_err());
    assert_eq!(off.stop().code(), Some(0));
}

#[test]
fn a_proxy_that_nobody_uses_and_nobody_can_look_at_never_wakes_up() {
    let target = Target::bind();
    let arguments = [format!("--map={}={}", ports::free(), target.addr())];
    let proxy = Proxy::start_without_admin(&arguments);
    wait_until("every thread to wait without a time limit", || {
        process::waits_for_ever(proxy.id())
    });
    assert_eq!(proxy.stop().code(), Some(0));
}

#[test]
fn the_start_says_where_it_listens() {
    let target = Target::bind();
    let (one, other) = (ports::free(), ports::free());
    let text = config([
        mapping("m", one, target.addr(), ""),
        mapping("n", other, target.addr(), ""),
    ]);
    let proxy = Proxy::start(&text);
    let line = proxy.wait_for_line(0, "listening");
    for port in [one, other] {
        assert!(line.text("listen").contains(&port.to_string()), "{line}");
    }
}
