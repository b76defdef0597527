//! A proxy that stood still looks at what came meanwhile before it believes that somebody was silent.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{net::listen, process::Signal};

use super::harness::{
    Peer, Proxy, Scene, Setup, Target, config, mapping, ports,
    process::{is_stopped, run_id},
    require::{Need, require, skip},
    wait_until,
};

/// More than a worker asks for at a time.
const MANY: usize = 300;

/// Stops a process, and has it go on when dropped.
trait Stop {
    fn stop(&self, proxy: &Proxy);
    fn go_on(&self, proxy: &Proxy);
}

struct BySignal;

impl Stop for BySignal {
    fn stop(&self, proxy: &Proxy) {
        proxy.signal(Signal::STOP);
        wait_until("the proxy to stop", || is_stopped(proxy.id()));
    }

    fn go_on(&self, proxy: &Proxy) {
        proxy.signal(Signal::CONT);
    }
}

/// As a container that is paused: no signal is delivered.
struct ByFreezer {
    group: PathBuf,
}

impl ByFreezer {
    const V1: &str = "/sys/fs/cgroup/freezer";
    const V2: &str = "/sys/fs/cgroup";

    fn new() -> Option<Self> {
        let is_v1 = Path::new(Self::V1).is_dir();
        let root = if is_v1 { Self::V1 } else { Self::V2 };
        let group = Path::new(root).join(format!("tml-{}-stall", run_id()));
        fs::create_dir(&group).ok()?;
        let freezer = Self { group };
        freezer.file().is_some().then_some(freezer)
    }

    /// Where to write, and what stands for frozen and for thawed.
    fn file(&self) -> Option<(PathBuf, [&'static str; 2])> {
        let v1 = self.group.join("freezer.state");
        let v2 = self.group.join("cgroup.freeze");
        match (v1.exists(), v2.exists()) {
            (true, _) => Some((v1, ["FROZEN", "THAWED"])),
            (false, true) => Some((v2, ["1", "0"])),
            (false, false) => None,
        }
    }

    fn set(&self, frozen: bool) {
        let (file, [on, off]) = self.file().expect("it was there");
        fs::write(&file, if frozen { on } else { off }).expect("root may");
    }

    fn is_frozen(&self) -> bool {
        let v1 = fs::read_to_string(self.group.join("freezer.state"));
        let v2 = fs::read_to_string(self.group.join("cgroup.events"));
        v1.is_ok_and(|state| state.trim() == "FROZEN")
            || v2.is_ok_and(|events| events.contains("frozen 1"))
    }
}

impl Stop for ByFreezer {
    fn stop(&self, proxy: &Proxy) {
        fs::write(self.group.join("cgroup.procs"), proxy.id().to_string()).expect("root may");
        self.set(true);
        wait_until("the proxy to be frozen", || self.is_frozen());
    }

    fn go_on(&self, _: &Proxy) {
        self.set(false);
    }
}

impl Drop for ByFreezer {
    fn drop(&mut self) {
        if let Some((file, [_, thawed])) = self.file() {
            // The group is removed, or left behind, empty.
            let _ = fs::write(file, thawed);
        }
        for _ in 0..200 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Has the proxy stand still while `act` happens and until `time` has passed.
fn stand_still(proxy: &Proxy, how: &dyn Stop, time: Duration, act: impl FnOnce()) {
    how.stop(proxy);
    let since = Instant::now();
    act();
    wait_until("every deadline to have passed", || since.elapsed() > time);
    how.go_on(proxy);
}

fn bytes_that_came_meanwhile_count(how: &dyn Stop) {
    let more = "idle_timeout = \"4s\"\nhalf_close_timeout = \"4s\"";
    let scene = Scene::with(&Setup::default(), "[process]\nworkers = 1\n", more);
    let mut pairs: Vec<(Peer, Peer)> = (0..MANY).map(|_| scene.pair()).collect();
    for (number, (client, server)) in pairs.iter_mut().enumerate() {
        client.exchange(server, b"hello");
        if number % 2 == 0 {
            server.finish();
            client.expect_end();
        }
    }
    stand_still(&scene.proxy, how, Duration::from_millis(4200), || {
        for (client, _) in &mut pairs {
            client.send(b"x");
        }
    });
    for (_, server) in &mut pairs {
        server.expect(b"x");
    }
    drop(pairs);
    scene.finish();
}

#[test]
fn bytes_that_came_while_the_proxy_was_stopped_keep_their_sessions() {
    bytes_that_came_meanwhile_count(&BySignal);
}

#[test]
fn bytes_that_came_while_the_proxy_was_frozen_keep_their_sessions() {
    if !require(&[Need::Root]) {
        return;
    }
    match ByFreezer::new() {
        Some(freezer) => bytes_that_came_meanwhile_count(&freezer),
        None => skip("a freezer for groups of processes"),
    }
}

#[test]
fn headers_that_came_while_the_proxy_was_stopped_are_read() {
    let more = "accept_proxy = [\"127.0.0.1\"]\nproxy_header_timeout = \"3s\"";
    let scene = Scene::with(&Setup::default(), "[process]\nworkers = 1\n", more);
    let mut fronts: Vec<Peer> = (0..MANY).map(|_| Peer::connect(scene.port)).collect();
    let open = "tml_proxy_sessions_open";
    scene.proxy.wait_until(open, &[], MANY as u64);
    stand_still(&scene.proxy, &BySignal, Duration::from_millis(3200), || {
        for front in &mut fronts {
            front.send(b"PROXY TCP4 198.51.100.9 192.0.2.80 1234 443\r\nhello");
        }
    });
    let mut servers: Vec<Peer> = (0..MANY).map(|_| scene.target.accept()).collect();
    for server in &mut servers {
        server.expect(b"hello");
    }
    drop((fronts, servers));
    scene.finish();
}

#[test]
fn targets_that_answered_while_the_proxy_was_stopped_have_answered() {
    const DIALS: usize = 30;
    let (target, fillers) = Target::full();
    let port = ports::free();
    let more = "connect_timeout = \"3s\"";
    let proxy = Proxy::start(&config([mapping("m", port, target.addr(), more)]));
    let mut clients: Vec<Peer> = (0..DIALS).map(|_| Peer::connect(port)).collect();
    proxy.wait_until("tml_proxy_sessions_open", &[], DIALS as u64);
    let mut servers = Vec::new();
    stand_still(&proxy, &BySignal, Duration::from_millis(3200), || {
        // The kernel calls again after a second.
        listen(target.socket(), 1024).expect("a listening socket");
        drop(fillers);
        servers = (0..=DIALS).map(|_| target.accept()).collect();
    });
    for client in &mut clients {
        client.send(b"hello");
    }
    let answered = servers
        .iter_mut()
        .filter(|server| {
            let mut byte = [0];
            matches!(std::io::Read::read(&mut server.stream(), &mut byte), Ok(1))
        })
        .count();
    assert_eq!(answered, DIALS, "the filler says nothing");
    drop((clients, servers));
    proxy.settles();
}
