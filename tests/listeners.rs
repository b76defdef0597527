//! Listening sockets that are lost or from which nothing can be accepted.

mod harness;

use std::{net::SocketAddr, process::Command, thread};

use harness::{
    Peer, Proxy, Scene, Setup, Target, config,
    lab::Netns,
    mapping, metrics, ports, process,
    proxy::with_kept_listeners,
    require::{Need, require},
    strace::tamper,
    wait_for, wait_until,
};

const WORKER: &str = "[process]\nworkers = 1\n";

fn scene(more: &str) -> Scene {
    Scene::with(&Setup::default(), WORKER, more)
}

fn is_ready(proxy: &Proxy) -> bool {
    proxy.page("/readyz").0.contains("200")
}

/// Waits until a listener counts as closed, and says everywhere that it is.
#[track_caller]
fn closed_is_seen(scene: &Scene, listeners: u64) {
    scene.proxy.wait_until("tml_proxy_listeners_closed", &[], 1);
    let metrics = scene.proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_listeners", &[]), listeners);
    let (status, page) = scene.proxy.page("/readyz");
    assert!(status.contains("503"), "{status} {page}");
    assert!(page.contains("is closed"), "{page}");
    let (_, page) = scene.proxy.page("/api/v1/status");
    assert!(page.contains("Lost and not open again yet"), "{page}");
    assert!(process::listening_inodes(scene.proxy.id(), scene.port).is_empty());
}

#[track_caller]
fn is_served_again(scene: &Scene) {
    scene.proxy.wait_for_line(0, "lost listener opened again");
    wait_until("the proxy to be ready", || is_ready(&scene.proxy));
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
}

fn kill_listener(port: u16) {
    let which = format!("sport = :{port}");
    process::succeed(Command::new("ss").args(["-K", "-t", "state", "listening", &which]));
}

#[test]
fn a_listener_that_somebody_closed_is_missed_and_opened_again() {
    if !require(&[Need::Root, Need::Tool("ss")]) {
        return;
    }
    let scene = scene("");
    let (mut client, mut server) = scene.pair();
    let lines = scene.proxy.log().len();
    kill_listener(scene.port);
    scene.proxy.wait_for_line(
        lines,
        "listener lost; it is closed and will be opened again",
    );
    client.exchange(&mut server, b"still here");
    is_served_again(&scene);
    drop((client, server));
    scene.finish();
}

#[test]
fn an_admin_endpoint_that_somebody_closed_is_missed_and_opened_again() {
    if !require(&[Need::Root, Need::Tool("ss")]) {
        return;
    }
    let scene = scene("");
    let admin = scene.proxy.admin();
    kill_listener(admin.port());
    let told = "a part of the proxy ended; it will be started again";
    let line = scene.proxy.wait_for_line(0, told);
    assert_eq!(line.text("what"), format!("admin.listen {admin}"));
    assert_eq!(line.text("why"), "Invalid argument");
    wait_until("the admin endpoint to answer", || {
        metrics::get(admin, "/readyz").is_ok_and(|(status, _)| status.contains("200"))
    });
    let failures = [("task", "admin")];
    let metrics = scene.proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_task_failures_total", &failures), 1);
    wait_until("it to be told as over", || {
        let (_, status) = scene.proxy.page("/api/v1/status");
        status.contains("The task admin of the control plane has failed 1 time and runs again")
    });
    scene.finish();
}

#[test]
fn a_lost_listener_whose_port_is_taken_is_opened_by_a_reload_once_it_is_free() {
    if !require(&[Need::Root, Need::Tool("ss"), Need::Tool("strace")]) {
        return;
    }
    let scene = scene("");
    // It cannot be opened again until then.
    let held = tamper(&scene.proxy, "tml-proxy", "bind:error=EADDRINUSE");
    kill_listener(scene.port);
    scene
        .proxy
        .wait_for_line(0, "a lost listener cannot be opened again yet");
    closed_is_seen(&scene, 0);
    assert!(Peer::try_connect_to(SocketAddr::from(([127, 0, 0, 1], scene.port))).is_err());
    // Then the next time is seconds away.
    wait_until("it to have been tried often", || {
        let tried = "a lost listener cannot be opened again yet";
        scene.proxy.log().all(|line| line.message() == tried).len() >= 3
    });
    // A change that does not concern it is not refused.
    let other = mapping("n", ports::free(), scene.target.addr(), "");
    drop(held);
    scene
        .proxy
        .reload(&(config([WORKER, &mapping("m", scene.port, scene.target.addr(), "")]) + &other));
    is_served_again(&scene);
    scene.finish();
}

#[test]
fn a_listener_that_cannot_be_watched_is_closed_and_opened_again() {
    if !require(&[Need::Root, Need::Tool("strace")]) {
        return;
    }
    let scene = scene("");
    // As at the end of fs.epoll.max_user_watches.
    let _tampering = tamper(&scene.proxy, "worker-0", "epoll_ctl:error=ENOSPC:when=1..4");
    let port = ports::free();
    let other = mapping("n", port, scene.target.addr(), "");
    let text = config([
        WORKER,
        &mapping("m", scene.port, scene.target.addr(), ""),
        &other,
    ]);
    scene.proxy.reload(&text);
    let lost = scene
        .proxy
        .wait_for_line(0, "listener lost; it is closed and will be opened again");
    assert_eq!(lost.text("error"), "No space left on device");
    // The first attempt fails the same way.
    wait_until("the second attempt", || {
        let is_lost = "listener lost; it is closed and will be opened again";
        let lost = scene.proxy.log().all(|line| line.message() == is_lost);
        lost.len() == 2
    });
    scene.proxy.wait_until("tml_proxy_listeners", &[], 2);
    wait_until("the proxy to be ready", || is_ready(&scene.proxy));
    let mut client = Peer::connect(port);
    let mut server = scene.target.accept();
    client.exchange(&mut server, b"hello");
    drop(scene);
}

/// As a security module refuses it: the client stays in the queue.
#[test]
fn an_accept_that_keeps_failing_does_not_spin_and_works_again_afterwards() {
    if !require(&[Need::Root, Need::Tool("strace")]) {
        return;
    }
    let scene = scene("");
    let tampering = tamper(&scene.proxy, "worker-0", "accept4:error=EPERM");
    let mut client = Peer::connect(scene.port);
    let line = scene
        .proxy
        .wait_for_line(0, "accepting keeps failing: not accepting for a moment");
    assert_eq!(line.text("errno"), "Operation not permitted");
    scene.proxy.rests();
    // For ever is long: in the end it is closed, with who waits in its queue, and tried anew.
    scene
        .proxy
        .wait_for_line(0, "listener lost; it is closed and will be opened again");
    client.expect_reset();
    let metrics = scene.proxy.metrics();
    assert_eq!(
        metrics.sum("tml_proxy_accept_errors_total", &[("cause", "fatal")]),
        1
    );
    drop(tampering);
    wait_until("the proxy to be ready", || is_ready(&scene.proxy));
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"hello");
    drop((client, server));
    scene.finish();
}

/// The example's echo service is a task of the control plane, and loses its listener like any other.
#[test]
fn a_task_that_fails_is_named_everywhere_and_works_again() {
    if !require(&[Need::Root, Need::Tool("ip"), Need::Tool("ss")]) {
        return;
    }
    const FAILURES: &str = "tml_proxy_task_failures_total";
    let netns = Netns::new("echo");
    let setup = Setup {
        netns: Some(&netns),
        ..Setup::default()
    };
    let proxy = Proxy::start_without_file(&setup, &[]);
    let mut before = netns.run(|| Peer::connect(7007));
    before.send(b"hello");
    before.expect(b"hello");
    assert_eq!(proxy.metrics().sum(FAILURES, &[]), 0);
    netns.run(|| kill_listener(7008));
    let line = proxy.wait_for_line(
        0,
        "the example's echo service ended; it will be started again",
    );
    assert_eq!(line.text("level"), "ERROR");
    proxy.wait_until(FAILURES, &[("task", "echo")], 1);
    assert_eq!(proxy.metrics().sum(FAILURES, &[]), 1);
    let told = || proxy.page("/api/v1/status").1;
    wait_until("it to run again, with a warning", || {
        told().contains("The task echo of the control plane has failed 1 time and runs again")
    });
    let mut after = netns.run(|| Peer::connect(7007));
    after.send(b"again");
    after.expect(b"again");
    before.send(b"still here");
    before.expect(b"still here");
    drop((before, after));
    assert_eq!(proxy.stop().code(), Some(0));
}

#[test]
fn who_connected_before_the_process_began_is_served_from_a_socket_that_systemd_kept() {
    if !require(&[Need::Tool("systemd-socket-activate")]) {
        return;
    }
    let target = Target::bind();
    let (port, other) = (ports::free(), ports::free());
    let setup = Setup {
        through: with_kept_listeners(&[port, other]),
        ..Setup::default()
    };
    let early = thread::spawn(move || {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        wait_for("a listener", || Peer::try_connect_to(addr).ok())
    });
    let proxy = Proxy::start_with(&setup, &config([mapping("m", port, target.addr(), "")]));
    let mut client = early.join().expect("it connected");
    let mut server = target.accept();
    client.exchange(&mut server, b"hello");
    let inodes = process::listening_inodes(proxy.id(), port);
    assert_eq!(inodes.len(), 1);
    assert!(process::holds_socket(proxy.id(), inodes[0]));

    // No mapping is at the other, so it does not stay open.
    proxy.stops_listening(other);
    proxy.reload(&config([
        mapping("m", port, target.addr(), "backlog = 7"),
        mapping("n", other, target.addr(), ""),
    ]));
    assert_eq!(process::listening_inodes(proxy.id(), port), inodes);
    let mut late = Peer::connect(other);
    let mut server = target.accept();
    late.exchange(&mut server, b"hello");

    proxy.reload(&config([mapping("n", other, target.addr(), "")]));
    proxy.stops_listening(port);
    late.exchange(&mut server, b"still here");
}

#[test]
fn a_kept_socket_that_is_not_what_its_name_says_is_not_used() {
    if !require(&[Need::Tool("systemd-socket-activate")]) {
        return;
    }
    let target = Target::bind();
    let (port, elsewhere) = (ports::free(), ports::free());
    let mut through = with_kept_listeners(&[port]);
    *through.last_mut().expect("the port") = elsewhere.to_string();
    let setup = Setup {
        through,
        ..Setup::default()
    };
    let early = thread::spawn(move || {
        let addr = SocketAddr::from(([127, 0, 0, 1], elsewhere));
        wait_for("a listener", || Peer::try_connect_to(addr).ok())
    });
    let proxy = Proxy::start_with(&setup, &config([mapping("m", port, target.addr(), "")]));
    early.join().expect("it connected").expect_reset();
    proxy.stops_listening(elsewhere);
    let mut client = Peer::connect(port);
    client.exchange(&mut target.accept(), b"hello");
}

/// Of the algorithms two are in every kernel, as allowed to everybody: that of the system and reno.
#[test]
fn each_side_has_the_congestion_control_that_its_mapping_asks_for() {
    if !require(&[Need::Tool("ss")]) {
        return;
    }
    let scene = Scene::new("congestion = { client = \"reno\" }");
    let congestion = |port: u16| {
        let mut command = Command::new("ss");
        let output = process::output(command.args(["-tinHO", "sport", &format!("= :{port}")]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The ports of the proxy towards client and target.
    let pair = || {
        let (mut client, mut server) = scene.pair();
        client.exchange(&mut server, b"hello");
        let towards_target = server.stream().peer_addr().expect("connected").port();
        (client, server, towards_target)
    };
    let has_reno = |port: u16| congestion(port).contains(" reno ");
    let (_client, _server, _) = pair();
    assert!(has_reno(scene.port), "{}", congestion(scene.port));

    scene
        .proxy
        .reload(&scene.config("congestion = { target = \"reno\" }"));
    let (_client, _server, towards_target) = pair();
    assert!(has_reno(towards_target), "{}", congestion(towards_target));

    let failed = scene
        .proxy
        .reload_fails(&scene.config("congestion = { client = \"nowhere\" }"));
    let said = failed.text("error");
    assert!(
        said.contains("net.ipv4.tcp_available_congestion_control = "),
        "{said}"
    );
}
