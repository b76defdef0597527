//! The proxy as the ordinary user it is meant to run as.
//!
//! An ordinary user has 64 MiB worth of pipes (`fs.pipe-user-pages-soft`), root has no limit: what
//! happens at that limit shows only here. Needs root, to become somebody else.

mod harness;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::Stdio,
    thread,
    time::Duration,
};

use harness::{
    Peer, Scene, Setup, Stream, Target, TempDir, both_ways,
    lab::Netns,
    metrics::Metrics,
    process,
    process::Running,
    proxy::{as_user, wrapped},
    require::{Need, require},
};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

/// A network whose sockets hold little, so that bytes wait in the proxy.
struct Narrow(Netns);

impl Narrow {
    fn new() -> Self {
        let netns = Netns::new("narrow");
        netns.sysctl("net.ipv4.tcp_wmem", "4096 16384 65536");
        Self(netns)
    }

    /// A proxy in it, with the privileges of that user.
    fn scene(&self, uid: Option<u32>, process: &str, more: &str) -> Scene {
        let setup = Setup {
            through: uid.map(as_user).unwrap_or_default(),
            netns: Some(&self.0),
            ..Setup::default()
        };
        Scene::leading_to(self.0.run(Target::narrow), &setup, process, more)
    }
}

fn setup(uid: u32) -> Setup<'static> {
    Setup {
        through: as_user(uid),
        ..Setup::default()
    }
}

/// Many sessions whose readers have stopped, each with more under way than the path takes, then
/// all of it is read. Calls `meanwhile` in between.
fn many_bulk_sessions(
    narrow: &Narrow,
    scene: &Scene,
    sessions: u64,
    length: u64,
    meanwhile: impl FnOnce(),
) {
    let addr = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let connect = || {
        Peer::connect_prepared(addr, |socket| {
            socket.set_recv_buffer_size(8192).expect("any size will do");
        })
    };
    let mut all: Vec<(Peer, Peer, [Stream; 2])> = (0..sessions)
        .map(|number| {
            let client = narrow.0.run(connect);
            let streams = [2 * number, 2 * number + 1].map(Stream::new);
            (client, scene.target.accept(), streams)
        })
        .collect();
    let patience = Duration::from_secs(2);
    thread::scope(|scope| {
        for (client, server, [up, down]) in &mut all {
            scope.spawn(move || client.offer_stream(up, length, patience));
            scope.spawn(move || server.offer_stream(down, length, patience));
        }
    });
    meanwhile();
    scene.pass_whole(&all, length);
}

#[test]
fn three_hundred_bulk_sessions_share_the_pipes_there_are() {
    if !require(&[
        Need::Root,
        Need::Tool("setpriv"),
        Need::Tool("ip"),
        Need::Descriptors(4000),
    ]) {
        return;
    }
    const LENGTH: u64 = 1_500_000;
    let narrow = Narrow::new();
    let scene = narrow.scene(Some(process::lone_user()), "", "");
    many_bulk_sessions(&narrow, &scene, 300, LENGTH, || {
        let in_use = |metrics: &Metrics| metrics.sum("tml_proxy_pipes_in_use", &[]);
        // Whoever offers bytes may have given up before a busy proxy came to take them.
        let proxy = &scene.proxy;
        proxy.wait_until_metrics("bytes stuck in pipes", |metrics| in_use(metrics) > 0);
        let metrics = proxy.metrics();
        let (in_use, free) = (in_use(&metrics), metrics.sum("tml_proxy_pipes_free", &[]));
        println!("{in_use} pipes in use, {free} free with all readers stopped");
        // 30 MiB in pipes of 1 MiB, and as much in pipes of 64 KiB.
        assert!(in_use + free <= 30 + 480, "{in_use} + {free} pipes");
        proxy.rests();
    });
    let metrics = scene.proxy.metrics();
    let spliced = metrics.sum("tml_proxy_spliced_bytes_total", &[]);
    let copied = metrics.sum("tml_proxy_copied_bytes_total", &[]);
    println!("{spliced} spliced, {copied} copied");
    assert_eq!(spliced + copied, 2 * 300 * LENGTH);
    assert!(spliced > 0 && copied > 0);
    scene.finish();
}

#[test]
fn few_pipes_are_enough_for_many_sessions() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let narrow = Narrow::new();
    for relay in ["auto", "splice"] {
        let more = format!("relay = \"{relay}\"");
        let process = "[process]\npipes = 4\n";
        let scene = narrow.scene(None, process, &more);
        many_bulk_sessions(&narrow, &scene, 20, 3_000_000, || {
            let in_use = scene.proxy.metrics().sum("tml_proxy_pipes_in_use", &[]);
            assert!(in_use <= 4, "{in_use} pipes");
        });
        let metrics = scene.proxy.metrics();
        assert!(metrics.sum("tml_proxy_pipes_denied_total", &[]) > 0);
        scene.finish();
    }
}

#[test]
fn without_pipes_everything_is_copied() {
    for process in ["pipes = \"off\"", "splice = false"] {
        let process = format!("[process]\n{process}\n");
        let scene = Scene::with(&Setup::default(), &process, "");
        let (client, server) = scene.pair();
        let streams = [Stream::new(1), Stream::new(2)];
        both_ways([(&client, &server, streams)], 5_000_000);
        scene.ends(client.addr(), "closed", 5_000_000, 5_000_000);
        let metrics = scene.proxy.metrics();
        assert_eq!(metrics.sum("tml_proxy_spliced_bytes_total", &[]), 0);
        assert_eq!(metrics.sum("tml_proxy_copied_bytes_total", &[]), 10_000_000);
        scene.finish();
    }
}

/// Another program of the same user has spent the budget: pipes come small and stay small.
#[test]
fn a_budget_spent_by_somebody_else_stops_nothing() {
    const INSIDE: &str = "TML_PROXY_TEST_INSIDE";
    if env::var_os(INSIDE).is_some() {
        hoard_pipes();
        return;
    }
    if !require(&[
        Need::Root,
        Need::Tool("setpriv"),
        Need::Tool("ip"),
        Need::Descriptors(4000),
    ]) {
        return;
    }
    let uid = process::lone_user() + 100_000;
    let dir = TempDir::new();
    let this = env::current_exe().expect("this test's program");
    let mut command = wrapped(&setup(uid), &dir, &this);
    command
        .args(["a_budget_spent_by_somebody_else_stops_nothing"])
        .args(["--exact", "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut hoarder = Running::start(&mut command);
    let stdout = hoarder.child().stdout.take().expect("asked for");
    let said = BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("all pipes taken"));
    assert!(said, "the other program failed");

    let narrow = Narrow::new();
    for relay in ["auto", "splice"] {
        let more = format!("relay = \"{relay}\"");
        let scene = narrow.scene(Some(uid), "", &more);
        many_bulk_sessions(&narrow, &scene, 20, 3_000_000, || {
            println!(
                "{} pipes in use, {} denied",
                scene.proxy.metrics().sum("tml_proxy_pipes_in_use", &[]),
                scene
                    .proxy
                    .metrics()
                    .sum("tml_proxy_pipes_denied_total", &[])
            );
        });
        let metrics = scene.proxy.metrics();
        assert!(metrics.sum("tml_proxy_pipes_denied_total", &[]) > 0);
        scene.finish();
    }
}

/// Takes all pipes there are for this user and keeps them until standard input ends.
fn hoard_pipes() {
    process::raise_descriptor_limit();
    let mut pipes = Vec::new();
    loop {
        let pipe = pipe_with(PipeFlags::CLOEXEC).expect("a descriptor to spare");
        let size = fcntl_getpipe_size(&pipe.0).expect("a pipe");
        pipes.push(pipe);
        if size < 65_536 {
            break;
        }
    }
    println!("all pipes taken");
    std::io::stdout().flush().expect("somebody reads");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}
