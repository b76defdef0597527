//! The log is for reading; that nobody reads it is no reason to stop forwarding.

mod harness;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    thread,
};

use harness::{
    Peer, Proxy, Scene, Setup, Target, TempDir, config, mapping,
    metrics::{Metrics, get},
    ports,
    process::Running,
    require::{Need, require},
    wait_until,
};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pipe::pipe,
    process::Signal,
};

/// A proxy whose outputs are not read beyond the line that says it listens.
fn unread(config: &str, dir: &TempDir) -> (Running, BufReader<std::process::ChildStdout>) {
    let file = dir.write("proxy.toml", config);
    let mut command = Command::new(harness::proxy::PROGRAM);
    command
        .args(["run", "--admin", "off", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    let stdout = running.child().stdout.take().expect("asked for");
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    stdout
        .read_line(&mut line)
        .expect("the proxy says something");
    assert!(line.contains("listening"), "{line}");
    (running, stdout)
}

fn short_sessions(port: u16, target: &Target, count: usize) {
    for _ in 0..count {
        let mut client = Peer::connect(port);
        let mut server = target.accept();
        client.exchange(&mut server, b"hello");
        client.reset();
        server.expect_reset();
    }
}

#[test]
fn a_log_that_is_closed_stops_nothing() {
    let target = Target::bind();
    let port = ports::free();
    let dir = TempDir::new();
    let text = config([mapping("m", port, target.addr(), "")]);
    let (mut running, stdout) = unread(&text, &dir);
    drop(stdout);
    drop(running.child().stderr.take());
    short_sessions(port, &target, 20);
    running.signal(Signal::HUP);
    short_sessions(port, &target, 20);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0));
}

/// The pipe is full after a few hundred lines.
#[test]
fn a_log_that_nobody_reads_stops_no_session() {
    let target = Target::bind();
    let port = ports::free();
    let dir = TempDir::new();
    let text = config([mapping("m", port, target.addr(), "")]);
    let (_running, _stdout) = unread(&text, &dir);
    short_sessions(port, &target, 1500);
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_reload_and_no_stop() {
    let target = Target::bind();
    let [port, added] = [ports::free(), ports::free()];
    let dir = TempDir::new();
    let text = config([mapping("m", port, target.addr(), "")]);
    let (mut running, _stdout) = unread(&text, &dir);
    short_sessions(port, &target, 1500);
    dir.write(
        "proxy.toml",
        config([
            mapping("m", port, target.addr(), ""),
            mapping("n", added, target.addr(), ""),
        ]),
    );
    running.signal(Signal::HUP);
    wait_until("the reload to open a port", || {
        TcpStream::connect(("127.0.0.1", added)).is_ok()
    });
    drop(target);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn a_session_is_one_line_of_text() {
    let target = Target::bind();
    let port = ports::free();
    let dir = TempDir::new();
    let text = config([mapping("m", port, target.addr(), "")]);
    let (running, mut stdout) = unread(&text, &dir);
    let client = Peer::connect(port);
    let addr = client.addr();
    let server = target.accept();
    drop((client, server));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line a session");
    for words in [
        " INFO session ended session=1 mapping=m ",
        &format!(" client={addr} "),
        &format!(" listen=*:{port} "),
        &format!(" target={} ", target.addr()),
        " local=[::1]:",
        " bytes_up=0 bytes_down=0 ",
        " end=-- reason=closed",
    ] {
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
    drop(running);
}

#[test]
fn session_lines_can_be_off() {
    let target = Target::bind();
    let port = ports::free();
    let text = config([
        "[log]\nsessions = false\n",
        &mapping("m", port, target.addr(), ""),
    ]);
    let proxy = Proxy::start(&text);
    short_sessions(port, &target, 3);
    proxy.settles();
    let reset = [("reason", "client_reset")];
    proxy.wait_until("tml_proxy_sessions_ended_total", &reset, 3);
    let log = proxy.log().clone();
    assert_eq!(proxy.stop().code(), Some(0));
    assert!(log.all(|line| line.message() == "session ended").is_empty());
}

/// Each session has one line, and only one, with a number of its own.
#[test]
fn every_session_has_one_line() {
    let scene = Scene::new("");
    short_sessions(scene.port, &scene.target, 200);
    scene.proxy.settles();
    let log = scene.proxy.log().clone();
    scene.finish();
    let lines = log.all(|line| line.message() == "session ended");
    let mut numbers: Vec<u64> = lines.iter().map(|line| line.number("session")).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((lines.len(), numbers.len()), (200, 200));
}

/// A proxy that writes its log there. `through` is a command that runs the one that follows it.
fn logging_to(out: OwnedFd, through: &[&str], file: &std::path::Path, admin: &str) -> Running {
    let words: Vec<&str> = [through, &[harness::proxy::PROGRAM]].concat();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["run", "--admin", admin, "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(out);
    Running::start(&mut command)
}

/// Whoever shares standard output may have set `O_NONBLOCK` on it, such as a supervisor.
#[test]
fn a_slow_reader_of_a_log_that_may_not_wait_gets_every_line_whole() {
    const SESSIONS: usize = 800;
    let target = Target::bind();
    let port = ports::free();
    let dir = TempDir::new();
    let file = dir.write(
        "proxy.toml",
        config([mapping("m", port, target.addr(), "")]),
    );
    let (reader, writer) = pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("an open pipe");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("an open pipe");
    let mut running = logging_to(writer, &[], &file, "off");
    let mut reader = BufReader::with_capacity(1024, File::from(reader));
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .expect("the proxy says something");
    assert!(line.contains("listening"), "{line}");
    // The pipe is full after half of them.
    short_sessions(port, &target, SESSIONS);
    let rest = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    });
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0));
    let text = rest.join().expect("reading does not panic");
    let ended: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(" INFO session ended session="))
        .collect();
    assert_eq!(ended.len(), SESSIONS);
    for line in ended {
        assert!(line.ends_with(" end=CD reason=client_reset"), "{line}");
    }
}

#[test]
fn a_log_file_as_long_as_files_may_be_stops_nothing() {
    if !require(&[Need::Tool("prlimit")]) {
        return;
    }
    const LIMIT: u64 = 10_000;
    let target = Target::bind();
    let port = ports::free();
    let admin = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let dir = TempDir::new();
    let file = dir.write(
        "proxy.toml",
        config([mapping("m", port, target.addr(), "")]),
    );
    let log = dir.join("log");
    let out = File::create(&log).expect("a fresh file");
    let through = ["prlimit", &format!("--fsize={LIMIT}")];
    let mut running = logging_to(out.into(), &through, &file, &admin.to_string());
    wait_until("the proxy to be ready", || {
        get(admin, "/readyz").is_ok_and(|(status, _)| status.contains(" 200 "))
    });
    short_sessions(port, &target, 100);
    wait_until("lines to be counted as lost", || {
        Metrics::scrape(admin).sum("tml_proxy_log_dropped_total", &[]) > 0
    });
    short_sessions(port, &target, 10);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0));
    assert_eq!(fs::metadata(&log).expect("the log").len(), LIMIT);
}

#[test]
fn a_log_with_masked_clients_names_nobody_and_the_api_does() {
    let limits = "[limits]\nban = { after = 1, within = \"1m\", lasts = \"1m\" }\n";
    let masked = format!(
        "[log]\nmask_clients = {{ ipv4 = 8, ipv6 = 0 }}\nsession_openings = true\n{limits}"
    );
    let scene = Scene::with(&Setup::default(), &masked, "max_sessions_per_source = 1");
    let from = |source: &str| Peer::connect_from(source.parse().expect("a literal"), scene.port);
    let (mut client, mut server) = (from("127.0.0.77"), scene.target.accept());
    client.exchange(&mut server, b"hello");
    from("127.0.0.77").expect_reset();
    scene.proxy.wait_for_line(0, "client banned");
    let shown = SocketAddr::new([127, 0, 0, 0].into(), client.addr().port());
    drop((client, server));
    scene.ended(shown, "closed");
    let text = scene.proxy.log().text();
    assert!(
        text.contains("\"client\":\"127.0.0.0:") && text.contains("\"source\":\"127.0.0.0/8\""),
        "{text}"
    );
    assert!(!text.contains("127.0.0.77"), "{text}");

    let whole = masked.replace("{ ipv4 = 8, ipv6 = 0 }", "\"off\"");
    scene.proxy.reload(&config([
        whole,
        mapping("m", scene.port, scene.target.addr(), ""),
    ]));
    let (client, server) = (from("127.0.0.78"), scene.target.accept());
    let addr = client.addr();
    drop((client, server));
    scene.ended(addr, "closed");
    scene.finish();
}

/// rsyslog with sockets and a file of its own.
struct Rsyslog<'a> {
    dir: &'a TempDir,
    running: Running,
}

impl<'a> Rsyslog<'a> {
    fn start(dir: &'a TempDir) -> Self {
        let at = |name: &str| dir.join(name).display().to_string();
        let text = format!(
            "module(load=\"imuxsock\" SysSock.Name=\"{}\")\n\
             template(name=\"t\" type=\"string\" string=\"%syslogfacility-text%.%syslogseverity-text% \
             %programname%[%procid%]%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"t\")\n",
            at("log"),
            at("messages"),
        );
        let file = dir.write("rsyslog.conf", text);
        let mut command = Command::new("rsyslogd");
        command
            .args(["-n", "-i"])
            .arg(dir.join("pid"))
            .arg("-f")
            .arg(file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let running = Running::start(&mut command);
        Self { dir, running }
    }

    fn text(&self) -> String {
        fs::read_to_string(self.dir.join("messages")).unwrap_or_default()
    }

    fn stop(mut self) {
        self.running.signal(Signal::TERM);
        self.running.wait();
    }
}

fn session(scene: &Scene) -> SocketAddr {
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    let addr = client.addr();
    drop((client, server));
    scene.ended(addr, "closed");
    addr
}

/// The lines that are written while the daemon is away or started anew wait for it.
#[test]
fn rsyslog_gets_every_line_and_one_that_is_started_anew_too() {
    if !require(&[Need::Root, Need::Tool("rsyslogd")]) {
        return;
    }
    let dir = TempDir::new();
    let log = format!(
        "[log]\nsyslog = \"{}\"\nsyslog_facility = \"local1\"\nsyslog_name = \"front\"\n",
        dir.join("log").display()
    );
    let scene = Scene::with(&Setup::default(), &log, "");
    scene
        .proxy
        .wait_for_line(0, "the log does not get through to syslog");
    let begin = format!("local1.info front[{}] {{\"timestamp\":", scene.proxy.id());
    let tells_of = |daemon: &Rsyslog<'_>, addr: &SocketAddr| {
        let client = format!("\"client\":\"{addr}\"");
        let is_end = |line: &str| line.contains("session ended") && line.contains(&client);
        let text = daemon.text();
        text.lines()
            .any(|line| line.starts_with(&begin) && is_end(line))
    };
    let mut sessions = vec![session(&scene)];
    for _ in 0..2 {
        let daemon = Rsyslog::start(&dir);
        wait_until("the lines of the sessions", || {
            sessions.iter().all(|addr| tells_of(&daemon, addr))
        });
        let addr = session(&scene);
        wait_until("a line while it runs", || tells_of(&daemon, &addr));
        sessions.push(addr);
        daemon.stop();
        sessions.push(session(&scene));
    }
    let lost = scene
        .proxy
        .metrics()
        .sum("tml_proxy_syslog_lost_total", &[]);
    assert_eq!(lost, 0);
    scene.finish();
}

#[test]
fn lines_go_to_a_syslog_daemon_over_udp_as_rfc_5424_has_them() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    udp.set_read_timeout(Some(harness::DEADLINE))
        .expect("a socket");
    let to = udp.local_addr().expect("bound");
    let scene = Scene::with(
        &Setup::default(),
        &format!("[log]\nsyslog = \"udp://{to}\"\n"),
        "",
    );
    let addr = session(&scene);
    let mut room = [0; 9000];
    wait_until("the line of the session", || {
        let length = udp.recv(&mut room).expect("a message");
        let text = String::from_utf8_lossy(&room[..length]);
        let words: Vec<_> = text.split(' ').collect();
        let header = words[0] == "<30>1" && words[3] == "tml-proxy" && words[5..7] == ["-", "-"];
        assert!(header || !text.contains("session ended"), "{text}");
        text.contains("- - {\"timestamp\":") && text.contains(&format!("\"client\":\"{addr}\""))
    });
    scene.finish();
}
