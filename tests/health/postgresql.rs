//! A pair of PostgreSQL servers, of which one is the primary.
//!
//! Each has a port for whoever asks how it is, as Patroni has: `/primary` is answered with 200 by the one
//! that holds the lead and takes writes. Who holds it, the test says.

use std::{
    fs,
    io::{Error, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::chown,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use rustix::process::Signal;

use crate::{
    answering,
    harness::{
        DEADLINE, Proxy, TempDir, ports,
        process::{self, Running},
        proxy::as_user,
        require::{Need, find_program, require},
        wait_for,
    },
    leading_to, loopback, refused, said,
};

/// A user with a name, which initdb(1) asks for, and without anything.
const NOBODY: u32 = 65_534;

/// The last parts of the servers' addresses.
const BOTH: [u8; 2] = [2, 3];

/// A command that NOBODY runs.
fn as_nobody(program: &Path) -> Command {
    let words = as_user(NOBODY);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(program);
    command
}

/// A session with a server, as far as a query needs one.
struct Client(TcpStream);

impl Client {
    fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut client = Self(stream);
        const VERSION: i32 = 3 << 16;
        let mut hello = VERSION.to_be_bytes().to_vec();
        hello.extend(b"user\0postgres\0database\0postgres\0\0");
        client.send(&hello)?;
        client.answer().map(|_| client)
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("it is connected")
    }

    /// Sends a message, the type of which has been sent.
    fn send(&mut self, body: &[u8]) -> Result<()> {
        let len = i32::try_from(body.len() + 4).expect("it is short");
        self.0.write_all(&[&len.to_be_bytes(), body].concat())
    }

    /// The last row of the answer: its only column.
    fn query(&mut self, sql: &str) -> Result<String> {
        self.0.write_all(b"Q")?;
        self.send(&[sql.as_bytes(), b"\0"].concat())?;
        self.answer()
    }

    /// What comes until the server is ready for a query.
    fn answer(&mut self) -> Result<String> {
        let (mut row, mut error) = (String::new(), None);
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let [kind, len @ ..] = head;
            let len = i32::from_be_bytes(len);
            let mut body = vec![0; usize::try_from(len - 4).map_err(Error::other)?];
            self.0.read_exact(&mut body)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            match kind {
                // A count of columns, then the length of the first.
                b'D' => row = text(&body[6..]),
                b'E' => error = Some(Error::other(text(&body))),
                b'Z' => return error.map_or(Ok(row), Err),
                _ => {}
            }
            // One that ends the session is the last message.
            if let Some(error) = error.take_if(|error| error.to_string().contains("FATAL")) {
                return Err(error);
            }
        }
    }
}

/// A server, until it is dropped.
struct Server {
    addr: SocketAddr,
    running: Running,
}

impl Server {
    fn start(data: &Path, addr: SocketAddr, settings: &[&str]) -> Self {
        let log = fs::File::create(data.with_extension("log")).expect("a fresh file");
        let mut command = as_nobody(&find_program("postgres").expect("it is beside initdb"));
        command.arg("-D").arg(data);
        let (host, port) = (addr.ip(), addr.port());
        for setting in [
            &*format!("listen_addresses={host}"),
            &format!("port={port}"),
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=1MB",
            "shared_memory_type=mmap",
            "dynamic_shared_memory_type=mmap",
        ]
        .iter()
        .chain(settings)
        {
            command.args(["-c", setting]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self {
            addr,
            running: Running::start(&mut command),
        }
    }

    /// A client of its own, once it is ready for one.
    #[track_caller]
    fn client(&self) -> Client {
        wait_for("a server to be ready", || Client::connect(self.addr).ok())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At once, its children too.
        self.running.signal(Signal::QUIT);
        self.running.wait();
    }
}

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
        fs::create_dir(&first).expect("a fresh directory");
        chown(&first, Some(NOBODY), Some(NOBODY)).expect("root may");
        let mut initdb = as_nobody(&find_program("initdb").expect("it was asked for"));
        initdb.args(["-U", "postgres", "-A", "trust", "--no-locale", "--no-sync"]);
        process::succeed(initdb.arg("-D").arg(&first));
        let trusted = "host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n";
        fs::write(first.join("pg_hba.conf"), trusted).expect("its file");
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
    if !require(&[Need::Root, Need::Tool("setpriv"), Need::Tool("initdb")]) {
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
        assert!(client.query("insert into kept values (9)").is_err());
        let line = proxy.ended_session(client.addr());
        assert_eq!(line.text("reason"), "target_down");
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
