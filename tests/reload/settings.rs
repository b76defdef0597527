//! What a reload changes of the process, the admin endpoint and the log.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use rustix::process::Signal;

use super::harness::{
    Peer, Proxy, Scene, Setup, Stream, Target, TempDir, both_ways, config, mapping, ports, process,
    proxy::{PROGRAM, as_user},
    require::{Need, require},
    wait_until,
};

fn command(socket: &Path, words: &[&str]) -> Output {
    process::output(
        Command::new(PROGRAM)
            .args(words)
            .arg("--socket")
            .arg(socket),
    )
}

/// A proxy whose admin endpoint and log are as its file says.
struct Stage {
    proxy: Proxy,
    target: Target,
    port: u16,
    admin: u16,
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        let (target, port, admin) = (Target::bind(), ports::free(), ports::free());
        let setup = Setup {
            admin_in_file: Some((Ipv4Addr::LOCALHOST, admin).into()),
            ..Setup::default()
        };
        let dir = TempDir::new();
        let text = text(
            port,
            &target,
            &format!("127.0.0.1:{admin}"),
            "socket = \"off\"",
        );
        Self {
            proxy: Proxy::start_with(&setup, &text),
            target,
            port,
            admin,
            dir,
        }
    }

    fn text(&self, listen: &str, more: &str) -> String {
        text(self.port, &self.target, listen, more)
    }

    fn here(&self) -> String {
        format!("127.0.0.1:{}", self.admin)
    }
}

fn text(port: u16, target: &Target, listen: &str, more: &str) -> String {
    let sections = format!("[log]\nformat = \"json\"\n[admin]\nlisten = \"{listen}\"\n{more}\n");
    config([sections, mapping("m", port, target.addr(), "")])
}

#[test]
fn a_socket_switched_on_moved_and_off_costs_no_session() {
    let stage = Stage::new();
    let mut client = Peer::connect(stage.port);
    let mut server = stage.target.accept();
    let [first, second] = ["first.sock", "second.sock"].map(|name| stage.dir.join(name));

    stage
        .proxy
        .reload(&stage.text(&stage.here(), &format!("socket = {first:?}")));
    assert!(command(&first, &["status"]).status.success());

    // The order comes over the socket that it closes, and is answered.
    let moved = format!("socket = {second:?}\nsocket_mode = \"0600\"");
    let everywhere = format!("0.0.0.0:{}", stage.admin);
    stage.proxy.write_config(&stage.text(&everywhere, &moved));
    let answer = command(&first, &["reload"]);
    assert!(answer.status.success(), "{answer:?}");
    assert!(!first.exists());
    assert_eq!(command(&first, &["status"]).status.code(), Some(5));
    assert!(command(&second, &["status"]).status.success());
    let mode = fs::metadata(&second).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    Peer::connect_to((Ipv4Addr::new(127, 0, 0, 2), stage.admin).into());

    // One whose file somebody removed is made again.
    fs::remove_file(&second).expect("it is there");
    stage.proxy.reload_file();
    assert!(command(&second, &["status"]).status.success());

    // Other permissions are a new socket at the same place.
    let open = format!("socket = {second:?}\nsocket_mode = \"0666\"");
    stage.proxy.reload(&stage.text(&everywhere, &open));
    let mode = fs::metadata(&second).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o666);
    assert!(command(&second, &["status"]).status.success());

    stage.proxy.reload(&stage.text("off", "socket = \"off\""));
    assert!(!second.exists());
    let gone = SocketAddr::from((Ipv4Addr::LOCALHOST, stage.admin));
    assert!(Peer::try_connect_to(gone).is_err());

    client.exchange(&mut server, b"still here");
    drop((client, server));
    assert_eq!(stage.proxy.stop().code(), Some(0));
}

#[test]
fn an_admin_endpoint_that_cannot_be_opened_fails_the_reload_and_nothing_changes() {
    let stage = Stage::new();
    let kept = stage.dir.join("kept.sock");
    let socket = format!("socket = {kept:?}");
    stage.proxy.reload(&stage.text(&stage.here(), &socket));
    let taken = Target::bind_to((Ipv4Addr::LOCALHOST, 0).into());
    let added = ports::free();
    let more = mapping("added", added, stage.target.addr(), "");
    let refused = [
        (
            taken.addr().to_string(),
            socket.clone(),
            taken.addr().to_string(),
        ),
        (
            stage.here(),
            "socket = \"/nope/s\"".to_owned(),
            "/nope/s".to_owned(),
        ),
        (
            stage.here(),
            format!("{socket}\nsocket_group = \"no-such-group\""),
            "no-such-group".to_owned(),
        ),
    ];
    for (listen, socket, telling) in refused {
        let line = stage
            .proxy
            .reload_fails(&(stage.text(&listen, &socket) + &more));
        assert!(line.text("error").contains(&telling), "{line}");
        assert!(Peer::try_connect_to((Ipv4Addr::LOCALHOST, added).into()).is_err());
        assert!(command(&kept, &["status"]).status.success());
        assert_eq!(stage.proxy.metrics().sum("tml_proxy_mappings", &[]), 1);
    }
    let left: Vec<_> = fs::read_dir(stage.dir.path())
        .expect("own directory")
        .collect();
    // The socket and its lock.
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(stage.proxy.stop().code(), Some(0));
    assert!(!kept.exists());
}

#[test]
fn the_log_takes_on_format_level_and_lines_by_a_reload() {
    let stage = Stage::new();
    let proxy = &stage.proxy;
    let with_log = |log: &str| {
        stage
            .text(&stage.here(), "socket = \"off\"")
            .replace("[log]\nformat = \"json\"\n", log)
    };
    let session = || {
        let client = Peer::connect(stage.port);
        let addr = client.addr().to_string();
        drop((client, stage.target.accept()));
        proxy.settles();
        addr
    };

    proxy.write_config(&with_log(
        "[log]\nformat = \"text\"\nsession_openings = true\n",
    ));
    proxy.signal(Signal::HUP);
    wait_until("a line of text", || {
        proxy.log().text().contains("INFO reload done")
    });
    let client = session();
    let opened = format!("INFO session opened session=1 mapping=m client={client}");
    wait_until("a line of text for a session", || {
        proxy.log().text().contains(&opened)
    });

    let quiet = "[log]\nformat = \"json\"\nsessions = false\n";
    proxy.reload(&with_log(quiet));
    session();
    proxy.reload(&with_log("[log]\nformat = \"json\"\nlevel = \"debug\"\n"));
    proxy.wait_for_line(0, "reload took");
    assert!(
        proxy
            .log()
            .all(|line| line.message() == "session ended")
            .is_empty()
    );
    let client = session();
    proxy.log().wait(0, "a line for the session", |line| {
        line.text("client") == client
    });
    assert_eq!(stage.proxy.stop().code(), Some(0));
}

/// The nice values of the threads for bulk.
fn bulk_nice(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    // Threads that read files come and go.
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let nice = |stat: String| {
        let (name, rest) = stat.rsplit_once(") ")?;
        // Field 19 of proc_pid_stat(5); the first two are gone.
        let nice = rest.split(' ').nth(16)?.to_owned();
        name.ends_with("-bulk").then_some(nice)
    };
    stats.filter_map(nice).collect()
}

#[test]
fn the_process_takes_on_what_it_can_by_a_reload_and_names_what_it_cannot() {
    let scene = Scene::with(&Setup::default(), "[process]\nworkers = 1\n", "");
    let proxy = &scene.proxy;
    assert_eq!(bulk_nice(proxy.id()), ["2"]);
    let with = |process: &str| {
        let first = format!("version = 1\n[process]\n{process}\n");
        scene.config("").replacen("version = 1\n", &first, 1)
    };
    proxy.reload(&with("workers = 1\nbulk_nice = 7\nsplice = false"));
    assert_eq!(bulk_nice(proxy.id()), ["7"]);
    let transfer = || {
        let (client, server) = scene.pair();
        both_ways(
            [(&client, &server, [Stream::new(1), Stream::new(2)])],
            3_000_000,
        );
    };
    transfer();
    proxy.settles();
    let spliced = || proxy.metrics().sum("tml_proxy_spliced_bytes_total", &[]);
    assert_eq!(spliced(), 0);

    let from = proxy.log().len();
    proxy.reload(&with(
        "workers = 3\nbulk_nice = 7\npipes = 3\nshutdown_timeout = \"1ms\"",
    ));
    let line = proxy.log().wait(from, "what does not change", |line| {
        line.text("level") == "WARN"
    });
    assert!(line.message().contains("process.workers"), "{line}");
    assert_eq!(line.number("running"), 1);
    transfer();
    proxy.settles();
    assert!(spliced() > 0);

    let (mut client, _server) = scene.pair();
    assert_eq!(scene.proxy.stop().code(), Some(0));
    client.expect_reset();
}

/// To come forward again needs a privilege.
#[test]
fn a_nice_value_that_may_not_be_lowered_is_named() {
    if !require(&[Need::Root, Need::Tool("setpriv")]) {
        return;
    }
    let setup = Setup {
        through: as_user(process::lone_user()),
        ..Setup::default()
    };
    let scene = Scene::with(&setup, "[process]\nbulk_nice = 9\n", "");
    scene.proxy.reload(&scene.config(""));
    let line = scene.proxy.log().wait(0, "a warning", |line| {
        line.message().contains("process.bulk_nice")
    });
    assert!(line.has("error"), "{line}");
    assert!(bulk_nice(scene.proxy.id()).iter().all(|nice| nice == "9"));
    scene.finish();
}
