//! Two thousand sessions of all kinds at once, and clients that arrive meanwhile.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::{
    harness::{Line, Peer, Proxy, Stream, Target, figure, mapping, ports, process, wait_until},
    stage::Stage,
};

const UPGRADES: u64 = 20;

/// After so many upgrades those come whose time is short: sessions that break and whose clients do not
/// read are waited for for a minute, and the kernel dials for two.
const BREAK_AT: u64 = 17;

/// How many sessions there are of each kind.
const IDLE: u64 = 1500;
const KEYSTROKES: u64 = 200;
const HALF_CLOSED: u64 = 100;
const HEADERS: u64 = 100;
const BLOCKED: u64 = 40;
const THROTTLED: u64 = 40;
const DIALLING: u64 = 10;
const SETTLING: u64 = 8;
const BULK: u64 = 2;

const ALL: u64 =
    IDLE + KEYSTROKES + HALF_CLOSED + HEADERS + BLOCKED + THROTTLED + DIALLING + SETTLING + BULK;

/// What each throttled session is sent: all of them share ten MiB a second.
const SHARE: u64 = 2_000_000;

/// More than the host of a client takes in that has little room.
const TOO_MUCH: u64 = 60_000;

/// A client that has room for little that it does not read.
fn narrow_client(port: u16) -> Peer {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Peer::connect_prepared(addr, |socket| {
        socket.set_recv_buffer_size(4096).expect("any size");
    })
}

fn many(count: u64, pair: impl Fn() -> (Peer, Peer)) -> Vec<(Peer, Peer)> {
    (0..count).map(|_| pair()).collect()
}

/// Both directions at once, as fast as they go, until told to stop; how many bytes each received.
fn bulk(sessions: &[(Peer, Peer)], stop: &AtomicBool) -> u64 {
    let bytes = AtomicU64::new(0);
    thread::scope(|scope| {
        for (number, (client, server)) in (1..).zip(sessions) {
            for (from, to, seed) in [(client, server, number), (server, client, 100 + number)] {
                let (mut from, mut to, bytes) = (from.twin(), to.twin(), &bytes);
                let sent = scope.spawn(move || {
                    let mut stream = Stream::new(seed);
                    while !stop.load(Relaxed) {
                        let end = stream.position() + (1 << 20);
                        from.send_stream(&mut stream, end);
                        // Others have something to do, too.
                        thread::sleep(Duration::from_millis(5));
                    }
                    from.finish();
                    stream.position()
                });
                scope.spawn(move || {
                    let mut stream = Stream::new(seed);
                    // More than it is sent: what comes is checked up to its end.
                    receive_whole(&mut to, &mut stream);
                    assert_eq!(stream.position(), sent.join().expect("no panic"));
                    bytes.fetch_add(stream.position(), Relaxed);
                });
            }
        }
    });
    bytes.into_inner()
}

fn receive_whole(peer: &mut Peer, stream: &mut Stream) {
    let mut bytes = vec![0; 256 << 10];
    loop {
        match std::io::Read::read(&mut peer.stream(), &mut bytes) {
            Ok(0) => return,
            Ok(length) => stream.check(&bytes[..length]),
            Err(error) => panic!("{error} after {} bytes", stream.position()),
        }
    }
}

/// Clients that come, say something, hear it again and go, one after the other, until told to stop;
/// how many there were. None is refused.
fn arrivals(port: u16, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Relaxed) {
        let mut client = Peer::connect(port);
        client.send(b"hello");
        client.expect(b"hello");
        client.finish();
        client.expect_end();
        count += 1;
    }
    count
}

/// Serves each connection until a client says something else.
fn echo(target: &Target) {
    loop {
        let mut peer = target.accept();
        let mut word = [0; 5];
        match std::io::Read::read_exact(&mut peer.stream(), &mut word) {
            Ok(()) if word == *b"hello" => {}
            _ => return,
        }
        peer.send(&word);
        peer.expect_end();
    }
}

/// The line of the session that a client had in a mapping: those of another may have had its port.
fn ended(proxy: &Proxy, mapping: &str, client: SocketAddr) -> Line {
    let client = client.to_string();
    let what = format!("the session of {client}");
    proxy.log().wait(0, &what, |line| {
        line.message() == "session ended"
            && (line.text("mapping"), line.text("client")) == (mapping, &client[..])
    })
}

/// Has the others stop, too, if something is wrong.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn nobody_among_two_thousand_sessions_of_all_kinds_notices_twenty_upgrades() {
    let [throttled, fronts, away, arriving] = [(); 4].map(|()| ports::free());
    let [slow, behind, echoing] = [(); 3].map(|()| Target::bind());
    let (full, _fillers) = Target::full();
    let share = "bandwidth = { rate = \"10MiB\", burst = \"64KiB\" }\n";
    let trusted = "accept_proxy = [\"127.0.0.0/8\"]\nproxy_header_timeout = \"1h\"\n";
    let sections = [
        mapping("throttled", throttled, slow.addr(), share),
        mapping("fronts", fronts, behind.addr(), trusted),
        mapping("away", away, full.addr(), "connect_timeout = \"1h\"\n"),
        mapping("arriving", arriving, echoing.addr(), ""),
    ];
    let stage = Stage::new(&sections.concat(), "");
    let (scene, proxy) = (&stage.scene, &stage.scene.proxy);

    let idle = many(IDLE, || scene.pair());
    let mut keystrokes = many(KEYSTROKES, || scene.pair());
    let mut half_closed = many(HALF_CLOSED, || {
        let (mut client, mut server) = scene.pair();
        client.send(b"question");
        client.finish();
        server.expect(b"question");
        server.expect_end();
        (client, server)
    });
    let headers: Vec<Peer> = (0..HEADERS)
        .map(|_| {
            let mut front = Peer::connect(fronts);
            front.send(b"PROXY TCP4 192.0.2.1 ");
            front
        })
        .collect();
    let mut blocked: Vec<_> = (0..BLOCKED)
        .map(|number| {
            let client = narrow_client(scene.port);
            let mut server = scene.target.accept();
            let mut sent = Stream::new(1000 + number);
            server.offer_stream(&mut sent, 20_000_000, Duration::from_millis(20));
            (client, server, sent)
        })
        .collect();
    let metrics = proxy.metrics();
    assert!(
        metrics.sum("tml_proxy_pipes_in_use", &[]) > 0,
        "none waits in a pipe"
    );
    let mut dialling = Vec::new();
    let mut settling: Vec<_> = (0..SETTLING)
        .map(|_| (narrow_client(scene.port), Some(scene.target.accept())))
        .collect();
    let bulky = many(BULK, || scene.pair());
    let slowed = many(THROTTLED, || (Peer::connect(throttled), slow.accept()));
    proxy.wait_until("tml_proxy_sessions_open", &[], ALL - DIALLING);

    let stop = AtomicBool::new(false);
    let (mut memory, mut descriptors) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let stopping = Stop(&stop);
        let bulk = scope.spawn(|| bulk(&bulky, &stop));
        scope.spawn(|| echo(&echoing));
        let arrivals = scope.spawn(|| arrivals(arriving, &stop));
        for (number, (client, server)) in (2000..).zip(&slowed) {
            let (mut client, mut server) = (client.twin(), server.twin());
            scope.spawn(move || {
                server.send_stream(&mut Stream::new(number), SHARE);
                client.expect_stream(&mut Stream::new(number), SHARE);
            });
        }
        for round in 1..=UPGRADES {
            for (client, server) in &mut keystrokes {
                let key = format!("key {round}");
                client.send(key.as_bytes());
                server.expect(key.as_bytes());
                server.send(b"echo");
            }
            let upgraded = stage.upgrade();
            assert!(
                upgraded["sessions"].as_u64() >= Some(ALL - DIALLING),
                "{upgraded}"
            );
            let metrics = proxy.metrics();
            let open = ["m", "throttled", "fronts"]
                .map(|name| metrics.sum("tml_proxy_sessions_open", &[("mapping", name)]));
            assert_eq!(
                open,
                [ALL - DIALLING - THROTTLED - HEADERS, THROTTLED, HEADERS]
            );
            for (client, _) in &mut keystrokes {
                client.expect(b"echo");
            }
            if round == BREAK_AT {
                dialling.extend((0..DIALLING).map(|_| Peer::connect(away)));
                for (number, (_, server)) in (3000..).zip(&mut settling) {
                    let mut server = server.take().expect("it is there");
                    server.send_stream(&mut Stream::new(number), TOO_MUCH);
                    server.reset();
                }
                proxy.wait_until_metrics("sessions to settle", |_| {
                    let (_, sessions) = proxy.page("/api/v1/sessions?limit=10000");
                    sessions.matches("\"ending\"").count() == SETTLING as usize
                });
            }
            memory.push(process::resident_kib(proxy.id()));
            descriptors.push(process::descriptors(proxy.id()));
        }
        for (number, (client, _)) in (3000..).zip(&mut settling) {
            let received = client.receive_until_reset();
            Stream::new(number).check(&received);
            assert_eq!(received.len() as u64, TOO_MUCH);
        }
        for mut client in dialling {
            let addr = client.addr();
            client.send(b"is anybody there?");
            client.reset();
            assert_eq!(ended(proxy, "away", addr).text("reason"), "client_gone");
        }
        drop(stopping);
        figure(
            "clients that arrived during twenty upgrades",
            arrivals.join().expect("no panic"),
        );
        let bytes = bulk.join().expect("no panic");
        figure("bytes of bulk during twenty upgrades", bytes);
        // Nobody else comes.
        Peer::connect(arriving).send(b"adieu");
    });
    assert_eq!(process::with_descendants(proxy.id()), [proxy.id()]);
    println!("KiB after each upgrade: {memory:?}, descriptors: {descriptors:?}");
    let last = |all: &[usize]| *all.last().expect("there were some");
    assert!(last(&descriptors) < descriptors[1] + 100, "{descriptors:?}");
    let least = memory[15..].iter().min();
    assert!(least < Some(&(memory[1] * 5 / 4)), "{memory:?}");

    for (client, server) in &mut half_closed {
        server.send(b"answer");
        client.expect(b"answer");
        server.finish();
        client.expect_end();
    }
    for (mut front, number) in headers.into_iter().zip(1000..) {
        front.send(format!("192.0.2.2 {number} 22\r\nhello").as_bytes());
        let mut server = behind.accept();
        server.expect(b"hello");
        server.exchange(&mut front, b"go on");
    }
    for (number, (client, server, sent)) in (1000..).zip(&mut blocked) {
        server.finish();
        let mut received = Stream::new(number);
        client.expect_stream(&mut received, sent.position());
        client.expect_end();
    }
    for (client, server) in idle.iter().take(20).chain(&keystrokes) {
        client.twin().exchange(&mut server.twin(), b"still there");
    }
    let addr = idle[0].0.addr();
    drop((
        idle,
        keystrokes,
        half_closed,
        blocked,
        settling,
        bulky,
        slowed,
    ));
    assert_eq!(ended(proxy, "m", addr).number("upgrades"), UPGRADES);
    wait_until("all sessions to end", || {
        proxy.metrics().sum("tml_proxy_sessions_open", &[]) == 0
    });
    let metrics = proxy.metrics();
    let ended = |reason| metrics.sum("tml_proxy_sessions_ended_total", &[("reason", reason)]);
    assert_eq!(ended("target_reset"), SETTLING);
    assert_eq!(ended("client_gone"), DIALLING);
    let opened = metrics.sum("tml_proxy_sessions_opened_total", &[("mapping", "m")]);
    assert_eq!(opened, ALL - HEADERS - THROTTLED - DIALLING);
    stage.scene.finish();
}
