//! HAProxy or nginx, and tml-proxy from its file, under the same clients.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use socket2::{Domain, Socket, Type};

use crate::{
    harness::{
        DEADLINE, Proxy, TempDir, other_proxies, ports,
        require::{Need, require},
        wait_until,
    },
    import, said, written,
};

/// What clients say, and what a target makes of it.
const HELLO: &str = "hello\n";
/// The target answers once the client has finished.
const LATE: &str = "late\n";
/// The target says nothing and keeps its connection.
const HOLD: &str = "hold\n";

/// Where two targets are that are checked at one port.
const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Targets on adjacent ports, each of which says where it is and what it saw.
struct Targets {
    first: u16,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Targets {
    fn start(count: u16) -> Self {
        let first = ports::range(count);
        let held = Arc::<Mutex<Vec<TcpStream>>>::default();
        for port in first..first + count {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a free port");
            let held = Arc::clone(&held);
            // It ends with the test.
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    let held = Arc::clone(&held);
                    let number = port - first;
                    thread::spawn(move || serve(stream, number, &held));
                }
            });
        }
        Self { first, held }
    }
}

/// Serves one client. An error is the end of it: what counts is what the client sees.
fn serve(mut stream: TcpStream, number: u16, held: &Mutex<Vec<TcpStream>>) {
    let _ = stream.set_read_timeout(Some(DEADLINE));
    let mut seen = String::new();
    let mut byte = [0];
    while ![HELLO, LATE, HOLD].iter().any(|end| seen.ends_with(end)) {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(char::from(byte[0])),
            _ => return,
        }
    }
    if seen.ends_with(HOLD) {
        held.lock().expect("nobody panics with it").push(stream);
        return;
    }
    if seen.ends_with(LATE) {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let from = stream.peer_addr().map(|peer| peer.ip());
    let from = from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let _ = write!(stream, "target {number} saw {from}: {seen:?}");
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// What tells a check over HTTP which of two targets is up: the second, and never the first.
struct Health {
    port: u16,
    asked: Arc<[AtomicUsize; 2]>,
}

impl Health {
    fn start() -> Self {
        let asked = Arc::<[AtomicUsize; 2]>::default();
        let port = ports::free();
        let answers = ["503 Service Unavailable", "200 OK"];
        for (number, status) in answers.into_iter().enumerate() {
            let host = if number == 0 { FIRST } else { SECOND };
            let listener = TcpListener::bind((host, port)).expect("a free port");
            let asked = Arc::clone(&asked);
            thread::spawn(move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.set_read_timeout(Some(DEADLINE));
                    let _ = stream.read(&mut [0; 1024]);
                    let _ = write!(stream, "HTTP/1.0 {status}\r\n\r\n");
                    asked[number].fetch_add(1, Relaxed);
                }
            });
        }
        Self { port, asked }
    }

    /// Waits until each target was asked again, and so what was answered before counts.
    fn wait(&self) {
        let count = || self.asked.each_ref().map(|asked| asked.load(Relaxed));
        let before = count();
        wait_until("checks", || {
            let now = count();
            (0..2).all(|number| now[number] >= before[number] + 2)
        });
    }
}

/// What one client does, and what it has to see.
struct Script {
    name: &'static str,
    from: IpAddr,
    port: u16,
    says: String,
    finishes: bool,
    sees: String,
}

/// A client that says something and does not finish.
fn script(name: &'static str, from: IpAddr, port: u16, says: &str, sees: &str) -> Script {
    Script {
        name,
        from,
        port,
        says: says.to_owned(),
        finishes: false,
        sees: sees.to_owned(),
    }
}

/// What a target says to a client that greets it.
fn hello(number: u16) -> String {
    format!("target {number} saw 127.0.0.1: {HELLO:?}")
}

/// What the client of a script sees.
fn play(script: &Script) -> (String, Option<TcpStream>) {
    let host = match script.from {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let to = SocketAddr::new(host, script.port);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    let own = SocketAddr::new(script.from, 0);
    socket
        .bind(&own.into())
        .expect("an address of this machine");
    match socket.connect_timeout(&to.into(), DEADLINE) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return ("refused".to_owned(), None);
        }
        Err(_) => return ("ended".to_owned(), None),
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("an option");
    let own = stream.local_addr().expect("an address").port().to_string();
    if stream.write_all(script.says.as_bytes()).is_err() {
        return ("ended".to_owned(), None);
    }
    if script.finishes && stream.shutdown(Shutdown::Write).is_err() {
        return ("ended".to_owned(), None);
    }
    if script.sees == "held" {
        return ("held".to_owned(), Some(stream));
    }
    let mut seen = Vec::new();
    let read = stream.read_to_end(&mut seen);
    let timed_out = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
    if read.is_err_and(timed_out) {
        return ("nothing".to_owned(), None);
    }
    let seen = String::from_utf8_lossy(&seen).replace(&own, "PORT");
    // An end of stream for a reset is what the importer says once.
    match seen.as_str() {
        "" => ("ended".to_owned(), None),
        seen => (seen.to_owned(), None),
    }
}

/// Plays all scripts, in their order; those that hold their connection do so until the last is done.
fn play_all(scripts: &[Script], targets: &Targets, proxy: &str) {
    let mut held = Vec::new();
    let mut wrong = Vec::new();
    for script in scripts {
        let count = || targets.held.lock().expect("nobody panics with it").len();
        let before = count();
        let (seen, stream) = play(script);
        if let Some(stream) = stream {
            held.push(stream);
            wait_until("the target to have it", || count() > before);
        }
        println!("{proxy}: {}: {seen}", script.name);
        if seen != script.sees {
            wrong.push(format!(
                "{proxy}: {}: {seen}, not {}",
                script.name, script.sees
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    targets.held.lock().expect("nobody panics with it").clear();
}

/// A client that comes while the only target has as many as it may is served once there is room.
fn play_queued(port: u16, targets: &Targets, proxy: &str) {
    let held = || targets.held.lock().expect("nobody panics with it");
    let connect = |says: &str| {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect(to).expect("a listener");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        stream.write_all(says.as_bytes()).expect("a connection");
        stream
    };
    let first = connect(HOLD);
    wait_until("the target to have it", || !held().is_empty());
    let mut second = connect(HELLO);
    drop(first);
    held().clear();
    let mut seen = String::new();
    second.read_to_string(&mut seen).expect("an answer");
    assert_eq!(
        seen,
        format!("target 0 saw 127.0.0.1: {HELLO:?}"),
        "{proxy}"
    );
}

/// The source, and what clients do with it.
fn scene(first: u16, targets: u16, closed: u16, health: u16) -> (String, Vec<Script>) {
    let port = |offset: u16| first + offset;
    let p: Vec<u16> = (0..20).map(port).collect();
    let offset = i32::from(targets) - i32::from(p[0]);
    let source = format!(
        "global\n    maxconn 200\n\
         backend seen\n    stick-table type ip size 100 store conn_cur\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n    retries 0\n\
         listen kept\n    bind 127.0.0.1:{}-{}\n    server s 127.0.0.1:{offset:+}\n\
         frontend many\n    bind 127.0.0.1:{}-{}\n    default_backend many\n\
         backend many\n    server s 127.0.0.1:{targets}\n\
         listen v4\n    bind *:{}\n    server s 127.0.0.1:{targets}\n\
         listen both\n    bind :::{}\n    server s 127.0.0.1:{targets}\n\
         listen v6\n    bind [::]:{} v6only\n    server s 127.0.0.1:{targets}\n\
         listen access\n    bind 127.0.0.1:{}\n    tcp-request connection accept if {{ src 127.0.0.2 }}\n    \
         tcp-request connection reject if {{ src 127.0.0.0/24 }}\n    server s 127.0.0.1:{targets}\n\
         listen tells\n    bind 127.0.0.1:{}\n    server s 127.0.0.1:{targets} send-proxy\n\
         listen believes\n    bind 127.0.0.1:{}\n    tcp-request connection expect-proxy layer4 if {{ src 127.0.0.3 }}\n    \
         server s 127.0.0.1:{targets} send-proxy\n\
         listen idle\n    bind 127.0.0.1:{}\n    timeout client 300ms\n    timeout server 300ms\n    server s 127.0.0.1:{targets}\n\
         listen fin\n    bind 127.0.0.1:{}\n    timeout server-fin 300ms\n    server s 127.0.0.1:{targets}\n\
         listen own\n    bind 127.0.0.1:{}\n    source 127.0.0.9\n    server s 127.0.0.1:{targets}\n\
         frontend limited\n    bind 127.0.0.1:{}\n    tcp-request connection track-sc0 src table seen\n    \
         tcp-request connection reject if {{ sc_conn_cur(0) gt 2 }}\n    default_backend many\n\
         listen dead\n    bind 127.0.0.1:{}\n    server s 127.0.0.1:{closed}\n\
         listen checked\n    bind 127.0.0.1:{}\n    option httpchk GET /up\n    http-check expect status 200\n    \
         default-server check inter 100ms fall 1 port {health}\n    server s {FIRST}:{targets}\n    \
         server t {SECOND}:{}\n\
         listen queued\n    bind 127.0.0.1:{}\n    timeout queue 30s\n    server s 127.0.0.1:{targets} maxconn 1\n",
        p[0],
        p[2],
        p[3],
        p[4],
        p[5],
        p[6],
        p[7],
        p[8],
        p[9],
        p[10],
        p[11],
        p[12],
        p[13],
        p[14],
        p[15],
        p[16],
        targets + 1,
        p[17],
    );
    let [one, two, three] = [1, 2, 3].map(|last| IpAddr::from([127, 0, 0, last]));
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let proxied = |from: &str, source: &str, to: &str, port: &str| {
        let seen = format!("PROXY TCP4 {from} {to} {source} {port}\r\n{HELLO}");
        format!("target 0 saw 127.0.0.1: {seen:?}")
    };
    let header = format!("PROXY TCP4 192.0.2.7 192.0.2.8 1234 5678\r\n{HELLO}");
    let half = |script: Script| Script {
        finishes: true,
        ..script
    };
    let scripts = vec![
        script("the first of a range", one, p[0], HELLO, &hello(0)),
        script("the last of a range", one, p[2], HELLO, &hello(2)),
        script("many to one, first", one, p[3], HELLO, &hello(0)),
        script("many to one, last", one, p[4], HELLO, &hello(0)),
        script("every IPv4 address", two, p[5], HELLO, &hello(0)),
        script("and no IPv6", v6, p[5], HELLO, "refused"),
        script("both families, IPv4", one, p[6], HELLO, &hello(0)),
        script("both families, IPv6", v6, p[6], HELLO, &hello(0)),
        script("IPv6 alone", v6, p[7], HELLO, &hello(0)),
        script("and no IPv4", one, p[7], HELLO, "refused"),
        script("kept out", one, p[8], HELLO, "ended"),
        script("let in before", two, p[8], HELLO, &hello(0)),
        script(
            "the target is told",
            one,
            p[9],
            HELLO,
            &proxied("127.0.0.1", "PORT", "127.0.0.1", &p[9].to_string()),
        ),
        script(
            "a front is believed",
            three,
            p[10],
            &header,
            &proxied("192.0.2.7", "1234", "192.0.2.8", "5678"),
        ),
        script("nobody else is", one, p[10], &header, &{
            let seen = format!("PROXY TCP4 127.0.0.1 127.0.0.1 PORT {}\r\n{header}", p[10]);
            format!(
                "target 0 saw 127.0.0.1: {:?}",
                seen.split_inclusive(HELLO).next().expect("a part")
            )
        }),
        script("idle", one, p[11], HOLD, "ended"),
        half(script(
            "the client is done and the answer comes",
            one,
            p[12],
            LATE,
            &format!("target 0 saw 127.0.0.1: {LATE:?}"),
        )),
        half(script(
            "the client is done and no answer comes",
            one,
            p[12],
            HOLD,
            "ended",
        )),
        script(
            "from an address of its own",
            one,
            p[13],
            HELLO,
            &hello(0).replace("127.0.0.1:", "127.0.0.9:"),
        ),
        script("two of a source", one, p[14], HOLD, "held"),
        script("two of a source, second", one, p[14], HOLD, "held"),
        script("and no third", one, p[14], HELLO, "ended"),
        script("two of another", two, p[14], HELLO, &hello(0)),
        script("nobody listens", one, p[15], HELLO, "ended"),
        script("who is up", one, p[16], HELLO, &hello(1)),
        script("and nobody else", one, p[16], HELLO, &hello(1)),
    ];
    (source, scripts)
}

#[test]
fn clients_see_the_same_from_haproxy_and_from_what_its_file_becomes() {
    if !require(&[Need::Tool("haproxy")]) {
        return;
    }
    let targets = Targets::start(3);
    let first = ports::range(20);
    let health = Health::start();
    let (source, scripts) = scene(first, targets.first, ports::free(), health.port);
    let dir = TempDir::new();
    dir.write("haproxy.cfg", &source);
    let output = import(dir.path(), &["haproxy.cfg"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    {
        let _haproxy = other_proxies::haproxy(&dir, &source, first);
        health.wait();
        play_all(&scripts, &targets, "HAProxy");
        play_queued(first + 17, &targets, "HAProxy");
    }
    let proxy = Proxy::start(&written(&output));
    health.wait();
    play_all(&scripts, &targets, "tml-proxy");
    play_queued(first + 17, &targets, "tml-proxy");
    proxy.settles();
}

/// The same for nginx.
fn scene_of_nginx(dir: &Path, p: &[u16], targets: u16, closed: u16) -> (String, Vec<Script>) {
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let module = match Path::new(module).exists() {
        true => format!("load_module {module};\n"),
        false => String::new(),
    };
    let source = format!(
        "{module}daemon off;\nmaster_process off;\npid {}/pid;\nerror_log {}/error.log;\nevents {{}}\nstream {{\n\
         limit_conn_zone $binary_remote_addr zone=two:1m;\n\
         upstream spare {{ server 127.0.0.1:{closed}; server 127.0.0.1:{targets} backup; }}\n\
         upstream down {{ server 127.0.0.1:{closed} down; server localhost:{} weight=300; }}\n\
         server {{ listen 127.0.0.1:{}; listen 127.0.0.1:{}; proxy_pass 127.0.0.1:{targets}; }}\n\
         server {{ listen [::]:{}; proxy_pass 127.0.0.1:{targets}; }}\n\
         server {{ listen 127.0.0.1:{}; allow 127.0.0.2; deny 127.0.0.0/24; proxy_pass 127.0.0.1:{targets}; }}\n\
         server {{ listen 127.0.0.1:{}; proxy_protocol on; proxy_pass 127.0.0.1:{targets}; }}\n\
         server {{ listen 127.0.0.1:{}; proxy_timeout 300ms; proxy_pass 127.0.0.1:{targets}; }}\n\
         server {{ listen 127.0.0.1:{}; limit_conn two 2; proxy_pass 127.0.0.1:{targets}; }}\n\
         server {{ listen 127.0.0.1:{}; proxy_bind 127.0.0.9; proxy_pass 127.0.0.1:{targets}; }}\n\
         server {{ listen 127.0.0.1:{}; proxy_pass spare; }}\n\
         server {{ listen 127.0.0.1:{}; proxy_pass down; }}\n\
         server {{ listen 127.0.0.1:{}; proxy_pass 127.0.0.1:{closed}; }}\n}}\n",
        dir.display(),
        dir.display(),
        targets + 1,
        p[0],
        p[1],
        p[2],
        p[3],
        p[4],
        p[5],
        p[6],
        p[7],
        p[8],
        p[9],
        p[10],
    );
    let [one, two] = [1, 2].map(|last| IpAddr::from([127, 0, 0, last]));
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let told = format!("PROXY TCP4 127.0.0.1 127.0.0.1 PORT {}\r\n{HELLO}", p[4]);
    let scripts = vec![
        script("one of two ports", one, p[0], HELLO, &hello(0)),
        script("the other", one, p[1], HELLO, &hello(0)),
        script("IPv6 alone", v6, p[2], HELLO, &hello(0)),
        script("and no IPv4", one, p[2], HELLO, "refused"),
        script("kept out", one, p[3], HELLO, "ended"),
        script("let in before", two, p[3], HELLO, &hello(0)),
        script(
            "the target is told",
            one,
            p[4],
            HELLO,
            &format!("target 0 saw 127.0.0.1: {told:?}"),
        ),
        script("idle", one, p[5], HOLD, "ended"),
        script("two of a source", one, p[6], HOLD, "held"),
        script("two of a source, second", one, p[6], HOLD, "held"),
        script("and no third", one, p[6], HELLO, "ended"),
        script("two of another", two, p[6], HELLO, &hello(0)),
        script(
            "from an address of its own",
            one,
            p[7],
            HELLO,
            &hello(0).replace("127.0.0.1:", "127.0.0.9:"),
        ),
        script(
            "the backup of one that is gone",
            one,
            p[8],
            HELLO,
            &hello(0),
        ),
        script("and again", one, p[8], HELLO, &hello(0)),
        script("not who is marked as down", one, p[9], HELLO, &hello(1)),
        script("nobody listens", one, p[10], HELLO, "ended"),
    ];
    (source, scripts)
}

#[test]
fn clients_see_the_same_from_nginx_and_from_what_its_file_becomes() {
    if !require(&[Need::Tool("nginx")]) {
        return;
    }
    let targets = Targets::start(2);
    let first = ports::range(11);
    let own: Vec<u16> = (first..first + 11).collect();
    let dir = TempDir::new();
    let (source, scripts) = scene_of_nginx(dir.path(), &own, targets.first, ports::free());
    let file = dir.write("nginx.conf", source);
    let output = import(dir.path(), &["nginx.conf", "--from", "nginx"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    {
        let _nginx = other_proxies::start(Command::new("nginx").arg("-c").arg(file), first);
        play_all(&scripts, &targets, "nginx");
    }
    let proxy = Proxy::start(&written(&output));
    play_all(&scripts, &targets, "tml-proxy");
    proxy.settles();
}
