//! Clients that wait until a target has room.

use std::{io::Read, process::Command, time::Duration};

use rustix::process::Signal;

use crate::harness::{
    Peer, Proxy, Target, TempDir, config, ports, process, proxy::PROGRAM, wait_until,
};

/// A proxy of two workers whose mapping leads to one target with so much room, and its two ports, one
/// on each worker.
struct Narrow {
    proxy: Proxy,
    target: Target,
    ports: [u16; 2],
}

impl Narrow {
    fn new(max_sessions: u32, queue: &str) -> Self {
        let target = Target::bind();
        let ports = [ports::free(), ports::free()];
        let text = format!(
            "[process]\nworkers = 2\n\
             [[mapping]]\nname = \"m\"\nlisten = {ports:?}\nqueue = {queue}\n\
             target = {{ address = \"{}\", max_sessions = {max_sessions} }}\n",
            target.addr(),
        );
        Self {
            proxy: Proxy::start(&config([text])),
            target,
            ports,
        }
    }

    /// A client that has its session.
    fn pair(&self) -> (Peer, Peer) {
        let mut client = Peer::connect(self.ports[0]);
        let mut server = self.target.accept();
        client.exchange(&mut server, b"hello");
        (client, server)
    }

    /// Clients that come one after the other, to each port in turn, and wait.
    fn queue_up(&self, names: &[u8]) -> Vec<Peer> {
        let before = self.queued();
        let each = names.iter().enumerate().map(|(number, name)| {
            let mut client = Peer::connect(self.ports[number % 2]);
            client.send(&[*name]);
            self.wait_queued(before + number + 1);
            client
        });
        each.collect()
    }

    fn queued(&self) -> usize {
        let (_, sessions) = self.proxy.page("/api/v1/sessions");
        sessions.matches("\"queued\"").count()
    }

    #[track_caller]
    fn wait_queued(&self, count: usize) {
        wait_until("clients to wait", || self.queued() == count);
    }

    /// The next client at the target, which has that name.
    #[track_caller]
    fn serves(&self, name: u8) -> Peer {
        let mut server = self.target.accept();
        server.expect(&[name]);
        server
    }
}

#[test]
fn clients_wait_in_the_order_in_which_they_came_until_a_target_has_room() {
    let narrow = Narrow::new(2, "{ max = 4, timeout = \"10m\" }");
    let held = [narrow.pair(), narrow.pair()];
    let mut waiting = narrow.queue_up(b"abcd");
    let mut late = Peer::connect(narrow.ports[1]);
    late.expect_reset();
    let line = narrow.proxy.ended_session(late.addr());
    assert_eq!(
        (line.text("end"), line.text("reason")),
        ("PC", "queue_full")
    );
    assert!(!narrow.target.is_called(Duration::from_millis(100)));
    let mut served = Vec::new();
    for (held, name) in held.into_iter().zip(*b"ab") {
        drop(held);
        served.push(narrow.serves(name));
    }
    assert!(!narrow.target.is_called(Duration::from_millis(100)));
    for name in *b"cd" {
        drop((waiting.remove(0), served.remove(0)));
        served.push(narrow.serves(name));
    }
    drop((waiting, served));
    narrow.proxy.settles();
}

#[test]
fn clients_that_go_leave_the_queue() {
    let narrow = Narrow::new(1, "{ max = 3, timeout = \"10m\" }");
    let held = narrow.pair();
    let mut waiting = narrow.queue_up(b"abc");
    // One is reset in the middle, the first says nothing and closes.
    let gone = waiting.remove(1);
    let addr = gone.addr();
    gone.reset();
    let line = narrow.proxy.ended_session(addr);
    assert_eq!(
        (line.text("end"), line.text("reason")),
        ("CC", "client_gone")
    );
    let silent = Peer::connect(narrow.ports[0]);
    narrow.wait_queued(3);
    let addr = silent.addr();
    drop(silent);
    assert_eq!(
        narrow.proxy.ended_session(addr).text("reason"),
        "client_gone"
    );
    // There is room in the queue again.
    waiting.extend(narrow.queue_up(b"d"));
    // Who has said something may have said all it has to say.
    waiting[0].finish();
    drop(held);
    for name in *b"acd" {
        let mut server = narrow.serves(name);
        if name == b'a' {
            server.expect_end();
        }
        drop((waiting.remove(0), server));
    }
    narrow.proxy.settles();
}

#[test]
fn nobody_who_waits_is_served_or_told_to_go_while_the_mapping_is_paused() {
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    let target = Target::bind();
    let (ports, addr) = ([ports::free(), ports::free()], target.addr());
    let text = |timeout: &str| {
        config([format!(
            "[admin]\nsocket = {socket:?}\n[process]\nworkers = 2\n\
             [[mapping]]\nname = \"m\"\nlisten = {ports:?}\n\
             queue = {{ max = 9, timeout = \"{timeout}\" }}\n\
             target = {{ address = \"{addr}\", max_sessions = 1 }}\n"
        )])
    };
    let operate = |what: &str| {
        let mut command = Command::new(PROGRAM);
        process::succeed(command.arg(what).arg("m").arg("--socket").arg(&socket));
    };
    let narrow = Narrow {
        proxy: Proxy::start(&text("10m")),
        target,
        ports,
    };
    let held = narrow.pair();
    let mut waiting = narrow.queue_up(b"ab");
    operate("pause");
    // Their time is over at once, and there is room.
    narrow.proxy.reload(&text("1ms"));
    drop(held);
    assert!(!narrow.target.is_called(Duration::from_millis(200)));
    narrow.wait_queued(2);
    narrow.proxy.signal(Signal::USR2);
    narrow.proxy.wait_for_line(0, "upgraded");
    narrow.wait_queued(2);
    narrow.proxy.reload(&text("10m"));
    assert!(!narrow.target.is_called(Duration::from_millis(100)));
    operate("resume");
    for name in *b"ab" {
        let mut server = narrow.serves(name);
        server.exchange(&mut waiting.remove(0), b"welcome");
    }
    narrow.proxy.settles();
}

#[test]
fn a_client_that_has_waited_for_too_long_is_told() {
    let narrow = Narrow::new(1, "{ max = 3, timeout = \"200ms\" }");
    let _held = narrow.pair();
    let mut client = Peer::connect(narrow.ports[1]);
    client.expect_reset();
    let line = narrow.proxy.ended_session(client.addr());
    assert_eq!(
        (line.text("end"), line.text("reason")),
        ("sQ", "queue_timeout")
    );
    assert_eq!(narrow.queued(), 0);
}

#[test]
fn how_long_a_client_waited_in_vain_is_in_the_log() {
    let narrow = Narrow::new(1, "{ max = 3, timeout = \"200ms\" }");
    let _held = narrow.pair();
    let mut client = Peer::connect(narrow.ports[1]);
    client.expect_reset();
    let line = narrow.proxy.ended_session(client.addr());
    assert!(line.number("duration_ms") >= 200, "{line:?}");
}

#[test]
fn an_operator_can_end_clients_that_wait() {
    let narrow = Narrow::new(1, "{ max = 3, timeout = \"10m\" }");
    let _held = narrow.pair();
    let waiting = narrow.queue_up(b"ab");
    let text = config([format!(
        "[process]\nworkers = 2\n[[mapping]]\nname = \"other\"\nlisten = {}\ntarget = \"{}\"\n",
        ports::free(),
        narrow.target.addr(),
    )]);
    narrow.proxy.reload(&text);
    for mut client in waiting {
        client.expect_reset();
        let line = narrow.proxy.ended_session(client.addr());
        assert_eq!(line.text("reason"), "mapping_removed");
    }
}

#[test]
fn who_waits_keeps_its_place_through_an_upgrade() {
    let narrow = Narrow::new(1, "{ max = 9, timeout = \"10m\" }");
    let held = narrow.pair();
    let mut waiting = narrow.queue_up(b"abcde");
    for _ in 0..3 {
        let from = narrow.proxy.log().len();
        narrow.proxy.signal(Signal::USR2);
        let line = narrow.proxy.wait_for_line(from, "upgraded");
        assert_eq!(line.number("sessions"), 6);
        narrow.wait_queued(5);
    }
    waiting.extend(narrow.queue_up(b"f"));
    drop(held);
    for name in *b"abcdef" {
        let mut server = narrow.serves(name);
        let mut client = waiting.remove(0);
        server.exchange(&mut client, b"welcome");
    }
    narrow.proxy.settles();
}

#[test]
fn a_target_that_is_added_serves_those_who_wait() {
    let narrow = Narrow::new(1, "{ max = 9, timeout = \"10m\" }");
    let mut held = narrow.pair();
    let mut waiting = narrow.queue_up(b"ab");
    let more = Target::bind();
    narrow.proxy.reload(&config([format!(
        "[process]\nworkers = 2\n\
         [[mapping]]\nname = \"m\"\nlisten = {:?}\nqueue = {{ max = 9, timeout = \"10m\" }}\n\
         [[mapping.target]]\naddress = \"{}\"\nmax_sessions = 1\n\
         [[mapping.target]]\naddress = \"{}\"\nmax_sessions = 2\n",
        narrow.ports,
        narrow.target.addr(),
        more.addr(),
    )]));
    // Both have room at once.
    let mut names = Vec::new();
    let served = [more.accept(), more.accept()].map(|mut server| {
        let mut name = [0];
        let read = server.stream().read_exact(&mut name);
        read.expect("its name");
        names.push(name[0]);
        server.send(b"welcome");
        server
    });
    names.sort_unstable();
    assert_eq!(names, *b"ab");
    for client in &mut waiting {
        client.expect(b"welcome");
    }
    drop((waiting, served));
    held.0.exchange(&mut held.1, b"still there");
    drop(held);
    narrow.proxy.settles();
}
