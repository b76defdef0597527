//! Mappings that come, go, move, grow and shrink.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::unix::fs::symlink,
};

use super::{
    counts,
    harness::{Peer, Proxy, Scene, Target, config, mapping, ports, process::listening_inodes},
    leads_to,
};

#[test]
fn a_mapping_is_added_and_removed() {
    let scene = Scene::new("");
    let other = Target::bind();
    let port = ports::free();
    let more = mapping("n", port, other.addr(), "");
    scene.proxy.stops_listening(port);
    let line = scene.proxy.reload(&(scene.config("") + &more));
    assert_eq!(counts(&line), [1, 0, 0, 0, 1]);
    leads_to(port, &other);
    leads_to(scene.port, &scene.target);
    assert_eq!(scene.proxy.metrics().sum("tml_proxy_listeners", &[]), 2);

    let line = scene.proxy.reload(&scene.config(""));
    assert_eq!(counts(&line), [0, 1, 0, 0, 1]);
    scene.proxy.stops_listening(port);
    leads_to(scene.port, &scene.target);
    scene.proxy.settles();
    let metrics = scene.proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_listeners", &[]), 1);
    let gone = [("mapping", "n")];
    assert!(
        !metrics.has("tml_proxy_sessions_open", &gone),
        "series of a mapping that is gone, without sessions, go too"
    );
    scene.finish();
}

#[test]
fn a_mapping_that_moves_leads_new_clients_to_the_new_target() {
    let scene = Scene::new("");
    let before = listening_inodes(scene.proxy.id(), scene.port);
    let other = Target::bind();
    let moved = config([mapping("m", scene.port, other.addr(), "")]);
    let line = scene.proxy.reload(&moved);
    assert_eq!(counts(&line), [0, 0, 1, 0, 0]);
    leads_to(scene.port, &other);
    assert_eq!(listening_inodes(scene.proxy.id(), scene.port), before);
    scene.finish();
}

/// A mapping is where it listens and where it leads; its name is only what it is called.
#[test]
fn a_mapping_with_a_new_name_keeps_its_socket_and_its_sessions() {
    let scene = Scene::new("on_remove = \"kill\"");
    let (mut client, mut server) = scene.pair();
    client.exchange(&mut server, b"before");
    let before = listening_inodes(scene.proxy.id(), scene.port);

    let more = "on_remove = \"kill\"";
    let renamed = config([mapping("new", scene.port, scene.target.addr(), more)]);
    let line = scene.proxy.reload(&renamed);
    assert_eq!(counts(&line)[..3], [0, 0, 0], "nothing came, went or moved");
    assert_eq!(listening_inodes(scene.proxy.id(), scene.port), before);
    scene
        .proxy
        .wait_until("tml_proxy_sessions_open", &[("mapping", "new")], 1);
    let metrics = scene.proxy.metrics();
    assert_eq!(
        metrics.sum("tml_proxy_sessions_open", &[("mapping", "m")]),
        0
    );
    client.exchange(&mut server, b"after");
    let addr = client.addr();
    drop((client, server));
    let line = scene.ends(addr, "closed", 11, 11);
    assert_eq!(line.text("mapping"), "new");
    scene.finish();
}

#[test]
fn swapped_names_keep_their_sockets() {
    let targets = [Target::bind(), Target::bind()];
    let [one, two] = [ports::free(), ports::free()];
    let file = |first: &str, second: &str| {
        config([
            mapping(first, one, targets[0].addr(), "on_remove = \"kill\""),
            mapping(second, two, targets[1].addr(), "on_remove = \"kill\""),
        ])
    };
    let proxy = Proxy::start(&file("a", "b"));
    let mut client = Peer::connect(one);
    let mut server = targets[0].accept();
    let inodes = [one, two].map(|port| listening_inodes(proxy.id(), port));
    proxy.reload(&file("b", "a"));
    assert_eq!(
        inodes,
        [one, two].map(|port| listening_inodes(proxy.id(), port))
    );
    client.exchange(&mut server, b"not affected");
    leads_to(one, &targets[0]);
    leads_to(two, &targets[1]);
    drop((client, server));
    proxy.settles();
}

#[test]
fn a_range_grows_and_shrinks_at_its_end() {
    let first_target = ports::range(8);
    let targets: Vec<Target> = (0..8)
        .map(|offset| Target::bind_to(([127, 0, 0, 1], first_target + offset).into()))
        .collect();
    let first = ports::range(8);
    let file = |count: u16| {
        config([mapping(
            "r",
            format!("{first}-{}", first + count - 1),
            format!("127.0.0.1:{first_target}"),
            "on_remove = \"kill\"",
        )])
    };
    let lead = |numbers: std::ops::Range<u16>| {
        for number in numbers {
            leads_to(first + number, &targets[usize::from(number)]);
        }
    };
    let proxy = Proxy::start(&file(4));
    lead(0..4);
    proxy.stops_listening(first + 4);
    let inodes = |proxy: &Proxy| {
        (0..2)
            .map(|number| listening_inodes(proxy.id(), first + number))
            .collect::<Vec<_>>()
    };
    let before = inodes(&proxy);
    let mut stays = Peer::connect(first + 1);
    let mut stays_end = targets[1].accept();
    let mut goes = Peer::connect(first + 2);
    let mut goes_end = targets[2].accept();

    let line = proxy.reload(&file(8));
    assert_eq!(counts(&line)[1..3], [0, 0], "nothing went or moved");
    lead(0..8);
    stays.exchange(&mut stays_end, b"grown");
    goes.exchange(&mut goes_end, b"grown");
    assert_eq!(proxy.metrics().sum("tml_proxy_listeners", &[]), 8);

    proxy.reload(&file(2));
    lead(0..2);
    (2..8).for_each(|number| proxy.stops_listening(first + number));
    assert_eq!(proxy.metrics().sum("tml_proxy_listeners", &[]), 2);
    assert_eq!(inodes(&proxy), before);
    stays.exchange(&mut stays_end, b"shrunk");
    goes.expect_reset();
    goes_end.expect_reset();
    let line = proxy.ended_session(goes.addr());
    assert_eq!(line.text("reason"), "mapping_removed");
    drop((stays, stays_end));
    proxy.settles();
}

/// Clients that wait in the queue of a listener that goes are served, not reset.
#[test]
fn clients_that_wait_when_their_mapping_goes_are_served() {
    let scene = Scene::new("");
    let other = mapping("n", ports::free(), scene.target.addr(), "");
    for _ in 0..20 {
        let mut clients: Vec<Peer> = (0..10).map(|_| Peer::connect(scene.port)).collect();
        scene.proxy.reload(&config([&other]));
        for client in &mut clients {
            scene.target.accept().send(b"served");
            client.expect(b"served");
            client.expect_end();
        }
        drop(clients);
        scene.proxy.reload(&(scene.config("") + &other));
    }
    scene.finish();
}

/// However the file comes to be another one.
#[test]
fn a_file_may_be_replaced_written_over_or_linked_to() {
    let scene = Scene::new("");
    let file = scene.proxy.file();
    let ports: Vec<u16> = (0..4).map(|_| ports::free()).collect();
    let text = |port: u16| config([mapping("m", port, scene.target.addr(), "")]);
    let takes_effect = |port: u16| {
        scene.proxy.reload_file();
        leads_to(port, &scene.target);
    };

    scene.proxy.write_config(&text(ports[0]));
    takes_effect(ports[0]);

    fs::write(&file, text(ports[1])).expect("own file");
    takes_effect(ports[1]);

    let dir = scene.proxy.dir();
    let [first, second] = [2, 3].map(|n| dir.write(&format!("{n}.toml"), text(ports[n])));
    fs::remove_file(&file).expect("own file");
    symlink(&first, &file).expect("a free name");
    takes_effect(ports[2]);

    // As configuration management does: a new link, put in place of the old one.
    let new = dir.join("new");
    symlink(&second, &new).expect("a free name");
    fs::rename(&new, &file).expect("both in one directory");
    takes_effect(ports[3]);
    scene.finish();
}

/// The kernel would refuse the new socket beside the old one, which the same reload closes.
#[test]
fn a_port_of_every_address_becomes_one_of_a_single_address_and_back() {
    let target = Target::bind();
    let port = ports::free();
    let file = |host: &str| {
        let listen = format!("{host}:{port}");
        config([mapping("m", listen, target.addr(), "on_remove = \"kill\"")])
    };
    let hosts = [
        ("*", true),
        ("127.0.0.1", true),
        ("0.0.0.0", true),
        ("*", true),
        ("[::]", false),
        ("[::1]", false),
        ("*", true),
        ("[::]", false),
        ("0.0.0.0", true),
        ("127.0.0.1", true),
        ("*", true),
    ];
    let leads = |ipv4: bool| {
        let host: IpAddr = match ipv4 {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        };
        let mut client = Peer::connect_to((host, port).into());
        let mut server = target.accept();
        client.exchange(&mut server, b"is it you?");
        (client, server)
    };
    let proxy = Proxy::start(&file(hosts[0].0));
    for pair in hosts.windows(2) {
        let (mut client, server) = leads(pair[0].1);
        let line = proxy.reload(&file(pair[1].0));
        let [_, _, retargeted, repolicied, unchanged] = counts(&line);
        assert_eq!([retargeted, repolicied, unchanged], [0, 0, 0], "{pair:?}");
        client.expect_reset();
        drop(server);
        assert_eq!(listening_inodes(proxy.id(), port).len(), 1);
        drop(leads(pair[1].1));
    }
    proxy.settles();
}

#[test]
fn several_addresses_give_way_to_a_port_of_all_and_nothing_changes_if_another_is_taken() {
    let target = Target::bind();
    let [port, taken] = [ports::free(), ports::free()];
    let file = |hosts: &[&str], more: Option<u16>| {
        let listens = hosts.iter().map(|host| format!("{host}:{port}"));
        let listens = listens
            .chain(more.map(|port| port.to_string()))
            .collect::<Vec<_>>();
        let addr = target.addr();
        config([format!(
            "[[mapping]]\nname = \"m\"\nlisten = {listens:?}\ntarget = \"{addr}\"\n"
        )])
    };
    let proxy = Proxy::start(&file(&["127.0.0.1", "[::1]"], None));
    let before = listening_inodes(proxy.id(), port);
    assert_eq!(before.len(), 2);

    let other = TcpListener::bind((Ipv6Addr::UNSPECIFIED, taken)).expect("a free port");
    let line = proxy.reload_fails(&file(&["*"], Some(taken)));
    let error = line.text("error");
    assert!(
        error.contains(&format!("cannot listen on *:{taken} ")),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(listening_inodes(proxy.id(), port), before);
    let foreign = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    assert!(foreign.is_err(), "the port is not shared any longer");
    leads_to(port, &target);
    drop(other);

    proxy.reload(&file(&["*"], Some(taken)));
    assert_eq!(listening_inodes(proxy.id(), port).len(), 1);
    leads_to(port, &target);
    proxy.settles();
}
