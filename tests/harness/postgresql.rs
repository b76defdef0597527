//! Servers of PostgreSQL, each with data of its own, run by a user who has nothing else.

use std::{
    fs,
    io::{Error, Read, Result, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rustix::process::Signal;

use super::{
    DEADLINE, TempDir, ports,
    process::{self, Running},
    proxy::as_user,
    require::{Need, find_program},
    wait_for, wait_until,
};

/// What it takes to run one.
pub const NEEDS: [Need; 3] = [Need::Root, Need::Tool("setpriv"), Need::Tool("initdb")];

/// A user with a name, which initdb(1) asks for, and without anything.
pub const NOBODY: u32 = 65_534;

/// A command that NOBODY runs.
pub fn as_nobody(program: &Path) -> Command {
    let words = as_user(NOBODY);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(program);
    command
}

/// A session with a server, as far as a query needs one.
pub struct Client(TcpStream);

impl Client {
    /// One of the superuser with the database of that name.
    pub fn connect(addr: SocketAddr) -> Result<Self> {
        Self::connect_to(addr, "postgres")
    }

    /// One of the superuser with a database.
    pub fn connect_to(addr: SocketAddr, database: &str) -> Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        let mut client = Self(stream);
        const VERSION: i32 = 3 << 16;
        let mut hello = VERSION.to_be_bytes().to_vec();
        hello.extend(format!("user\0postgres\0database\0{database}\0\0").bytes());
        client.send(&hello)?;
        client.answer().map(|_| client)
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("it is connected")
    }

    /// Sends a message, the type of which has been sent.
    fn send(&mut self, body: &[u8]) -> Result<()> {
        let len = i32::try_from(body.len() + 4).expect("it is short");
        self.0.write_all(&[&len.to_be_bytes(), body].concat())
    }

    /// The last row of the answer: its only column.
    pub fn query(&mut self, sql: &str) -> Result<String> {
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
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    running: Running,
}

impl Server {
    /// Starts one that has data already.
    pub fn start(data: &Path, addr: SocketAddr, settings: &[&str]) -> Self {
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
    pub fn client(&self) -> Client {
        wait_for("a server to be ready", || Client::connect(self.addr).ok())
    }
}

impl Server {
    /// Has it and everything that it has started stand still, or go on.
    pub fn hold(&self, signal: Signal) {
        for pid in process::with_descendants(self.running.id()) {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            // What has ended meanwhile stands still.
            let _ = pid.map(|pid| rustix::process::kill_process(pid, signal));
        }
    }

    /// Kills it and everything that it has started, so that nothing is put in order.
    pub fn kill(&mut self) {
        for pid in process::with_descendants(self.running.id()) {
            process::kill(pid);
        }
        self.running.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.running.has_ended() {
            // At once, its children too.
            self.running.signal(Signal::QUIT);
            self.running.wait();
        }
    }
}

/// Data of a server, as they are after initdb(1).
fn init(data: &Path) {
    fs::create_dir(data).expect("a fresh directory");
    chown(data, Some(NOBODY), Some(NOBODY)).expect("root may");
    let mut initdb = as_nobody(&find_program("initdb").expect("it was asked for"));
    initdb.args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-locale",
        "--no-sync",
        "--wal-segsize=1",
    ]);
    process::succeed(initdb.arg("-D").arg(data));
    let access = "host all postgres 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n\
                  host all all 127.0.0.0/8 scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), access).expect("its file");
}

/// Makes data of a server in a directory: initdb(1) runs once for all tests that run at a time.
pub fn fresh_data(data: &Path) {
    static TEMPLATE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut known = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    let template = known.upgrade().unwrap_or_else(|| {
        let template = TempDir::new();
        init(&template.join("data"));
        let template = Arc::new(template);
        *known = Arc::downgrade(&template);
        template
    });
    drop(known);
    process::succeed(
        Command::new("cp")
            .arg("-a")
            .args([&template.join("data"), data]),
    );
}

/// A server with its data and a certificate for localhost.
pub struct Cluster {
    pub server: Server,
    data: PathBuf,
    space: Option<Space>,
    dir: TempDir,
}

/// A file system of its own, until it is dropped.
struct Space(PathBuf);

impl Space {
    fn over(dir: &Path, size: &str) -> Self {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={size}"));
        process::succeed(mount.arg("tmpfs").arg(dir));
        Self(dir.to_owned())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Cluster {
    /// One that runs.
    pub fn start() -> Self {
        Self::start_on(TempDir::new())
    }

    /// One whose data are on a file system of its own. It takes mount(8).
    pub fn start_within(size: &str) -> Self {
        let dir = TempDir::new();
        let space = Space::over(dir.path(), size);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
        Self {
            space: Some(space),
            ..Self::start_on(dir)
        }
    }

    fn start_on(dir: TempDir) -> Self {
        let data = Self::prepare(&dir);
        Self::run(dir, data, &[])
    }

    /// Takes up the space that is left beside the data, or gives it back.
    pub fn fill(&self, is_full: bool) {
        let filler = self.dir.join("filler");
        if !is_full {
            return fs::remove_file(filler).expect("it was made");
        }
        let mut file = fs::File::create(filler).expect("a fresh file");
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// A primary with these settings and a standby of it.
    pub fn start_pair(settings: &[&str]) -> [Self; 2] {
        let dir = TempDir::new();
        let data = Self::prepare(&dir);
        let beside = TempDir::new();
        let copy = beside.join("data");
        process::succeed(Command::new("cp").arg("-a").args([&data, &copy]));
        fs::write(copy.join("standby.signal"), "").expect("a fresh file");
        let primary = Self::run(dir, data, settings);
        let addr = primary.server.addr;
        let (host, port) = (addr.ip(), addr.port());
        let from = format!("primary_conninfo=host={host} port={port} user=postgres");
        let standby = Self::run(beside, copy, &[&from]);
        wait_until("the standby to follow", || {
            primary.query("postgres", "select count(*) from pg_stat_replication") == "1"
        });
        [primary, standby]
    }

    /// Data for one, with a certificate.
    fn prepare(dir: &TempDir) -> PathBuf {
        let data = dir.join("data");
        fresh_data(&data);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("a certificate");
        dir.write("ca.pem", made.cert.pem());
        for (name, content) in [
            ("server.crt", made.cert.pem()),
            ("server.key", made.signing_key.serialize_pem()),
        ] {
            let path = data.join(name);
            fs::write(&path, content).expect("space for a small file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("own file");
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        data
    }

    fn run(dir: TempDir, data: PathBuf, settings: &[&str]) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let settings = [&["ssl=on"], settings].concat();
        let server = Server::start(&data, addr, &settings);
        drop(server.client());
        Self {
            server,
            data,
            space: None,
            dir,
        }
    }

    /// The file with the certificate that it shows.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Starts it again on the same port, after it was killed.
    pub fn start_again(&mut self) {
        let addr = self.server.addr;
        self.server = Server::start(&self.data, addr, &["ssl=on"]);
        drop(self.server.client());
    }

    /// Copies its data as they are; it was killed.
    pub fn back_up(&self) {
        self.copy(&self.data, &self.backup());
    }

    /// Has the data that were backed up in the place of what it has; it was killed.
    pub fn restore(&self) {
        self.copy(&self.backup(), &self.data);
    }

    fn backup(&self) -> PathBuf {
        self.dir.join("backup")
    }

    fn copy(&self, from: &Path, to: &Path) {
        if to.exists() {
            fs::remove_dir_all(to).expect("own directory");
        }
        process::succeed(Command::new("cp").arg("-a").args([from, to]));
    }

    /// Runs statements as the superuser: the only column of the last row.
    #[track_caller]
    pub fn query(&self, database: &str, sql: &str) -> String {
        let client = Client::connect_to(self.server.addr, database);
        let answer = client.and_then(|mut client| client.query(sql));
        answer.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}
