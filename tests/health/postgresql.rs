//! A pair of PostgreSQL servers, of which one is the primary.
//!
//! Each has a port for whoever asks how it is, as Patroni has: `/primary` is answered with 200 by the one
//! that holds the lead and takes writes. Who holds it, the test says.

use std::{
    fs,
    io::Write,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use crate::{
    answering,
    harness::{
        Proxy, TempDir, ports,
        postgresql::{Client, NEEDS, Server, fresh_data},
        process,
        require::require,
    },
    leading_to, loopback, refused, said,
};

/// The last parts of the servers' addresses.
const BOTH: [u8; 2] = [2, 3];

struct Pair {
    primary: Server,
    standby: Server,
    /// The port where each is asked how it is.
    health: u16,
    /// Which one holds the lead, by the last part of its address.
    leader: Arc<AtomicU8>,
    _dir: TempDir,
}

impl Pair {
    /// A primary and its standby, which has all that is committed.
    fn start() -> Self {
        let dir = TempDir::new();
        let [first, second] = ["first", "second"].map(|name| dir.join(name));
        fresh_data(&first);
        process::succeed(Command::new("cp").arg("-a").args([&first, &second]));
        fs::write(second.join("standby.signal"), "").expect("a fresh file");
        let port = ports::free();
        let [addr, other] = BOTH.map(|last| loopback(last, port));
        let primary = Server::start(&first, addr, &["synchronous_standby_names=*"]);
        let from = format!(
            "primary_conninfo=host={} port={port} user=postgres",
            addr.ip()
        );
        let standby = Server::start(&second, other, &[&from]);
        let leader = Arc::new(AtomicU8::new(BOTH[0]));
        let health = ports::free();
        for last in BOTH {
            let leader = Arc::clone(&leader);
            answering(loopback(last, health), move |asked, mut client| {
                let takes_writes = || {
                    let mut database = Client::connect(loopback(last, port))?;
                    database.query("select not pg_is_in_recovery()")
                };
                let leads = asked.starts_with("GET /primary ") && leader.load(Relaxed) == last;
                let status = match leads && takes_writes().is_ok_and(|answer| answer == "t") {
                    true => "200 OK",
                    false => "503 Service Unavailable",
                };
                let _ = write!(client, "HTTP/1.0 {status}\r\n\r\n{{}}");
            });
        }
        Self {
            primary,
            standby,
            health,
            leader,
            _dir: dir,
        }
    }
}

/// Where a session is, and whether that is a standby.
fn place(client: &mut Client) -> String {
    let sql = "select host(inet_server_addr()) || ' ' || pg_is_in_recovery()";
    client.query(sql).expect("an answer")
}

#[test]
fn sessions_follow_the_primary_of_postgresql_and_leave_the_former_one() {
    if !require(&NEEDS) {
        return;
    }
    let pair = Pair::start();
    drop((pair.primary.client(), pair.standby.client()));
    let (first, second) = (pair.primary.addr, pair.standby.addr);
    let port = ports::free();
    let check = format!(
        "on_down = \"kill\"\n\
         check = {{ every = \"200ms\", rise = 1, fall = 1, http = \"/primary\", port = {} }}",
        pair.health
    );
    let proxy = Proxy::start(&leading_to(port, &[second, first], &check));
    said(&proxy, 0, "target is up", first);
    let line = said(&proxy, 0, "target is down", second);
    assert_eq!(line.text("error"), "the answer has status 503");
    let connect = || Client::connect(loopback(1, port)).expect("a session");
    let mut clients: Vec<_> = (0..3).map(|_| connect()).collect();
    for client in &mut clients {
        assert_eq!(place(client), "127.0.0.2 false");
    }
    clients[0]
        .query("create table kept (n int)")
        .expect("it takes writes");
    for (number, client) in clients.iter_mut().enumerate() {
        let sql = format!("insert into kept values ({number})");
        client.query(&sql).expect("it takes writes");
    }

    // The primary gives up the lead before the standby takes it, and goes on running.
    let from = proxy.log().len();
    pair.leader.store(0, Relaxed);
    said(&proxy, from, "target is down", first);
    for client in &mut clients {
        let line = proxy.ended_session(client.addr());
        assert_eq!(line.text("reason"), "target_down");
        assert!(client.query("insert into kept values (9)").is_err());
    }
    refused(&proxy, port, "no_target");
    let promoted = pair.standby.client().query("select pg_promote()");
    assert_eq!(promoted.expect("an answer"), "t");
    pair.leader.store(BOTH[1], Relaxed);
    said(&proxy, from, "target is up", second);
    let mut clients: Vec<_> = (0..3).map(|_| connect()).collect();
    for client in &mut clients {
        assert_eq!(place(client), "127.0.0.3 false");
        client
            .query("insert into kept values (3)")
            .expect("it takes writes");
    }

    // The former one may go altogether.
    drop(pair.primary);
    for client in &mut clients {
        let count = client.query("select count(*) from kept");
        assert_eq!(count.expect("an answer"), "6");
    }
    drop(clients);
    proxy.settles();
}
