//! How the proxy stops, and what it tells systemd meanwhile.

mod harness;

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixDatagram},
};

use harness::{
    DEADLINE, Peer, Proxy, Scene, Setup, Target, TempDir, config, mapping, ports, process::run_id,
};
use rustix::process::Signal;

fn with_timeout(timeout: &str) -> Scene {
    let process = format!("[process]\nshutdown_timeout = \"{timeout}\"\n");
    Scene::with(&Setup::default(), &process, "")
}

#[test]
fn nothing_to_wait_for_is_no_wait() {
    for (signal, timeout) in [(Signal::TERM, "off"), (Signal::INT, "1m 30s")] {
        let mut scene = with_timeout(timeout);
        scene.proxy.signal(signal);
        assert_eq!(scene.proxy.wait().code(), Some(0));
        let line = scene.proxy.wait_for_line(0, "stopping");
        assert_eq!(line.text("timeout"), timeout);
        scene.proxy.wait_for_line(0, "stopped");
    }
}

#[test]
fn open_sessions_may_finish_and_no_new_one_comes() {
    for timeout in ["off", "5m"] {
        let mut scene = with_timeout(timeout);
        let (mut client, mut server) = scene.pair();
        client.exchange(&mut server, b"before");
        scene.proxy.signal(Signal::TERM);
        scene.proxy.wait_for_line(0, "stopping");
        scene.proxy.stops_listening(scene.port);
        for _ in 0..20 {
            client.exchange(&mut server, b"after");
        }
        client.send(b"last words");
        client.finish();
        server.expect(b"last words");
        server.expect_end();
        drop(server);
        client.expect_end();
        scene.ends(client.addr(), "closed", 116, 106);
        assert_eq!(scene.proxy.wait().code(), Some(0));
        scene.proxy.wait_for_line(0, "stopped");
    }
}

#[test]
fn sessions_that_do_not_finish_in_time_are_reset() {
    let mut scene = with_timeout("300ms");
    let mut pairs: Vec<(Peer, Peer)> = (0..20).map(|_| scene.pair()).collect();
    scene.proxy.signal(Signal::TERM);
    for (client, server) in &mut pairs {
        client.expect_reset();
        server.expect_reset();
        let line = scene.ends(client.addr(), "shutdown", 0, 0);
        assert_eq!(line.text("end"), "KD");
    }
    assert_eq!(scene.proxy.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let mut scene = with_timeout("off");
        let (mut client, mut server) = scene.pair();
        client.exchange(&mut server, b"hello");
        scene.proxy.signal(Signal::TERM);
        scene.proxy.wait_for_line(0, "stopping");
        client.exchange(&mut server, b"still on");
        scene.proxy.signal(second);
        client.expect_reset();
        server.expect_reset();
        // What the last bytes were acknowledged with may have come too late to be counted.
        scene.ended(client.addr(), "shutdown");
        assert_eq!(scene.proxy.wait().code(), Some(0));
    }
}

#[test]
fn a_session_that_still_waits_for_its_target_does_not_hold_the_end_up() {
    let (target, _fillers) = Target::full();
    let port = ports::free();
    let process = "[process]\nshutdown_timeout = \"300ms\"\n";
    let more = "connect_timeout = \"5m\"";
    let text = config([process, &mapping("m", port, target.addr(), more)]);
    let mut proxy = Proxy::start(&text);
    let mut client = Peer::connect(port);
    proxy.wait_until("tml_proxy_sessions_open", &[("mapping", "m")], 1);
    proxy.signal(Signal::TERM);
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "shutdown");
    assert_eq!(proxy.wait().code(), Some(0));
}

/// A stop wins over a reload that comes with it.
#[test]
fn a_reload_while_stopping_does_not_bring_listeners_back() {
    let mut scene = with_timeout("off");
    let (mut client, mut server) = scene.pair();
    scene.proxy.signal(Signal::TERM);
    scene.proxy.wait_for_line(0, "stopping");
    scene.proxy.stops_listening(scene.port);
    for _ in 0..20 {
        scene.proxy.signal(Signal::HUP);
        client.exchange(&mut server, b"on");
        scene.proxy.stops_listening(scene.port);
    }
    let addr = client.addr();
    drop((client, server));
    scene.ends(addr, "closed", 40, 40);
    assert_eq!(scene.proxy.wait().code(), Some(0));
}

#[test]
fn a_stop_that_comes_with_reloads_is_a_stop() {
    for _ in 0..10 {
        let mut scene = with_timeout("off");
        scene.proxy.signal(Signal::HUP);
        scene.proxy.signal(Signal::TERM);
        scene.proxy.signal(Signal::HUP);
        assert_eq!(scene.proxy.wait().code(), Some(0));
    }
}

/// The port of the last run can be bound at once, whatever its sessions left behind.
#[test]
fn the_next_run_gets_the_same_ports() {
    let target = Target::bind();
    let port = ports::free();
    let text = config([mapping("m", port, target.addr(), "")]);
    for _ in 0..5 {
        let proxy = Proxy::start(&text);
        let mut client = Peer::connect(port);
        let mut server = target.accept();
        // The proxy closes towards the client first: the port is in TIME_WAIT on its side.
        server.finish();
        client.expect_end();
        client.finish();
        server.expect_end();
        proxy.ended_session(client.addr());
        assert_eq!(proxy.stop().code(), Some(0));
    }
}

/// What a service manager gets to hear.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = TempDir::new();
        let socket = UnixDatagram::bind(dir.join("notify")).expect("a fresh name");
        socket
            .set_read_timeout(Some(DEADLINE))
            .expect("an open socket");
        Self { socket, dir }
    }

    fn setup(&self, more: &[(&'static str, &str)]) -> Setup<'static> {
        let path = self.dir.join("notify").display().to_string();
        let mut env = vec![("NOTIFY_SOCKET", path)];
        env.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        Setup {
            env,
            ..Setup::default()
        }
    }

    /// The next message with a line that starts so, without those before it.
    #[track_caller]
    fn hears(&self, start: &str) -> Vec<String> {
        loop {
            let lines = self.next();
            if lines.iter().any(|line| line.starts_with(start)) {
                return lines;
            }
        }
    }

    #[track_caller]
    fn next(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("another message");
        let text = String::from_utf8_lossy(&bytes[..length]);
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn systemd_is_told_of_start_reload_and_stop() {
    let manager = Manager::new();
    let scene = Scene::with(&manager.setup(&[]), "", "");
    manager.hears("READY=1");

    scene.proxy.reload(&scene.config("idle_timeout = \"1h\""));
    let lines = manager.hears("RELOADING=1");
    let time = lines
        .iter()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
        .expect("systemd wants the time with it");
    assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{time}");
    manager.hears("READY=1");

    // A reload that fails is over as well, or systemd would wait for its end.
    scene.proxy.reload_fails("colour = 1");
    manager.hears("RELOADING=1");
    manager.hears("READY=1");

    scene.proxy.signal(Signal::TERM);
    manager.hears("STOPPING=1");
}

#[test]
fn systemd_is_told_at_an_abstract_name_too() {
    let name = format!("tml-proxy-test-{}", run_id());
    let addr = SocketAddr::from_abstract_name(&name).expect("a short name");
    let manager = Manager {
        socket: UnixDatagram::bind_addr(&addr).expect("a name of its own"),
        dir: TempDir::new(),
    };
    manager
        .socket
        .set_read_timeout(Some(DEADLINE))
        .expect("an open socket");
    let setup = Setup {
        env: vec![("NOTIFY_SOCKET", format!("@{name}"))],
        ..Setup::default()
    };
    let scene = Scene::with(&setup, "", "");
    manager.hears("READY=1");
    scene.finish();
}

#[test]
fn systemd_gets_a_status_line() {
    let manager = Manager::new();
    let scene = Scene::with(&manager.setup(&[]), "", "");
    let lines = manager.hears("STATUS=");
    assert!(
        lines
            .iter()
            .any(|line| line == "STATUS=forwarding 1 mapping"),
        "{lines:?}"
    );
    scene.finish();
}

#[test]
fn the_watchdog_is_fed_while_all_is_well() {
    let manager = Manager::new();
    let setup = manager.setup(&[("WATCHDOG_USEC", "200000")]);
    let scene = Scene::with(&setup, "", "");
    let (mut client, mut server) = scene.pair();
    for _ in 0..5 {
        manager.hears("WATCHDOG=1");
        client.exchange(&mut server, b"on");
    }
    drop((client, server));
    scene.finish();
}

#[test]
fn the_watchdog_is_fed_while_a_stop_waits_for_a_session() {
    let manager = Manager::new();
    let setup = manager.setup(&[("WATCHDOG_USEC", "200000")]);
    let scene = Scene::with(&setup, "", "");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    scene.proxy.signal(Signal::TERM);
    let lines = manager.hears("STOPPING=1");
    // Of shutdown_timeout and what closing takes.
    assert!(
        lines.contains(&"EXTEND_TIMEOUT_USEC=46000000".to_owned()),
        "{lines:?}"
    );
    // The other workers have ended by then.
    for _ in 0..5 {
        manager.hears("WATCHDOG=1");
        client.exchange(&mut server, b"on");
    }
    drop((client, server));
    let mut proxy = scene.proxy;
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn without_a_watchdog_nothing_is_fed() {
    let manager = Manager::new();
    let scene = Scene::with(&manager.setup(&[]), "", "");
    scene.proxy.signal(Signal::TERM);
    loop {
        let lines = manager.next();
        assert!(!lines.iter().any(|line| line.starts_with("WATCHDOG=")));
        if lines.iter().any(|line| line == "STOPPING=1") {
            break;
        }
    }
}
