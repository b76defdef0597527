//! How targets share the clients.

use crate::{
    Stage,
    harness::{Peer, Proxy, Target, config, ports},
    leading_to,
};

#[test]
fn clients_are_led_to_each_target_in_turn() {
    let stage = Stage::new(3, "");
    let held: Vec<_> = (0..9).map(|_| stage.pair()).collect();
    let order: Vec<_> = held.iter().map(|(_, number, _)| *number).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    drop(held);
    stage.finish();
}

#[test]
fn the_target_with_the_fewest_sessions_gets_the_next() {
    let stage = Stage::new(3, "balance = \"least-sessions\"");
    let mut held: Vec<_> = (0..6).map(|_| stage.pair()).collect();
    let load = |held: &[(Peer, usize, Peer)]| {
        [0, 1, 2].map(|target| held.iter().filter(|one| one.1 == target).count())
    };
    assert_eq!(load(&held), [2, 2, 2]);
    // Both sessions of one target end, and it gets the next two.
    let gone: Vec<_> = held.extract_if(.., |one| one.1 == 1).collect();
    for (client, _, server) in gone {
        let addr = client.addr();
        drop((client, server));
        stage.proxy.ended_session(addr);
    }
    held.extend([stage.pair(), stage.pair()]);
    assert_eq!(load(&held), [2, 2, 2]);
    drop(held);
    stage.finish();
}

#[test]
fn a_client_comes_back_to_the_same_target() {
    let stage = Stage::new(4, "balance = \"source\"");
    assert_eq!(stage.shares(20).len(), 1);
    stage.finish();
}

#[test]
fn the_first_target_has_all_sessions_until_it_is_full() {
    let targets: Vec<_> = (0..2).map(|_| Target::bind()).collect();
    let port = ports::free();
    let [first, second] = [0, 1].map(|number: usize| targets[number].addr());
    let list = format!(
        "{{ address = \"{first}\", max_sessions = 2 }}, {{ address = \"{second}\", max_sessions = 1 }}"
    );
    let proxy = Proxy::start(&leading_to(port, &list, "balance = \"first\""));
    let stage = Stage {
        proxy,
        targets,
        port,
    };
    let held: Vec<_> = (0..3).map(|_| stage.pair()).collect();
    let order: Vec<_> = held.iter().map(|(_, number, _)| *number).collect();
    assert_eq!(order, [0, 0, 1]);
    let mut late = Peer::connect(port);
    late.expect_reset();
    let line = stage.proxy.ended_session(late.addr());
    assert_eq!(
        (line.text("end"), line.text("reason")),
        ("PC", "target_full")
    );
    assert!(!line.has("target"), "it was led nowhere: {line}");
    // A place that was given back is taken again.
    let (client, _, server) = held.into_iter().next().expect("there are three");
    let addr = client.addr();
    drop((client, server));
    stage.proxy.ended_session(addr);
    let (_client, number, _server) = stage.pair();
    assert_eq!(number, 0);
}

#[test]
fn a_target_has_clients_in_proportion_to_its_weight() {
    let targets: Vec<_> = (0..2).map(|_| Target::bind()).collect();
    let port = ports::free();
    let text = config([format!(
        "\n[[mapping]]\nname = \"m\"\nlisten = {port}\n\
         [[mapping.target]]\naddress = \"{}\"\nweight = 3\n\
         [[mapping.target]]\naddress = \"{}\"\n",
        targets[0].addr(),
        targets[1].addr(),
    )]);
    let stage = Stage {
        proxy: Proxy::start(&text),
        targets,
        port,
    };
    let shares = stage.shares(12);
    let share = |number: usize| shares[&stage.targets[number].addr().to_string()];
    assert_eq!((share(0), share(1)), (9, 3));
    stage.finish();
}

#[test]
fn each_port_of_a_range_has_its_own_ports_of_all_targets() {
    let listen = ports::range(2);
    let first = ports::range(2);
    let second = ports::range(2);
    let local = |port: u16| Target::bind_to(([127, 0, 0, 1], port).into());
    let targets = [first, first + 1, second, second + 1].map(local);
    let text = config([format!(
        "\n[[mapping]]\nname = \"m\"\nlisten = \"{listen}-{}\"\n\
         target = [\"127.0.0.1:{first}-{}\", \"127.0.0.1:{second}\"]\n",
        listen + 1,
        first + 1,
    )]);
    let proxy = Proxy::start(&text);
    for (port, led) in [
        (listen, [&targets[0], &targets[2]]),
        (listen + 1, [&targets[1], &targets[3]]),
    ] {
        for target in led {
            let mut client = Peer::connect(port);
            client.exchange(&mut target.accept(), b"hello");
        }
    }
    let (_, mappings) = proxy.page("/api/v1/mappings");
    let range = format!(
        "127.0.0.1:{first}-{}, 127.0.0.1:{second}-{}",
        first + 1,
        second + 1
    );
    assert!(mappings.contains(&range), "{mappings}");
    proxy.settles();
}
