//! What the machine runs out of, one thing at a time: sessions that are open go on, new clients
//! learn it by a reset with a reason, the processor rests, and when there is enough again nothing
//! is left of it.
//!
//! Pipes are in `unprivileged.rs`, the budget of descriptors in `admission.rs`.

mod harness;

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use harness::{
    Peer, Proxy, Scene, Setup, Stream, Target, config, figure,
    lab::{Lab, Netns, PORT},
    mapping,
    metrics::Scraper,
    process,
    require::{Need, require, skip},
    wait_until,
};

/// The limit is lowered under the running process: no budget can know that. The descriptor kept in
/// reserve is what a client is accepted with, to be turned away.
#[test]
fn without_a_descriptor_left_clients_are_reset_and_sessions_go_on() {
    if !require(&[Need::Tool("prlimit")]) {
        return;
    }
    let scene = Scene::new("");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"before");

    // A connection for scrapes that is there already: there can be no new one.
    let mut scraper = Scraper::connect(scene.proxy.admin());
    scraper.scrape();
    let before = process::descriptors(scene.proxy.id());
    let lowest = process::lowest_free_descriptor(scene.proxy.id());
    let usual = limit_descriptors(&scene.proxy, lowest);
    for _ in 0..10 {
        let mut peer = Peer::connect(scene.port);
        peer.expect_reset();
        let line = scene.proxy.ended_session(peer.addr());
        // The proxy may have had one open for a moment when the limit was chosen: then a client can
        // be accepted, and it is the socket towards the target for which there is none.
        assert!(["no_resources", "connect_failed"].contains(&line.text("reason")));
        assert_eq!(line.text("end"), "RC");
        // An admin connection without requests is closed after a while.
        scraper.scrape();
    }
    wait_until("every client and a pause to be counted", || {
        let metrics = scraper.scrape();
        metrics.sum("tml_proxy_sessions_ended_total", &[]) == 10
            && metrics.sum(
                "tml_proxy_sessions_ended_total",
                &[("reason", "no_resources")],
            ) > 0
            && metrics.sum("tml_proxy_accept_errors_total", &[("cause", "pause")]) > 0
    });
    for _ in 0..100 {
        client.exchange(&mut server, b"during");
    }
    scene.proxy.rests();
    wait_until("as few descriptors as before", || {
        process::descriptors(scene.proxy.id()) <= before
    });

    limit_descriptors(&scene.proxy, usual);
    for _ in 0..50 {
        let (mut client, mut server) = scene.pair();
        client.exchange(&mut server, b"after");
    }
    client.exchange(&mut server, b"after");
    let addr = client.addr();
    drop((client, server, scraper));
    scene.ends(addr, "closed", 611, 611);
    scene.finish();
}

/// Sets the soft limit and returns the one before.
fn limit_descriptors(proxy: &Proxy, soft: u64) -> u64 {
    let pid = proxy.id().to_string();
    let before = process::succeed(Command::new("prlimit").args([
        "--pid",
        &pid,
        "--nofile",
        "--raw",
        "--noheadings",
        "--output=SOFT",
    ]));
    process::succeed(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]));
    before.trim().parse().expect("a number")
}

/// One source address has so many ports towards one target and no more.
#[test]
fn without_a_source_port_left_clients_are_reset_and_sessions_go_on() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    const PORTS: usize = 16;
    let lab = Lab::new();
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "40000 40015");
    let target = lab.listen(22);
    let proxy = lab.proxy_to(target.addr(), "");
    let admin = proxy.admin();
    let mut scraper = lab.proxy.run(|| Scraper::connect(admin));

    let mut pairs: Vec<(Peer, Peer)> = (0..PORTS)
        .map(|_| (lab.connect(PORT), target.accept()))
        .collect();
    for _ in 0..20 {
        lacks_a_local_port(&lab, &proxy, PORT);
    }
    for (client, server) in &mut pairs {
        client.exchange(server, b"not affected");
    }
    let failures = [("mapping", "m"), ("cause", "local")];
    wait_until("every failure to be counted", || {
        let metrics = scraper.scrape();
        metrics.sum("tml_proxy_connect_failures_total", &failures) == 20
    });
    let metrics = scraper.scrape();
    assert_eq!(
        metrics.sum("tml_proxy_sessions_open", &[("mapping", "m")]),
        PORTS as u64
    );
    proxy.rests();

    // Where the target closes first, it is the target's port that has to wait.
    for (mut client, server) in pairs {
        drop(server);
        client.expect_end();
        let addr = client.addr();
        drop(client);
        assert_eq!(proxy.ended_session(addr).text("reason"), "closed");
        let (mut client, mut server) = (lab.connect(PORT), target.accept());
        client.exchange(&mut server, b"a port again");
        drop(server);
        client.expect_end();
    }
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "32768 60999");
    proxy.settles();
}

/// With an address to call from, too: the kernel chooses the port when it knows the target.
#[test]
fn a_target_has_all_local_ports_whatever_leads_to_others() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let lab = Lab::new();
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "40000 40015");
    let targets = [22, 23].map(|port| lab.listen(port));
    let text = |more: &str| {
        let both = (PORT..).zip(&targets);
        config(both.map(|(port, target)| mapping(&format!("m{port}"), port, target.addr(), more)))
    };
    let proxy = Proxy::start_with(&lab.setup(), &text(""));
    for more in ["", "bind = \"fd9d:773b:e6f8:1::1\""] {
        proxy.reload(&text(more));
        let mut pairs = Vec::new();
        for (port, target) in (PORT..).zip(&targets) {
            let sessions: Vec<(Peer, Peer)> = (0..16)
                .map(|_| (lab.connect(port), target.accept()))
                .collect();
            pairs.push(sessions);
            lacks_a_local_port(&lab, &proxy, port);
        }

        // One that the target closes leaves its port; one that the client closes keeps it for a while.
        let (mut client, server) = pairs[0].pop().expect("a session");
        drop(server);
        client.expect_end();
        let addr = client.addr();
        drop(client);
        assert_eq!(proxy.ended_session(addr).text("reason"), "closed");
        let (mut client, mut server) = lab.pair(&targets[0]);
        client.finish();
        server.expect_end();
        drop(server);
        client.expect_end();
        assert_eq!(proxy.ended_session(client.addr()).text("reason"), "closed");
        lacks_a_local_port(&lab, &proxy, PORT);

        for (client, server) in pairs.iter_mut().flatten() {
            client.exchange(server, b"not affected");
        }
        let ends: Vec<SocketAddr> = pairs.iter().flatten().map(|pair| pair.0.addr()).collect();
        for (client, server) in pairs.into_iter().flatten() {
            server.reset();
            drop(client);
        }
        for addr in ends {
            proxy.ended_session(addr);
        }
        // What waits there is not what the next round is about.
        lab.proxy
            .sysctl("net.ipv4.ip_local_port_range", "40016 40031");
    }
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "32768 60999");
    proxy.settles();
}

/// Twenty local ports are enough for eighteen sessions to each of four targets, whatever the family.
#[test]
fn four_targets_share_twenty_local_ports_with_an_address_to_call_from() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let net = Netns::new("ports");
    net.sysctl("net.ipv4.ip_local_port_range", "40000 40019");
    let [first, public] = [5001, 6001];
    let own = |host: &str, port: u16| -> SocketAddr {
        format!("{host}:{port}").parse().expect("an address")
    };
    let text = |host: &str, bind: &str| {
        let more = format!("bind = \"{bind}\"");
        config((0..4).map(|number| {
            let listen = own(host, public + number);
            mapping(
                &format!("m{number}"),
                listen,
                own(host, first + number),
                &more,
            )
        }))
    };
    let setup = Setup {
        netns: Some(&net),
        ..Setup::default()
    };
    let hosts = [("127.0.0.1", "127.0.0.2"), ("[::1]", "::1")];
    let proxy = Proxy::start_with(&setup, &config([""]));
    for (host, bind) in hosts {
        proxy.reload(&text(host, bind));
        let mut pairs = net.run(|| {
            let targets = (first..first + 4).map(|port| Target::bind_to(own(host, port)));
            let pairs = (public..).zip(targets).flat_map(|(port, target)| {
                let pair = move |_| (Peer::connect_to(own(host, port)), target.accept());
                (0..18).map(pair)
            });
            pairs.collect::<Vec<(Peer, Peer)>>()
        });
        assert_eq!(pairs.len(), 72);
        for (client, server) in &mut pairs {
            client.exchange(server, b"hello");
        }
    }
    proxy.settles();
}

/// Ports that another program listens on and those kept for something else are passed over.
#[test]
fn local_ports_that_others_hold_cost_no_session() {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let lab = Lab::new();
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "40000 40015");
    lab.proxy
        .sysctl("net.ipv4.ip_local_reserved_ports", "40002-40004");
    let listen = |port: u16| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a free port");
    let others = lab.proxy.run(|| [40_007, 40_008].map(listen));
    let target = lab.listen(22);
    let text = |more| config([mapping("m", PORT, target.addr(), more)]);
    let proxy = Proxy::start_with(&lab.setup(), &text(""));
    for more in ["", "bind = \"fd9d:773b:e6f8:1::1\""] {
        proxy.reload(&text(more));
        let pairs: Vec<(Peer, Peer)> = (0..11).map(|_| lab.pair(&target)).collect();
        lacks_a_local_port(&lab, &proxy, PORT);
        for (client, server) in pairs {
            server.reset();
            proxy.ended_session(client.addr());
        }
    }
    drop(others);
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "32768 60999");
    proxy.settles();
}

/// Where every second port is tried before any of the others, each session takes longer and longer
/// once half of them are taken. Linux can do better since 6.8.
#[test]
fn half_of_the_local_ports_are_not_left_for_the_end() {
    if !require(&[Need::Root, Need::Tool("ip")]) || kernel_version() < (6, 8) {
        return;
    }
    let lab = Lab::new();
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "40000 40999");
    let target = lab.listen(22);
    let text = |more| config([mapping("m", PORT, target.addr(), more)]);
    let proxy = Proxy::start_with(&lab.setup(), &text(""));
    for more in ["", "bind = \"fd9d:773b:e6f8:1::1\""] {
        proxy.reload(&text(more));
        let pairs: Vec<(Peer, Peer)> = (0..64).map(|_| lab.pair(&target)).collect();
        let odd = pairs.iter().filter(|(_, server)| {
            let source = server.stream().peer_addr().expect("it is connected");
            !source.port().is_multiple_of(2)
        });
        let odd = odd.count();
        assert!((1..64).contains(&odd), "{odd} of 64 ports are odd");
    }
    lab.proxy
        .sysctl("net.ipv4.ip_local_port_range", "32768 60999");
    proxy.settles();
}

fn lacks_a_local_port(lab: &Lab, proxy: &Proxy, port: u16) {
    let mut client = lab.connect(port);
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "connect_failed");
    assert_eq!(line.text("end"), "RC");
    let error = "no local port is left towards the target: Cannot assign requested address";
    assert_eq!(line.text("error"), error);
}

fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux has it");
    let mut numbers = release.split('.').map_while(|number| number.parse().ok());
    let mut next = || numbers.next().expect("two numbers");
    (next(), next())
}

/// A group of processes with limits of its own (cgroups of the first version, where the memory of
/// sockets can be limited by itself), removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Makes one, where this kernel has such groups.
    fn new(tag: &str) -> Option<Self> {
        let controller = PathBuf::from("/sys/fs/cgroup/memory");
        if !controller.join("memory.kmem.tcp.limit_in_bytes").exists() {
            skip("the memory controller of cgroups version 1");
            return None;
        }
        let path = controller.join(format!("tml-{}-{tag}", process::run_id()));
        fs::create_dir(&path).expect("root may make groups");
        Some(Self(path))
    }

    fn set(&self, file: &str, value: u64) {
        fs::write(self.0.join(file), value.to_string()).expect("a limit of this group");
    }

    fn get(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).expect("a file of this group");
        text.trim().parse().expect("a number")
    }

    /// The words that run a program in it.
    fn through(&self) -> Vec<String> {
        let enter = format!("echo $$ >{}/cgroup.procs; exec \"$@\"", self.0.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel removes it once its last process is gone, which may take a moment.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Readers have stopped and the kernel gives the proxy's sockets no more memory.
#[test]
fn without_memory_for_sockets_sessions_are_slow_and_lose_nothing() {
    if !require(&[Need::Root]) {
        return;
    }
    const LENGTH: u64 = 4_000_000;
    const LIMIT: u64 = 1 << 20;
    let Some(group) = Group::new("sockets") else {
        return;
    };
    group.set("memory.kmem.tcp.limit_in_bytes", LIMIT);
    let setup = Setup {
        through: group.through(),
        ..Setup::default()
    };
    let scene = Scene::leading_to(Target::narrow(), &setup, "", "");
    let (mut typing, mut shell) = scene.pair();
    typing.exchange(&mut shell, b"x");
    let addr = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let mut all: Vec<(Peer, Peer, [Stream; 2])> = (0..20)
        .map(|number| {
            let client = Peer::connect_prepared(addr, |socket| {
                socket.set_recv_buffer_size(8192).expect("any size will do");
            });
            let server = scene.target.accept();
            let streams = [2 * number, 2 * number + 1].map(Stream::new);
            (client, server, streams)
        })
        .collect();
    thread::scope(|scope| {
        for (client, server, [up, down]) in &mut all {
            let quiet = Duration::from_millis(300);
            scope.spawn(move || client.offer_stream(up, LENGTH, quiet));
            scope.spawn(move || server.offer_stream(down, LENGTH, quiet));
        }
    });
    // What a socket holds already it may keep, so this went a little past the limit.
    let most = group.get("memory.kmem.tcp.max_usage_in_bytes");
    println!("{most} bytes were held where {LIMIT} are allowed");
    assert!((LIMIT..4 * LIMIT).contains(&most), "{most} bytes held");
    scene.proxy.rests();
    for _ in 0..20 {
        typing.exchange(&mut shell, b"x");
    }
    let (mut late, mut late_server) = scene.pair();
    late.exchange(&mut late_server, b"new sessions start");

    scene.pass_whole(&all, LENGTH);
    drop((all, typing, shell, late, late_server));
    scene.proxy.settles();
    wait_until("the memory to be given back", || {
        group.get("memory.kmem.tcp.usage_in_bytes") < LIMIT / 2
    });
    scene.finish();
}

/// What bounds memory is the number of sessions: a full process that is flooded stays where it is.
#[test]
fn a_full_process_that_is_flooded_stays_within_its_memory() {
    if !require(&[Need::Root, Need::Descriptors(4000)]) {
        return;
    }
    const SESSIONS: usize = 1000;
    const FLOOD: u64 = 3000;
    let Some(group) = Group::new("memory") else {
        return;
    };
    group.set("memory.limit_in_bytes", 64 << 20);
    let setup = Setup {
        through: group.through(),
        ..Setup::default()
    };
    let process = format!("[limits]\nmax_sessions = {SESSIONS}\n");
    let scene = Scene::with(&setup, &process, "");
    let at_rest = group.get("memory.usage_in_bytes");
    let mut pairs: Vec<(Peer, Peer)> = (0..SESSIONS).map(|_| scene.pair()).collect();
    let full = group.get("memory.usage_in_bytes");
    for _ in 0..FLOOD {
        Peer::connect(scene.port).expect_reset();
    }
    let flooded = group.get("memory.max_usage_in_bytes");
    println!("{at_rest} bytes at rest, {full} when full, {flooded} at most in the flood");
    assert!(flooded < full + (4 << 20), "the flood took memory");
    for (client, server) in &mut pairs {
        client.exchange(server, b"not affected");
    }
    let no_resources = [("reason", "no_resources")];
    assert_eq!(
        scene
            .proxy
            .metrics()
            .sum("tml_proxy_sessions_ended_total", &no_resources),
        FLOOD
    );
    scene.proxy.rests();
    drop(pairs);
    scene.proxy.settles();
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"served again");
    drop((client, server));
    scene.finish();
    figure(
        &format!("clients refused by a process full with {SESSIONS} sessions, at no memory"),
        FLOOD,
    );
}

/// A proxy that gets such an error from every so many calls of that name, and the streams of sessions
/// that pass nevertheless.
fn refused_now_and_then(call: &str, errno: &str, every: u32) {
    const LENGTH: u64 = 300_000;
    let inject = format!("inject={call}:error={errno}:when={every}+{every}");
    let strace = ["strace", "-D", "-f", "-qqq", "-o", "/dev/null", "-e"];
    let mut through: Vec<String> = strace.map(str::to_owned).into();
    through.extend([format!("trace={call}"), "-e".to_owned(), inject]);
    let setup = Setup {
        through,
        ..Setup::default()
    };
    for relay in ["copy", "splice"] {
        let more = format!("relay = \"{relay}\"");
        let scene = Scene::with(&setup, "[process]\nworkers = 1\n", &more);
        let sessions: Vec<_> = (0..10)
            .map(|number| {
                let (client, server) = scene.pair();
                (
                    client,
                    server,
                    [Stream::new(number), Stream::new(100 + number)],
                )
            })
            .collect();
        scene.pass_whole(&sessions, LENGTH);
        drop(sessions);
        assert_eq!(scene.proxy.stop().code(), Some(0), "{call} {errno}");
    }
}

/// Memory runs out for a moment, a security module says no: no byte is lost and no session left open.
#[test]
fn calls_that_this_machine_refuses_now_and_then_cost_time_and_no_byte() {
    if !require(&[Need::Tool("strace")]) {
        return;
    }
    thread::scope(|scope| {
        for (call, errno, every) in [
            ("sendto", "ENOMEM", 3),
            ("recvfrom", "ENOBUFS", 4),
            ("splice", "EIO", 3),
            ("splice", "ENOMEM", 5),
            ("shutdown", "EPERM", 2),
            ("epoll_pwait", "ENOMEM", 5),
        ] {
            scope.spawn(move || refused_now_and_then(call, errno, every));
        }
    });
}
